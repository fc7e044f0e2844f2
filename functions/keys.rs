//! The Lambda of `/api/v1/keys` and `/api/v1/webhooks`, where administrators create API keys and webhooks. Both have a secret
//! that is shown once.
//!
//! An operator who may invoke the function itself creates an organization's first key with the event
//! `{"setup": {"organization": "acme"}}`. No gateway can send it, because a gateway wraps requests in an event of its format.

use std::collections::BTreeSet;
use std::sync::Arc;

use lambda_http::request::LambdaRequest;
use lambda_http::{Error, LambdaEvent, lambda_runtime, service_fn};
use overseer_engine::access::api_keys::NewApiKey;
use overseer_engine::access::principal::Role;
use overseer_engine::core::error::causes;
use overseer_engine::core::ids::OrgId;
use overseer_functions::Lambda;
use overseer_http::{keys, webhooks};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};

/// What the function accepts, for error messages.
const EXPECTED: &str = "expected an event of an HTTP API, or {\"setup\": {\"organization\", \"key\"?: {\"name\", \
                        \"roles\", \"user_id\"?}}}";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let lambda = Lambda::start().await?;
    lambda_runtime::run(service_fn(|event| answer(&lambda, event))).await
}

/// An event that no gateway sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetupEvent {
    setup: Setup,
}

/// An organization to create, if it does not exist, and a key for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setup {
    organization: OrgId,
    /// Left out: an administrator's key that is bound to no user.
    key: Option<NewApiKey>,
}

async fn answer(lambda: &Arc<Lambda>, event: LambdaEvent<Value>) -> Result<Value, Error> {
    let LambdaEvent { payload, context } = event;
    let invalid = |error| format!("{EXPECTED}: {error}");
    if payload.get("requestContext").is_some() {
        let request = LambdaRequest::deserialize(payload).map_err(invalid)?;
        return lambda.answer(keys::routes().merge(webhooks::routes()), request, context).await;
    }
    let SetupEvent { setup } = SetupEvent::deserialize(payload).map_err(invalid)?;
    set_up(lambda, setup).await
}

/// Creates the organization and the key. The key is only in the answer: it is neither logged nor stored in clear.
async fn set_up(lambda: &Lambda, setup: Setup) -> Result<Value, Error> {
    let Setup { organization, key } = setup;
    let message = |error: overseer_engine::core::error::Error| {
        tracing::error!(error = %causes(&error), "failed to create API key");
        error.to_string()
    };
    let new = key.unwrap_or_else(|| NewApiKey {
        name: "Made at the setup".to_owned(),
        roles: BTreeSet::from([Role::Administrator]),
        user_id: None,
        channel: None,
        agent_id: None,
    });
    lambda.engine.create_organization(&organization).await.map_err(message)?;
    let (key, view) = lambda.engine.create_api_key(&organization, new).await.map_err(message)?;
    tracing::info!(org = %organization, id = %view.id, "API key created");
    Ok(json!({ "organization": organization, "id": view.id, "key": key.expose_secret() }))
}
