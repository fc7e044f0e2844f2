//! `/api/plugin-engine/cron`: the sweep, for whoever calls it every minute.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::routing::post;
use overseer_engine::core::error::Error;
use overseer_engine::core::work_report::WorkReport;
use overseer_engine::engine::Engine;
use secrecy::SecretString;

use crate::input::{NoParameters, Parameters};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/plugin-engine/cron", post(sweep))
}

async fn sweep(
    State(engine): State<Arc<Engine>>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    headers: HeaderMap,
) -> Result<Json<WorkReport>, Problem> {
    let said = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok()?.trim().split_once(' '));
    let token = said.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let token = token.map(SecretString::from);
    if !engine.config.is_cron_token(token.as_ref()) {
        let needed = "needs Authorization: Bearer and the CRON_SECRET_TOKEN that this Overseer was started with; \
                      started without one, it refuses everybody here";
        return Err(Error::Unauthenticated(needed).into());
    }
    Ok(Json(engine.sweep().await?))
}
