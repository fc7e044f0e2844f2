//! `/api/v1/plugins`: an organization's plugins with their configuration and state. Administrators change them, operators
//! read them.

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
use crate::listing::Listing;
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/v1/plugins{rest}");
    Routes::new()
        .route(&path(""), get(list_plugins))
        .route(&path("/{name}"), get(get_plugin).patch(set_plugin).delete(uninstall_plugin))
        .route(&path("/{name}/config"), get(get_config).put(set_config))
        .route(&path("/{name}/diff"), get(diff_upgrade))
        .route(&path("/{name}/disable"), post(disable_plugin))
        .route(&path("/{name}/enable"), post(enable_plugin))
        .route(&path("/{name}/hook-secret"), post(make_hook_secret))
        .route(&path("/{name}/reset"), post(reset_breaker))
        .route(&path("/{name}/rollback"), post(roll_back_plugin))
        .route(&path("/{name}/upgrade"), post(upgrade_plugin))
}

async fn list_plugins(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Listing<InstanceView>>, Problem> {
    Ok(Json(Listing::complete("plugins", engine.list_instances(&principal).await?)))
}

async fn get_plugin(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.get_instance(&principal, &name).await?))
}

async fn set_plugin(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<SetInstance>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.set_instance(&principal, &name, body).await?))
}

async fn uninstall_plugin(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Lifecycle>, Problem> {
    Ok(Json(engine.uninstall(&principal, &name).await?))
}

async fn disable_plugin(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    OptionalJsonBody(body): OptionalJsonBody<Disable>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.disable_plugin(&principal, &name, body).await?))
}

async fn enable_plugin(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    OptionalJsonBody(body): OptionalJsonBody<Install>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.enable_plugin(&principal, &name, body).await?))
}

async fn upgrade_plugin(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<Install>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.upgrade_plugin(&principal, &name, body).await?))
}

async fn roll_back_plugin(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.roll_back_plugin(&principal, &name).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffQuery {
    /// The version to compare with. Default: the latest.
    version: Option<Version>,
}

async fn diff_upgrade(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(DiffQuery { version }): Parameters<DiffQuery>,
) -> Result<Json<UpgradePreview>, Problem> {
    Ok(Json(engine.preview_upgrade(&principal, &name, version.as_ref()).await?))
}

async fn get_config(
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

/// A plugin with the new secret of its hooks. Only this answer contains the secret.
#[derive(Serialize)]
struct PluginWithHookSecret {
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
) -> Result<Json<PluginWithHookSecret>, Problem> {
    let NewHookSecret { secret, old_signs_until, view } = engine.make_hook_secret(&principal, &name).await?;
    let old_signs_until = old_signs_until.map(|until| until.to_string());
    Ok(Json(PluginWithHookSecret { secret: secret.expose_secret().to_owned(), old_signs_until, view }))
}

async fn reset_breaker(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<InstanceView>, Problem> {
    Ok(Json(engine.reset_breaker(&principal, &name).await?))
}
