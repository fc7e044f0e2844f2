//! `/api/plugin-engine/runs`: the recorded runs of actions with their times, callers and outcomes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use overseer_engine::core::ids::{AgentId, PluginName, UserId};
use overseer_engine::engine::Engine;
use overseer_engine::invoke::runs::{ReportedOutcome, RunFilter, RunState, RunView};
use overseer_engine::ports::table::Cursor;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::listing::{Listing, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/runs{rest}");
    Routes::new()
        .route(&path(""), get(list_runs))
        .route(&path("/{id}"), get(get_run))
        .route(&path("/{id}/resolve"), post(resolve_run))
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

async fn list_runs(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(query): Parameters<RunListQuery>,
) -> Result<Json<Listing<RunView>>, Problem> {
    let RunListQuery { user_id: user, agent_id: agent, tool: plugin, state, limit, cursor } = query;
    let filter = RunFilter { user, agent, plugin, state };
    let page = engine.list_runs(&principal, &filter, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::camel_case("runs", page)))
}

async fn get_run(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(engine.get_run(&principal, &id).await?))
}

/// The outcome of a run whose outcome is unknown, as the caller found it at the service.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResolveRun {
    /// Whether the action happened.
    r#as: ReportedOutcome,
}

async fn resolve_run(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<ResolveRun>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(engine.resolve_run(&principal, &id, body.r#as).await?))
}
