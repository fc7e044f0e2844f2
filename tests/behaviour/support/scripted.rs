//! A service that follows a test's script, and a plugin for it with an action of each effect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use overseer_engine::access::principal::Principal;
use overseer_engine::outbound::address::AllowedAddress;
use serde_json::{Value, json};

use crate::support::app::{App, Options};
use crate::support::hooked::Gate;
use crate::support::own::OwnService;

/// What the service does with a call.
pub enum Does {
    /// Closes the connection without a response.
    BreaksOff,
    /// Answers with this status and body.
    Says(u16, Value),
    /// Answers with this status once the test opens the gate.
    Waits(u16),
}

/// Answers with this status and an empty object.
pub fn says(status: u16) -> Does {
    Does::Says(status, json!({}))
}

/// The service, and an Overseer with the plugin `own` for it.
pub struct Scripted {
    pub app: App,
    pub service: OwnService,
    /// The gate of [`Does::Waits`].
    pub gate: Arc<Gate>,
}

struct Script {
    calls: AtomicUsize,
    does: Vec<Does>,
    gate: Arc<Gate>,
}

async fn act(State(script): State<Arc<Script>>) -> Response {
    let call = script.calls.fetch_add(1, Ordering::SeqCst).min(script.does.len() - 1);
    let nothing = json!({});
    let (status, body) = match &script.does[call] {
        // Unlike a panic, this prints nothing.
        Does::BreaksOff => std::panic::resume_unwind(Box::new(())),
        Does::Says(status, body) => (status, body),
        Does::Waits(status) => {
            script.gate.pass().await;
            (status, &nothing)
        }
    };
    (StatusCode::from_u16(*status).unwrap(), body.to_string()).into_response()
}

/// Each action has the name of its effect. `code` is a secret.
fn plugin(address: SocketAddr, breaker: &Value) -> String {
    let action = |effect: &str| {
        let key = json!({ "idempotency-key": "{{ idempotency_key }}" });
        json!({
            "name": effect, "description": "Acts.", "effect": effect,
            "parameters": { "type": "object", "properties": { "code": { "type": "string", "x-secret": true } } },
            "request": { "method": "POST", "path": "/act", "headers": if effect == "keyed" { key } else { json!({}) },
                         "json": { "code": "{{ code }}" } },
            "response": { "external_id": "body.id",
                          "error": { "code": "body.code", "message": "body.message",
                                     "map": { "unsure": "outcome_unknown" } } },
        })
    };
    let actions = ["read", "idempotent", "keyed", "unsafe"].map(action);
    json!({
        "name": "own", "version": "1.0.0", "display_name": "Own", "description": "A service of a test.",
        "runtime": { "type": "http", "base_url": format!("http://{address}") },
        "permissions": ["network:127.0.0.1"], "auth": { "type": "none" }, "breaker": breaker,
        "actions": actions,
    })
    .to_string()
}

/// An intent for the action of this effect.
pub fn act_as(effect: &str) -> Value {
    json!({ "tool": "own", "intent": effect })
}

impl Scripted {
    /// The last entry also applies to every later call.
    pub async fn start(does: Vec<Does>) -> Self {
        Self::with_breaker(does, &json!({ "failures": 100 })).await
    }

    pub async fn with_breaker(does: Vec<Does>, breaker: &Value) -> Self {
        let gate = Arc::new(Gate::default());
        let script = Arc::new(Script { calls: AtomicUsize::new(0), does, gate: gate.clone() });
        let service = OwnService::start(Router::new().fallback(any(act)).with_state(script)).await;
        let plugins = vec![plugin(service.address, breaker)];
        let allowed = vec![AllowedAddress::Socket(service.address)];
        let app = App::with(Options { plugins, allowed, unconnected: true, ..Options::default() }).await;
        Self { app, service, gate }
    }

    /// How often the service was called.
    pub fn calls(&self) -> usize {
        self.service.calls().len()
    }

    /// The administrator's principal, for direct calls of the engine.
    pub async fn principal(&self) -> Principal {
        self.app.engine.authenticate(&self.app.admin.as_str().into()).await.unwrap()
    }

    /// The latest run.
    pub async fn run(&self) -> Value {
        self.app.get("/api/plugin-engine/runs").await.json()["runs"][0].clone()
    }

    /// Resolves the latest run as this state, as a person does who checked the service. Returns the run's new state.
    pub async fn resolve(&self, outcome: &str) -> Value {
        let run = self.run().await;
        let path = format!("/api/plugin-engine/runs/{}/resolve", run["id"].as_str().unwrap());
        self.app.post(&path, &json!({ "as": outcome })).await.json()["state"].clone()
    }
}
