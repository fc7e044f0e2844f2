//! `/api/plugin-engine/cron`: the sweep, called every minute by a scheduler that has the cron token.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::get;
use overseer_engine::core::error::Error;
use overseer_engine::core::work_report::WorkReport;
use overseer_engine::engine::Engine;

use crate::caller::bearer;
use crate::input::{NoParameters, Parameters};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/plugin-engine/cron", get(sweep).post(sweep))
}

async fn sweep(
    State(engine): State<Arc<Engine>>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    headers: HeaderMap,
) -> Result<Json<WorkReport>, Problem> {
    let token = bearer(&headers)?;
    if !engine.config.is_cron_token(token.as_ref()) {
        let detail = "send the header Authorization: Bearer with the CRON_SECRET_TOKEN of this Overseer; if it was started \
                      without one, this route refuses every request";
        return Err(Error::Unauthenticated(detail).into());
    }
    Ok(Json(engine.sweep().await?))
}
