//! `/api/plugin-engine/tasks`: intents that run later, repeatedly, or without a waiting caller.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use overseer_engine::core::ids::{AgentId, PluginName, UserId};
use overseer_engine::engine::Engine;
use overseer_engine::ports::table::Cursor;
use overseer_engine::tasks::{CancelReport, ChangeTask, TaskFilter, TaskState, TaskView};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::listing::{Listing, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/tasks{rest}");
    Routes::new()
        .route(&path(""), get(list_tasks))
        .route(&path("/cancel"), post(cancel_tasks))
        .route(&path("/{id}"), get(get_task).patch(edit_task).delete(cancel_task))
        .route(&path("/{id}/retry"), post(retry_task))
        .route(&path("/{id}/pause"), post(pause_task))
        .route(&path("/{id}/resume"), post(resume_task))
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

async fn list_tasks(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(query): Parameters<TaskListQuery>,
) -> Result<Json<Listing<TaskView>>, Problem> {
    let TaskListQuery { user_id, agent_id, tool, status, limit, cursor } = query;
    let filter = TaskFilter { user_id, agent_id, tool, status };
    let page = engine.list_tasks(&principal, &filter, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::camel_case("tasks", page)))
}

/// Which tasks to cancel. `dryRun` lists them without cancelling.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CancelTasks {
    /// Only tasks of this user.
    user_id: Option<UserId>,
    /// Only tasks of this agent.
    agent_id: Option<AgentId>,
    /// Only tasks of this plugin.
    tool: Option<PluginName>,
    /// Only tasks in this state.
    status: Option<TaskState>,
    /// List the tasks that would be cancelled, and cancel none.
    #[serde(default)]
    dry_run: bool,
    /// The cursor of an earlier answer: continues after its last task.
    #[schemars(with = "Option<String>")]
    cursor: Option<Cursor>,
}

async fn cancel_tasks(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<CancelTasks>,
) -> Result<Json<CancelReport>, Problem> {
    let CancelTasks { user_id, agent_id, tool, status, dry_run, cursor } = body;
    let filter = TaskFilter { user_id, agent_id, tool, status };
    Ok(Json(engine.cancel_tasks(&principal, filter, dry_run, cursor).await?))
}

async fn get_task(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.get_task(&principal, &id).await?))
}

async fn edit_task(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<ChangeTask>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.edit_task(&principal, &id, body).await?))
}

async fn cancel_task(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.cancel_task(&principal, &id).await?))
}

async fn retry_task(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.retry_task(&principal, &id).await?))
}

async fn pause_task(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.pause_task(&principal, &id).await?))
}

async fn resume_task(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(engine.resume_task(&principal, &id).await?))
}
