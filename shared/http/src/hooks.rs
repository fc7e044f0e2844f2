//! `/api/v1/hooks/{hook}`: an agent's runtime tells of a moment of its own, and the organization's hooks are asked about it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Extension, Json};
use overseer_engine::core::ids::RequestId;
use overseer_engine::engine::Engine;
use overseer_engine::invoke::hooks::{ReportMoment, Reported};

use crate::caller::AgentOrCaller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::{Deadline, Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/v1/hooks/{hook}", post(report))
}

async fn report(
    State(engine): State<Arc<Engine>>,
    AgentOrCaller(principal): AgentOrCaller,
    Path(hook): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    (Extension(request), until): (Extension<RequestId>, Option<Extension<Deadline>>),
    JsonBody(body): JsonBody<ReportMoment>,
) -> Result<Json<Reported>, Problem> {
    let until = until.map(|Extension(Deadline(until))| until);
    Ok(Json(engine.report_moment(&principal, &hook, body, Some(request), until).await?))
}
