//! Failures of services, and the errors that the caller gets.

mod reaching;
mod reading;
mod running;

use std::time::Duration;

use overseer_playground::{Mode, NOTION_HOME_PAGE, NOTION_TASKS_DATABASE, Service, Switch};
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Options};

/// For each service a call that only reads, one that does twice what is asked for twice, and one that does not.
fn actions() -> Vec<(Service, &'static str, Value, bool)> {
    vec![
        (Service::Slack, "channels", json!({}), true),
        (Service::Slack, "send", json!({ "channel": "C0PLAYGEN1", "text": "hello" }), false),
        (Service::Gmail, "fetch", json!({ "limit": 1 }), true),
        (Service::Gmail, "send", json!({ "to": "a@example.com", "subject": "s", "body": "b" }), false),
        (Service::Notion, "query", json!({ "database_id": NOTION_TASKS_DATABASE }), true),
        (Service::Notion, "append", json!({ "page_id": NOTION_HOME_PAGE, "content": "c" }), false),
        (Service::Notion, "update", json!({ "page_id": NOTION_HOME_PAGE, "title": "t" }), true),
    ]
}

/// Checks the shape of a failure, and gives its error.
#[track_caller]
fn failed(answer: &Answer, code: &str, retryable: bool) -> Value {
    assert_eq!(answer.failure(), code, "{}", answer.text);
    let whole = answer.json();
    let error = whole["error"].clone();
    assert_eq!(error["retryable"], json!(retryable), "{whole}");
    assert_eq!(error["message"], whole["message"]);
    assert!(whole["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert_eq!((whole.get("data"), whole.get("externalId")), (None, None));
    assert_eq!(whole["requestId"].as_str().unwrap(), answer.headers["x-request-id"].to_str().unwrap());
    assert!(whole["metadata"]["durationMs"].is_u64());
    error
}

/// Each action fails with `code`; `retryable` says of a repeatable and of an unsafe one whether it may be tried again.
async fn each_fails(app: &App, mode: Mode, code: &str, retryable: (bool, bool)) -> Vec<Answer> {
    let mut answers = Vec::new();
    for (service, intent, context, repeatable) in actions() {
        let before = app.playground.received_total();
        // Overseer repeats a repeatable action twice. It does not wait for a limit beyond the budget.
        let calls = if repeatable && retryable.0 && code == "unavailable" { 3 } else { 1 };
        app.playground.set_switch(Switch { retry_after: 30, ..Switch::new(service, mode, calls) });
        let answer = app.intend(service.name(), intent, context.clone()).await;
        let error = failed(&answer, code, if repeatable { retryable.0 } else { retryable.1 });
        // An agent must be able to tell "perhaps sent" from "surely not" without reading prose.
        let unclear = !repeatable && matches!(code, "timeout" | "unavailable");
        assert_eq!(error.get("mayHaveHappened"), unclear.then_some(&json!(true)), "{error}");
        assert_eq!(answer.json()["metadata"]["attempts"], json!(calls));
        let received = app.playground.received_total() - before;
        assert_eq!(received, u64::from(calls), "Overseer called {service} {intent} more often than it says");
        // The service works again.
        app.intend(service.name(), intent, context).await.data();
        answers.push(answer);
    }
    answers
}

#[tokio::test]
async fn rate_limited_call_gives_retry_after() {
    let app = App::start().await;
    for answer in each_fails(&app, Mode::RateLimited, "rate_limited", (true, true)).await {
        assert_eq!(answer.json()["error"]["retryAfter"], json!(30));
    }
}

#[tokio::test]
async fn failing_service_is_unavailable() {
    let app = App::start().await;
    for answer in each_fails(&app, Mode::Error, "unavailable", (true, false)).await {
        assert_eq!(answer.json()["error"].get("retryAfter"), None);
    }
}

#[tokio::test]
async fn expired_token_needs_a_new_connection() {
    let app = App::start().await;
    for answer in each_fails(&app, Mode::ExpiredToken, "reconnect_required", (false, false)).await {
        assert!(answer.json()["message"].as_str().unwrap().contains("connect"), "{}", answer.text);
    }
}

#[tokio::test]
async fn unreadable_answer_is_unavailable() {
    let app = App::start().await;
    each_fails(&app, Mode::Nonsense, "unavailable", (true, false)).await;
}

#[tokio::test]
async fn oversized_answer_is_unavailable() {
    let app = App::start().await;
    each_fails(&app, Mode::Oversized, "unavailable", (false, false)).await;
}

#[tokio::test]
async fn redirect_to_another_host_is_not_followed() {
    let app = App::start().await;
    each_fails(&app, Mode::Redirect, "unavailable", (false, false)).await;
}

#[tokio::test]
async fn silent_service_times_out_with_the_budget() {
    let budget = Some(Duration::from_millis(300));
    let app = App::with(Options { budget, ..Options::default() }).await;
    for (service, intent, context, repeatable) in actions() {
        let before = app.playground.received_total();
        app.misbehave(service, Mode::Timeout, 1);
        let answer = app.intend(service.name(), intent, context).await;
        failed(&answer, "timeout", repeatable);
        assert_eq!(answer.json()["metadata"]["attempts"], json!(1));
        assert_eq!(app.playground.received_total() - before, 1);
    }
    app.intend("slack", "send", json!({ "channel": "C0PLAYGEN1", "text": "works again" })).await.data();
}

#[tokio::test]
async fn rejected_token_needs_a_new_connection() {
    let app = App::start().await;
    for (service, intent, context, _) in actions() {
        app.connect(service.name(), "revoked-by-the-user").await;
        failed(&app.intend(service.name(), intent, context).await, "reconnect_required", false);
    }
}

#[tokio::test]
async fn unconnected_plugin_names_the_connect_link() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    for (service, intent, context, _) in actions() {
        let answer = app.intend(service.name(), intent, context).await;
        failed(&answer, "not_connected", false);
        assert_eq!(answer.json()["metadata"]["attempts"], json!(0));
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        let remedy = format!("POST /api/plugin-engine/integrations/{service}/connect");
        assert!(message.contains(&remedy), "{message}");
    }
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn invalid_parameters_are_reported_before_a_missing_account() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let answer = app.intend("slack", "send", json!({})).await;
    assert_eq!(answer.problem(400), "invalid_parameters");
}
