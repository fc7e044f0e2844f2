//! `/api/plugin-engine`: send, schedule or explain an intent, and list the tools that intents can name.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json};
use overseer_engine::access::principal::Principal;
use overseer_engine::agents::explain::Explanation;
use overseer_engine::agents::tools::ToolFormat;
use overseer_engine::core::ids::{RequestId, UserId};
use overseer_engine::core::intent::Intent;
use overseer_engine::core::outcome::Outcome;
use overseer_engine::engine::Engine;
use overseer_engine::invoke::runs::{Replayable, RequestOptions, Resolve};
use overseer_engine::tasks::CreatedTask;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::caller::AgentOrCaller;
use crate::input::{JsonBody, Parameters};
use crate::request_headers::{Preferences, RequestScope, idempotency_key, with_replayed_header};
use crate::{ErrorCode, Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/plugin-engine", get(list_tools).post(post_intent))
}

/// The outcome of an intent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutcomeReply {
    #[serde(flatten)]
    outcome: Outcome,
    request_id: RequestId,
}

/// The task that runs an intent later.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskReply {
    success: bool,
    message: String,
    #[serde(flatten)]
    made: CreatedTask,
    request_id: RequestId,
}

/// What sending an intent would do.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplanationReply {
    explanation: Explanation,
    request_id: RequestId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentParameters {
    /// What to do if the outcome of an earlier request with the same key is unknown.
    resolve: Option<Resolve>,
    /// Explain the intent instead of sending it.
    #[serde(default)]
    explain: bool,
}

/// Runs an intent now, or as a task where it has a time or the caller prefers `respond-async`; with `explain=true` it says
/// what would happen.
async fn post_intent(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Parameters(IntentParameters { resolve, explain }): Parameters<IntentParameters>,
    RequestScope { id, deadline }: RequestScope,
    headers: HeaderMap,
    JsonBody(intent): JsonBody<Intent>,
) -> Result<Response, Problem> {
    let preferences = Preferences::of(&headers);
    let options = RequestOptions {
        request: Some(id.clone()),
        key: idempotency_key(&headers)?,
        wait: preferences.wait(),
        resolve,
        until: deadline,
        channel: None,
    };
    let scheduled = intent.scheduled_time.is_some() || intent.schedule.is_some();
    // A scheduled intent is asynchronous in any case.
    let respond_async = preferences.respond_async && !scheduled;
    let as_task = scheduled || respond_async;
    if explain {
        let explanation = engine.explain(&principal, intent, &options, as_task).await?;
        return Ok(Json(ExplanationReply { explanation, request_id: id }).into_response());
    }
    if as_task {
        schedule_intent(&engine, &principal, intent, &options, id, respond_async).await
    } else {
        execute_intent(&engine, principal, intent, options, id).await
    }
}

async fn execute_intent(
    engine: &Arc<Engine>,
    principal: Principal,
    intent: Intent,
    options: RequestOptions,
    request_id: RequestId,
) -> Result<Response, Problem> {
    let Replayable { answer: outcome, replayed } = engine.execute(principal, intent, options).await?;
    let code = outcome.result.as_ref().err().map(|failure| Extension(ErrorCode::of(failure.code)));
    let reply = Json(OutcomeReply { outcome, request_id });
    Ok(with_replayed_header((code, reply).into_response(), replayed))
}

async fn schedule_intent(
    engine: &Arc<Engine>,
    principal: &Principal,
    intent: Intent,
    options: &RequestOptions,
    request_id: RequestId,
    respond_async: bool,
) -> Result<Response, Problem> {
    let Replayable { answer: made, replayed } = engine.schedule(principal, intent, options).await?;
    let location = format!("/api/plugin-engine/tasks/{}", made.task.id);
    let message = if respond_async {
        "Accepted; it runs now".to_owned()
    } else {
        format!("Scheduled for {}", made.task.scheduled_time)
    };
    let reply = Json(TaskReply { success: true, message, made, request_id });
    let mut response = (StatusCode::ACCEPTED, [(LOCATION, location)], reply).into_response();
    if respond_async {
        let name = HeaderName::from_static("preference-applied");
        response.headers_mut().insert(name, HeaderValue::from_static("respond-async"));
    }
    Ok(with_replayed_header(response, replayed))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ToolListQuery {
    #[serde(default)]
    format: ToolFormat,
    user_id: Option<UserId>,
}

async fn list_tools(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Parameters(ToolListQuery { format, user_id }): Parameters<ToolListQuery>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(engine.tools(&principal, user_id, format).await?))
}
