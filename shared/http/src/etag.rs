//! Lost updates: `ETag` and `If-Match` (RFC 9110, 8.8.3 and 13.1.1).

use axum::Json;
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_MATCH};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

/// A JSON answer with its `ETag`.
pub(crate) fn with_etag(etag: &str, body: impl Serialize) -> Response {
    ([(ETAG, format!("\"{etag}\""))], Json(body)).into_response()
}

/// The tags of `If-Match`, one of which the stored version must have. `None` allows any version. A weak tag matches nothing.
pub(crate) fn if_match(headers: &HeaderMap) -> Option<Vec<String>> {
    let values: Vec<_> = headers.get_all(IF_MATCH).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    if values.is_empty() || values.iter().any(|value| value.trim() == "*") {
        return None;
    }
    let tags = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    Some(tags.filter_map(|tag| tag.strip_prefix('"')?.strip_suffix('"')).map(str::to_owned).collect())
}
