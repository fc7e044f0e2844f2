//! `/api/v1/plugins`: the plugins as an organization has them. Its administrators change them, operators see them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use overseer_engine::engine::Engine;
use overseer_engine::registry::hooks::NewHookSecret;
use overseer_engine::registry::instances::{Disable, InstanceView, SetInstance};
use overseer_engine::registry::{Install, Lifecycle, SetConfig, UpgradePreview};
use secrecy::ExposeSecret as _;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::etag::{if_match, with_etag};
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
        .route(&path("/{name}/hook-secret"), post(make_hook_secret))
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
) -> Result<Json<Lifecycle>, Problem> {
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
) -> Result<Json<UpgradePreview>, Problem> {
    Ok(Json(engine.preview_upgrade(&principal, &name, version.as_ref()).await?))
}

async fn config(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Response, Problem> {
    let view = engine.config(&principal, &name).await?;
    Ok(with_etag(&view.etag, &view))
}

async fn set_config(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<SetConfig>,
) -> Result<Response, Problem> {
    let view = engine.set_config(&principal, &name, body, if_match(&headers)).await?;
    Ok(with_etag(&view.etag, &view))
}

/// A plugin with the new secret of its hooks, shown once.
#[derive(Serialize)]
struct SecretMade {
    secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_signs_until: Option<String>,
    #[serde(flatten)]
    view: InstanceView,
}

async fn make_hook_secret(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<SecretMade>, Problem> {
    let NewHookSecret { secret, old_signs_until, view } = engine.make_hook_secret(&principal, &name).await?;
    let old_signs_until = old_signs_until.map(|until| until.to_string());
    Ok(Json(SecretMade { secret: secret.expose_secret().to_owned(), old_signs_until, view }))
}

async fn reset(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.reset_breaker(&principal, &name).await?))
}
