//! `/api/v1/keys`: API keys, for administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use overseer_engine::access::api_keys::{ApiKeyView, NewApiKey};
use overseer_engine::access::principal::Role;
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::KeyId;
use overseer_engine::engine::Engine;
use overseer_engine::ports::table::Cursor;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/api/v1/keys", get(list).post(create)).route("/api/v1/keys/{id}", delete(revoke))
}

/// A key as it is shown once, to the one who made it.
#[derive(Serialize)]
struct Created {
    key: String,
    #[serde(flatten)]
    view: ApiKeyView,
}

async fn create(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewApiKey>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    principal.must_administer()?;
    if body.roles.contains(&Role::PlatformAdministrator) {
        principal.must_administer_platform()?;
    }
    let (key, view) = engine.create_api_key(&principal.org, body).await?;
    Ok((StatusCode::CREATED, Json(Created { key: key.expose_secret().to_owned(), view })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiKeyListQuery {
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

#[derive(Serialize)]
struct Listed {
    keys: Vec<ApiKeyView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(ApiKeyListQuery { limit, cursor }): Parameters<ApiKeyListQuery>,
) -> Result<Json<Listed>, Problem> {
    let page = engine.list_api_keys(&principal, page_size(limit)?, cursor).await?;
    Ok(Json(Listed { keys: page.entries, next_cursor: page.next }))
}

async fn revoke(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<ApiKeyView>, Problem> {
    // An id that no key can have is one that no key has.
    let id = KeyId::parse(id).map_err(|_| Error::NotFound("API key"))?;
    Ok(Json(engine.revoke_api_key(principal, id).await?))
}
