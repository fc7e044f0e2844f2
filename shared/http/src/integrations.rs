//! `/api/plugin-engine/integrations`: the accounts that plugins use, and the OAuth clients that connect them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use overseer_engine::accounts::{
    AccountSelector, ClientInUse, ConfirmAccount, Connect, Connecting, Disconnected, Integration, MakeDefault,
    NewClient, PluginStatus,
};
use overseer_engine::core::ids::UserId;
use overseer_engine::engine::Engine;
use overseer_engine::ports::table::Cursor;
use serde::Deserialize;

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::listing::{Listing, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/integrations{rest}");
    Routes::new()
        .route(&path(""), get(list_accounts))
        .route(&path("/{plugin}"), get(get_status).delete(disconnect))
        .route(&path("/{plugin}/connect"), post(connect))
        .route(&path("/{plugin}/connect/complete"), post(complete_connection))
        .route(&path("/{plugin}/default"), put(make_default))
        .route(&path("/{plugin}/client"), get(get_client).put(set_client).delete(remove_client))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AccountListQuery {
    user_id: Option<UserId>,
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

async fn list_accounts(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(AccountListQuery { user_id, limit, cursor }): Parameters<AccountListQuery>,
) -> Result<Json<Listing<Integration>>, Problem> {
    let page = engine.list_integrations(&principal, user_id, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::camel_case("integrations", page)))
}

async fn get_status(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(selector): Parameters<AccountSelector>,
) -> Result<Json<PluginStatus>, Problem> {
    Ok(Json(engine.integration_status(&principal, &plugin, selector).await?))
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

async fn complete_connection(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<ConfirmAccount>,
) -> Result<Json<Integration>, Problem> {
    Ok(Json(engine.complete(&principal, &plugin, body).await?))
}

async fn disconnect(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(selector): Parameters<AccountSelector>,
) -> Result<Json<Disconnected>, Problem> {
    Ok(Json(engine.disconnect(&principal, &plugin, selector).await?))
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

async fn get_client(
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
