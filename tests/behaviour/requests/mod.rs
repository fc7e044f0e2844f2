//! Invalid requests, and the problems that callers get for them.

mod bodies;
mod callers;
mod guard;
mod names;

use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use overseer_http::{Routes, service};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::support::app::{Answer, App, refused};

const INTENTS: &str = "/api/plugin-engine";

fn hello() -> Value {
    json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0PLAYGEN1", "text": "hello" } })
}

/// Sends an unmodified body with the administrator's key.
async fn post_text(app: &App, path: &str, text: impl Into<reqwest::Body>) -> Answer {
    let request = app.request(Method::POST, path).bearer_auth(&app.admin).header("content-type", "application/json");
    Answer::of(request.body(text).send().await.unwrap()).await
}

#[tokio::test]
async fn unknown_route_is_a_problem() {
    let app = App::start().await;
    for path in ["/", "/api", "/api/plugin-engine/", "/API/plugin-engine", "/nothing/here?a=b", "/%ff", "/health/x"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = app.send(&app.admin, method, path, None).await;
            assert_eq!(answer.problem(404), "not_found", "{path}");
        }
    }
}

#[tokio::test]
async fn wrong_method_lists_the_allowed_ones() {
    let app = App::start().await;
    for (path, methods) in [
        (INTENTS, vec!["GET", "HEAD", "POST"]),
        ("/api/v1/keys", vec!["GET", "HEAD", "POST"]),
        ("/api/v1/keys/abc", vec!["DELETE"]),
        ("/api/plugin-engine/integrations/slack/connect", vec!["POST"]),
        ("/health", vec!["GET", "HEAD"]),
    ] {
        for method in [Method::PUT, Method::PATCH, Method::OPTIONS] {
            let answer = app.send(&app.admin, method, path, None).await;
            assert_eq!(answer.problem(405), "method_not_allowed", "{path}");
            let mut allowed: Vec<_> =
                answer.headers["allow"].to_str().unwrap().split(',').map(|method| method.trim().to_owned()).collect();
            allowed.sort();
            assert_eq!(allowed, methods, "{path}");
        }
    }
}

#[tokio::test]
async fn answer_has_a_new_request_id() {
    let app = App::start().await;
    let mut seen = std::collections::BTreeSet::new();
    for path in ["/health", "/health", INTENTS, "/nowhere", "/api/v1/keys"] {
        // The client's own id is not used.
        let request = app.request(Method::GET, path).bearer_auth(&app.admin).header("x-request-id", "mine");
        let answer = Answer::of(request.send().await.unwrap()).await;
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(id != "mine" && seen.insert(id), "{path}");
    }
}

#[tokio::test]
async fn answer_is_not_cached() {
    let app = App::start().await;
    for path in ["/health", INTENTS, "/nowhere", "/api/v1/keys"] {
        assert_eq!(app.get(path).await.headers["cache-control"], "no-store", "{path}");
    }
}

#[tokio::test]
async fn answer_forbids_content_sniffing() {
    let app = App::start().await;
    for path in ["/health", INTENTS, "/nowhere", "/api/v1/keys"] {
        assert_eq!(app.get(path).await.headers["x-content-type-options"], "nosniff", "{path}");
    }
}

#[tokio::test]
async fn health_needs_no_key() {
    let app = App::start().await;
    let health = Answer::of(app.request(Method::GET, "/health").send().await.unwrap()).await;
    assert_eq!(health.status, StatusCode::OK);
    assert_eq!(health.json()["status"], "ok");
}

#[tokio::test]
async fn manifest_schema_needs_no_key() {
    let app = App::start().await;
    let schema = Answer::of(app.request(Method::GET, "/schemas/plugin-manifest.json").send().await.unwrap()).await;
    assert_eq!(schema.status, StatusCode::OK);
    assert!(schema.headers["content-type"].to_str().unwrap().contains("json"));
}

/// The published schema of manifests.
async fn schema() -> jsonschema::Validator {
    let schema = App::start().await.get("/schemas/plugin-manifest.json").await.json();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

/// The manifests of the bundled plugins.
fn manifests() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("plugin.yaml"));
    let texts = files.filter_map(|path| std::fs::read_to_string(path).ok());
    texts.map(|text| serde_saphyr::from_str(&text).unwrap()).collect()
}

#[tokio::test]
async fn published_schema_accepts_the_bundled_manifests() {
    let (validator, manifests) = (schema().await, manifests());
    for manifest in &manifests {
        let errors: Vec<_> = validator.iter_errors(manifest).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", manifest["name"]);
    }
    assert!(manifests.iter().any(|manifest| manifest["name"] == "slack"));
}

#[tokio::test]
async fn published_schema_refuses_invalid_manifests() {
    let validator = schema().await;
    let slack = manifests().into_iter().find(|manifest| manifest["name"] == "slack").unwrap();
    for (pointer, value) in [
        ("", json!("extra")),
        ("/runtime", json!("extra")),
        ("/auth", json!("extra")),
        ("/retry", json!({})),
        ("/actions/0", json!(1)),
        ("/actions/0/request", json!(1)),
        ("/actions/0/response", json!(1)),
        ("/actions/0/response/error", json!(1)),
        ("/actions/2/paginate", json!(1)),
    ] {
        let mut wrong = slack.clone();
        if pointer == "/retry" {
            wrong["retry"] = json!({});
        }
        wrong.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert("surprise".to_owned(), value);
        assert!(!validator.is_valid(&wrong), "an unknown key is accepted at {pointer:?}");
    }
    for (field, value) in [("name", json!("Slack")), ("actions", json!({})), ("version", json!(1))] {
        let mut wrong = slack.clone();
        wrong[field] = value;
        assert!(!validator.is_valid(&wrong), "{field}");
    }
}

#[tokio::test]
async fn server_survives_a_panic() {
    async fn panics() -> &'static str {
        panic!("secret-inside")
    }
    let app = App::start().await;
    let routes = Routes::new().route("/panic", get(panics)).route("/fine", get(async || "fine"));
    let served = service(app.engine.clone(), routes);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, served.clone()).into_future());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = Answer::of(client.get(format!("http://{address}/panic")).send().await.unwrap()).await;
    assert_eq!(answer.problem(500), "internal");
    assert!(!answer.text.contains("secret-inside"));
    let fine = served.oneshot(Request::get("/fine").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(fine.status(), 200);
}

/// The answer to a request that HTTP clients cannot send, as text.
async fn raw(app: &App, request: &str) -> String {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}
