//! Percent-encoding for URLs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// Everything except the unreserved characters, which need no encoding anywhere in a URL (RFC 3986, 2.3).
pub(crate) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
