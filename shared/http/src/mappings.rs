//! `/api/plugin-engine/context-mappings`: names that intents may use in place of a service's ids.

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
use serde::Deserialize;

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::listing::{Listing, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/context-mappings{rest}");
    Routes::new()
        .route(&path(""), get(list_mappings).put(put_mapping).delete(delete_mapping))
        .route(&path("/bulk"), post(put_mappings))
        .route(&path("/lookup"), get(look_up_mapping))
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

async fn list_mappings(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(query): Parameters<MappingListQuery>,
) -> Result<Json<Listing<MappingView>>, Problem> {
    let MappingListQuery { tool, kind, user_id, agent_id, limit, cursor } = query;
    let filter = WhichMappings { tool, kind, user_id, agent_id };
    let page = engine.list_mappings(&principal, &filter, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::camel_case("mappings", page)))
}

async fn put_mapping(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewMapping>,
) -> Result<Json<MappingView>, Problem> {
    Ok(Json(engine.put_mapping(&principal, body).await?))
}

async fn put_mappings(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewMappings>,
) -> Result<Json<Listing<MappingView>>, Problem> {
    Ok(Json(Listing::complete("mappings", engine.put_mappings(&principal, body).await?)))
}

async fn delete_mapping(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(selector): Parameters<WhichMapping>,
) -> Result<Json<Listing<MappingView>>, Problem> {
    Ok(Json(Listing::complete("removed", engine.delete_mapping(&principal, selector).await?)))
}

async fn look_up_mapping(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(name): Parameters<NameToLookUp>,
) -> Result<Json<LookedUp>, Problem> {
    Ok(Json(engine.look_up_stored(&principal, name).await?))
}
