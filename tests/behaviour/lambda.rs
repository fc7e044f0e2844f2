//! The Lambda, run by a stand-in of Lambda's runtime API, on an event as an HTTP API sends it.

use std::collections::VecDeque;
use std::fs;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::process::{Server, command};

#[derive(Clone)]
struct RuntimeApi {
    events: Arc<Mutex<VecDeque<Value>>>,
    answers: UnboundedSender<Value>,
}

/// The next event; with none left it never answers, as Lambda does.
async fn next(State(api): State<RuntimeApi>) -> impl IntoResponse {
    let event = api.events.lock().unwrap().pop_front();
    let Some(event) = event else { return std::future::pending().await };
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
        ("lambda-runtime-deadline-ms", "4102444800000"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:123456789012:function:intent"),
        ("lambda-runtime-trace-id", "Root=1-6920a1b2-0123456789abcdef01234567"),
    ];
    (headers, event.to_string())
}

async fn respond(State(api): State<RuntimeApi>, _: HeaderMap, body: String) -> &'static str {
    api.answers.send(serde_json::from_str(&body).unwrap()).unwrap();
    r#"{"status": "OK"}"#
}

#[tokio::test]
async fn the_intent_function_answers_an_event() {
    let folder = tempdir().unwrap();
    Server::start(folder.path(), &[], &[]).kill();
    let key = fs::read_to_string(folder.path().join("admin-key")).unwrap();

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../events/intent.json");
    let intent: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut authorised = intent.clone();
    authorised["headers"]["authorization"] = format!("Bearer {}", key.trim()).into();

    let (answers, mut answered) = unbounded_channel();
    let events = Arc::new(Mutex::new(VecDeque::from([intent, authorised])));
    let routes = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(respond))
        .with_state(RuntimeApi { events, answers });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, routes).into_future());

    let mut function = command("intent")
        .envs([("AWS_LAMBDA_RUNTIME_API", address.to_string()), ("AWS_LAMBDA_FUNCTION_NAME", "intent".to_owned())])
        .envs([("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"), ("AWS_LAMBDA_FUNCTION_VERSION", "1")])
        .env("OVERSEER_DATA", folder.path())
        .spawn()
        .unwrap();
    let refused = answered.recv().await.unwrap();
    let taken = answered.recv().await.unwrap();
    function.kill().unwrap();
    function.wait().unwrap();

    assert_eq!(refused["statusCode"], json!(401), "{refused}");
    assert_eq!(refused["headers"]["content-type"], json!("application/problem+json"));
    assert_eq!(taken["statusCode"], json!(200), "{taken}");
    let outcome: Value = serde_json::from_str(taken["body"].as_str().unwrap()).unwrap();
    assert_eq!(outcome["error"]["code"], json!("not_connected"), "{outcome}");
    assert_eq!(taken["headers"]["x-request-id"], outcome["requestId"]);
}
