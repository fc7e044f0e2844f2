//! Percent-encoding, as URLs need it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// All but the unreserved characters, which mean nothing anywhere in a URL (RFC 3986, 2.3).
pub(crate) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
