//! Recurring tasks: their schedules, their limits, pause and resume.

use overseer_engine::core::work_report::WorkReport;
use overseer_playground::{Mode, Service};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{INTENTS, TASKS, at, fire, id, made, status, task};
use crate::support::app::App;

/// An intent that sends a message every hour of the clock.
fn hourly(schedule: Value) -> Value {
    let mut intent = at("");
    intent.as_object_mut().unwrap().remove("scheduledTime");
    intent["schedule"] = schedule;
    intent
}

/// An intent that sends a message to a channel every hour, at most `most` times.
fn limited(most: u32, channel: &str) -> Value {
    json!({ "tool": "slack", "intent": "send", "schedule": { "rate": "1 hour", "maxRuns": most },
            "context": { "channel": channel, "text": "hello" } })
}

#[tokio::test]
async fn paused_task_misses_its_runs_until_resumed() {
    let app = App::start().await;
    let recurring = made(&app, &hourly(json!({ "cron": "0 * * * ? *", "maxRuns": 3 }))).await;
    let task_id = id(&recurring);
    let path = format!("{TASKS}/{task_id}");
    assert_eq!(recurring["task"]["scheduledTime"], "2026-11-21T10:00:00Z");
    app.clock.advance(3600);
    fire(&app, &task_id).await;
    assert_eq!(task(&app, &task_id).await["scheduledTime"], "2026-11-21T11:00:00Z");
    assert_eq!(app.post(&format!("{path}/pause"), &json!({})).await.json()["status"], "paused");
    app.clock.advance(5 * 3600);
    assert_eq!(fire(&app, &task_id).await, WorkReport::default());
    let resumed = app.post(&format!("{path}/resume"), &json!({})).await.json();
    assert_eq!((&resumed["status"], &resumed["scheduledTime"]), (&json!("scheduled"), &json!("2026-11-21T16:00:00Z")));
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
        let task_id = id(&made(&app, &hourly(json!({ "cron": "0 * * * ? *", "catchUp": rule }))).await);
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
async fn tenth_failure_in_the_last_run_fails_the_task() {
    let app = App::start().await;
    let task_id = id(&made(&app, &limited(10, "#nowhere")).await);
    for _ in 0..10 {
        app.clock.advance(3600);
        fire(&app, &task_id).await;
    }
    // No run is left, so the engine has nothing to pause.
    assert_eq!(status(&app, &task_id).await, "failed");
}

#[tokio::test]
async fn max_runs_below_the_runs_made_is_refused() {
    let app = App::start().await;
    let task_id = id(&made(&app, &limited(2, "#general")).await);
    app.clock.advance(3600);
    fire(&app, &task_id).await;
    let change = json!({ "schedule": { "rate": "2 hours", "maxRuns": 1 } });
    let answer = app.send(&app.admin, Method::PATCH, &format!("{TASKS}/{task_id}"), Some(&change)).await;
    assert_eq!(answer.pointers(), ["/schedule/maxRuns"]);
}

#[tokio::test]
async fn task_paused_in_its_last_run_resumes_with_more_runs() {
    let app = App::start().await;
    let task_id = id(&made(&app, &limited(2, "#general")).await);
    let path = format!("{TASKS}/{task_id}");
    app.clock.advance(3600);
    fire(&app, &task_id).await;
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
}

#[tokio::test]
async fn cron_schedule_follows_its_timezone() {
    let app = App::start().await;
    // Nine in the morning in Berlin, on a weekday.
    let berlin = json!({ "cron": "cron(0 9 ? * MON-FRI *)", "timezone": "Europe/Berlin" });
    let intent = json!({ "tool": "slack", "intent": "channels", "schedule": berlin, "context": {} });
    assert_eq!(made(&app, &intent).await["task"]["scheduledTime"], "2026-11-23T08:00:00Z");
}
