//! `/api/plugin-engine`: intents, and what can be intended.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Extension, Json};
use overseer_engine::engine::Engine;
use overseer_engine::error::Error;
use overseer_engine::ids::{RequestId, UserId};
use overseer_engine::intent::Intent;
use overseer_engine::outcome::Outcome;
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

async fn intend(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    JsonBody(intent): JsonBody<Intent>,
) -> Result<Json<Answer>, Problem> {
    if headers.contains_key("idempotency-key") {
        let problem = "the header Idempotency-Key: this version keeps no idempotency keys; leave it out";
        return Err(Error::field("", problem).into());
    }
    let outcome = engine.intend(principal, intent).await?;
    Ok(Json(Answer { outcome, request_id }))
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
