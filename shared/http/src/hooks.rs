//! `/api/v1/hooks/{hook}`: an agent's runtime reports a moment of its own, and the organization's hooks for it run.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::post;
use overseer_engine::engine::Engine;
use overseer_engine::invoke::hooks::{ReportMoment, Reported};

use crate::caller::AgentOrCaller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::request_headers::RequestScope;
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/v1/hooks/{hook}", post(report_moment))
}

async fn report_moment(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Path(hook): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    RequestScope { id, deadline }: RequestScope,
    JsonBody(body): JsonBody<ReportMoment>,
) -> Result<Json<Reported>, Problem> {
    Ok(Json(engine.report_moment(&principal, &hook, body, Some(id), deadline).await?))
}
