//! `/api/v1/channels`: which plugins agents have, for administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use overseer_engine::agents::{ChannelView, SetChannel};
use overseer_engine::engine::Engine;
use overseer_engine::ports::table::Cursor;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::etag::{if_match, with_etag};
use crate::input::{JsonBody, NoParameters, Parameters, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/api/v1/channels", get(list))
        .route("/api/v1/channels/{channel}", get(get_one).put(set).delete(remove))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelListQuery {
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

#[derive(Serialize)]
struct Listed {
    channels: Vec<ChannelView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(ChannelListQuery { limit, cursor }): Parameters<ChannelListQuery>,
) -> Result<Json<Listed>, Problem> {
    let page = engine.list_channels(&principal, page_size(limit)?, cursor).await?;
    Ok(Json(Listed { channels: page.entries, next_cursor: page.next }))
}

async fn get_one(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Response, Problem> {
    let view = engine.channel(&principal, &channel).await?;
    Ok(with_etag(&view.etag, &view))
}

async fn set(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<SetChannel>,
) -> Result<Response, Problem> {
    let view = engine.set_channel(&principal, &channel, body, if_match(&headers)).await?;
    Ok(with_etag(&view.etag, &view))
}

async fn remove(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    headers: HeaderMap,
) -> Result<Json<ChannelView>, Problem> {
    Ok(Json(engine.remove_channel(&principal, &channel, if_match(&headers)).await?))
}
