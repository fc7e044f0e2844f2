//! `/api/plugin-engine/integrations`: the accounts that plugins use.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use overseer_engine::accounts::{
    AccountSelector, ClientInUse, Complete, Connect, Connecting, Disconnected, Integration, MakeDefault, NewClient,
    PluginStatus,
};
use overseer_engine::core::ids::UserId;
use overseer_engine::engine::Engine;
use overseer_engine::ports::table::Cursor;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/integrations{rest}");
    Routes::new()
        .route(&path(""), get(list))
        .route(&path("/{plugin}"), get(status).delete(disconnect))
        .route(&path("/{plugin}/connect"), post(connect))
        .route(&path("/{plugin}/connect/complete"), post(complete))
        .route(&path("/{plugin}/default"), put(make_default))
        .route(&path("/{plugin}/client"), get(client).put(set_client).delete(remove_client))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AccountListQuery {
    user_id: Option<UserId>,
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    integrations: Vec<Integration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(AccountListQuery { user_id, limit, cursor }): Parameters<AccountListQuery>,
) -> Result<Json<Listed>, Problem> {
    let page = engine.list_integrations(&principal, user_id, page_size(limit)?, cursor).await?;
    Ok(Json(Listed { integrations: page.entries, next_cursor: page.next }))
}

async fn status(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(which): Parameters<AccountSelector>,
) -> Result<Json<PluginStatus>, Problem> {
    Ok(Json(engine.integration_status(&principal, &plugin, which).await?))
}

async fn connect(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<Connect>,
) -> Result<Json<Connecting>, Problem> {
    Ok(Json(engine.connect(&principal, &plugin, body).await?))
}

async fn complete(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<Complete>,
) -> Result<Json<Integration>, Problem> {
    Ok(Json(engine.complete(&principal, &plugin, body).await?))
}

async fn disconnect(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(which): Parameters<AccountSelector>,
) -> Result<Json<Disconnected>, Problem> {
    Ok(Json(engine.disconnect(&principal, &plugin, which).await?))
}

async fn make_default(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<MakeDefault>,
) -> Result<Json<Integration>, Problem> {
    Ok(Json(engine.make_default(&principal, &plugin, body).await?))
}

async fn client(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<ClientInUse>, Problem> {
    Ok(Json(engine.client_in_use(&principal, &plugin).await?))
}

async fn set_client(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewClient>,
) -> Result<Json<ClientInUse>, Problem> {
    Ok(Json(engine.set_client(&principal, &plugin, body).await?))
}

async fn remove_client(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<ClientInUse>, Problem> {
    Ok(Json(engine.remove_client(&principal, &plugin).await?))
}
