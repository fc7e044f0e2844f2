//! `/api/plugins/{name}`: an action by its name, in the words of those who know plugins as sets of functions; and
//! `/api/booking`, which is the plugin `booking`. What comes of it is what comes of an intent.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};
use overseer_engine::access::principal::Principal;
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::{Alias, ChannelName, IdempotencyKey, RequestId, UserId};
use overseer_engine::core::intent::Intent;
use overseer_engine::engine::Engine;
use overseer_engine::invoke::runs::{Replayable, RequestOptions, Resolve};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::caller::AgentOrCaller;
use crate::input::{JsonBody, Parameters};
use crate::intent::{Preferences, idempotency_key, with_replayed_header};
use crate::{Deadline, ErrorCode, Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/plugins/{name}", post(call)).route("/api/booking", post(booking))
}

/// A function to call.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FunctionCall {
    /// The action, or an alias of one.
    #[schemars(length(min = 1, max = 255))]
    function: String,
    /// Its parameters.
    #[serde(default)]
    parameters: Map<String, Value>,
    /// What the caller calls the conversation that this is part of: it comes back with the answer.
    #[schemars(length(max = 255))]
    session_id: Option<String>,
    /// Whose account to use. Left out, it is the user that the API key is bound to.
    user_id: Option<UserId>,
    /// Which of the accounts at the service; left out, the default one.
    integration: Option<Alias>,
    /// Makes a repetition safe.
    idempotency_key: Option<IdempotencyKey>,
}

/// What the URL of a call may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallParameters {
    /// What to do where it is not known what came of an earlier call with the same key.
    resolve: Option<Resolve>,
}

/// What came of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(flatten)]
    outcome: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    request_id: RequestId,
}

async fn call(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Path(name): Path<String>,
    Parameters(CallParameters { resolve }): Parameters<CallParameters>,
    (Extension(request_id), until): (Extension<RequestId>, Option<Extension<Deadline>>),
    headers: HeaderMap,
    JsonBody(call): JsonBody<FunctionCall>,
) -> Result<Response, Problem> {
    run(engine, principal, name, (request_id, until), (&headers, resolve), call).await
}

async fn booking(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Parameters(CallParameters { resolve }): Parameters<CallParameters>,
    (Extension(request_id), until): (Extension<RequestId>, Option<Extension<Deadline>>),
    headers: HeaderMap,
    JsonBody(call): JsonBody<FunctionCall>,
) -> Result<Response, Problem> {
    run(engine, principal, "booking".to_owned(), (request_id, until), (&headers, resolve), call).await
}

async fn run(
    engine: Arc<Engine>,
    principal: Principal,
    name: String,
    (request_id, until): (RequestId, Option<Extension<Deadline>>),
    (headers, resolve): (&HeaderMap, Option<Resolve>),
    call: FunctionCall,
) -> Result<Response, Problem> {
    let (key, channel) = (idempotency_key(headers)?, channel(headers)?);
    let FunctionCall { function, parameters, session_id, user_id, integration, idempotency_key } = call;
    let intent = Intent {
        tool: name,
        intent: function,
        context: parameters,
        agent_id: None,
        user_id,
        integration,
        scheduled_time: None,
        schedule: None,
        max_attempts: None,
        idempotency_key,
    };
    let until = until.map(|Extension(Deadline(until))| until);
    let wait = Preferences::of(headers).wait_s.map_or(Duration::ZERO, Duration::from_secs);
    let asked = RequestOptions { request: Some(request_id.clone()), key, wait, resolve, until, channel };
    let Replayable { answer: outcome, replayed } =
        engine.execute(principal, intent, asked).await.map_err(remap_pointers)?;
    let code = outcome.result.as_ref().err().map(|failure| Extension(ErrorCode::of(&failure.code)));
    let mut shown = match serde_json::to_value(&outcome) {
        Ok(Value::Object(shown)) => shown,
        Ok(_) | Err(_) => Map::new(),
    };
    if let Some(data) = shown.remove("data") {
        shown.insert("result".to_owned(), data);
    }
    Ok(with_replayed_header((code, Json(Answer { outcome: shown, session_id, request_id })).into_response(), replayed))
}

/// The channel that a call came by, if it says so: only its plugins count then.
fn channel(headers: &HeaderMap) -> Result<Option<ChannelName>, Error> {
    let wrong = |message: String| Error::field("", format!("the header x-channel {message}"));
    let mut values = headers.get_all("x-channel").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(wrong("is there twice".to_owned()));
    }
    let name = ChannelName::parse(value.to_str().unwrap_or_default());
    name.map(Some).map_err(|rule| wrong(rule.to_string()))
}

/// What is wrong, with the places that it has in the body of a call.
fn remap_pointers(error: Error) -> Error {
    let Error::Invalid(mut problems) = error else { return error };
    for problem in &mut problems {
        for (ours, theirs) in [("/context", "/parameters"), ("/intent", "/function")] {
            if let Some(rest) = problem.pointer.strip_prefix(ours) {
                problem.pointer = format!("{theirs}{rest}");
                break;
            }
        }
    }
    Error::Invalid(problems)
}
