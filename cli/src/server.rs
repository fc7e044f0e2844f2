//! The routes of the local server, and the playground in place of services that are not configured.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use overseer_engine::engine::Engine;
use overseer_engine::outbound::address::AllowedAddress;
use overseer_engine::outbound::config::{Config, OauthClient, StandIn};
use overseer_http::{
    Problem, RawResponse, Routes, agents, calls, channels, cron, errors, health, hooks, integrations, intent, keys,
    local_service, mappings, oauth, plugins, registry, runs, tasks, webhooks,
};
use overseer_playground::{CLIENT_ID, CLIENT_SECRET, Playground, Service};
use url::Url;

use crate::pages;

/// Every route, for a server that listens on `address`.
pub fn routes(engine: Arc<Engine>, playground: &Playground, address: SocketAddr) -> Router {
    let routes = Routes::new()
        .merge(health::routes())
        .merge(intent::routes())
        .merge(integrations::routes())
        .merge(keys::routes())
        .merge(webhooks::routes())
        .merge(mappings::routes())
        .merge(oauth::routes())
        .merge(tasks::routes())
        .merge(runs::routes())
        .merge(plugins::routes())
        .merge(registry::routes())
        .merge(calls::routes())
        .merge(channels::routes())
        .merge(agents::routes())
        .merge(hooks::routes())
        .merge(errors::routes())
        .merge(cron::routes())
        .merge(pages::routes())
        // Calls in flight may still need the stand-ins.
        .layer(from_fn_with_state(Arc::clone(&engine), refuse_while_stopping))
        .merge(playground.router().layer(from_fn(log_stand_in)).with_state(()));
    local_service(engine, routes, address.port())
}

async fn refuse_while_stopping(State(engine): State<Arc<Engine>>, request: Request, next: Next) -> Response {
    if engine.is_draining() { Problem::stopping().into_response() } else { next.run(request).await }
}

/// Logs that the playground answered, and keeps its responses as they are, errors too.
async fn log_stand_in(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    tracing::info!("the playground, a stand-in and not the real service, answered {path}");
    response.extensions_mut().insert(RawResponse);
    response
}

/// Points the plugins that have a stand-in at the playground, unless a real client or token is configured. Returns the
/// services that now have a stand-in.
pub fn point_at_playground(config: &mut Config, address: SocketAddr) -> Vec<Service> {
    let mut redirected = Vec::new();
    for (plugin, configured) in &config.services {
        let Ok(service) = plugin.as_str().parse::<Service>() else { continue };
        let real = configured.client.is_some() || configured.token.is_some();
        if real || config.stand_ins.contains_key(plugin) {
            continue;
        }
        if let Ok(stand_in) = stand_in(service, address) {
            config.stand_ins.insert(plugin.clone(), stand_in);
            redirected.push(service);
        }
    }
    if !redirected.is_empty() {
        config.allowed_addresses.push(AllowedAddress::Socket(address));
    }
    redirected
}

fn stand_in(service: Service, address: SocketAddr) -> Result<StandIn, url::ParseError> {
    let url = |path: &str| Url::parse(&format!("http://{address}{path}"));
    let oauth = |step: &str| url(&format!("/playground/oauth/{service}/{step}"));
    Ok(StandIn {
        base_url: url(service.base_path())?,
        authorization_url: oauth("authorize")?,
        token_url: oauth("token")?,
        revocation_url: match service {
            // Slack revokes tokens by a method of its API.
            Service::Slack => url(&format!("{}/auth.revoke", service.base_path()))?,
            Service::Gmail | Service::Notion => oauth("revoke")?,
        },
        client: OauthClient { id: CLIENT_ID.to_owned(), secret: Some(CLIENT_SECRET.into()) },
    })
}
