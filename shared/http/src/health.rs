//! `/health` and `/schemas/*`: public routes, without a key.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use overseer_engine::core::schema::schema_of;
use overseer_engine::plugin::manifest::Manifest;
use serde_json::{Value, json};

use crate::Routes;

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/health", get(get_health)).route("/schemas/plugin-manifest.json", get(get_manifest_schema))
}

async fn get_health() -> Json<Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

async fn get_manifest_schema() -> Response {
    let schema = schema_of::<Manifest>().to_string();
    ([(CONTENT_TYPE, "application/schema+json")], schema).into_response()
}
