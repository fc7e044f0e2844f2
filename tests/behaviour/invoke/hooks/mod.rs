//! Hooks: Overseer asks plugins before and after calls, on failures, and on reports of agents.

mod around;
mod managing;
mod operators;
mod policy;
mod reporting;
mod results;
mod secrets;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use overseer_engine::outbound::address::AllowedAddress;
use reqwest::Method;
use serde_json::{Value, json};

use crate::events::webhooks::{Got, Receiver};
use crate::support::app::{Answer, App, Options};
use crate::support::own::{OwnService, TOKEN, manifest};

const INTENTS: &str = "/api/plugin-engine";
const GUARD: &str = "/api/v1/plugins/guard";

/// An Overseer with the plugin `own`, its service, and a server that is asked by hooks.
struct Bench {
    app: App,
    service: OwnService,
    receiver: Receiver,
}

/// The service answers with the status that the path names, with what it was sent, or never.
async fn answer(Path(path): Path<String>, body: String) -> Response {
    if path == "never" {
        std::future::pending::<()>().await;
    }
    match path.parse::<u16>() {
        Ok(status) => {
            (StatusCode::from_u16(status).unwrap(), r#"{"code": "no", "message": "not like that"}"#).into_response()
        }
        Err(_) => json!({ "path": path, "body": body }).to_string().into_response(),
    }
}

impl Bench {
    async fn start() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let service = OwnService::start(Router::new().route("/{path}", any(answer))).await;
        let receiver = Receiver::start().await;
        let plugins = vec![manifest(&format!("http://{}", service.address), &crate::support::app::oauth2())];
        let allowed = vec![AllowedAddress::Socket(service.address), AllowedAddress::Socket(receiver.address)];
        let app = App::with(Options { plugins, allowed, unconnected: true, ..options }).await;
        app.connect("own", TOKEN).await;
        Self { app, service, receiver }
    }

    /// A plugin that has hooks and nothing else.
    fn guard(&self, name: &str, version: &str, hooks: &Value) -> Value {
        json!({
            "name": name, "version": version, "display_name": "The guard", "description": "Watches.",
            "runtime": { "type": "http", "base_url": self.receiver.url(&format!("/{name}")) },
            "permissions": ["network:127.0.0.1"], "hooks": hooks,
            "config_schema": { "type": "object", "properties": {
                "level": { "type": "integer", "default": 1 }, "code": { "type": "string", "writeOnly": true } } },
        })
    }

    async fn ok(&self, method: Method, path: &str, body: &Value) -> Value {
        let answer = self.app.send(&self.app.admin, method.clone(), path, Some(body)).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
        answer.json()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ok(Method::POST, path, &body).await
    }

    /// Registers a plugin, enables it, makes the secret of its hooks, and grants all that it asks for. Gives the secret.
    async fn install(&self, manifest: &Value) -> String {
        let path = format!("/api/v1/plugins/{}", manifest["name"].as_str().unwrap());
        self.post("/plugins", manifest.clone()).await;
        self.post(&format!("{path}/enable"), json!({})).await;
        let secret = self.post(&format!("{path}/hook-secret"), json!({})).await["secret"].as_str().unwrap().to_owned();
        self.grant(manifest["name"].as_str().unwrap()).await;
        secret
    }

    async fn grant(&self, name: &str) {
        let path = format!("/api/v1/plugins/{name}");
        let shown = self.app.get(&path).await.json();
        let all = [&shown["permissions"], &shown["to_grant"]];
        let all: Vec<_> = all.iter().flat_map(|list| list.as_array().cloned().unwrap_or_default()).collect();
        self.ok(Method::PATCH, &path, &json!({ "permissions": all })).await;
    }

    /// An intent with an effect.
    async fn act(&self, path: &str) -> Answer {
        self.app.intend("own", "act", json!({ "path": path })).await
    }

    fn decides(&self, answer: &Value) {
        self.receiver.answer(answer.to_string());
    }

    /// The hooks that were asked, by their paths.
    fn asked(&self) -> Vec<String> {
        self.receiver.got().into_iter().map(|got| got.path).collect()
    }

    fn last(&self) -> Got {
        self.receiver.got().pop().expect("no hook was asked")
    }

    /// The failures of a plugin, the newest first.
    async fn errors(&self, tool: &str) -> Vec<Value> {
        let listed = self.app.get(&format!("/api/plugin-engine/errors?tool={tool}")).await.json();
        listed["errors"].as_array().unwrap().clone()
    }
}
