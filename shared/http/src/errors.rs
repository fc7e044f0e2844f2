//! `/api/plugin-engine/errors`: what failed, how often, and what agents are to say about it.

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
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/plugin-engine/errors{rest}");
    Routes::new()
        .route(&path(""), get(list))
        .route(&path("/bulk"), post(resolve_many))
        .route(&path("/stats"), get(statistics))
        .route(&path("/trends"), get(trends))
        .route(&path("/fallbacks"), get(fallbacks).put(set_fallback).delete(remove_fallback))
        .route(&path("/{id}"), get(get_one))
        .route(&path("/{id}/resolve"), post(resolve))
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    errors: Vec<FailureView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<FailureListQuery>,
) -> Result<Json<Listed>, Problem> {
    let FailureListQuery { user_id, agent_id, tool, intent, code, resolved, limit, cursor } = asked;
    let filter = FailureFilter { user_id, agent_id, tool, intent, code };
    let page = engine.list_failures(&principal, &filter, resolved, page_size(limit)?, cursor).await?;
    Ok(Json(Listed { errors: page.entries, next_cursor: page.next }))
}

async fn get_one(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<FailureView>, Problem> {
    Ok(Json(engine.get_failure(&principal, &id).await?))
}

/// What to say about a failure that somebody has seen to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Resolve {
    /// Anything.
    note: Option<String>,
}

async fn resolve(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(Resolve { note }): JsonBody<Resolve>,
) -> Result<Json<FailureView>, Problem> {
    Ok(Json(engine.resolve_failure(&principal, &id, note).await?))
}

async fn resolve_many(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<ResolveMany>,
) -> Result<Json<ManyResolved>, Problem> {
    Ok(Json(engine.resolve_failures(&principal, body).await?))
}

async fn statistics(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<StatisticsQuery>,
) -> Result<Json<Statistics>, Problem> {
    Ok(Json(engine.failure_statistics(&principal, &asked).await?))
}

async fn trends(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(asked): Parameters<TrendsQuery>,
) -> Result<Json<Trends>, Problem> {
    Ok(Json(engine.failure_trends(&principal, &asked).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageParameters {
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fallbacks {
    fallbacks: Vec<Fallback>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn fallbacks(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(PageParameters { limit, cursor }): Parameters<PageParameters>,
) -> Result<Json<Fallbacks>, Problem> {
    let page = engine.list_fallbacks(&principal, page_size(limit)?, cursor).await?;
    Ok(Json(Fallbacks { fallbacks: page.entries, next_cursor: page.next }))
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
struct WhichFallback {
    tool: Option<PluginName>,
    agent_id: Option<AgentId>,
}

async fn remove_fallback(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(WhichFallback { tool, agent_id }): Parameters<WhichFallback>,
) -> Result<Json<Fallback>, Problem> {
    Ok(Json(engine.remove_fallback(&principal, tool.as_ref(), agent_id.as_ref()).await?))
}
