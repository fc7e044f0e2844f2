//! `/api/v1/webhooks`: the URLs that receive an organization's events, and the deliveries to them, for its administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use overseer_engine::engine::Engine;
use overseer_engine::events::{ChangeWebhook, DeliveryView, NewWebhook, WebhookView, WebhookWithSecret};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters};
use crate::listing::{Listing, PageQuery, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/v1/webhooks{rest}");
    Routes::new()
        .route(&path(""), get(list_webhooks).post(create_webhook))
        .route(&path("/{id}"), get(get_webhook).patch(change_webhook).delete(delete_webhook))
        .route(&path("/{id}/rotate"), post(rotate_secret))
        .route(&path("/{id}/deliveries"), get(list_deliveries))
        .route(&path("/{id}/deliveries/{delivery}/retry"), post(retry_delivery))
}

/// A webhook with its secret. Only the answers that create the webhook or rotate its secret have it.
#[derive(Serialize)]
struct WebhookSecretBody {
    secret: String,
    #[serde(flatten)]
    view: WebhookView,
}

impl From<WebhookWithSecret> for WebhookSecretBody {
    fn from(WebhookWithSecret { secret, view }: WebhookWithSecret) -> Self {
        Self { secret: secret.expose_secret().to_owned(), view }
    }
}

async fn create_webhook(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewWebhook>,
) -> Result<(StatusCode, Json<WebhookSecretBody>), Problem> {
    let made = engine.create_webhook(&principal, body).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

async fn list_webhooks(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Listing<WebhookView>>, Problem> {
    Ok(Json(Listing::complete("webhooks", engine.list_webhooks(&principal).await?)))
}

async fn get_webhook(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<WebhookView>, Problem> {
    Ok(Json(engine.get_webhook(&principal, &id).await?))
}

async fn change_webhook(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<ChangeWebhook>,
) -> Result<Json<WebhookView>, Problem> {
    Ok(Json(engine.change_webhook(&principal, &id, body).await?))
}

async fn delete_webhook(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<WebhookView>, Problem> {
    Ok(Json(engine.delete_webhook(&principal, &id).await?))
}

async fn rotate_secret(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<WebhookSecretBody>, Problem> {
    Ok(Json(engine.rotate_webhook(&principal, &id).await?.into()))
}

async fn list_deliveries(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(PageQuery { limit, cursor }): Parameters<PageQuery>,
) -> Result<Json<Listing<DeliveryView>>, Problem> {
    let page = engine.list_deliveries(&principal, &id, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::snake_case("deliveries", page)))
}

async fn retry_delivery(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path((id, delivery)): Path<(String, String)>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<DeliveryView>, Problem> {
    Ok(Json(engine.retry_delivery(&principal, &id, &delivery).await?))
}
