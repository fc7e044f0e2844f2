//! Switches: the next calls of a service misbehave in a chosen way, to see how Overseer handles it.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Redirect, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Playground, Service};

/// A switch lasts at most this many calls.
pub(crate) const MOST_CALLS: u32 = 1000;
const MOST_SECONDS: u32 = 86_400;
const DEFAULT_RETRY_AFTER: u32 = 30;

/// A way to misbehave.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// 429 with `Retry-After`.
    RateLimited,
    /// 500 in the vendor's shape.
    Error,
    /// No answer within 120 seconds.
    Timeout,
    /// As if the token had expired, with any token.
    ExpiredToken,
    /// 200 with HTML that is neither a page nor JSON.
    Nonsense,
    /// 200 with more than 5 MiB of JSON.
    Oversized,
    /// The usual answer, which also repeats the `Authorization` header.
    Echo,
    /// 307 to another host.
    Redirect,
}

impl Mode {
    /// Every mode, in the order in which the page offers them.
    pub const ALL: [Self; 8] = [
        Self::RateLimited,
        Self::Error,
        Self::Timeout,
        Self::ExpiredToken,
        Self::Nonsense,
        Self::Oversized,
        Self::Echo,
        Self::Redirect,
    ];

    /// The name in JSON and forms.
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::ExpiredToken => "expired_token",
            Self::Nonsense => "nonsense",
            Self::Oversized => "oversized",
            Self::Echo => "echo",
            Self::Redirect => "redirect",
        }
    }
}

/// Misbehaviour of the next calls of a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Switch {
    /// The service whose calls misbehave.
    pub service: Service,
    /// How they misbehave.
    pub mode: Mode,
    /// How many calls are left; 0 clears the service's switch.
    pub calls: u32,
    /// Seconds in the `Retry-After` header of `rate_limited`.
    pub retry_after: u32,
}

impl Switch {
    /// A switch with the usual `Retry-After` of 30 seconds.
    pub fn new(service: Service, mode: Mode, calls: u32) -> Self {
        Self { service, mode, calls, retry_after: DEFAULT_RETRY_AFTER }
    }
}

/// An invalid field, and its remedy.
struct Mistake {
    field: &'static str,
    message: String,
    remedy: String,
}

pub(crate) fn routes() -> Router<Playground> {
    Router::new()
        .route("/playground/switches", get(list).post(change))
        .route("/playground/received", get(received).delete(clear))
}

async fn list(State(playground): State<Playground>) -> Response {
    let switches: Vec<Switch> = playground.state().switches.values().copied().collect();
    Json(switches).into_response()
}

async fn change(State(playground): State<Playground>, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_form = kind.contains("x-www-form-urlencoded");
    match read(is_form, &body) {
        Ok(switch) => {
            playground.set_switch(switch);
            if is_form { Redirect::to("/playground").into_response() } else { list(State(playground)).await }
        }
        Err(Mistake { field, message, remedy }) => {
            let problem = json!({
                "type": "about:blank", "title": "Bad Request", "status": 400, "detail": format!("{message} {remedy}"),
                "code": "invalid_parameters",
                "errors": [{"pointer": format!("/{field}"), "message": format!("{message} {remedy}")}],
            });
            (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
        }
    }
}

async fn received(State(playground): State<Playground>) -> Response {
    let total = playground.received_total().to_string();
    ([("x-total-count", total)], Json(playground.received())).into_response()
}

async fn clear(State(playground): State<Playground>) -> StatusCode {
    playground.state().log.clear();
    StatusCode::NO_CONTENT
}

fn read(is_form: bool, body: &[u8]) -> Result<Switch, Mistake> {
    let fields = if is_form {
        serde_urlencoded::from_bytes::<Vec<(String, String)>>(body)
            .ok()
            .map(|pairs| pairs.into_iter().map(|(key, value)| (key, Value::String(value))).collect())
    } else {
        serde_json::from_slice(body).ok()
    };
    let fields: serde_json::Map<String, Value> = fields.ok_or_else(|| Mistake {
        field: "",
        message: "The body is neither a JSON object nor a form.".to_owned(),
        remedy: r#"Send for example {"service": "slack", "mode": "error", "calls": 1}."#.to_owned(),
    })?;

    let choice = |field: &'static str, choices: &[&str]| {
        let given = fields.get(field).and_then(Value::as_str).unwrap_or_default();
        choices.iter().position(|choice| *choice == given).ok_or_else(|| Mistake {
            field,
            message: format!("'{field}' is missing or unknown."),
            remedy: format!("Use one of: {}.", choices.join(", ")),
        })
    };
    let service = choice("service", &Service::ALL.map(Service::name))?;
    let mode = choice("mode", &Mode::ALL.map(Mode::name))?;
    let calls = number(&fields, "calls", MOST_CALLS, None)?;
    let retry_after = number(&fields, "retry_after", MOST_SECONDS, Some(DEFAULT_RETRY_AFTER))?;
    Ok(Switch {
        service: Service::ALL.get(service).copied().unwrap_or(Service::Slack),
        mode: Mode::ALL.get(mode).copied().unwrap_or(Mode::Error),
        calls,
        retry_after,
    })
}

fn number(
    fields: &serde_json::Map<String, Value>,
    field: &'static str,
    most: u32,
    default: Option<u32>,
) -> Result<u32, Mistake> {
    let given = match fields.get(field) {
        Some(Value::String(text)) if text.is_empty() => default,
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        None => default,
    };
    given.filter(|number| *number <= most).ok_or_else(|| Mistake {
        field,
        message: format!("'{field}' is missing or no whole number from 0 to {most}."),
        remedy: format!("Send a whole number from 0 to {most}."),
    })
}
