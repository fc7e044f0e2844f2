//! `/api/v1/plugins`: the plugins as an organization has them. Its administrators change them, operators see them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_MATCH};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use overseer_engine::engine::Engine;
use overseer_engine::instances::{Disable, InstanceView, SetInstance};
use overseer_engine::registry::{ConfigView, Install, Life, SetConfig, UpgradeShown};
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, OptionalJsonBody, Parameters};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/v1/plugins{rest}");
    Routes::new()
        .route(&path(""), get(list))
        .route(&path("/{name}"), get(one).patch(set).delete(uninstall))
        .route(&path("/{name}/config"), get(config).put(set_config))
        .route(&path("/{name}/diff"), get(diff))
        .route(&path("/{name}/disable"), post(disable))
        .route(&path("/{name}/enable"), post(enable))
        .route(&path("/{name}/reset"), post(reset))
        .route(&path("/{name}/rollback"), post(roll_back))
        .route(&path("/{name}/upgrade"), post(upgrade))
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

async fn uninstall(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Life>, Problem> {
    Ok(Json(engine.uninstall(&principal, &name).await?))
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
    OptionalJsonBody(body): OptionalJsonBody<Install>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.enable_plugin(&principal, &name, body).await?))
}

async fn upgrade(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<Install>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.upgrade_plugin(&principal, &name, body).await?))
}

async fn roll_back(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.roll_back_plugin(&principal, &name).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffParameters {
    /// Which version; the latest, if left out.
    version: Option<Version>,
}

async fn diff(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(DiffParameters { version }): Parameters<DiffParameters>,
) -> Result<Json<UpgradeShown>, Problem> {
    Ok(Json(engine.show_upgrade(&principal, &name, version.as_ref()).await?))
}

async fn config(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Response, Problem> {
    Ok(with_etag(engine.config(&principal, &name).await?))
}

async fn set_config(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<SetConfig>,
) -> Result<Response, Problem> {
    Ok(with_etag(engine.set_config(&principal, &name, body, if_match(&headers)).await?))
}

fn with_etag(view: ConfigView) -> Response {
    ([(ETAG, format!("\"{}\"", view.etag))], Json(view)).into_response()
}

/// The tags that a thing may have (RFC 9110, 13.1.1). `None` where it may have any. A weak one matches nothing.
pub(crate) fn if_match(headers: &HeaderMap) -> Option<Vec<String>> {
    let values: Vec<_> = headers.get_all(IF_MATCH).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    if values.is_empty() || values.iter().any(|value| value.trim() == "*") {
        return None;
    }
    let each = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    Some(each.filter_map(|tag| tag.strip_prefix('"')?.strip_suffix('"')).map(str::to_owned).collect())
}

async fn reset(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.reset_breaker(&principal, &name).await?))
}
