//! Intents that a caller repeats with the same idempotency key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::any;
use futures_util::future::join_all;
use overseer_engine::access::principal::Role;
use overseer_playground::{Mode, Service};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{INTENTS, RUNS, is_replay, keyed, keyed_at, runs, send};
use crate::support::app::{Answer, App};
use crate::support::own::OwnService;

/// A service that says nothing until it is let go, and how often it was called.
struct Slow {
    service: OwnService,
    go: Arc<Notify>,
    called: Arc<AtomicUsize>,
}

impl Slow {
    async fn start() -> Self {
        let (go, called) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (waits, counts) = (go.clone(), called.clone());
        let answer = async move || {
            counts.fetch_add(1, Ordering::SeqCst);
            waits.notified().await;
            "{\"done\": true}"
        };
        Self { service: OwnService::start(Router::new().fallback(any(answer))).await, go, called }
    }

    async fn is_called(&self) {
        while self.called.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn act() -> Value {
    json!({ "tool": "own", "intent": "act", "context": { "path": "x" } })
}

#[tokio::test]
async fn repeated_intent_gets_the_first_answer() {
    let app = App::start().await;
    let first = keyed(&app, "k1", &send(), &[]).await;
    assert!(!is_replay(&first) && first.data()["ts"].is_string());
    let mut in_body = send();
    in_body["idempotencyKey"] = json!("k1");
    let mut by_another_name = send();
    (by_another_name["intent"], by_another_name["userId"]) = (json!("send_message"), json!("admin"));
    let other_order = r#"{"intent": "send", "context": {"text": "hello", "channel": "C0PLAYGEN1"}, "tool": "slack", "agentId": "agent_1"}"#;
    let again = [
        keyed(&app, "k1", &send(), &[]).await,
        keyed(&app, "\"k1\"", &send(), &[]).await,
        keyed(&app, "k1", &in_body, &[]).await,
        app.post(INTENTS, &in_body).await,
        keyed(&app, "k1", &by_another_name, &[]).await,
        keyed(&app, "k1", &serde_json::from_str(other_order).unwrap(), &[]).await,
    ];
    for answer in again {
        assert!(is_replay(&answer), "{}", answer.text);
        let (mut one, mut other) = (first.json(), answer.json());
        assert_ne!(one["requestId"].take(), other["requestId"].take());
        assert_eq!(one, other);
    }
    assert_eq!(app.playground.received_total(), 1);
}

#[tokio::test]
async fn run_records_its_idempotency_key() {
    let app = App::start().await;
    keyed(&app, "k1", &send(), &[]).await.data();
    assert_eq!(runs(&app, "").await[0]["idempotencyKey"], json!("k1"));
}

#[tokio::test]
async fn answer_is_replayed_for_24_hours() {
    let app = App::start().await;
    keyed(&app, "k1", &send(), &[]).await.data();
    app.clock.advance(24 * 3600 - 1);
    assert!(is_replay(&keyed(&app, "k1", &send(), &[]).await));
    app.clock.advance(1);
    assert!(!is_replay(&keyed(&app, "k1", &send(), &[]).await));
    assert_eq!(app.playground.received_total(), 2);
}

/// An intent with one field changed.
fn with(field: &str, value: Value) -> Value {
    let mut intent = send();
    intent[field] = value;
    intent
}

#[tokio::test]
async fn idempotency_key_belongs_to_one_intent() {
    let app = App::start().await;
    keyed(&app, "k1", &send(), &[]).await.data();
    for other in [
        with("context", json!({ "channel": "C0PLAYGEN1", "text": "Hello" })),
        with("intent", json!("schedule")),
        with("agentId", json!("agent_2")),
        with("integration", json!("default")),
        with("scheduledTime", json!("2026-11-21T10:00:00Z")),
    ] {
        let mut other = other;
        if other["intent"] == "schedule" {
            other["context"]["post_at"] = json!("2026-11-22T09:00:00Z");
        }
        let answer = keyed(&app, "k1", &other, &[]).await;
        assert_eq!(answer.problem(422), "key_reused", "{other}");
    }
    assert_eq!(keyed(&app, "k1", &send(), &[("prefer", "respond-async")]).await.problem(422), "key_reused");
    assert_eq!(app.playground.received_total(), 1);
}

#[tokio::test]
async fn differing_keys_of_one_intent_are_refused() {
    let app = App::start().await;
    let mut both = send();
    both["idempotencyKey"] = json!("k2");
    assert_eq!(keyed(&app, "k1", &both, &[]).await.pointers(), ["/idempotencyKey"]);
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn idempotency_key_belongs_to_one_user() {
    let app = App::start().await;
    keyed(&app, "k1", &send(), &[]).await.data();
    app.post("/api/plugin-engine/integrations/slack/connect", &json!({ "userId": "ann", "token": "xoxb-playground" }))
        .await;
    assert!(!is_replay(&keyed(&app, "k1", &with("userId", json!("ann")), &[]).await));
    assert_eq!(app.playground.received_total(), 2);
}

#[tokio::test]
async fn idempotency_key_belongs_to_one_organization() {
    let app = App::start().await;
    keyed(&app, "k1", &send(), &[]).await.data();
    let stranger = app.key("other", &[Role::Administrator], Some("admin")).await;
    let request = app.request(Method::POST, INTENTS).bearer_auth(&stranger).header("idempotency-key", "k1");
    let request = request.header("content-type", "application/json").body(send().to_string());
    assert_eq!(Answer::of(request.send().await.unwrap()).await.failure(), "not_connected");
    assert_eq!(app.playground.received_total(), 1);
}

#[tokio::test]
async fn temporary_failure_frees_its_key() {
    let app = App::start().await;
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    assert_eq!(keyed(&app, "k1", &send(), &[]).await.failure(), "rate_limited");
    let done = keyed(&app, "k1", &send(), &[]).await;
    assert!(!is_replay(&done) && done.data()["ts"].is_string());
}

#[tokio::test]
async fn missing_account_frees_its_key() {
    let app = App::start().await;
    let mut ann = send();
    ann["userId"] = json!("ann");
    assert_eq!(keyed(&app, "k2", &ann, &[]).await.failure(), "not_connected");
    app.post("/api/plugin-engine/integrations/slack/connect", &json!({ "userId": "ann", "token": "xoxb-playground" }))
        .await;
    keyed(&app, "k2", &ann, &[]).await.data();
}

#[tokio::test]
async fn rejection_is_replayed() {
    let app = App::start().await;
    let nowhere = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0NOWHERE1", "text": "hello" } });
    for again in [false, true] {
        let answer = keyed(&app, "k3", &nowhere, &[]).await;
        assert_eq!((answer.failure().as_str(), is_replay(&answer)), ("rejected", again));
        assert!(answer.json()["error"]["fallback"].is_string());
    }
}

#[tokio::test]
async fn unknown_outcome_is_replayed() {
    let app = App::start().await;
    app.misbehave(Service::Slack, Mode::Error, 1);
    for again in [false, true] {
        let answer = keyed(&app, "k4", &send(), &[]).await;
        assert_eq!((answer.failure().as_str(), is_replay(&answer)), ("unavailable", again));
        assert_eq!(answer.json()["error"]["mayHaveHappened"], json!(true));
    }
}

#[tokio::test]
async fn invalid_request_does_not_take_its_key() {
    let app = App::start().await;
    let wrong = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0PLAYGEN1" } });
    assert_eq!(keyed(&app, "k5", &wrong, &[]).await.problem(400), "invalid_parameters");
    keyed(&app, "k5", &send(), &[]).await.data();
}

#[tokio::test]
async fn stored_answer_is_limited_to_64_kib() {
    for (bytes, kept) in [(64 * 1024 - 2, true), (64 * 1024 - 1, false)] {
        let text = json!("x".repeat(bytes)).to_string();
        let service = OwnService::start(Router::new().fallback(any(async move || text))).await;
        let app = service.app().await;
        assert_eq!(keyed(&app, "k1", &act(), &[]).await.data().as_str().unwrap().len(), bytes);
        let again = keyed(&app, "k1", &act(), &[]).await;
        assert!(is_replay(&again));
        assert_eq!(again.data().is_string(), kept, "{bytes}");
        assert_eq!(again.json()["message"].as_str().unwrap().contains("ask the service"), !kept);
        assert_eq!(service.calls().len(), 1);
    }
}

#[tokio::test]
async fn concurrent_repeat_is_told_when_to_retry() {
    let slow = Slow::start().await;
    let app = slow.service.app().await;
    let second = async {
        slow.is_called().await;
        let busy = keyed(&app, "k1", &act(), &[]).await;
        assert_eq!((busy.problem(409).as_str(), &busy.headers["retry-after"]), ("in_progress", &"2".parse().unwrap()));
        slow.go.notify_one();
    };
    let (first, ()) = tokio::join!(keyed(&app, "k1", &act(), &[]), second);
    assert_eq!(first.data(), json!({ "done": true }));
}

#[tokio::test]
async fn concurrent_repeat_waits_for_the_first() {
    let slow = Slow::start().await;
    let app = slow.service.app().await;
    let second = async {
        slow.is_called().await;
        assert_eq!(runs(&app, "?state=started").await.len(), 1);
        let third = keyed(&app, "k1", &act(), &[("prefer", "handling=lenient, wait=20")]);
        let release = async {
            // The repeat has looked once, and waits.
            app.table.take();
            while app.table.take().0 == 0 {
                tokio::task::yield_now().await;
            }
            slow.go.notify_one();
        };
        tokio::join!(third, release).0
    };
    let (first, third) = tokio::join!(keyed(&app, "k1", &act(), &[]), second);
    assert!(!is_replay(&first) && is_replay(&third));
    assert_eq!((first.data(), third.data()), (json!({ "done": true }), json!({ "done": true })));
    assert_eq!(slow.called.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn client_hangup_changes_nothing() {
    let slow = Slow::start().await;
    let app = slow.service.app().await;
    tokio::select! {
        _ = keyed(&app, "k1", &act(), &[]) => panic!("it was answered"),
        () = slow.is_called() => {}
    }
    assert_eq!(runs(&app, "").await[0]["state"], json!("started"));
    slow.go.notify_one();
    while runs(&app, "").await[0]["state"] != "succeeded" {
        tokio::task::yield_now().await;
    }
    let answer = keyed(&app, "k1", &act(), &[]).await;
    assert!(is_replay(&answer));
    assert_eq!(answer.data(), json!({ "done": true }));
    assert_eq!(slow.called.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn five_hundred_callers_with_one_key_make_one_call() {
    let app = App::start().await;
    let all = (0..500).map(|_| keyed(&app, "k1", &send(), &[("prefer", "wait=20")]));
    let answers = join_all(all).await;
    let anew = answers.iter().filter(|answer| !is_replay(answer)).count();
    assert_eq!((anew, answers.len(), app.playground.received_total()), (1, 500, 1));
    for answer in &answers {
        assert_eq!(answer.data(), answers[0].data());
    }
    assert_eq!(runs(&app, "").await.len(), 1);
}

#[tokio::test]
async fn callers_that_do_not_wait_make_one_call() {
    let app = App::start().await;
    let answers = join_all((0..500).map(|_| keyed(&app, "k1", &send(), &[]))).await;
    let (done, busy): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == StatusCode::OK);
    assert_eq!(done.iter().filter(|answer| !is_replay(answer)).count(), 1);
    assert!(busy.iter().all(|answer| answer.problem(409) == "in_progress"));
    assert_eq!(app.playground.received_total(), 1);
    assert_eq!(runs(&app, "").await.len(), 1);
}

#[tokio::test]
async fn callers_with_one_key_share_a_lookup() {
    let app = App::start().await;
    let mut named = send();
    named["context"]["channel"] = json!("#general");
    let answers = join_all((0..50).map(|_| keyed(&app, "k1", &named, &[("prefer", "wait=20")]))).await;
    assert!(answers.iter().all(|answer| answer.data() == answers[0].data()));
    assert_eq!(app.playground.received_total(), 2, "the list of channels, and the message");
}

#[tokio::test]
async fn idempotency_key_makes_one_task() {
    let app = App::start().await;
    let mut later = send();
    later["scheduledTime"] = json!("2026-11-21T10:00:00Z");
    let answers = join_all((0..50).map(|_| keyed(&app, "k1", &later, &[]))).await;
    let task = answers[0].json()["task"]["id"].clone();
    for answer in &answers {
        assert_eq!((answer.status, &answer.json()["task"]["id"]), (StatusCode::ACCEPTED, &task));
        assert_eq!(answer.headers["location"], format!("/api/plugin-engine/tasks/{}", task.as_str().unwrap()));
    }
    assert_eq!(answers.iter().filter(|answer| !is_replay(answer)).count(), 1);
    assert_eq!(app.get("/api/plugin-engine/tasks").await.json()["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn key_of_a_task_belongs_to_its_intent() {
    let app = App::start().await;
    let mut later = send();
    later["scheduledTime"] = json!("2026-11-21T10:00:00Z");
    assert_eq!(keyed(&app, "k1", &later, &[]).await.status, StatusCode::ACCEPTED);
    later["scheduledTime"] = json!("2026-11-21T11:00:00Z");
    assert_eq!(keyed(&app, "k1", &later, &[]).await.problem(422), "key_reused");
    assert_eq!(keyed(&app, "k1", &send(), &[]).await.problem(422), "key_reused");
}

const ABANDON: &str = "/api/plugin-engine?resolve=abandon";

#[tokio::test]
async fn abandon_without_an_unknown_run_is_refused() {
    let app = App::start().await;
    assert_eq!(keyed_at(&app, ABANDON, "k1", &send(), &[]).await.problem(409), "conflict");
    // A temporary failure has freed its key.
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    keyed(&app, "k1", &send(), &[]).await.failure();
    assert_eq!(keyed_at(&app, ABANDON, "k1", &send(), &[]).await.problem(409), "conflict");
    assert_eq!(app.playground.received_total(), 1);
}

#[tokio::test]
async fn task_cannot_be_abandoned_by_its_key() {
    let app = App::start().await;
    let mut later = send();
    later["scheduledTime"] = json!("2026-11-21T10:00:00Z");
    assert_eq!(keyed_at(&app, ABANDON, "k2", &later, &[]).await.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn retry_keeps_may_have_happened_of_the_first_run() {
    let app = App::start().await;
    app.misbehave(Service::Slack, Mode::Error, 1);
    keyed(&app, "k1", &send(), &[]).await.failure();
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    let again = keyed_at(&app, &format!("{INTENTS}?resolve=retry"), "k1", &send(), &[]).await;
    assert_eq!(again.failure(), "rate_limited");
    let error = again.json()["error"].clone();
    assert_eq!((&error["mayHaveHappened"], &error["retryable"]), (&json!(true), &json!(false)), "{error}");
    let before = app.playground.received_total();
    let replayed = keyed(&app, "k1", &send(), &[]).await;
    assert!(is_replay(&replayed) && app.playground.received_total() == before, "{}", replayed.text);
    keyed_at(&app, &format!("{INTENTS}?resolve=retry"), "k1", &send(), &[]).await.data();
}

#[tokio::test]
async fn resolve_needs_a_key() {
    let app = App::start().await;
    let answer = app.post(&format!("{INTENTS}?resolve=retry"), &send()).await;
    assert_eq!(
        (answer.problem(400).as_str(), answer.pointers()),
        ("invalid_parameters", vec!["/idempotencyKey".to_owned()])
    );
    assert_eq!(app.get(RUNS).await.json()["runs"], json!([]));
}

#[tokio::test]
async fn invalid_resolve_is_refused() {
    let app = App::start().await;
    assert_eq!(app.post(&format!("{INTENTS}?resolve=perhaps"), &send()).await.problem(400), "invalid_parameters");
    assert_eq!(app.get(RUNS).await.json()["runs"], json!([]));
}
