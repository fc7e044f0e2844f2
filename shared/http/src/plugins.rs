//! `/api/v1/plugins`: the plugins as an organization has them, for its administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use overseer_engine::engine::Engine;
use overseer_engine::instances::{Disable, InstanceView, SetInstance};
use serde::Serialize;

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, OptionalJsonBody, Parameters};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/v1/plugins{rest}");
    Routes::new()
        .route(&path(""), get(list))
        .route(&path("/{name}"), get(one).patch(set))
        .route(&path("/{name}/disable"), post(disable))
        .route(&path("/{name}/enable"), post(enable))
        .route(&path("/{name}/reset"), post(reset))
}

#[derive(Serialize)]
struct Listed {
    plugins: Vec<InstanceView>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Listed>, Problem> {
    Ok(Json(Listed { plugins: engine.list_instances(&principal).await? }))
}

async fn one(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.get_instance(&principal, &name).await?))
}

async fn set(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<SetInstance>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.set_instance(&principal, &name, body).await?))
}

async fn disable(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    OptionalJsonBody(body): OptionalJsonBody<Disable>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.disable_plugin(&principal, &name, body).await?))
}

async fn enable(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.enable_plugin(&principal, &name).await?))
}

async fn reset(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.reset_breaker(&principal, &name).await?))
}
