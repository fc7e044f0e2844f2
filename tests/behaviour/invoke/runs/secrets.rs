//! Overseer stores no secret in a run, an event or a failure, even if the service echoes it.

use overseer_engine::invoke::runs::RequestOptions;
use overseer_playground::{Mode, Service};
use serde_json::{Value, json};

use super::RUNS;
use crate::support::app::App;
use crate::support::scripted::{Does, Scripted, act_as};
use crate::tasks::alarm;

const SECRET: &str = "s3cret-pass-1234";
const ERRORS: &str = "/api/plugin-engine/errors";

/// A service that refuses the code and echoes it.
async fn says_it_back() -> (Scripted, Value) {
    let no = Does::Says(400, json!({ "message": format!("{SECRET} does not open it") }));
    let mut intent = act_as("unsafe");
    intent["context"] = json!({ "code": SECRET });
    (Scripted::start(vec![no]).await, intent)
}

/// Checks that neither a list nor its first item contains the secret.
async fn is_nowhere_in(app: &App, path: &str, list: &str, secret: &str) {
    let listed = app.get(path).await;
    let id = listed.json()[list][0]["id"].as_str().unwrap().to_owned();
    let one = app.get(&format!("{path}/{id}")).await;
    assert!(!listed.text.contains(secret), "{}", listed.text);
    assert!(!one.text.contains(secret), "{}", one.text);
}

#[tokio::test]
async fn echoed_secret_is_not_stored_with_the_run() {
    let (setup, intent) = says_it_back().await;
    assert_eq!(setup.app.post(super::INTENTS, &intent).await.failure(), "rejected");
    assert!(setup.run().await["message"].as_str().unwrap().contains("does not open it"));
    is_nowhere_in(&setup.app, RUNS, "runs", SECRET).await;
}

#[tokio::test]
async fn echoed_secret_is_not_stored_with_the_failure() {
    let (setup, intent) = says_it_back().await;
    assert_eq!(setup.app.post(super::INTENTS, &intent).await.failure(), "rejected");
    is_nowhere_in(&setup.app, ERRORS, "errors", SECRET).await;
}

#[tokio::test]
async fn echoed_secret_is_in_no_event() {
    let (setup, mut intent) = says_it_back().await;
    intent["scheduledTime"] = json!("2026-11-21T09:00:00Z");
    let (engine, intent) = (setup.app.deaf(), serde_json::from_value(intent).unwrap());
    let made = engine.schedule(&setup.principal().await, intent, &RequestOptions::default()).await.unwrap();
    engine.dispatch(alarm(made.answer.task.id.as_str()), None).await.unwrap();
    let event = loop {
        let failed = setup.app.events.lock().unwrap().iter().find(|event| event.kind == "task.failed").cloned();
        match failed {
            Some(event) => break event,
            None => tokio::task::yield_now().await,
        }
    };
    let detail = event.detail.to_string();
    assert!(detail.contains("does not open it") && !detail.contains(SECRET), "{detail}");
}

#[tokio::test]
async fn failed_lookup_stores_no_account_token() {
    let app = App::start().await;
    let token = Service::Slack.standing_token();
    app.misbehave(Service::Slack, Mode::Redirect, 1);
    let context = json!({ "channel": "#general", "text": format!("my token is {token}") });
    app.intend("slack", "send", context).await.failure();
    assert_eq!(app.playground.received_total(), 1, "Overseer calls the service once, for the lookup");
    is_nowhere_in(&app, ERRORS, "errors", token).await;
}
