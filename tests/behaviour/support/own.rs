//! A service that a test defines, and the plugin for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use overseer_engine::outbound::address::AllowedAddress;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::app::{App, Options};

/// A running service that records its requests.
#[derive(Clone)]
pub struct OwnService {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl OwnService {
    pub async fn start(routes: Router) -> Self {
        Self::start_with(|_| routes).await
    }

    /// As [`Self::start`], for routes that need the service's address.
    pub async fn start_with(routes: impl FnOnce(SocketAddr) -> Router) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Self { address, seen: Arc::default() };
        let routes = routes(address).layer(from_fn_with_state(service.clone(), remember));
        tokio::spawn(axum::serve(listener, routes).into_future());
        service
    }

    /// Method and path of every call so far.
    pub fn calls(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }

    pub fn headers(&self) -> Vec<HeaderMap> {
        self.seen.lock().unwrap().iter().map(|(_, headers)| headers.clone()).collect()
    }

    /// An Overseer with the plugin `own` for this service, connected with `own-secret-token`.
    pub async fn app(&self) -> App {
        self.app_with(&crate::support::app::oauth2(), Options::default()).await
    }

    pub async fn app_with(&self, auth: &Value, options: Options) -> App {
        let plugins = vec![manifest(&format!("http://{}", self.address), auth)];
        let app = App::with(Options { plugins, allowed: vec![AllowedAddress::Socket(self.address)], ..options }).await;
        if auth["type"] != "none" {
            app.connect("own", TOKEN).await;
        }
        app
    }
}

pub const TOKEN: &str = "own-secret-token";

async fn remember(State(service): State<OwnService>, request: Request, next: Next) -> Response {
    let call = format!("{} {}", request.method(), request.uri());
    service.seen.lock().unwrap().push((call, request.headers().clone()));
    next.run(request).await
}

/// The plugin `own` with the action `read`, which gets `/{path}`, and the unsafe action `act`, which posts there.
pub fn manifest(base_url: &str, auth: &Value) -> String {
    let host = base_url.split("//").nth(1).unwrap().split(':').next().unwrap();
    let parameters = json!({ "type": "object", "properties": { "path": { "type": "string" } } });
    let error = json!({ "code": "body.code", "message": "body.message" });
    json!({
        "name": "own", "version": "1.0.0", "display_name": "Own", "description": "A service of a test.",
        "runtime": { "type": "http", "base_url": base_url }, "permissions": [format!("network:{host}")], "auth": auth,
        // Most of these tests make the service fail, and must not open the breaker.
        "breaker": { "failures": 100 },
        "actions": [
            { "name": "read", "description": "Reads.", "effect": "read", "parameters": parameters,
              "request": { "path": "/{{ path }}" }, "response": { "error": error } },
            { "name": "act", "description": "Acts.", "effect": "unsafe", "parameters": parameters,
              "request": { "method": "POST", "path": "/{{ path }}", "json": { "a": 1 } },
              "response": { "error": error } },
            { "name": "list", "description": "Lists.", "effect": "read",
              "request": { "path": "/list" }, "paginate": { "cursor": "body.next", "parameter": "at", "items": "body.items" } },
            { "name": "each", "description": "Lists and looks at each.", "effect": "read", "request": { "path": "/list" },
              "paginate": { "cursor": "body.next", "parameter": "at", "items": "body.items" },
              "each": { "request": { "path": "/item/{{ item }}" },
                        "response": { "failed_when": "body.of is defined and body.of != item" } } },
        ],
    })
    .to_string()
}
