//! Rules for single values: URLs, headers and scopes.

use url::{Host, Url};

/// Headers that a manifest may not set.
const OWN_HEADERS: [&str; 5] = ["authorization", "connection", "content-length", "host", "transfer-encoding"];

/// Whether a text is one scope (RFC 6749, 3.3) without a comma, which some providers use as the separator.
pub(crate) fn is_scope(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b','))
}

/// What is wrong with a URL that a credential is sent to, if anything.
pub(super) fn url_problem(url: &Url) -> Option<&'static str> {
    let is_loopback = matches!(url.host(), Some(Host::Ipv4(ip)) if ip.is_loopback());
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback) {
        return Some("must be https");
    }
    let has_user = !url.username().is_empty() || url.password().is_some();
    (url.fragment().is_some() || has_user).then_some("must have no user and no fragment")
}

/// What is wrong with the name of a header that a manifest sets, if anything.
pub(super) fn header_problem(header: &str) -> Option<String> {
    match header.parse::<http::HeaderName>() {
        Err(_) => Some(format!("{header:?} is not a header name")),
        Ok(name) if OWN_HEADERS.contains(&name.as_str()) => Some(format!("{header} is set by Overseer")),
        Ok(_) => None,
    }
}

/// Whether a text can be the value of a header.
pub(super) fn is_header_value(text: &str) -> bool {
    http::HeaderValue::from_str(text).is_ok()
}
