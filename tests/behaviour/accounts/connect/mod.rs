//! Accounts that a caller connects with a token. Overseer stores the token and never returns it.

pub mod canary;
mod rotating;
mod sealing;

use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use overseer_engine::engine::{Engine, Ports};
use overseer_engine::invoke::runs::RequestOptions;
use overseer_engine::outbound::config::Config;
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::Vault;
use overseer_engine::ports::vault::{SecretId, VaultError};
use overseer_playground::Service;
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use crate::support::app::{Answer, App, Options};

const SLACK: &str = "/api/plugin-engine/integrations/slack/connect";
const INTENTS: &str = "/api/plugin-engine";

async fn unconnected() -> App {
    App::with(Options { unconnected: true, ..Options::default() }).await
}

async fn send(app: &App, alias: Option<&str>) -> Answer {
    let mut body = json!({ "tool": "slack", "intent": "send", "context": { "channel": "#general", "text": "hello" } });
    if let Some(alias) = alias {
        body["integration"] = json!(alias);
    }
    app.post(INTENTS, &body).await
}

#[tokio::test]
async fn account_view_has_no_token() {
    let app = unconnected().await;
    let answer = app.post(SLACK, &json!({ "token": "xoxb-playground" })).await;
    assert_eq!(answer.status, StatusCode::OK);
    let expected = json!({
        "plugin": "slack", "alias": "default", "owner": "user", "userId": "admin", "default": true,
        "state": "active", "since": "2026-11-21T09:00:00Z", "renews": false,
        "scopes": { "wanted": ["chat:write", "channels:read", "channels:history", "groups:read", "groups:history"],
                    "missing": [] },
        "createdAt": "2026-11-21T09:00:00Z", "updatedAt": "2026-11-21T09:00:00Z",
    });
    assert_eq!(answer.json(), expected);
    send(&app, None).await.data();
}

#[tokio::test]
async fn token_length_has_edges() {
    let app = unconnected().await;
    for token in ["x".repeat(8), "!~\"\\'<>&%{{}}".to_owned()] {
        app.playground.accept_token(Service::Slack, &token);
        assert_eq!(app.post(SLACK, &json!({ "token": token })).await.status, StatusCode::OK);
        send(&app, None).await.data();
    }
    for token in [
        String::new(),
        "x".repeat(7),
        "x".repeat(16_385),
        "with a space".to_owned(),
        " leading".to_owned(),
        "trailing\n".to_owned(),
        "header\r\nX-Injected: 1".to_owned(),
        "nul\u{0}bytes".to_owned(),
        "tökenäöü".to_owned(),
        "\u{7f}deleted".to_owned(),
    ] {
        let answer = app.post(SLACK, &json!({ "token": token })).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{token}");
        assert_eq!(answer.pointers(), ["/token"]);
        assert!(token.len() < 8 || !answer.text.contains(token.trim()), "{}", answer.text);
    }
    // What was there is still there.
    send(&app, None).await.data();
}

/// The longest token that is taken, made of a piece again and again.
async fn longest(piece: &str) {
    let app = unconnected().await;
    let token: String = piece.chars().cycle().take(16_384).collect();
    app.playground.accept_token(Service::Slack, &token);
    assert_eq!(app.post(SLACK, &json!({ "token": token })).await.status, StatusCode::OK);
    send(&app, None).await.data();
}

#[tokio::test]
async fn longest_token_is_accepted() {
    // As random as tokens are.
    let mut state = 1_u64;
    let next = move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 40) % 26).unwrap())
    };
    longest(&(0..16_384).map(next).collect::<String>()).await;
}

#[tokio::test]
async fn repetitive_long_token_is_redacted() {
    longest("x").await;
}

#[tokio::test]
async fn invalid_connect_body_lists_every_problem() {
    let app = unconnected().await;
    for (body, pointers) in [
        (json!({ "token": ["xoxb-secret-canary"] }), vec!["/token"]),
        (json!({ "token": 1_234_567_890 }), vec!["/token"]),
        (json!({ "Token": "xoxb-secret-canary" }), vec!["/Token"]),
        (json!({ "token": "xoxb-secret-canary", "refresh_token": "xoxb-secret-canary" }), vec!["/refresh_token"]),
        (json!({ "token": "xoxb-secret-canary", "alias": "Work" }), vec!["/alias"]),
        (json!({ "token": 5, "alias": "", "userId": "" }), vec!["/alias", "/token", "/userId"]),
    ] {
        let answer = app.post(SLACK, &body).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{body}");
        assert_eq!(answer.pointers(), pointers, "{body}");
        assert!(!answer.text.contains("canary"), "{}", answer.text);
    }
    assert_eq!(send(&app, None).await.failure(), "not_connected");
}

#[tokio::test]
async fn short_token_is_a_problem_of_its_own() {
    let app = unconnected().await;
    let answer = app.post(SLACK, &json!({ "token": "short", "alias": "Work" })).await;
    assert_eq!(answer.problem(400), "invalid_parameters");
    assert_eq!(answer.pointers(), ["/alias", "/token"]);
}

#[tokio::test]
async fn plugin_without_accounts_cannot_be_connected() {
    let open = r#"{"name": "open", "version": "0.1.0", "display_name": "Open", "description": "d",
        "runtime": {"type": "http", "base_url": "https://open.example"}, "permissions": ["network:open.example"],
        "actions": [{"name": "a", "description": "d", "effect": "read", "request": {"path": "/"}}]}"#;
    let app = App::with(Options { plugins: vec![open.to_owned()], unconnected: true, ..Options::default() }).await;
    let token = json!({ "token": "xoxb-playground" });
    let answer = app.post("/api/plugin-engine/integrations/open/connect", &token).await;
    assert_eq!(answer.problem(400), "invalid_parameters");
    for (name, meant) in [("slak", Some("slack")), ("Slack", Some("slack")), ("quux", None), ("..%2fkeys", None)] {
        let answer = app.post(&format!("/api/plugin-engine/integrations/{name}/connect"), &token).await;
        assert_eq!(answer.problem(404), "unknown_plugin");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(meant.is_none_or(|meant| detail.contains(meant)), "{detail}");
    }
    let answer = app.post(&format!("{SLACK}?alias=work"), &token).await;
    assert_eq!(answer.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn intent_uses_the_named_account() {
    let app = App::start().await;
    for (alias, token) in [("work", "xoxb-of-work"), ("home", "xoxb-of-home")] {
        let answer = app.post(SLACK, &json!({ "token": token, "alias": alias })).await;
        assert_eq!(answer.json()["alias"], alias);
    }
    // Only the token of `work` is valid: the answers tell the accounts apart.
    app.playground.accept_token(Service::Slack, "xoxb-of-work");
    send(&app, Some("work")).await.data();
    assert_eq!(send(&app, Some("home")).await.failure(), "reconnect_required");
    send(&app, None).await.data();
    send(&app, Some("default")).await.data();
    let answer = send(&app, Some("elsewhere")).await;
    assert_eq!(answer.failure(), "not_connected");
    assert!(answer.json()["message"].as_str().unwrap().contains("elsewhere"));
}

#[tokio::test]
async fn replaced_token_is_used_at_once() {
    let app = App::start().await;
    let catalog = Catalog::built_in();
    let mut config = Config::read(&catalog, |_| None).unwrap();
    overseer::server::point_at_playground(&mut config, app.address);
    let second = Engine::new(app.engine.ports.clone(), catalog, config).unwrap();
    let principal = app.engine.authenticate(&SecretString::from(app.admin.as_str())).await.unwrap();
    let intent = json!({ "tool": "slack", "intent": "send", "context": { "channel": "#general", "text": "hello" } });
    let on_second = async || {
        let intent = serde_json::from_value(intent.clone()).unwrap();
        second
            .execute(principal.clone(), intent, RequestOptions::default())
            .await
            .unwrap()
            .answer
            .result
            .map_err(|failure| failure.code)
    };
    assert!(on_second().await.is_ok());
    send(&app, None).await.data();

    app.clock.advance(60);
    let answer = app.post(SLACK, &json!({ "token": "xoxb-of-tomorrow" })).await.json();
    assert_eq!(
        (&answer["createdAt"], &answer["updatedAt"]),
        (&json!("2026-11-21T09:00:00Z"), &json!("2026-11-21T09:01:00Z"))
    );
    assert_eq!(send(&app, None).await.failure(), "reconnect_required");
    assert!(on_second().await.is_err());
    app.playground.accept_token(Service::Slack, "xoxb-of-tomorrow");
    send(&app, None).await.data();
    assert!(on_second().await.is_ok());
}

#[tokio::test]
async fn concurrent_connections_leave_one_account() {
    let app = App::start().await;
    let tokens: Vec<String> = (0..20).map(|number| format!("xoxb-number-{number}")).collect();
    for token in &tokens {
        app.playground.accept_token(Service::Slack, token);
    }
    let bodies: Vec<Value> = tokens.iter().map(|token| json!({ "token": token })).collect();
    let all = bodies.iter().map(|body| app.post(SLACK, body));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    send(&app, None).await.data();
}

/// A vault whose writing waits for a gate.
struct Gated {
    inner: Arc<dyn Vault>,
    arrived: Notify,
    gate: Notify,
}

#[async_trait]
impl Vault for Gated {
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError> {
        self.inner.put(id, version, secret).await?;
        self.arrived.notify_one();
        self.gate.notified().await;
        Ok(())
    }

    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError> {
        self.inner.get(id, version).await
    }

    async fn delete_version(&self, id: &SecretId, version: &str) -> Result<(), VaultError> {
        self.inner.delete_version(id, version).await
    }

    async fn delete(&self, id: &SecretId) -> Result<(), VaultError> {
        self.inner.delete(id).await
    }
}

#[tokio::test]
async fn client_hangup_leaves_no_half_connected_account() {
    let app = unconnected().await;
    let inner = app.engine.ports.vault.clone();
    let gated = Arc::new(Gated { inner, arrived: Notify::new(), gate: Notify::new() });
    let ports = Ports { vault: gated.clone(), ..app.engine.ports.clone() };
    let engine = Engine::new(ports, app.engine.catalog.clone(), app.engine.config.clone()).unwrap();
    let request = Request::builder()
        .method(Method::POST)
        .uri(SLACK)
        .header("authorization", format!("Bearer {}", app.admin))
        .header("content-type", "application/json")
        .body(Body::from("{\"token\": \"xoxb-playground\"}"))
        .unwrap();
    {
        let answering = overseer_http::service(engine.clone(), overseer_http::integrations::routes()).oneshot(request);
        let mut answering = pin!(answering);
        tokio::select! {
            answer = &mut answering => panic!("answered too early: {answer:?}"),
            () = gated.arrived.notified() => {}
        }
    }
    gated.gate.notify_one();
    engine.drain().await;
    // The token is in the vault: Overseer must write the record that names it, or nothing would ever delete it.
    send(&app, None).await.data();
}
