//! `/api/plugin-engine/tasks`: what is to be done later, again, or while nobody waits.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use overseer_engine::core::ids::{AgentId, PluginName, UserId};
use overseer_engine::engine::Engine;
use overseer_engine::ports::table::Cursor;
use overseer_engine::tasks::{CancelReport, ChangeTask, TaskFilter, TaskState, TaskView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/tasks{rest}");
    Routes::new()
        .route(&path(""), get(list))
        .route(&path("/cancel"), post(cancel_many))
        .route(&path("/{id}"), get(get_one).patch(change).delete(cancel))
        .route(&path("/{id}/retry"), post(retry))
        .route(&path("/{id}/pause"), post(pause))
        .route(&path("/{id}/resume"), post(resume))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TaskListQuery {
    user_id: Option<UserId>,
    agent_id: Option<AgentId>,
    tool: Option<PluginName>,
    status: Option<TaskState>,
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    tasks: Vec<TaskView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<TaskListQuery>,
) -> Result<Json<Listed>, Problem> {
    let TaskListQuery { user_id, agent_id, tool, status, limit, cursor } = asked;
    let filter = TaskFilter { user_id, agent_id, tool, status };
    let page = engine.list_tasks(&principal, &filter, page_size(limit)?, cursor).await?;
    Ok(Json(Listed { tasks: page.entries, next_cursor: page.next }))
}

/// Which tasks to cancel; with `dryRun` it is only said which they would be.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CancelMany {
    /// Of which user.
    user_id: Option<UserId>,
    /// Of which agent.
    agent_id: Option<AgentId>,
    /// Of which plugin.
    tool: Option<PluginName>,
    /// In which state.
    status: Option<TaskState>,
    /// Do nothing, and say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier answer ended.
    #[schemars(with = "Option<String>")]
    cursor: Option<Cursor>,
}

async fn cancel_many(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<CancelMany>,
) -> Result<Json<CancelReport>, Problem> {
    let CancelMany { user_id, agent_id, tool, status, dry_run, cursor } = body;
    let filter = TaskFilter { user_id, agent_id, tool, status };
    Ok(Json(engine.cancel_tasks(&principal, filter, dry_run, cursor).await?))
}

async fn get_one(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.get_task(&principal, &id).await?))
}

async fn change(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<ChangeTask>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.edit_task(&principal, &id, body).await?))
}

async fn cancel(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.cancel_task(&principal, &id).await?))
}

async fn retry(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.retry_task(&principal, &id).await?))
}

async fn pause(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.pause_task(&principal, &id).await?))
}

async fn resume(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.resume_task(&principal, &id).await?))
}
