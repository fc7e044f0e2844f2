//! `/health`, `/health/ready` and `/schemas/*`: public routes, without a key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use overseer_engine::core::schema::schema_of;
use overseer_engine::engine::Engine;
use overseer_engine::plugin::manifest::Manifest;
use serde_json::{Value, json};

use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/health", get(get_health))
        .route("/health/ready", get(get_readiness))
        .route("/schemas/plugin-manifest.json", get(get_manifest_schema))
}

/// Whether the process lives, and whether its last write succeeded.
async fn get_health(State(engine): State<Arc<Engine>>) -> Json<Value> {
    let writing = engine.ports.table.write_failure().is_none();
    let status = if writing { "ok" } else { "degraded" };
    Json(json!({ "status": status, "writing": writing, "version": env!("CARGO_PKG_VERSION") }))
}

/// 503 with the reason while writes fail.
async fn get_readiness(State(engine): State<Arc<Engine>>) -> Result<Json<Value>, Problem> {
    engine.check_writing().await?;
    Ok(Json(json!({ "status": "ready" })))
}

async fn get_manifest_schema() -> Response {
    let schema = schema_of::<Manifest>().to_string();
    ([(CONTENT_TYPE, "application/schema+json")], schema).into_response()
}
