//! `/api/plugin-engine/errors`: failures, their statistics and trends, and the fallback texts that agents say about them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use overseer_engine::core::ids::{ActionName, AgentId, PluginName, UserId};
use overseer_engine::core::outcome::OutcomeCode;
use overseer_engine::engine::Engine;
use overseer_engine::invoke::failures::{
    FailureFilter, FailureView, Fallback, ManyResolved, NewFallback, ResolveMany, Statistics, StatisticsQuery, Trends,
    TrendsQuery,
};
use overseer_engine::ports::table::Cursor;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::listing::{Listing, PageQuery, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/errors{rest}");
    Routes::new()
        .route(&path(""), get(list_failures))
        .route(&path("/bulk"), post(resolve_failures))
        .route(&path("/stats"), get(get_statistics))
        .route(&path("/trends"), get(get_trends))
        .route(&path("/fallbacks"), get(list_fallbacks).put(set_fallback).delete(remove_fallback))
        .route(&path("/{id}"), get(get_failure))
        .route(&path("/{id}/resolve"), post(resolve_failure))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FailureListQuery {
    user_id: Option<UserId>,
    agent_id: Option<AgentId>,
    tool: Option<PluginName>,
    intent: Option<ActionName>,
    code: Option<OutcomeCode>,
    resolved: Option<bool>,
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

async fn list_failures(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(query): Parameters<FailureListQuery>,
) -> Result<Json<Listing<FailureView>>, Problem> {
    let FailureListQuery { user_id, agent_id, tool, intent, code, resolved, limit, cursor } = query;
    let filter = FailureFilter { user_id, agent_id, tool, intent, code };
    let page = engine.list_failures(&principal, &filter, resolved, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::camel_case("errors", page)))
}

async fn get_failure(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<FailureView>, Problem> {
    Ok(Json(engine.get_failure(&principal, &id).await?))
}

/// Marks a failure as resolved.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResolveFailure {
    /// A note for the record.
    note: Option<String>,
}

async fn resolve_failure(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(ResolveFailure { note }): JsonBody<ResolveFailure>,
) -> Result<Json<FailureView>, Problem> {
    Ok(Json(engine.resolve_failure(&principal, &id, note).await?))
}

async fn resolve_failures(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<ResolveMany>,
) -> Result<Json<ManyResolved>, Problem> {
    Ok(Json(engine.resolve_failures(&principal, body).await?))
}

async fn get_statistics(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(query): Parameters<StatisticsQuery>,
) -> Result<Json<Statistics>, Problem> {
    Ok(Json(engine.failure_statistics(&principal, &query).await?))
}

async fn get_trends(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(query): Parameters<TrendsQuery>,
) -> Result<Json<Trends>, Problem> {
    Ok(Json(engine.failure_trends(&principal, &query).await?))
}

async fn list_fallbacks(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(PageQuery { limit, cursor }): Parameters<PageQuery>,
) -> Result<Json<Listing<Fallback>>, Problem> {
    let page = engine.list_fallbacks(&principal, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::camel_case("fallbacks", page)))
}

async fn set_fallback(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewFallback>,
) -> Result<Json<Fallback>, Problem> {
    Ok(Json(engine.set_fallback(&principal, body).await?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FallbackSelector {
    tool: Option<PluginName>,
    agent_id: Option<AgentId>,
}

async fn remove_fallback(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(FallbackSelector { tool, agent_id }): Parameters<FallbackSelector>,
) -> Result<Json<Fallback>, Problem> {
    Ok(Json(engine.remove_fallback(&principal, tool.as_ref(), agent_id.as_ref()).await?))
}
