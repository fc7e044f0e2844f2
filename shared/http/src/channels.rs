//! `/api/v1/channels`: the plugins of each channel's agent. Administrators set channels, operators read them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use overseer_engine::agents::{ChannelView, SetChannel};
use overseer_engine::engine::Engine;

use crate::caller::Caller;
use crate::etag::{if_match, with_etag};
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::listing::{Listing, PageQuery, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/api/v1/channels", get(list_channels))
        .route("/api/v1/channels/{channel}", get(get_channel).put(set_channel).delete(remove_channel))
}

async fn list_channels(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(PageQuery { limit, cursor }): Parameters<PageQuery>,
) -> Result<Json<Listing<ChannelView>>, Problem> {
    let page = engine.list_channels(&principal, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::snake_case("channels", page)))
}

async fn get_channel(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Response, Problem> {
    let view = engine.channel(&principal, &channel).await?;
    Ok(with_etag(&view.etag, &view))
}

async fn set_channel(
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

async fn remove_channel(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(channel): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    headers: HeaderMap,
) -> Result<Json<ChannelView>, Problem> {
    Ok(Json(engine.remove_channel(&principal, &channel, if_match(&headers)).await?))
}
