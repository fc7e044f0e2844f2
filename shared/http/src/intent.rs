//! `/api/plugin-engine`: intents, and what can be intended.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json};
use overseer_engine::engine::Engine;
use overseer_engine::error::Error;
use overseer_engine::ids::{RequestId, UserId};
use overseer_engine::intent::Intent;
use overseer_engine::outcome::Outcome;
use overseer_engine::tasks::Made;
use overseer_engine::tools::ToolFormat;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::{Problem, Routes};

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
    made: Made,
    request_id: RequestId,
}

async fn intend(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    JsonBody(intent): JsonBody<Intent>,
) -> Result<Response, Problem> {
    if headers.contains_key("idempotency-key") {
        let problem = "the header Idempotency-Key: this version keeps no idempotency keys; leave it out";
        return Err(Error::field("", problem).into());
    }
    let later = intent.scheduled_time.is_some() || intent.schedule.is_some();
    // A time says already that nobody waits.
    let unwatched = !later && prefers_not_to_wait(&headers);
    if !later && !unwatched {
        let outcome = engine.intend(principal, intent).await?;
        return Ok(Json(Answer { outcome, request_id }).into_response());
    }
    let made = engine.schedule(&principal, intent).await?;
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
    Ok(response)
}

/// Whether the caller asks not to wait for the outcome (RFC 7240, 4.1).
fn prefers_not_to_wait(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences =
        preferences.flat_map(|value| value.split(',')).map(|one| one.split(';').next().unwrap_or(one));
    preferences.any(|one| one.trim().eq_ignore_ascii_case("respond-async"))
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
    Caller(principal): Caller,
    Parameters(ToolParameters { format, user_id }): Parameters<ToolParameters>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(engine.tools(&principal, user_id, format).await?))
}
