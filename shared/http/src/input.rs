//! Reads bodies and queries within their limits, and reports what is wrong with them as problems.

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use http_body_util::LengthLimitError;
use overseer_engine::core::error::{Error, ProblemCode, causes};
use overseer_engine::core::schema;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::Problem;

/// The largest body, in bytes.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;
/// The deepest nesting of a JSON body.
pub const DEPTH_MAX: usize = 64;

/// A JSON body, parsed.
pub struct JsonBody<T>(pub T);

impl<S: Sync, T: DeserializeOwned + JsonSchema + 'static> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        parse(&read_body(request).await?).map(Self)
    }
}

/// A JSON body that may be left out; then it is the default value.
pub struct OptionalJsonBody<T>(pub T);

impl<S: Sync, T: DeserializeOwned + Default + JsonSchema + 'static> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        let bytes = read_body(request).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { parse(&bytes).map(Self) }
    }
}

fn parse<T: DeserializeOwned + JsonSchema + 'static>(bytes: &Bytes) -> Result<T, Problem> {
    if depth(bytes) > DEPTH_MAX {
        return Err(Error::field("", format!("the body is nested deeper than {DEPTH_MAX} levels")).into());
    }
    Ok(schema::parse(bytes).map_err(Error::Invalid)?)
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(media_type) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let essence = media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = "send JSON, with the header Content-Type: application/json";
    Err(Problem::new(ProblemCode::UnsupportedMediaType, detail))
}

/// The body of a request. A body in a content coding is refused, not decoded: a small one could decode to a very large one.
pub(crate) async fn read_body(request: Request) -> Result<Bytes, Problem> {
    let mut codings = request.headers().get_all(CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let detail = "send the body without the header Content-Encoding, as it is";
        return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
    }
    let too_large =
        || Problem::new(ProblemCode::TooLarge, format!("the body is larger than the {BODY_MAX_BYTES} bytes allowed"));
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > BODY_MAX_BYTES) {
        return Err(too_large());
    }
    to_bytes(request.into_body(), BODY_MAX_BYTES).await.map_err(|error| {
        let cause = error.into_inner();
        if cause.is::<LengthLimitError>() {
            return too_large();
        }
        tracing::info!(error = %causes(&*cause), "request body unreadable");
        Error::field("", "the body ends too early or its chunks are malformed; send it again as a whole").into()
    })
}

/// How deep arrays and objects are nested, without parsing the body.
fn depth(json: &[u8]) -> usize {
    let (mut deepest, mut level, mut quoted, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                level += 1;
                deepest = deepest.max(level);
            }
            b']' | b'}' if !quoted => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The query of a URL. Unknown parameters are refused, not ignored.
pub struct Parameters<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri).map(|Query(parsed)| Self(parsed)).map_err(|rejection| {
            Error::field("", format!("the URL's query is invalid: {}", rejection.body_text())).into()
        })
    }
}

/// The query of a route without parameters.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        for (json, expected) in
            [("1", 0), ("[]", 1), (r#"{"a":[{}]}"#, 3), (r#"["[[[\"[["]"#, 1), ("[[],[[]]]", 3), ("]]][", 1)]
        {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
    }
}
