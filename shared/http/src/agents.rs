//! `/api/v1/agents`: the agent of a channel, for its runtime; the difference, lock, rollback and unlock, for administrators.

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
        .route(&path(""), get(get_agent))
        .route(&path("/diff"), post(diff_agent))
        .route(&path("/lock"), post(lock_agent))
        .route(&path("/locks"), get(list_locks))
        .route(&path("/rollback"), post(roll_back_agent))
        .route(&path("/unlock"), post(unlock_agent))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentQuery {
    #[serde(default)]
    format: ToolFormat,
}

async fn get_agent(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Path(channel): Path<String>,
    Parameters(AgentQuery { format }): Parameters<AgentQuery>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(engine.agent(&principal, &channel).await?.in_format(format)))
}

async fn diff_agent(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<AgentDiff>, Problem> {
    Ok(Json(engine.agent_diff(&principal, &channel).await?))
}

async fn lock_agent(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    OptionalJsonBody(body): OptionalJsonBody<LockAgent>,
) -> Result<Json<AgentView>, Problem> {
    Ok(Json(engine.lock_agent(&principal, &channel, body).await?))
}

async fn list_locks(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Locks>, Problem> {
    Ok(Json(engine.agent_locks(&principal, &channel).await?))
}

async fn roll_back_agent(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<RollBackAgent>,
) -> Result<Json<AgentView>, Problem> {
    Ok(Json(engine.roll_back_agent(&principal, &channel, body).await?))
}

async fn unlock_agent(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<AgentView>, Problem> {
    Ok(Json(engine.unlock_agent(&principal, &channel).await?))
}
