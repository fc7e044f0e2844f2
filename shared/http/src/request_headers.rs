//! What intents and calls read beside their bodies: the request id, the deadline, and the headers `Idempotency-Key`, `Prefer`
//! and `X-Channel`.

use std::time::Duration;

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::{ChannelName, IdempotencyKey, RequestId};
use tokio::time::Instant;

use crate::{Deadline, Problem};

/// What the envelope and the host process say about a request.
pub(crate) struct RequestScope {
    pub(crate) id: RequestId,
    /// When the host process needs the handler to be done; none if it sets no deadline.
    pub(crate) deadline: Option<Instant>,
}

impl<S: Send + Sync> FromRequestParts<S> for RequestScope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let deadline = parts.extensions.get::<Deadline>().map(|Deadline(at)| *at);
        let id = Extension::<RequestId>::from_request_parts(parts, state).await;
        // The envelope sets the id of every request.
        let Extension(id) = id.map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
        Ok(Self { id, deadline })
    }
}

/// The value of a header that may be sent once at most.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Error> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(invalid(name, "was sent twice; send it once"));
    }
    Ok(value)
}

fn invalid(name: &str, rule: &str) -> Error {
    Error::field("", format!("the header {name} {rule}"))
}

/// The idempotency key of the header, bare or in quotation marks (a string of RFC 9651).
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Error> {
    const NAME: &str = "Idempotency-Key";
    let Some(value) = single(headers, NAME)? else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default().trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    IdempotencyKey::parse(bare).map(Some).map_err(|rule| invalid(NAME, &rule.to_string()))
}

/// The channel of a call. If there is one, only its plugins can be called.
pub(crate) fn channel(headers: &HeaderMap) -> Result<Option<ChannelName>, Error> {
    const NAME: &str = "x-channel";
    let Some(value) = single(headers, NAME)? else { return Ok(None) };
    let name = ChannelName::parse(value.to_str().unwrap_or_default());
    name.map(Some).map_err(|rule| invalid(NAME, &rule.to_string()))
}

/// The preferences of a caller (RFC 7240).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Preferences {
    /// Not to wait for the outcome.
    pub(crate) respond_async: bool,
    /// How long to wait for the first request with the same key, in seconds. A value that is not a number is ignored, as the
    /// RFC requires.
    wait_s: Option<u64>,
}

impl Preferences {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let mut preferences = Self::default();
        for preference in values.flat_map(|value| value.split(',')) {
            let without_parameters = preference.split(';').next().unwrap_or(preference);
            let (name, value) = without_parameters.split_once('=').unwrap_or((without_parameters, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => preferences.respond_async = true,
                "wait" => preferences.wait_s = preferences.wait_s.or(value.trim().trim_matches('"').parse().ok()),
                _ => {}
            }
        }
        preferences
    }

    pub(crate) fn wait(&self) -> Duration {
        self.wait_s.map_or(Duration::ZERO, Duration::from_secs)
    }
}

/// Adds `Idempotent-Replayed: true` to a response that repeats an earlier one.
pub(crate) fn with_replayed_header(mut response: Response, replayed: bool) -> Response {
    if replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    response
}
