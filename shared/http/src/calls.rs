//! `/api/plugins/{name}`: calls an action by its name, for callers that know plugins as sets of functions. `/api/booking` is
//! the plugin `booking`. The outcome is that of an intent.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};
use overseer_engine::access::principal::Principal;
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::{Alias, IdempotencyKey, RequestId, UserId};
use overseer_engine::core::intent::Intent;
use overseer_engine::core::outcome::Outcome;
use overseer_engine::engine::Engine;
use overseer_engine::invoke::runs::{Replayable, RequestOptions, Resolve};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::caller::AgentOrCaller;
use crate::input::{JsonBody, Parameters};
use crate::request_headers::{Preferences, RequestScope, channel, idempotency_key, with_replayed_header};
use crate::{ErrorCode, Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/plugins/{name}", post(call_plugin)).route("/api/booking", post(call_booking))
}

/// A function to call.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FunctionCall {
    /// The action, or an alias of one.
    #[schemars(length(min = 1, max = 255))]
    function: String,
    /// The action's parameters.
    #[serde(default)]
    parameters: Map<String, Value>,
    /// The caller's id of the conversation. The reply repeats it.
    #[schemars(length(max = 255))]
    session_id: Option<String>,
    /// The user whose account to use. Default: the user that the API key is bound to.
    user_id: Option<UserId>,
    /// Which of the user's accounts at the service to use. Default: the default account.
    integration: Option<Alias>,
    /// Makes a retry safe: a retry with the same key runs once.
    idempotency_key: Option<IdempotencyKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallParameters {
    /// What to do if the outcome of an earlier call with the same key is unknown.
    resolve: Option<Resolve>,
}

/// The outcome of a call.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallReply {
    #[serde(flatten)]
    outcome: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    request_id: RequestId,
}

async fn call_plugin(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Path(name): Path<String>,
    Parameters(CallParameters { resolve }): Parameters<CallParameters>,
    scope: RequestScope,
    headers: HeaderMap,
    JsonBody(call): JsonBody<FunctionCall>,
) -> Result<Response, Problem> {
    let options = options(&scope, &headers, resolve)?;
    execute_call(&engine, principal, name, call, options, scope.id).await
}

async fn call_booking(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Parameters(CallParameters { resolve }): Parameters<CallParameters>,
    scope: RequestScope,
    headers: HeaderMap,
    JsonBody(call): JsonBody<FunctionCall>,
) -> Result<Response, Problem> {
    let options = options(&scope, &headers, resolve)?;
    execute_call(&engine, principal, "booking".to_owned(), call, options, scope.id).await
}

fn options(scope: &RequestScope, headers: &HeaderMap, resolve: Option<Resolve>) -> Result<RequestOptions, Error> {
    Ok(RequestOptions {
        request: Some(scope.id.clone()),
        key: idempotency_key(headers)?,
        wait: Preferences::of(headers).wait(),
        resolve,
        until: scope.deadline,
        channel: channel(headers)?,
    })
}

async fn execute_call(
    engine: &Arc<Engine>,
    principal: Principal,
    plugin: String,
    call: FunctionCall,
    options: RequestOptions,
    request_id: RequestId,
) -> Result<Response, Problem> {
    let FunctionCall { function, parameters, session_id, user_id, integration, idempotency_key } = call;
    let intent = Intent {
        tool: plugin,
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
    let Replayable { answer: outcome, replayed } =
        engine.execute(principal, intent, options).await.map_err(remap_pointers)?;
    let code = outcome.result.as_ref().err().map(|failure| Extension(ErrorCode::of(failure.code)));
    let reply = Json(CallReply { outcome: outcome_fields(&outcome), session_id, request_id });
    Ok(with_replayed_header((code, reply).into_response(), replayed))
}

/// The fields of an outcome, with `data` under the name `result`.
fn outcome_fields(outcome: &Outcome) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(outcome) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    if let Some(data) = fields.remove("data") {
        fields.insert("result".to_owned(), data);
    }
    fields
}

/// Problems of an intent, with their pointers into the body of a call.
fn remap_pointers(error: Error) -> Error {
    let Error::Invalid(mut problems) = error else { return error };
    for problem in &mut problems {
        for (in_intent, in_call) in [("/context", "/parameters"), ("/intent", "/function")] {
            if let Some(rest) = problem.pointer.strip_prefix(in_intent) {
                problem.pointer = format!("{in_call}{rest}");
                break;
            }
        }
    }
    Error::Invalid(problems)
}
