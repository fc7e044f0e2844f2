//! The Lambda of `/api/v1/keys` and `/api/v1/webhooks`: API keys, and the other thing that administrators make and that is
//! shown once. It makes the first one, too, for whoever may invoke the function itself: an
//! event `{"setup": {"organization": "acme"}}`, which no gateway can send, since a gateway wraps what it is sent.

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

/// What an event has to be.
const EXPECTED: &str = "expected an event of an HTTP API, or {\"setup\": {\"organization\", \"key\"?: {\"name\", \
                        \"roles\", \"user_id\"?}}}";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let lambda = Lambda::start().await?;
    lambda_runtime::run(service_fn(|event| answer(&lambda, event))).await
}

/// An event that is none of a gateway's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    setup: Setup,
}

/// An organization to make, if it is not there, and a key of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setup {
    organization: OrgId,
    /// Left out, an administrator's that is bound to no user.
    key: Option<NewApiKey>,
}

async fn answer(lambda: &Arc<Lambda>, event: LambdaEvent<Value>) -> Result<Value, Error> {
    let LambdaEvent { payload, context } = event;
    let wrong = |error| format!("{EXPECTED}: {error}");
    if payload.get("requestContext").is_some() {
        let request = LambdaRequest::deserialize(payload).map_err(wrong)?;
        return lambda.answer(keys::routes().merge(webhooks::routes()), request, context).await;
    }
    let Own { setup } = Own::deserialize(payload).map_err(wrong)?;
    set_up(lambda, setup).await
}

/// Makes the organization and the key, which the answer has and nothing else.
async fn set_up(lambda: &Lambda, setup: Setup) -> Result<Value, Error> {
    let Setup { organization, key } = setup;
    let said = |error: overseer_engine::core::error::Error| {
        tracing::error!(error = %causes(&error), "no key was made");
        error.to_string()
    };
    let new = key.unwrap_or_else(|| NewApiKey {
        name: "Made at the setup".to_owned(),
        roles: BTreeSet::from([Role::Administrator]),
        user_id: None,
        channel: None,
        agent_id: None,
    });
    lambda.engine.create_organization(&organization).await.map_err(said)?;
    let (key, view) = lambda.engine.create_api_key(&organization, new).await.map_err(said)?;
    tracing::info!(org = %organization, id = %view.id, "a key was made");
    Ok(json!({ "organization": organization, "id": view.id, "key": key.expose_secret() }))
}
