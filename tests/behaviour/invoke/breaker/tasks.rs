//! Tasks of a plugin that is disabled or whose breaker is open.

use overseer_engine::core::ids::OrgId;
use overseer_engine::ports::Work;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::Setup;
use super::administering::post;
use crate::support::app::App;

/// An action that is due in a minute, and the task's id.
async fn task(app: &App, path: &str) -> (Value, String) {
    let intent = json!({ "tool": "own", "intent": "act", "context": { "path": path },
                         "scheduledTime": (app.engine.ports.clock.now() + jiff::SignedDuration::from_secs(60)).to_string() });
    let answer = app.post("/api/plugin-engine", &intent).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let made = answer.json();
    let id = made["task"]["id"].as_str().unwrap().to_owned();
    (made, id)
}

/// The alarm of a task goes off, and how the task stands then.
async fn fire(app: &App, id: &str) -> Value {
    let work = Work { org: OrgId::parse("acme").unwrap(), kind: "task".into(), id: format!("{id} admin"), revision: 1 };
    app.engine.dispatch(work, None).await.unwrap();
    loop {
        let task = app.get(&format!("/api/plugin-engine/tasks/{id}")).await.json();
        if task["status"] != "running" {
            return task;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn task_for_a_disabled_plugin_warns() {
    let setup = Setup::start().await;
    post(&setup, "disable", Some(&json!({ "reason": "we moved" }))).await;
    let (made, _) = task(&setup.app, "200").await;
    let warning = made["warnings"][0].as_str().unwrap();
    assert!(warning.contains("disabled by an administrator (we moved)"), "{made}");
    post(&setup, "enable", None).await;
    assert_eq!(task(&setup.app, "200").await.0["warnings"], json!([]));
}

#[tokio::test]
async fn task_of_a_disabled_plugin_fails() {
    let setup = Setup::start().await;
    post(&setup, "disable", Some(&json!({ "reason": "we moved" }))).await;
    let (_, id) = task(&setup.app, "200").await;
    setup.app.clock.advance(60);
    let failed = fire(&setup.app, &id).await;
    assert_eq!((&failed["status"], &failed["attempts"][0]["code"]), (&json!("failed"), &json!("disabled")), "{failed}");
    assert_eq!(setup.calls(), 0);
}

#[tokio::test]
async fn open_breaker_gives_a_later_task_no_warning() {
    let setup = Setup::start().await;
    setup.open().await;
    assert_eq!(task(&setup.app, "200").await.0["warnings"], json!([]), "the pause ends before the task is due");
}

#[tokio::test]
async fn task_retries_after_an_open_breaker() {
    let setup = Setup::start().await;
    let (_, id) = task(&setup.app, "200").await;
    setup.app.clock.advance(50);
    setup.open().await;
    setup.app.clock.advance(10);
    let retrying = fire(&setup.app, &id).await;
    let said = (&retrying["status"], &retrying["attempts"][0]["code"], &retrying["nextAttemptAt"]);
    assert_eq!(said, (&json!("retrying"), &json!("disabled"), &json!("2026-11-21T09:01:50Z")), "{retrying}");
    assert_eq!(setup.calls(), 5);
    setup.app.clock.advance(50);
    // The task makes the trial call.
    assert_eq!(fire(&setup.app, &id).await["status"], "succeeded");
    assert_eq!(setup.breaker("write").await["state"], "closed");
}
