//! The call that a vendor's stand-in handles and the answer that it returns, without HTTP machinery.

use std::fmt::Display;

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::Service;
use crate::oauth::Holder;

/// One authenticated call, its body already parsed.
pub(crate) struct Call<'request> {
    pub(crate) method: &'request Method,
    /// Below the service's base path, without a slash in front.
    pub(crate) path: &'request str,
    pub(crate) query: &'request [(String, String)],
    pub(crate) headers: &'request HeaderMap,
    /// `Null` when there is none; the fields of a form become an object.
    pub(crate) body: &'request Value,
    pub(crate) token: &'request str,
    pub(crate) holder: Holder,
    pub(crate) now: i64,
}

impl Call<'_> {
    /// The first query parameter of that name.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every query parameter of that name.
    pub(crate) fn parameters<'call>(&'call self, name: &'call str) -> impl Iterator<Item = &'call str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The path in pieces, to match on.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.path.split('/').collect()
    }
}

/// What can be wrong with a call before a stand-in handles it; each vendor reports it in its own shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    MissingToken,
    UnknownToken,
    ExpiredToken,
    RevokedToken,
    RateLimited,
    Internal,
    Malformed,
    TooLarge,
}

/// The body or target of an answer.
pub(crate) enum Payload {
    Json(Value),
    Html(&'static str),
    Redirect(&'static str),
}

/// A vendor's answer, with a note for people.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) payload: Payload,
    pub(crate) note: String,
    pub(crate) retry_after: Option<u32>,
}

impl Answer {
    pub(crate) fn new(status: StatusCode, payload: Payload, note: impl Display) -> Self {
        Self { status, payload, note: note.to_string(), retry_after: None }
    }

    pub(crate) fn success(body: Value, note: impl Display) -> Self {
        Self::new(StatusCode::OK, Payload::Json(body), note)
    }

    pub(crate) fn failure(status: StatusCode, body: Value, note: impl Display) -> Self {
        Self::new(status, Payload::Json(body), note)
    }

    pub(crate) fn noted(self, note: impl Display) -> Self {
        Self { note: note.to_string(), ..self }
    }

    /// Repeats `text` to the caller, in an extra field and in the error message if there is one, as a careless vendor does.
    /// The note does not change.
    pub(crate) fn echo(mut self, service: Service, text: &str) -> Self {
        if let Payload::Json(body) = &mut self.payload {
            let message = match service {
                Service::Slack => "/error",
                Service::Gmail => "/error/message",
                Service::Notion => "/message",
            };
            if let Some(Value::String(message)) = body.pointer_mut(message) {
                *message = format!("{message} ({text})");
            }
            set(body, "debug_authorization", text.into());
        }
        self
    }
}

/// Sets a field of an object; does nothing to any other value.
pub(crate) fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

/// An ISO 8601 time with milliseconds, in the vendors' format.
pub(crate) fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// At most `limit` characters.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(limit).collect();
    match characters.count() {
        0 => start,
        more => format!("{start}… ({more} more characters)"),
    }
}
