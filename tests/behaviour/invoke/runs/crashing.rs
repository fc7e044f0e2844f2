//! The process crashes during a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::any;
use overseer_engine::core::ids::IdempotencyKey;
use overseer_engine::invoke::runs::RequestOptions;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{INTENTS, RUNS, is_replay, keyed, keyed_at, runs};
use crate::support::app::{Answer, App};
use crate::support::own::OwnService;
use crate::support::process::Server;

fn act() -> Value {
    json!({ "tool": "own", "intent": "act", "context": { "path": "x" } })
}

/// A service that never answers the first call, and all others.
async fn service() -> (OwnService, Arc<AtomicUsize>) {
    let called = Arc::new(AtomicUsize::new(0));
    let counts = called.clone();
    let answer = async move || {
        if counts.fetch_add(1, Ordering::SeqCst) == 0 {
            std::future::pending::<()>().await;
        }
        "{\"done\": true}"
    };
    (OwnService::start(Router::new().fallback(any(answer))).await, called)
}

/// An engine in a runtime of its own begins the intent, and dies while the service has it.
async fn dies_in_the_call(app: &App, called: &Arc<AtomicUsize>, key: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (engine, principal) = (app.deaf(), app.engine.authenticate(&app.admin.as_str().into()).await.unwrap());
    let asked = RequestOptions { key: Some(IdempotencyKey::parse(key).unwrap()), ..RequestOptions::default() };
    let intent = serde_json::from_value(act()).unwrap();
    runtime.spawn(async move { engine.execute(principal, intent, asked).await });
    while called.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    runtime.shutdown_background();
}

async fn after_a_crash() -> (App, OwnService, Arc<AtomicUsize>) {
    let (service, called) = service().await;
    let app = service.app().await;
    dies_in_the_call(&app, &called, "k1").await;
    (app, service, called)
}

#[tokio::test]
async fn run_of_a_crashed_call_becomes_unknown() {
    let (app, _service, _) = after_a_crash().await;
    assert_eq!(runs(&app, "").await[0]["state"], json!("started"));
    assert_eq!(keyed(&app, "k1", &act(), &[]).await.problem(409), "in_progress");
    app.clock.advance(53);
    assert_eq!(runs(&app, "?state=started").await.len(), 1);
    app.clock.advance(1);
    let unknown = runs(&app, "?state=unknown").await;
    assert_eq!((unknown.len(), &unknown[0]["code"]), (1, &json!("outcome_unknown")));
}

#[tokio::test]
async fn repeat_after_a_crash_reports_an_unknown_outcome() {
    let (app, _service, called) = after_a_crash().await;
    app.clock.advance(54);
    let unknown = runs(&app, "?state=unknown").await;
    let answer = keyed(&app, "k1", &act(), &[]).await;
    assert_eq!(answer.failure(), "outcome_unknown");
    let said = answer.json();
    assert_eq!((&said["error"]["retryable"], &said["error"]["mayHaveHappened"]), (&json!(false), &json!(true)));
    assert_eq!(said["metadata"]["runId"], unknown[0]["id"]);
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("resolve=retry") && message.contains("2026-11-21T09:00:00Z"), "{message}");
    assert_eq!(called.load(Ordering::SeqCst), 1, "Overseer does not repeat the call by itself");
}

#[tokio::test]
async fn key_of_a_crashed_call_stays_with_its_intent() {
    let (app, _service, _) = after_a_crash().await;
    app.clock.advance(54);
    keyed(&app, "k1", &act(), &[]).await.failure();
    let mut other = act();
    other["context"]["path"] = json!("y");
    assert_eq!(keyed_at(&app, "/api/plugin-engine?resolve=retry", "k1", &other, &[]).await.problem(422), "key_reused");
}

#[tokio::test]
async fn caller_may_retry_an_unknown_run() {
    let (app, _service, called) = after_a_crash().await;
    app.clock.advance(54);
    let retry = format!("{INTENTS}?resolve=retry");
    let answers =
        futures_util::future::join_all((0..20).map(|_| keyed_at(&app, &retry, "k1", &act(), &[("prefer", "wait=20")])))
            .await;
    assert_eq!(answers.iter().filter(|answer| !is_replay(answer)).count(), 1);
    assert!(answers.iter().all(|answer| answer.data() == json!({ "done": true })));
    assert_eq!(called.load(Ordering::SeqCst), 2);
    let listed = runs(&app, "").await;
    let states: Vec<_> = listed.iter().map(|run| (run["state"].as_str().unwrap(), &run["resolution"]["as"])).collect();
    assert_eq!(states, [("succeeded", &Value::Null), ("unknown", &json!("retried"))]);
    assert!(is_replay(&keyed(&app, "k1", &act(), &[]).await));
}

#[tokio::test]
async fn caller_may_abandon_an_unknown_run() {
    let (app, _service, called) = after_a_crash().await;
    app.clock.advance(54);
    for (path, replayed) in
        [("?resolve=abandon", false), ("", true), ("?resolve=retry", true), ("?resolve=abandon", true)]
    {
        let answer = keyed_at(&app, &format!("{INTENTS}{path}"), "k1", &act(), &[]).await;
        assert_eq!((answer.failure().as_str(), is_replay(&answer)), ("outcome_unknown", replayed), "{path}");
        assert!(answer.json()["message"].as_str().unwrap().contains("given up"), "{}", answer.text);
    }
    assert_eq!(called.load(Ordering::SeqCst), 1);
    assert_eq!(runs(&app, "").await[0]["resolution"]["as"], json!("abandoned"));
}

#[tokio::test]
async fn administrator_may_report_the_outcome() {
    let (app, _service, called) = after_a_crash().await;
    let run = runs(&app, "").await[0]["id"].as_str().unwrap().to_owned();
    let resolve = format!("{RUNS}/{run}/resolve");
    assert_eq!(app.post(&resolve, &json!({ "as": "succeeded" })).await.problem(409), "conflict");
    app.clock.advance(54);
    assert_eq!(app.post(&resolve, &json!({ "as": "succeeded" })).await.json()["state"], json!("succeeded"));
    let answer = keyed(&app, "k1", &act(), &[]).await;
    assert!(is_replay(&answer) && answer.data().is_null());
    assert_eq!(called.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn run_of_a_killed_server_survives_its_restart() {
    let folder = tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[], &[]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let key = std::fs::read_to_string(folder.path().join("admin-key")).unwrap();
    let switch = json!({ "service": "gmail", "mode": "timeout", "calls": 1 }).to_string();
    let playground = client.post(format!("http://{}/playground/switches", server.address));
    let set = playground.header("content-type", "application/json").body(switch).send().await.unwrap();
    assert!(set.status().is_success());
    let mail =
        json!({ "tool": "gmail", "intent": "send", "context": { "to": "a@example.com", "subject": "s", "body": "b" } });
    let request = |address: &str, method: Method, path: &str| {
        client.request(method, format!("http://{address}{path}")).bearer_auth(key.trim())
    };
    let post = |address: &str| {
        let request = request(address, Method::POST, INTENTS).header("content-type", "application/json");
        request.header("idempotency-key", "k1").body(mail.to_string()).send()
    };
    let waiting = tokio::spawn(post(&server.address));
    let listed = async |address: &str| {
        Answer::of(request(address, Method::GET, RUNS).send().await.unwrap()).await.json()["runs"].clone()
    };
    while listed(&server.address).await[0]["state"] != "started" {
        tokio::task::yield_now().await;
    }
    server.kill();
    waiting.await.unwrap().unwrap_err();
    let server = Server::start(folder.path(), &[], &[]);
    let left = listed(&server.address).await;
    assert_eq!((left.as_array().unwrap().len(), &left[0]["state"]), (1, &json!("started")));
    let answer = Answer::of(post(&server.address).await.unwrap()).await;
    assert_eq!((answer.status, answer.problem(409).as_str()), (StatusCode::CONFLICT, "in_progress"));
}
