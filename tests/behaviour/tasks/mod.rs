//! Tasks: intents that run later, on a schedule, or asynchronously.

pub mod alarms;
mod callers;
mod claims;
pub mod cron;
mod schedules;
pub mod simulation;

use overseer_engine::core::ids::OrgId;
use overseer_engine::core::work_report::WorkReport;
use overseer_engine::ports::Work;
use overseer_playground::{Mode, Service};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Options};

const INTENTS: &str = "/api/plugin-engine";
const TASKS: &str = "/api/plugin-engine/tasks";

/// An intent that sends a message at `time`.
fn at(time: &str) -> Value {
    json!({ "agentId": "agent_1", "tool": "slack", "intent": "send", "scheduledTime": time,
            "context": { "channel": "C0PLAYGEN1", "text": "hello" } })
}

async fn made(app: &App, intent: &Value) -> Value {
    let answer = app.post(INTENTS, intent).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    answer.json()
}

fn id(made: &Value) -> String {
    made["task"]["id"].as_str().unwrap().to_owned()
}

/// What an alarm for a task of `admin` carries.
pub fn alarm(id: &str) -> Work {
    Work { org: OrgId::parse("acme").unwrap(), kind: "task".into(), id: format!("{id} admin"), revision: 1 }
}

/// Fires the alarm of a task and returns the report.
async fn wake(app: &App, id: &str) -> WorkReport {
    app.engine.dispatch(alarm(id), None).await.unwrap()
}

/// As [`wake`]. The timer's own alarm may be faster: waits until the worker that claimed the task has ended.
async fn fire(app: &App, id: &str) -> WorkReport {
    let report = wake(app, id).await;
    while status(app, id).await == "running" {
        tokio::task::yield_now().await;
    }
    report
}

pub async fn task(app: &App, id: &str) -> Value {
    app.get(&format!("{TASKS}/{id}")).await.json()
}

async fn status(app: &App, id: &str) -> String {
    task(app, id).await["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn task_with_a_time_runs_once_at_that_time() {
    let app = App::start().await;
    let answer = app.post(INTENTS, &at("2026-11-21T11:00:00+01:00")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let made = answer.json();
    let task_id = id(&made);
    assert_eq!(answer.headers["location"], format!("{TASKS}/{task_id}"));
    assert_eq!(
        (&made["task"]["status"], &made["task"]["scheduledTime"], &made["warnings"]),
        (&json!("scheduled"), &json!("2026-11-21T10:00:00Z"), &json!([])),
        "{made}"
    );
    assert_eq!(fire(&app, &task_id).await, WorkReport::default());
    assert_eq!(app.playground.received_total(), 0, "it is not due yet");

    app.clock.advance(3600);
    let report = fire(&app, &task_id).await;
    assert_eq!(report, WorkReport { due: 1, claimed: 1, succeeded: 1, ..WorkReport::default() });
    let done = task(&app, &task_id).await;
    assert_eq!((&done["status"], &done["runs"]), (&json!("succeeded"), &json!(1)), "{done}");
    assert_eq!(done["attempts"][0]["outcome"], "succeeded");
    assert_eq!(done["result"]["message"], "Message sent");
    // Later alarms find nothing due.
    for _ in 0..3 {
        assert_eq!(fire(&app, &task_id).await, WorkReport::default());
    }
    assert_eq!(app.playground.received_total(), 1);
}

#[tokio::test]
async fn concurrent_alarms_make_one_call() {
    for firings in [2, 10, 100] {
        let app = App::start().await;
        let task_id = id(&made(&app, &at("2026-11-21T09:00:00Z")).await);
        let all = (0..firings).map(|_| fire(&app, &task_id));
        let reports = futures_util::future::join_all(all).await;
        // The timer's own alarm may claim the task.
        assert!(reports.iter().map(|report| report.claimed).sum::<usize>() <= 1);
        while status(&app, &task_id).await != "succeeded" {
            tokio::task::yield_now().await;
        }
        assert_eq!(app.playground.received_total(), 1, "{firings}");
    }
}

#[tokio::test]
async fn respond_async_runs_the_task_at_once() {
    let app = App::start().await;
    let mut intent = at("");
    intent.as_object_mut().unwrap().remove("scheduledTime");
    let request = app.request(Method::POST, INTENTS).header("authorization", format!("Bearer {}", app.admin));
    let request = request.header("content-type", "application/json").header("prefer", "wait=5, Respond-Async");
    let answer = Answer::of(request.body(intent.to_string()).send().await.unwrap()).await;
    assert_eq!(
        (answer.status, &answer.headers["preference-applied"]),
        (StatusCode::ACCEPTED, &"respond-async".parse().unwrap())
    );
    let task_id = id(&answer.json());
    while status(&app, &task_id).await != "succeeded" {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.playground.received_total(), 1);
}

#[tokio::test]
async fn invalid_task_is_refused_at_creation() {
    let app = App::start().await;
    let with = |field: &str, value: Value| {
        let mut intent = at("2026-11-21T10:00:00Z");
        intent[field] = value;
        intent
    };
    for (intent, pointers) in [
        (at("2026-11-21T08:58:59Z"), vec!["/scheduledTime"]),
        (at("2037-01-01T00:00:00Z"), vec!["/scheduledTime"]),
        (at("tomorrow"), vec!["/scheduledTime"]),
        (at("2026-11-21T10:00:00"), vec!["/scheduledTime"]),
        (with("context", json!({ "channel": "#general" })), vec!["/context/text"]),
        (with("maxAttempts", json!(0)), vec!["/maxAttempts"]),
        (with("maxAttempts", json!(11)), vec!["/maxAttempts"]),
        (with("schedule", json!({ "rate": "5 minutes" })), vec!["/schedule"]),
        (
            with("context", json!({ "channel": "#general", "text": "x", "blocks": [{ "a": "x".repeat(256 * 1024) }] })),
            vec!["/context"],
        ),
    ] {
        let answer = app.post(INTENTS, &intent).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{}", answer.text);
        assert_eq!(answer.pointers(), pointers, "{}", answer.text);
    }
    // Clocks may differ by a minute.
    made(&app, &at("2026-11-21T08:59:00Z")).await;
    made(&app, &with("maxAttempts", json!(10))).await;
    assert_eq!(app.get(TASKS).await.json()["tasks"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn ended_task_is_kept_for_thirty_days() {
    let app = App::start().await;
    let task_id = id(&made(&app, &at("2026-11-22T09:00:00Z")).await);
    app.delete(&format!("{TASKS}/{task_id}")).await.json();
    app.clock.advance(30 * 86_400 - 1);
    assert_eq!(status(&app, &task_id).await, "cancelled");
    app.clock.advance(1);
    assert_eq!(app.get(&format!("{TASKS}/{task_id}")).await.problem(404), "not_found");
    assert_eq!(app.get(TASKS).await.json()["tasks"], json!([]));
}

/// A task that was created without its account, which is connected since.
async fn warned(app: &App) -> Value {
    let warned = made(app, &at("2026-11-22T09:00:00Z")).await;
    app.connect("slack", "xoxb-playground").await;
    warned
}

#[tokio::test]
async fn task_warns_of_a_missing_account() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let warned = warned(&app).await;
    assert!(warned["warnings"][0].as_str().unwrap().contains("not connected"), "{warned}");
    assert_eq!(made(&app, &at("2026-11-22T09:00:00Z")).await["warnings"], json!([]));
}

#[tokio::test]
async fn disconnected_account_names_its_tasks() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let task_id = id(&warned(&app).await);
    let gone = app.delete("/api/plugin-engine/integrations/slack").await.json();
    assert!(gone["tasks"].as_array().unwrap().contains(&json!(task_id)), "{gone}");
}

#[tokio::test]
async fn task_without_its_account_fails() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let task_id = id(&warned(&app).await);
    app.delete("/api/plugin-engine/integrations/slack").await.json();
    app.clock.advance(86_400);
    assert_eq!(fire(&app, &task_id).await.failed, 1);
    let failed = task(&app, &task_id).await;
    assert_eq!(
        (&failed["status"], &failed["attempts"][0]["code"]),
        (&json!("failed"), &json!("not_connected")),
        "{failed}"
    );
}

#[tokio::test]
async fn task_warns_of_an_account_that_expires_before_its_time() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    // An account without a refresh token, which expires in an hour.
    app.connect("slack", "xoxb-playground").await;
    let key = overseer_engine::ports::table::Key {
        partition: "org#acme#user#admin".to_owned(),
        sort: "integrations#slack".to_owned(),
    };
    let table = &app.engine.ports.table;
    let item = table.get(&key, overseer_engine::ports::table::Read::Consistent).await.unwrap().unwrap();
    let mut record: Value = item.record().unwrap();
    record["accounts"]["default"]["expires_at"] = json!("2026-11-21T10:00:00Z");
    let changed = overseer_engine::ports::table::NewItem::new(key, &record).unwrap();
    table.put(changed, overseer_engine::ports::table::Condition::Any).await.unwrap();
    assert_eq!(made(&app, &at("2026-11-21T09:59:59Z")).await["warnings"], json!([]));
    let warned = made(&app, &at("2026-11-21T10:00:00Z")).await["warnings"].clone();
    assert!(warned[0].as_str().unwrap().contains("no refresh token"), "{warned}");
}

fn kinds(app: &App) -> Vec<&'static str> {
    app.events.lock().unwrap().iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn rate_limited_attempt_is_retried_after_the_requested_wait() {
    let app = App::start().await;
    let task_id = id(&made(&app, &at("2026-11-21T10:00:00Z")).await);
    app.clock.advance(3600);
    // The service requests a wait of 30 s, which is longer than the backoff.
    app.misbehave(Service::Slack, Mode::RateLimited, 2);
    fire(&app, &task_id).await;
    let retrying = task(&app, &task_id).await;
    assert_eq!(retrying["status"], "retrying", "{retrying}");
    assert_eq!(retrying["nextAttemptAt"], "2026-11-21T10:00:30Z");
    assert_eq!(fire(&app, &task_id).await, WorkReport::default());
    app.clock.advance(30);
    fire(&app, &task_id).await;
    app.clock.advance(30);
    fire(&app, &task_id).await;
    let done = task(&app, &task_id).await;
    assert_eq!(done["status"], "succeeded", "{done}");
    let outcomes: Vec<_> = done["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(outcomes, ["failed", "failed", "succeeded"]);
    assert!(!kinds(&app).contains(&"task.failed"));
}

#[tokio::test]
async fn failed_task_can_be_retried_by_hand() {
    let app = App::start().await;
    let task_id = id(&made(&app, &at("2026-11-21T10:00:00Z")).await);
    app.clock.advance(3600);
    app.misbehave(Service::Slack, Mode::RateLimited, 3);
    // A task has three attempts.
    for _ in 0..3 {
        fire(&app, &task_id).await;
        app.clock.advance(900);
    }
    assert_eq!(status(&app, &task_id).await, "failed");
    let again = app.post(&format!("{TASKS}/{task_id}/retry"), &json!({})).await.json();
    assert!(["scheduled", "running", "succeeded"].contains(&again["status"].as_str().unwrap()), "{again}");
    while status(&app, &task_id).await != "succeeded" {
        tokio::task::yield_now().await;
    }
    let kinds = kinds(&app);
    assert_eq!(kinds.iter().filter(|kind| **kind == "task.failed").count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn attempt_with_an_unknown_outcome_is_not_retried() {
    let app = App::start().await;
    let task_id = id(&made(&app, &at("2026-11-21T10:00:00Z")).await);
    app.clock.advance(3600);
    app.misbehave(Service::Slack, Mode::Error, 1);
    fire(&app, &task_id).await;
    assert_eq!(status(&app, &task_id).await, "outcome_unknown");
    let kinds = kinds(&app);
    assert_eq!(kinds.iter().filter(|kind| **kind == "task.outcome_unknown").count(), 1, "{kinds:?}");
    assert!(!kinds.contains(&"task.failed"), "{kinds:?}");
}

#[tokio::test]
async fn waiting_task_can_be_changed() {
    let app = App::start().await;
    let task_id = id(&made(&app, &at("2026-11-21T10:00:00Z")).await);
    let path = format!("{TASKS}/{task_id}");
    let change =
        json!({ "scheduledTime": "2026-11-21T11:00:00Z", "context": { "channel": "C0PLAYGEN1", "text": "later" } });
    let changed = app.send(&app.admin, Method::PATCH, &path, Some(&change)).await.json();
    assert_eq!(
        (&changed["scheduledTime"], &changed["context"]["text"]),
        (&json!("2026-11-21T11:00:00Z"), &json!("later"))
    );
    app.clock.advance(3600);
    assert_eq!(fire(&app, &task_id).await, WorkReport::default(), "the old alarm is stale");
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn invalid_change_returns_every_problem() {
    let app = App::start().await;
    let path = format!("{TASKS}/{}", id(&made(&app, &at("2026-11-21T10:00:00Z")).await));
    let wrong = json!({ "scheduledTime": "2026-11-20T11:00:00Z", "context": { "text": "later" }, "maxAttempts": 11 });
    let answer = app.send(&app.admin, Method::PATCH, &path, Some(&wrong)).await;
    assert_eq!(answer.pointers(), ["/context/channel", "/maxAttempts", "/scheduledTime"]);
}

#[tokio::test]
async fn cancelled_task_makes_no_call() {
    let app = App::start().await;
    let task_id = id(&made(&app, &at("2026-11-21T10:00:00Z")).await);
    assert_eq!(app.delete(&format!("{TASKS}/{task_id}")).await.json()["status"], "cancelled");
    app.clock.advance(3600);
    assert_eq!(fire(&app, &task_id).await, WorkReport::default());
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn cancelled_task_cannot_be_changed() {
    let app = App::start().await;
    let path = format!("{TASKS}/{}", id(&made(&app, &at("2026-11-21T10:00:00Z")).await));
    app.delete(&path).await.json();
    for (method, rest) in [(Method::PATCH, ""), (Method::POST, "/pause"), (Method::POST, "/resume")] {
        let answer = app.send(&app.admin, method, &format!("{path}{rest}"), Some(&json!({}))).await;
        assert_eq!(answer.problem(409), "conflict", "{rest}");
    }
}

#[tokio::test]
async fn task_keeps_its_last_twenty_attempts() {
    let app = App::start().await;
    let intent = json!({ "tool": "slack", "intent": "channels", "schedule": { "rate": "1 hour" }, "context": {} });
    let task_id = id(&made(&app, &intent).await);
    for _ in 0..21 {
        app.clock.advance(3600);
        fire(&app, &task_id).await;
    }
    let attempts = task(&app, &task_id).await["attempts"].clone();
    let runs: Vec<_> = attempts.as_array().unwrap().iter().map(|attempt| attempt["run"].as_u64().unwrap()).collect();
    assert_eq!(runs, (2..=21).collect::<Vec<_>>());
    assert_eq!(attempts[0]["startedAt"], "2026-11-21T11:00:00Z");
    assert!(attempts[0]["durationMs"].is_u64(), "{attempts}");
}
