//! `/api/plugin-engine/integrations`: the accounts that plugins use.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::post;
use overseer_engine::engine::Engine;
use overseer_engine::integrations::{Connect, Integration};

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/plugin-engine/integrations/{plugin}/connect", post(connect))
}

async fn connect(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(plugin): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<Connect>,
) -> Result<Json<Integration>, Problem> {
    Ok(Json(engine.connect(&principal, &plugin, body).await?))
}
