//! `/api/v1/webhooks`: where an organization wants to be told of events, for its administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use overseer_engine::engine::Engine;
use overseer_engine::events::{ChangeWebhook, DeliveryView, NewWebhook, WebhookView, WebhookWithSecret};
use overseer_engine::ports::table::Cursor;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::input::{JsonBody, NoParameters, Parameters, page_size};
use crate::{Problem, Routes};

/// The routes.
pub fn routes() -> Routes {
    let path = |rest: &str| format!("/api/v1/webhooks{rest}");
    Routes::new()
        .route(&path(""), get(list).post(create))
        .route(&path("/{id}"), get(get_one).patch(change).delete(remove))
        .route(&path("/{id}/rotate"), post(rotate))
        .route(&path("/{id}/deliveries"), get(deliveries))
        .route(&path("/{id}/deliveries/{delivery}/retry"), post(retry))
}

/// A webhook as it is shown once, to the one who made it or its new secret.
#[derive(Serialize)]
struct Made {
    secret: String,
    #[serde(flatten)]
    view: WebhookView,
}

impl From<WebhookWithSecret> for Made {
    fn from(WebhookWithSecret { secret, view }: WebhookWithSecret) -> Self {
        Self { secret: secret.expose_secret().to_owned(), view }
    }
}

async fn create(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<NewWebhook>,
) -> Result<(StatusCode, Json<Made>), Problem> {
    let made = engine.create_webhook(&principal, body).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

#[derive(Serialize)]
struct Listed {
    webhooks: Vec<WebhookView>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Listed>, Problem> {
    Ok(Json(Listed { webhooks: engine.list_webhooks(&principal).await? }))
}

async fn get_one(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<WebhookView>, Problem> {
    Ok(Json(engine.get_webhook(&principal, &id).await?))
}

async fn change(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(body): JsonBody<ChangeWebhook>,
) -> Result<Json<WebhookView>, Problem> {
    Ok(Json(engine.change_webhook(&principal, &id, body).await?))
}

async fn remove(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<WebhookView>, Problem> {
    Ok(Json(engine.delete_webhook(&principal, &id).await?))
}

async fn rotate(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<Made>, Problem> {
    Ok(Json(engine.rotate_webhook(&principal, &id).await?.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeliveryListQuery {
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

#[derive(Serialize)]
struct Deliveries {
    deliveries: Vec<DeliveryView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn deliveries(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(id): Path<String>,
    Parameters(DeliveryListQuery { limit, cursor }): Parameters<DeliveryListQuery>,
) -> Result<Json<Deliveries>, Problem> {
    let page = engine.list_deliveries(&principal, &id, page_size(limit)?, cursor).await?;
    Ok(Json(Deliveries { deliveries: page.entries, next_cursor: page.next }))
}

async fn retry(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path((id, delivery)): Path<(String, String)>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Json<DeliveryView>, Problem> {
    Ok(Json(engine.retry_delivery(&principal, &id, &delivery).await?))
}
