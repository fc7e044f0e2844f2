//! Tasks: intents that run later, on a schedule, or asynchronously.

pub mod alarms;
pub mod cron;
pub mod simulation;

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use overseer_engine::access::principal::Role;
use overseer_engine::core::ids::OrgId;
use overseer_engine::core::work_report::WorkReport;
use overseer_engine::ports::Work;
use overseer_playground::{Mode, Service};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::app::{Answer, App, Options};
use crate::support::own::OwnService;

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
async fn task_warns_of_a_missing_account() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let warned = made(&app, &at("2026-11-22T09:00:00Z")).await;
    assert!(warned["warnings"][0].as_str().unwrap().contains("not connected"), "{warned}");
    app.connect("slack", "xoxb-playground").await;
    assert_eq!(made(&app, &at("2026-11-22T09:00:00Z")).await["warnings"], json!([]));
    // Without the account it fails; disconnecting the account names the task.
    let task_id = id(&warned);
    let gone = app.delete("/api/plugin-engine/integrations/slack").await.json();
    assert!(gone["tasks"].as_array().unwrap().contains(&json!(task_id)), "{gone}");
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
async fn attempt_is_retried_only_where_safe() {
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

    // After three attempts it has failed; a caller may retry it.
    let task_id = id(&made(&app, &at("2026-11-21T12:00:00Z")).await);
    app.clock.advance(7200);
    app.misbehave(Service::Slack, Mode::RateLimited, 3);
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

    // An attempt with an unknown outcome is not retried.
    let task_id = id(&made(&app, &at("2026-11-21T16:00:00Z")).await);
    app.clock.advance(36_000);
    app.misbehave(Service::Slack, Mode::Error, 1);
    fire(&app, &task_id).await;
    assert_eq!(status(&app, &task_id).await, "outcome_unknown");
    let kinds: Vec<_> = app.events.lock().unwrap().iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "task.failed").count(), 1, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "task.outcome_unknown").count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn task_can_be_changed_while_it_waits() {
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
    let wrong = json!({ "scheduledTime": "2026-11-20T11:00:00Z", "context": { "text": "later" }, "maxAttempts": 11 });
    let answer = app.send(&app.admin, Method::PATCH, &path, Some(&wrong)).await;
    assert_eq!(answer.pointers(), ["/context/channel", "/maxAttempts", "/scheduledTime"]);
    app.clock.advance(3600);
    assert_eq!(fire(&app, &task_id).await, WorkReport::default(), "the old alarm is stale");
    assert_eq!(app.delete(&path).await.json()["status"], "cancelled");
    app.clock.advance(3600);
    assert_eq!(fire(&app, &task_id).await, WorkReport::default());
    assert_eq!(app.playground.received_total(), 0);
    for (method, rest) in [(Method::PATCH, ""), (Method::POST, "/pause"), (Method::POST, "/resume")] {
        let answer = app.send(&app.admin, method, &format!("{path}{rest}"), Some(&json!({}))).await;
        assert_eq!(answer.problem(409), "conflict", "{rest}");
    }

    // Every hour, with three runs at most.
    let mut hourly = at("");
    hourly.as_object_mut().unwrap().remove("scheduledTime");
    hourly["schedule"] = json!({ "cron": "0 * * * ? *", "maxRuns": 3 });
    let recurring = made(&app, &hourly).await;
    let task_id = id(&recurring);
    let path = format!("{TASKS}/{task_id}");
    assert_eq!(recurring["task"]["scheduledTime"], "2026-11-21T12:00:00Z");
    app.clock.advance(3600);
    fire(&app, &task_id).await;
    assert_eq!(task(&app, &task_id).await["scheduledTime"], "2026-11-21T13:00:00Z");
    assert_eq!(app.post(&format!("{path}/pause"), &json!({})).await.json()["status"], "paused");
    app.clock.advance(5 * 3600);
    assert_eq!(fire(&app, &task_id).await, WorkReport::default());
    let resumed = app.post(&format!("{path}/resume"), &json!({})).await.json();
    assert_eq!((&resumed["status"], &resumed["scheduledTime"]), (&json!("scheduled"), &json!("2026-11-21T18:00:00Z")));
    for _ in 0..2 {
        app.clock.advance(3600);
        fire(&app, &task_id).await;
    }
    let done = task(&app, &task_id).await;
    assert_eq!((&done["status"], &done["runs"]), (&json!("succeeded"), &json!(3)), "{done}");
    assert_eq!(app.playground.received_total(), 3);
}

#[tokio::test]
async fn missed_runs_follow_the_catch_up_rule() {
    let next = "2026-11-21T13:00:00Z";
    for (rule, calls) in [("skip", 0), ("one", 1), ("all", 3)] {
        let app = App::start().await;
        let mut hourly = at("");
        hourly.as_object_mut().unwrap().remove("scheduledTime");
        hourly["schedule"] = json!({ "cron": "0 * * * ? *", "catchUp": rule });
        let task_id = id(&made(&app, &hourly).await);
        // 10:00, 11:00 and 12:00 were missed.
        app.clock.advance(3 * 3600 + 1800);
        // The timer fires as well: only the record shows when all runs have ended.
        while task(&app, &task_id).await["scheduledTime"] != next {
            fire(&app, &task_id).await;
        }
        assert_eq!(app.playground.received_total(), calls, "{rule}");
    }
}

#[tokio::test]
async fn recurring_task_is_paused_after_ten_failures() {
    let app = App::start().await;
    let intent = json!({ "tool": "slack", "intent": "send", "schedule": { "rate": "1 hour" },
                         "context": { "channel": "C0NOWHERE", "text": "hello" } });
    let task_id = id(&made(&app, &intent).await);
    for failures in 1..=10 {
        app.clock.advance(3600);
        fire(&app, &task_id).await;
        let shown = task(&app, &task_id).await;
        let expected = if failures == 10 { "paused" } else { "scheduled" };
        assert_eq!((&shown["status"], &shown["failuresInRow"]), (&json!(expected), &json!(failures)), "{shown}");
    }
    let events = app.events.lock().unwrap().iter().filter(|event| event.kind == "task.paused").count();
    assert_eq!(events, 1);
}

#[tokio::test]
async fn max_runs_limits_a_recurring_task() {
    let app = App::start().await;
    let recurring = |most: u32, channel: &str| {
        json!({ "tool": "slack", "intent": "send", "schedule": { "rate": "1 hour", "maxRuns": most },
                "context": { "channel": channel, "text": "hello" } })
    };
    // The tenth failure is the last run: there is nothing to pause.
    let task_id = id(&made(&app, &recurring(10, "#nowhere")).await);
    for _ in 0..10 {
        app.clock.advance(3600);
        fire(&app, &task_id).await;
    }
    assert_eq!(status(&app, &task_id).await, "failed");

    let task_id = id(&made(&app, &recurring(2, "#general")).await);
    let path = format!("{TASKS}/{task_id}");
    app.clock.advance(3600);
    fire(&app, &task_id).await;
    // A schedule whose runs are used up already.
    let change = json!({ "schedule": { "rate": "2 hours", "maxRuns": 1 } });
    let answer = app.send(&app.admin, Method::PATCH, &path, Some(&change)).await;
    assert_eq!(answer.pointers(), ["/schedule/maxRuns"]);
    // Paused in the middle of its last run.
    app.clock.advance(3600);
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    fire(&app, &task_id).await;
    assert_eq!(app.post(&format!("{path}/pause"), &json!({})).await.json()["status"], "paused");
    assert_eq!(app.post(&format!("{path}/resume"), &json!({})).await.problem(400), "invalid_parameters");
    let change = json!({ "schedule": { "rate": "2 hours", "maxRuns": 3 } });
    assert_eq!(app.send(&app.admin, Method::PATCH, &path, Some(&change)).await.status, StatusCode::OK);
    assert_eq!(app.post(&format!("{path}/resume"), &json!({})).await.json()["status"], "scheduled");
}

#[tokio::test]
async fn retry_by_hand_is_not_skipped_when_late() {
    let app = App::start().await;
    let once = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0PLAYGEN1", "text": "hello" },
                       "schedule": { "rate": "1 hour", "end": "2026-11-21T10:30:00Z", "catchUp": "skip" } });
    let task_id = id(&made(&app, &once).await);
    assert_eq!(app.delete(&format!("{TASKS}/{task_id}")).await.json()["status"], "cancelled");
    app.clock.advance(7200);
    // Its alarm is lost for an hour.
    let principal = app.engine.authenticate(&app.admin.as_str().into()).await.unwrap();
    app.deaf().retry_task(&principal, &task_id).await.unwrap();
    app.clock.advance(3600);
    fire(&app, &task_id).await;
    let done = task(&app, &task_id).await;
    assert_eq!((&done["status"], &done["runs"]), (&json!("succeeded"), &json!(1)), "{done}");
    assert_eq!(app.playground.received_total(), 1);
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
async fn caller_reaches_only_own_tasks() {
    let app = App::start().await;
    let own = id(&made(&app, &at("2026-11-22T09:00:00Z")).await);
    app.clock.advance(1);
    let mut of_ann = at("2026-11-22T09:00:00Z");
    of_ann["userId"] = json!("ann");
    let anns = id(&made(&app, &of_ann).await);
    let ann = app.key("acme", &[Role::User], Some("ann")).await;
    let other = app.key("other", &[Role::Administrator], Some("ann")).await;
    let ids = |answer: &Answer| -> Vec<String> {
        answer.json()["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&app.get(TASKS).await), [anns.clone(), own.clone()], "the newest first");
    assert_eq!(ids(&app.get(&format!("{TASKS}?userId=ann")).await), std::slice::from_ref(&anns));
    assert_eq!(ids(&app.send(&ann, Method::GET, TASKS, None).await), std::slice::from_ref(&anns));
    assert_eq!(ids(&app.send(&other, Method::GET, TASKS, None).await), Vec::<String>::new());
    assert_eq!(app.send(&ann, Method::GET, &format!("{TASKS}?userId=admin"), None).await.problem(403), "forbidden");
    for (key, id) in [(&ann, &own), (&other, &own), (&other, &anns)] {
        let path = format!("{TASKS}/{id}");
        for (method, rest, body) in [
            (Method::GET, "", None),
            (Method::DELETE, "", None),
            (Method::PATCH, "", Some(json!({}))),
            (Method::POST, "/retry", None),
            (Method::POST, "/pause", None),
            (Method::POST, "/resume", None),
        ] {
            let answer = app.send(key, method, &format!("{path}{rest}"), body.as_ref()).await;
            assert_eq!(answer.problem(404), "not_found", "{rest}");
        }
    }
    let cancelled = app.send(&other, Method::POST, &format!("{TASKS}/cancel"), Some(&json!({}))).await.json();
    assert_eq!(cancelled, json!({ "dryRun": false, "cancelled": [], "asked": [] }));
    let dry = app.post(&format!("{TASKS}/cancel"), &json!({ "agentId": "agent_1", "dryRun": true })).await.json();
    assert_eq!(dry["cancelled"], json!([anns, own]));
    assert_eq!(status(&app, &own).await, "scheduled");
    let mine = app.send(&ann, Method::POST, &format!("{TASKS}/cancel"), Some(&json!({ "tool": "slack" }))).await.json();
    assert_eq!(mine["cancelled"], json!([anns]));
    assert_eq!(status(&app, &own).await, "scheduled");
    assert_eq!(ids(&app.get(&format!("{TASKS}?status=cancelled")).await), [anns]);
    for wrong in ["status=never", "limit=0", "cursor=x", "agent=a"] {
        assert_eq!(app.get(&format!("{TASKS}?{wrong}")).await.problem(400), "invalid_parameters", "{wrong}");
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
    assert!(app.get(TASKS).await.json()["tasks"][0].get("attempts").is_none(), "a list has no attempts");
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

#[tokio::test]
async fn invalid_schedule_returns_every_problem() {
    let app = App::start().await;
    for (schedule, pointers) in [
        (json!({}), vec!["/schedule"]),
        (json!({ "cron": "0 9 * * ? *", "rate": "1 day" }), vec!["/schedule"]),
        (json!({ "cron": "0 9 * * * *" }), vec!["/schedule/cron"]),
        (json!({ "cron": "0 9 30 2 ? *" }), vec!["/schedule/cron"]),
        (json!({ "cron": "0 9 * * ? *", "timezone": "Europe/Berln" }), vec!["/schedule/timezone"]),
        (json!({ "rate": "0 minutes", "end": "2026-11-21T08:00:00Z" }), vec!["/schedule/end", "/schedule/rate"]),
        (json!({ "rate": "1 day", "maxRuns": 0 }), vec!["/schedule/maxRuns"]),
        (json!({ "rate": "1 day", "catchUp": "some" }), vec!["/schedule/catchUp"]),
        (json!({ "rate": "1 day", "every": 5 }), vec!["/schedule/every"]),
    ] {
        let intent = json!({ "tool": "slack", "intent": "channels", "schedule": schedule, "context": {} });
        let answer = app.post(INTENTS, &intent).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{}", answer.text);
        assert_eq!(answer.pointers(), pointers, "{}", answer.text);
    }
    // Nine in the morning in Berlin, on a weekday.
    let berlin = json!({ "cron": "cron(0 9 ? * MON-FRI *)", "timezone": "Europe/Berlin" });
    let intent = json!({ "tool": "slack", "intent": "channels", "schedule": berlin, "context": {} });
    assert_eq!(made(&app, &intent).await["task"]["scheduledTime"], "2026-11-23T08:00:00Z");
}

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
        let again = slow.app.post(&format!("{path}/retry"), &json!({})).await;
        assert_eq!(again.problem(409), "conflict");
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

#[tokio::test]
async fn retry_of_a_cancelled_recurring_task_runs_once() {
    let app = App::start().await;
    let intent = json!({ "tool": "slack", "intent": "channels", "schedule": { "rate": "1 hour" }, "context": {} });
    let task_id = id(&made(&app, &intent).await);
    app.delete(&format!("{TASKS}/{task_id}")).await.json();
    app.post(&format!("{TASKS}/{task_id}/retry"), &json!({})).await.json();
    while status(&app, &task_id).await != "cancelled" {
        fire(&app, &task_id).await;
    }
    assert_eq!(task(&app, &task_id).await["runs"], 1);
}

#[tokio::test]
async fn partial_task_id_is_not_found() {
    let app = App::start().await;
    let task_id = id(&made(&app, &at("2026-11-22T09:00:00Z")).await);
    // A key that is bound to no user finds tasks by the organization's list.
    let bot = app.key("acme", &[Role::Service], None).await;
    let get = async |id: &str| app.send(&bot, Method::GET, &format!("{TASKS}/{id}"), None).await;
    assert_eq!(get(&task_id).await.status, StatusCode::OK);
    for part in ["0", task_id.get(..task_id.len() - 1).unwrap(), "not-an-id", "%20"] {
        assert_eq!(get(part).await.problem(404), "not_found", "{part}");
    }
}

#[tokio::test]
async fn bulk_cancel_continues_from_its_cursor() {
    let app = App::start().await;
    for _ in 0..1_150 {
        made(&app, &at("2026-11-22T09:00:00Z")).await;
    }
    let cancel = async |body: Value| app.post(&format!("{TASKS}/cancel"), &body).await.json();
    let dry = cancel(json!({ "dryRun": true })).await;
    assert_eq!(dry["cancelled"].as_array().unwrap().len(), 1_000);
    let first = cancel(json!({})).await;
    assert_eq!(first["cancelled"].as_array().unwrap().len(), 1_000);
    let rest = cancel(json!({ "cursor": first["nextCursor"] })).await;
    assert_eq!((rest["cancelled"].as_array().unwrap().len(), rest.get("nextCursor")), (150, None));
    let open = app.get(&format!("{TASKS}?status=scheduled&limit=100")).await.json();
    assert_eq!(open["tasks"], json!([]));
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
