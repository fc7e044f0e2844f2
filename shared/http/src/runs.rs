//! `/api/plugin-engine/runs`: what was done, when, by whom, and what came of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use overseer_engine::core::ids::{AgentId, PluginName, UserId};
use overseer_engine::engine::Engine;
use overseer_engine::invoke::runs::{ReportedOutcome, RunFilter, RunState, RunView};
use overseer_engine::ports::table::Cursor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/runs{rest}");
    Routes::new()
        .route(&path(""), get(list))
        .route(&path("/{id}"), get(get_one))
        .route(&path("/{id}/resolve"), post(resolve))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RunListQuery {
    user_id: Option<UserId>,
    agent_id: Option<AgentId>,
    tool: Option<PluginName>,
    state: Option<RunState>,
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    runs: Vec<RunView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<RunListQuery>,
) -> Result<Json<Listed>, Problem> {
    let RunListQuery { user_id: user, agent_id: agent, tool: plugin, state, limit, cursor } = asked;
    let filter = RunFilter { user, agent, plugin, state };
    let page = engine.list_runs(&principal, &filter, page_size(limit)?, cursor).await?;
    Ok(Json(Listed { runs: page.entries, next_cursor: page.next }))
}

async fn get_one(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(engine.get_run(&principal, &id).await?))
}

/// What somebody who looked says of a run.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResolveRun {
    /// Whether it had happened.
    r#as: ReportedOutcome,
}

async fn resolve(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<ResolveRun>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(engine.resolve_run(&principal, &id, body.r#as).await?))
}
