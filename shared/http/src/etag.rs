//! What a thing is told apart by, so that nobody's change is lost: `ETag` and `If-Match` (RFC 9110, 8.8.3 and 13.1.1).

use axum::Json;
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_MATCH};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

/// An answer with its tag.
pub(crate) fn with_etag(etag: &str, body: impl Serialize) -> Response {
    ([(ETAG, format!("\"{etag}\""))], Json(body)).into_response()
}

/// The tags that a thing may have. `None` where it may have any. A weak one matches nothing.
pub(crate) fn if_match(headers: &HeaderMap) -> Option<Vec<String>> {
    let values: Vec<_> = headers.get_all(IF_MATCH).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    if values.is_empty() || values.iter().any(|value| value.trim() == "*") {
        return None;
    }
    let each = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    Some(each.filter_map(|tag| tag.strip_prefix('"')?.strip_suffix('"')).map(str::to_owned).collect())
}
