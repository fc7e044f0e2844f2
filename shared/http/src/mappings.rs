//! `/api/plugin-engine/context-mappings`: names for what services call by ids.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::{get, post};
use overseer_engine::core::ids::{AgentId, MappingKind, PluginName, UserId};
use overseer_engine::engine::Engine;
use overseer_engine::invoke::mappings::{
    LookedUp, MappingView, NameToLookUp, NewMapping, NewMappings, WhichMapping, WhichMappings,
};
use overseer_engine::ports::table::Cursor;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/context-mappings{rest}");
    Routes::new()
        .route(&path(""), get(list).put(write).delete(remove))
        .route(&path("/bulk"), post(write_many))
        .route(&path("/lookup"), get(look_up))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MappingListQuery {
    tool: Option<PluginName>,
    kind: Option<MappingKind>,
    user_id: Option<UserId>,
    agent_id: Option<AgentId>,
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    mappings: Vec<MappingView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<MappingListQuery>,
) -> Result<Json<Listed>, Problem> {
    let MappingListQuery { tool, kind, user_id, agent_id, limit, cursor } = asked;
    let which = WhichMappings { tool, kind, user_id, agent_id };
    let page = engine.list_mappings(&principal, &which, page_size(limit)?, cursor).await?;
    Ok(Json(Listed { mappings: page.entries, next_cursor: page.next }))
}

async fn write(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewMapping>,
) -> Result<Json<MappingView>, Problem> {
    Ok(Json(engine.put_mapping(&principal, body).await?))
}

/// What was written.
#[derive(Serialize)]
struct Written {
    mappings: Vec<MappingView>,
}

async fn write_many(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewMappings>,
) -> Result<Json<Written>, Problem> {
    Ok(Json(Written { mappings: engine.put_mappings(&principal, body).await? }))
}

/// What was taken out.
#[derive(Serialize)]
struct Removed {
    removed: Vec<MappingView>,
}

async fn remove(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(which): Parameters<WhichMapping>,
) -> Result<Json<Removed>, Problem> {
    Ok(Json(Removed { removed: engine.delete_mapping(&principal, which).await? }))
}

async fn look_up(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<NameToLookUp>,
) -> Result<Json<LookedUp>, Problem> {
    Ok(Json(engine.look_up_stored(&principal, asked).await?))
}
