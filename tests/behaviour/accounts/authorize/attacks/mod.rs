//! Attacks with links, states, codes and providers: Overseer refuses each with a page that names the remedy, and stores
//! nothing. The test runs its own providers and records their requests.

mod between;
mod callback;
mod cancelling;
mod mixup;
mod return_to;
mod start;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use overseer_engine::outbound::address::AllowedAddress;
use overseer_engine::ports::table::Key;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::form_urlencoded;

use super::{Browser, accounts, consent, leads_to, link, parameter};
use crate::support::app::{Answer, App, Options};

const NOT_KNOWN: &str = "This link is not valid";
const OTHER_BROWSER: &str = "This browser did not start this connection";
const OTHER_PROVIDER: &str = "did not come from the service that was asked";
const CHANGED: &str = "was changed after this connection was started";

/// A provider as RFC 6749 and 7636 have it: a code serves once, with its request's redirect URI and verifier.
#[derive(Clone)]
struct Provider {
    name: &'static str,
    address: SocketAddr,
    /// Codes, with the authorization request that each was given for.
    granted: Arc<Mutex<HashMap<String, String>>>,
    /// Every request for tokens, as it came: `Authorization` and the body.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Provider {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Self { name, address, granted: Arc::default(), asked: Arc::default() };
        let itself = provider.clone();
        let token = post(async move |headers: HeaderMap, body: String| itself.token(&headers, &body));
        tokio::spawn(axum::serve(listener, Router::new().route("/token", token)).into_future());
        provider
    }

    /// A plugin whose accounts are at this provider.
    fn manifest(&self, more: &Value) -> String {
        let base = format!("http://{}", self.address);
        let mut auth = json!({ "type": "oauth2", "authorization_url": format!("{base}/authorize"),
                               "token_url": format!("{base}/token") });
        auth.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let action = json!({ "name": "say", "description": "d", "effect": "read", "request": { "path": "/" } });
        json!({
            "name": self.name, "version": "1.0.0", "display_name": self.name, "description": "d",
            "runtime": { "type": "http", "base_url": base }, "permissions": ["network:127.0.0.1"],
            "auth": auth, "actions": [action],
        })
        .to_string()
    }

    /// A user allows an authorization request: the code, unless the redirect URI is another than was registered.
    fn grant(&self, request: &str) -> Option<String> {
        let registered = format!("/api/plugin-engine/oauth/callback/{}", self.name);
        let redirect_uri: url::Url = parameter(request, "redirect_uri").unwrap().parse().unwrap();
        let mut granted = self.granted.lock().unwrap();
        let code = format!("code-{}-{}", self.name, granted.len());
        granted.insert(code.clone(), request.to_owned());
        (redirect_uri.path() == registered).then_some(code)
    }

    fn token(&self, headers: &HeaderMap, body: &str) -> (StatusCode, String) {
        let authorization = headers.get("authorization").map(|value| value.to_str().unwrap()).unwrap_or_default();
        self.asked.lock().unwrap().push(format!("{authorization} {body}"));
        let fields: HashMap<_, _> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let code = fields.get("code").cloned().unwrap_or_default();
        let request = self.granted.lock().unwrap().remove(&code);
        let proven = request.is_some_and(|request| {
            let verifier = fields.get("code_verifier").cloned().unwrap_or_default();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
            parameter(&request, "code_challenge") == Some(URL_SAFE_NO_PAD.encode(digest))
                && parameter(&request, "redirect_uri").as_ref() == fields.get("redirect_uri")
        });
        if !proven {
            return (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }).to_string());
        }
        let tokens = json!({ "access_token": format!("access-{code}"), "refresh_token": format!("refresh-{code}"),
                             "token_type": "bearer", "expires_in": 3600 });
        (StatusCode::OK, tokens.to_string())
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// An Overseer with two providers.
struct Stage {
    app: App,
    honest: Provider,
    other: Provider,
    /// The keys stored before the first connection.
    before: Vec<Key>,
}

impl Stage {
    async fn new() -> Self {
        Self::with(&json!({}), &json!({ "clientId": "overseer" })).await
    }

    /// With more in the honest manifest's `auth`, and the organization's client at both providers.
    async fn with(auth: &Value, client: &Value) -> Self {
        let (honest, other) = (Provider::start("honest").await, Provider::start("other").await);
        let app = App::with(Options {
            plugins: vec![honest.manifest(auth), other.manifest(&json!({}))],
            allowed: [&honest, &other].map(|provider| AllowedAddress::Socket(provider.address)).to_vec(),
            unconnected: true,
            return_to: vec!["https://agent.example/done".to_owned()],
            ..Options::default()
        })
        .await;
        for plugin in ["honest", "other"] {
            set_client(&app, plugin, client).await;
        }
        let before = kept(&app).await;
        Self { app, honest, other, before }
    }

    fn provider(&self, plugin: &str) -> &Provider {
        if plugin == "honest" { &self.honest } else { &self.other }
    }

    /// A new browser that was at the provider and was given a code.
    async fn flow(&self, plugin: &str, body: &Value) -> Flow<'_> {
        let link = link(&self.app, plugin, body).await;
        self.flow_of(plugin, &link, Browser::new(&self.app)).await
    }

    async fn flow_of<'a>(&self, plugin: &str, link: &str, mut browser: Browser<'a>) -> Flow<'a> {
        let request = browser.go(link).await;
        Flow {
            ticket: link.rsplit('/').next().unwrap().to_owned(),
            state: parameter(&request, "state").unwrap(),
            back: parameter(&request, "redirect_uri").unwrap(),
            code: self.provider(plugin).grant(&request).unwrap(),
            browser,
            request,
        }
    }

    /// Checks that an answer is a page that says why and what to do, and that nothing is kept.
    async fn refused(&self, answer: &Answer, status: u16, says: &str, flow: &Flow<'_>) {
        is_page(answer, status, says, flow);
        assert_eq!(kept(&self.app).await, self.before, "something was kept: {}", answer.text);
    }
}

/// A browser on its way back.
struct Flow<'a> {
    browser: Browser<'a>,
    ticket: String,
    /// Where the browser was sent.
    request: String,
    state: String,
    /// Where it is to come back to.
    back: String,
    code: String,
}

impl Flow<'_> {
    /// The provider's answer.
    fn answer(&self) -> String {
        self.with(&[("code", &self.code), ("state", &self.state)])
    }

    fn with(&self, parameters: &[(&str, &str)]) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        format!("{}?{query}", self.back)
    }

    /// The rightful browser comes back with the right answer.
    async fn finish(&mut self) -> Answer {
        let url = self.answer();
        self.browser.open(&url).await
    }

    async fn finishes(&mut self) {
        let answer = self.finish().await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert!(answer.text.contains("is connected"), "{}", answer.text);
    }
}

/// A page for a person, which says why, and what to do, and nothing that is secret.
#[track_caller]
fn is_page(answer: &Answer, status: u16, says: &str, flow: &Flow<'_>) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8", "{}", answer.text);
    assert!(answer.text.contains(says), "{says}: {}", answer.text);
    assert!(answer.text.contains("No account was connected. Go back to where you started"), "{}", answer.text);
    let all = format!("{:?} {}", answer.headers, answer.text);
    let cookie = flow.browser.cookie.as_deref().and_then(|cookie| cookie.split('=').nth(1));
    for secret in [&flow.ticket, &flow.state, &flow.code].map(String::as_str).into_iter().chain(cookie) {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    for begin in ["access-code", "refresh-code"] {
        assert!(!all.contains(begin), "{all}");
    }
    assert!(answer.headers.get("location").is_none() && answer.headers["cache-control"] == "no-store");
}

async fn set_client(app: &App, plugin: &str, client: &Value) {
    let path = format!("/api/plugin-engine/integrations/{plugin}/client");
    let answer = app.send(&app.admin, Method::PUT, &path, Some(client)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

/// What is kept of accounts: their records, those that wait to be confirmed, and secrets.
async fn kept(app: &App) -> Vec<Key> {
    let of_accounts = |key: &Key| {
        let kinds = ["#secret#", "#pending"].iter().any(|kind| key.partition.contains(kind));
        kinds || key.sort.starts_with("integrations#")
    };
    app.table.items().await.into_iter().filter(of_accounts).collect()
}
