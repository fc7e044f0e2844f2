//! Attempts in flight: expired claims, late workers, and requests to cancel.

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use overseer_engine::core::work_report::WorkReport;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{TASKS, alarm, fire, id, made, status, task, wake};
use crate::support::app::{App, Options};
use crate::support::own::OwnService;

/// A service that answers when the test opens its gate.
struct Slow {
    app: App,
    arrived: Arc<Notify>,
    gate: Arc<Notify>,
}

impl Slow {
    async fn start() -> Self {
        let (arrived, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (arrival, opened) = (arrived.clone(), gate.clone());
        let answer = move || {
            let (arrival, opened) = (arrival.clone(), opened.clone());
            async move {
                arrival.notify_one();
                opened.notified().await;
                "{\"done\": true}"
            }
        };
        let service = OwnService::start(Router::new().fallback(answer)).await;
        Self { app: service.app().await, arrived, gate }
    }

    /// Creates a task from an intent, and waits until its call is in flight.
    async fn begin(&self, mut intent: Value) -> (String, tokio::task::JoinHandle<WorkReport>) {
        intent["tool"] = json!("own");
        intent["context"] = json!({ "path": "x" });
        let task_id = id(&made(&self.app, &intent).await);
        self.app.clock.advance(3600);
        let (engine, work) = (self.app.engine.clone(), alarm(&task_id));
        let firing = tokio::spawn(async move { engine.dispatch(work, None).await.unwrap() });
        self.arrived.notified().await;
        (task_id, firing)
    }
}

#[tokio::test]
async fn expired_claim_is_retried_only_for_a_repeatable_action() {
    let service = OwnService::start(Router::new().route("/never", any(std::future::pending::<()>))).await;
    let app = service.app_with(&json!({ "type": "none" }), Options::default()).await;
    for (calls, (action, time, left)) in
        [("read", "2026-11-21T10:00:00Z", "retrying"), ("act", "2026-11-21T12:00:00Z", "outcome_unknown")]
            .into_iter()
            .enumerate()
    {
        let intent = json!({ "tool": "own", "intent": action, "scheduledTime": time, "context": { "path": "never" } });
        let task_id = id(&made(&app, &intent).await);
        app.clock.advance(7200);
        let (engine, work) = (app.deaf(), alarm(&task_id));
        let dying = tokio::spawn(async move { engine.dispatch(work, None).await });
        while service.calls().len() <= calls {
            tokio::task::yield_now().await;
        }
        dying.abort();
        // While the claim is valid, nothing is due.
        app.clock.advance(149);
        assert_eq!(app.deaf().sweep().await.unwrap(), WorkReport::default());
        app.clock.advance(1);
        assert_eq!(app.deaf().sweep().await.unwrap().enqueued, 1);
        fire(&app, &task_id).await;
        assert_eq!(status(&app, &task_id).await, left, "{action}");
        app.delete(&format!("{TASKS}/{task_id}")).await;
        assert_eq!(service.calls().len(), calls + 1);
    }
    let published = || app.events.lock().unwrap().iter().any(|event| event.kind == "task.outcome_unknown");
    while !published() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn cancelling_a_running_task_keeps_its_outcome() {
    let slow = Slow::start().await;
    for (intent, ends) in [
        (json!({ "intent": "act", "scheduledTime": "2026-11-21T10:00:00Z" }), "succeeded"),
        (json!({ "intent": "act", "schedule": { "rate": "1 hour" } }), "cancelled"),
    ] {
        let (task_id, firing) = slow.begin(intent).await;
        let path = format!("{TASKS}/{task_id}");
        let asked = slow.app.delete(&path).await.json();
        assert_eq!((&asked["status"], &asked["cancelRequested"]), (&json!("running"), &json!(true)), "{asked}");
        slow.gate.notify_one();
        firing.await.unwrap();
        let ended = task(&slow.app, &task_id).await;
        assert_eq!(
            (&ended["status"], &ended["attempts"][0]["outcome"]),
            (&json!(ends), &json!("succeeded")),
            "{ended}"
        );
    }
}

#[tokio::test]
async fn running_task_cannot_be_retried() {
    let slow = Slow::start().await;
    for intent in [
        json!({ "intent": "act", "scheduledTime": "2026-11-21T10:00:00Z" }),
        json!({ "intent": "act", "schedule": { "rate": "1 hour" } }),
    ] {
        let (task_id, firing) = slow.begin(intent).await;
        let path = format!("{TASKS}/{task_id}");
        slow.app.delete(&path).await.json();
        let again = slow.app.post(&format!("{path}/retry"), &json!({})).await;
        assert_eq!(again.problem(409), "conflict");
        slow.gate.notify_one();
        firing.await.unwrap();
    }
}

#[tokio::test]
async fn late_worker_can_still_settle_an_unsafe_attempt() {
    let slow = Slow::start().await;
    let (task_id, firing) = slow.begin(json!({ "intent": "act", "scheduledTime": "2026-11-21T10:00:00Z" })).await;
    // Its claim is valid: no other worker settles it...
    slow.app.clock.advance(149);
    assert_eq!(wake(&slow.app, &task_id).await, WorkReport::default());
    assert_eq!(status(&slow.app, &task_id).await, "running");
    // ...until it expires. An unknown outcome is not retried.
    slow.app.clock.advance(1);
    assert_eq!(slow.app.engine.sweep().await.unwrap().due, 1);
    wake(&slow.app, &task_id).await;
    assert_eq!(status(&slow.app, &task_id).await, "outcome_unknown");
    slow.gate.notify_one();
    firing.await.unwrap();
    let ended = task(&slow.app, &task_id).await;
    assert_eq!((&ended["status"], ended["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 1), "{ended}");
}

#[tokio::test]
async fn late_worker_cannot_settle_a_retried_attempt() {
    let slow = Slow::start().await;
    let (task_id, firing) = slow.begin(json!({ "intent": "read", "scheduledTime": "2026-11-21T10:00:00Z" })).await;
    slow.app.clock.advance(150);
    wake(&slow.app, &task_id).await;
    assert_eq!(status(&slow.app, &task_id).await, "retrying");
    // The first worker is too late: it has lost its claim.
    slow.gate.notify_one();
    firing.await.unwrap();
    assert_eq!(status(&slow.app, &task_id).await, "retrying");
    slow.app.clock.advance(2);
    slow.gate.notify_one();
    wake(&slow.app, &task_id).await;
    let ended = task(&slow.app, &task_id).await;
    let outcomes: Vec<_> = ended["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(
        (&ended["status"], outcomes),
        (&json!("succeeded"), vec![json!("unknown"), json!("succeeded")]),
        "{ended}"
    );
}
