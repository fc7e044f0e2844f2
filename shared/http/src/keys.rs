//! `/api/v1/keys`: API keys, for administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use overseer_engine::access::api_keys::{ApiKeyView, NewApiKey};
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::KeyId;
use overseer_engine::engine::Engine;
use secrecy::ExposeSecret;
use serde::Serialize;

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::listing::{Listing, PageQuery, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/v1/keys", get(list_keys).post(create_key)).route("/api/v1/keys/{id}", delete(revoke_key))
}

/// A new key. Only this answer contains the key itself.
#[derive(Serialize)]
struct CreatedKey {
    key: String,
    #[serde(flatten)]
    view: ApiKeyView,
}

async fn create_key(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewApiKey>,
) -> Result<(StatusCode, Json<CreatedKey>), Problem> {
    principal.must_grant(&body.roles)?;
    let (key, view) = engine.create_api_key(&principal.org, body).await?;
    Ok((StatusCode::CREATED, Json(CreatedKey { key: key.expose_secret().to_owned(), view })))
}

async fn list_keys(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(PageQuery { limit, cursor }): Parameters<PageQuery>,
) -> Result<Json<Listing<ApiKeyView>>, Problem> {
    let page = engine.list_api_keys(&principal, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::snake_case("keys", page)))
}

async fn revoke_key(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<ApiKeyView>, Problem> {
    // A malformed id is not found, like an unknown one.
    let id = KeyId::parse(id).map_err(|_| Error::NotFound("API key"))?;
    Ok(Json(engine.revoke_api_key(principal, id).await?))
}
