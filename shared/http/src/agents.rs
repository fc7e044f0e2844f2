//! `/api/v1/agents`: the agent of a channel, for whoever runs it, and what it is locked to.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use overseer_engine::agents::tools::ToolFormat;
use overseer_engine::agents::{AgentDiff, AgentView, LockAgent, Locks, RollBackAgent};
use overseer_engine::engine::Engine;
use serde::Deserialize;
use serde_json::Value;

use crate::caller::{AgentOrCaller, Caller};
use crate::input::{JsonBody, NoParameters, OptionalJsonBody, Parameters};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/v1/agents/{{channel}}{rest}");
    Routes::new()
        .route(&path(""), get(get_one))
        .route(&path("/diff"), post(diff))
        .route(&path("/lock"), post(lock))
        .route(&path("/locks"), get(locks))
        .route(&path("/rollback"), post(roll_back))
        .route(&path("/unlock"), post(unlock))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentParameters {
    #[serde(default)]
    format: ToolFormat,
}

async fn get_one(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Path(channel): Path<String>,
    Parameters(AgentParameters { format }): Parameters<AgentParameters>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(engine.agent(&principal, &channel).await?.in_format(format)))
}

async fn diff(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<AgentDiff>, Problem> {
    Ok(Json(engine.agent_diff(&principal, &channel).await?))
}

async fn lock(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    OptionalJsonBody(body): OptionalJsonBody<LockAgent>,
) -> Result<Json<AgentView>, Problem> {
    Ok(Json(engine.lock_agent(&principal, &channel, body).await?))
}

async fn locks(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Locks>, Problem> {
    Ok(Json(engine.agent_locks(&principal, &channel).await?))
}

async fn roll_back(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<RollBackAgent>,
) -> Result<Json<AgentView>, Problem> {
    Ok(Json(engine.roll_back_agent(&principal, &channel, body).await?))
}

async fn unlock(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<AgentView>, Problem> {
    Ok(Json(engine.unlock_agent(&principal, &channel).await?))
}
