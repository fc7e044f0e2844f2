//! `/api/plugin-engine`: intents, and what can be intended.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json};
use overseer_engine::agents::explain::Explanation;
use overseer_engine::agents::tools::ToolFormat;
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::{IdempotencyKey, RequestId, UserId};
use overseer_engine::core::intent::Intent;
use overseer_engine::core::outcome::Outcome;
use overseer_engine::engine::Engine;
use overseer_engine::invoke::runs::{Replayable, RequestOptions, Resolve};
use overseer_engine::tasks::CreatedTask;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::caller::AgentOrCaller;
use crate::input::{JsonBody, Parameters};
use crate::{Deadline, ErrorCode, Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/plugin-engine", get(tools).post(intend))
}

/// What came of an intent, with the id of the request that it came from.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(flatten)]
    outcome: Outcome,
    request_id: RequestId,
}

/// A task that was made of an intent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    success: bool,
    message: String,
    #[serde(flatten)]
    made: CreatedTask,
    request_id: RequestId,
}

/// What the URL of an intent may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentParameters {
    /// What to do where it is not known what came of an earlier request with the same key.
    resolve: Option<Resolve>,
    /// Do nothing, and say what would be done.
    #[serde(default)]
    explain: bool,
}

/// What would come of an intent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    explanation: Explanation,
    request_id: RequestId,
}

async fn intend(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Parameters(IntentParameters { resolve, explain }): Parameters<IntentParameters>,
    Extension(request_id): Extension<RequestId>,
    until: Option<Extension<Deadline>>,
    headers: HeaderMap,
    JsonBody(intent): JsonBody<Intent>,
) -> Result<Response, Problem> {
    let preferences = Preferences::of(&headers);
    let wait = preferences.wait_s.map_or(Duration::ZERO, Duration::from_secs);
    let until = until.map(|Extension(Deadline(until))| until);
    let key = idempotency_key(&headers)?;
    let asked = RequestOptions { request: Some(request_id.clone()), key, wait, resolve, until, channel: None };
    let later = intent.scheduled_time.is_some() || intent.schedule.is_some();
    // A time says already that nobody waits.
    let unwatched = !later && preferences.respond_async;
    if explain {
        let explanation = engine.explain(&principal, intent, &asked, later || unwatched).await?;
        return Ok(Json(Explained { explanation, request_id }).into_response());
    }
    if !later && !unwatched {
        let Replayable { answer: outcome, replayed } = engine.execute(principal, intent, asked).await?;
        let code = outcome.result.as_ref().err().map(|failure| Extension(ErrorCode::of(&failure.code)));
        return Ok(with_replayed_header((code, Json(Answer { outcome, request_id })).into_response(), replayed));
    }
    let Replayable { answer: made, replayed } = engine.schedule(&principal, intent, &asked).await?;
    let location = format!("/api/plugin-engine/tasks/{}", made.task.id);
    let message = if unwatched {
        "Accepted; it runs now".to_owned()
    } else {
        format!("Scheduled for {}", made.task.scheduled_time)
    };
    let accepted = Json(Accepted { success: true, message, made, request_id });
    let mut response = (StatusCode::ACCEPTED, [(LOCATION, location)], accepted).into_response();
    if unwatched {
        let name = HeaderName::from_static("preference-applied");
        response.headers_mut().insert(name, HeaderValue::from_static("respond-async"));
    }
    Ok(with_replayed_header(response, replayed))
}

/// Says of an answer whether it is an earlier one.
pub(crate) fn with_replayed_header(mut response: Response, replayed: bool) -> Response {
    if replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    response
}

/// The key of the header, if there is one: as it is, or in quotation marks (a string of RFC 9651).
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Error> {
    let wrong = |message: String| Error::field("", format!("the header Idempotency-Key {message}"));
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(wrong("is there twice".to_owned()));
    }
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default().trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    IdempotencyKey::parse(bare).map(Some).map_err(|rule| wrong(rule.to_string()))
}

/// What a caller prefers (RFC 7240).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Preferences {
    /// Not to wait for the outcome.
    respond_async: bool,
    /// How long to wait, in seconds. What is no number is passed over, as the RFC has it.
    pub(crate) wait_s: Option<u64>,
}

impl Preferences {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let mut preferences = Self::default();
        for one in values.flat_map(|value| value.split(',')) {
            let one = one.split(';').next().unwrap_or(one);
            let (name, value) = one.split_once('=').unwrap_or((one, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => preferences.respond_async = true,
                "wait" => preferences.wait_s = preferences.wait_s.or(value.trim().trim_matches('"').parse().ok()),
                _ => {}
            }
        }
        preferences
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ToolParameters {
    #[serde(default)]
    format: ToolFormat,
    user_id: Option<UserId>,
}

async fn tools(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Parameters(ToolParameters { format, user_id }): Parameters<ToolParameters>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(engine.tools(&principal, user_id, format).await?))
}
