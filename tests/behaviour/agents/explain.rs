//! Explaining an intent: what it would do, without doing it.

use overseer_engine::access::principal::Role;
use overseer_playground::{Mode, Service};
use reqwest::Method;
use serde_json::{Value, json};

use crate::accounts::authorize::{Browser, leads_to, link};
use crate::support::app::{Answer, App, Options};
use crate::support::own;

const EXPLAIN: &str = "/api/plugin-engine?explain=true";

async fn explained(app: &App, intent: &Value) -> Value {
    let before = app.playground.received_total();
    app.table.take();
    let answer = app.post(EXPLAIN, intent).await;
    assert!(answer.status.is_success(), "{}", answer.text);
    let (reads, writes) = app.table.take();
    assert!(reads <= 3 && writes == 0, "{reads} reads and {writes} writes");
    assert_eq!(app.playground.received_total(), before, "a request was sent");
    assert_eq!(answer.json()["requestId"].as_str().unwrap(), answer.headers["x-request-id"]);
    answer.json()["explanation"].clone()
}

fn send(channel: &str) -> Value {
    json!({ "agentId": "agent_1", "tool": "slack", "intent": "send", "context": { "channel": channel, "text": "hello" } })
}

#[tokio::test]
async fn explanation_shows_everything_up_to_the_call() {
    let app = App::start().await;
    let mut explanation = explained(&app, &send("C0PLAYGEN1")).await;
    let account = app.get("/api/plugin-engine/integrations/slack").await.json()["accounts"][0].clone();
    assert_eq!(explanation["account"].take(), account);
    let usual = json!({ "failures": 5, "window_s": 300, "open_s": 60, "open_max_s": 1800 });
    let url = format!("http://{}/playground/slack/api/chat.postMessage", app.address);
    assert_eq!(
        explanation["request"].take(),
        json!({
            "method": "POST", "url": url,
            "headers": { "accept": "application/json", "authorization": "Bearer [hidden]",
                         "content-type": "application/json; charset=utf-8" },
            "body": { "channel": "C0PLAYGEN1", "text": "hello" },
        })
    );
    assert_eq!(
        explanation,
        json!({
            "wouldCall": true, "tool": "slack", "version": "1.0.0", "intent": "send_message", "effect": "unsafe",
            "userId": "admin", "agentId": "agent_1", "config": { "breaker": usual, "recordReads": false },
            "breaker": { "state": "closed", "failures": 0 },
            "account": null,
            "missingScopes": [], "request": null,
            "mappings": [{ "pointer": "/channel", "kind": "channel", "given": "C0PLAYGEN1", "externalId": "C0PLAYGEN1", "how": "as_given" }],
        })
    );
}

#[tokio::test]
async fn explanation_of_a_paginated_read_shows_its_first_request() {
    let app = App::start().await;
    let list = explained(&app, &json!({ "tool": "slack", "intent": "channels", "context": { "limit": 7 } })).await;
    assert!(list["request"]["url"].as_str().unwrap().contains("limit=7"), "{list}");
    assert_eq!((&list["effect"], list["request"].get("body")), (&json!("read"), None));
}

#[tokio::test]
async fn explanation_of_a_mail_shows_its_encoded_text() {
    let app = App::start().await;
    let mail = json!({ "to": "a@example.com", "subject": "s", "body": "b" });
    let mail = explained(&app, &json!({ "tool": "gmail", "intent": "send", "context": mail })).await;
    assert!(mail["request"]["body"]["raw"].is_string(), "{mail}");
}

#[tokio::test]
async fn explanation_resolves_known_names() {
    let app = App::start().await;
    let name = |explanation: &Value| {
        (
            explanation["mappings"][0]["how"].clone(),
            explanation["mappings"][0].get("externalId").cloned(),
            explanation["request"]["body"]["channel"].clone(),
        )
    };
    let before = explained(&app, &send("#general")).await;
    assert_eq!(name(&before), (json!("lookup"), None, json!("#general")), "only a lookup at the service resolves it");
    app.post("/api/plugin-engine", &send("#general")).await.data();
    let after = explained(&app, &send("#general")).await;
    assert_eq!(name(&after), (json!("lookup"), Some(json!("C0PLAYGEN1")), json!("C0PLAYGEN1")));
    let own = json!({ "tool": "slack", "kind": "channel", "name": "general", "externalId": "C0PLAYRND2", "agentId": "agent_1" });
    let put = app.send(&app.admin, Method::PUT, "/api/plugin-engine/context-mappings", Some(&own)).await;
    assert!(put.status.is_success(), "{}", put.text);
    let own = explained(&app, &send("#general")).await;
    assert_eq!(name(&own), (json!("agent"), Some(json!("C0PLAYRND2")), json!("C0PLAYRND2")));
}

#[tokio::test]
async fn explanation_reports_a_missing_account() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let explanation = explained(&app, &send("C0PLAYGEN1")).await;
    assert_eq!((&explanation["wouldCall"], &explanation["error"]["code"]), (&json!(false), &json!("not_connected")));
    assert!(explanation["error"]["fallback"].is_string() && explanation.get("account").is_none(), "{explanation}");
    assert_eq!(app.get("/api/plugin-engine/errors").await.json()["errors"], json!([]), "no failure is recorded");
}

/// An Overseer whose administrator has disabled Slack.
async fn disabled() -> App {
    let app = App::start().await;
    app.post("/api/v1/plugins/slack/disable", &json!({ "reason": "a pause" })).await.json();
    app
}

#[tokio::test]
async fn explanation_reports_a_disabled_plugin() {
    let app = disabled().await;
    let explanation = explained(&app, &send("C0PLAYGEN1")).await;
    assert_eq!((&explanation["wouldCall"], &explanation["error"]["code"]), (&json!(false), &json!("disabled")));
    assert!(explanation["error"]["message"].as_str().unwrap().contains("a pause"));
    assert_eq!(app.get("/api/plugin-engine/errors").await.json()["errors"], json!([]), "no failure is recorded");
}

#[tokio::test]
async fn explanation_of_a_task_warns_of_a_disabled_plugin() {
    let app = disabled().await;
    let mut later = send("C0PLAYGEN1");
    later["scheduledTime"] = json!((app.engine.ports.clock.now() + jiff::SignedDuration::from_hours(24)).to_string());
    let explanation = explained(&app, &later).await;
    assert!(
        explanation["warnings"][0].as_str().unwrap().contains("a pause") && explanation.get("error").is_none(),
        "{explanation}"
    );
    assert_eq!(app.get("/api/plugin-engine/errors").await.json()["errors"], json!([]), "no failure is recorded");
}

#[tokio::test]
async fn explanation_of_an_invalid_intent_is_refused() {
    let app = App::start().await;
    let wrong = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0PLAYGEN1" } });
    assert_eq!(app.post(EXPLAIN, &wrong).await.pointers(), ["/context/text"]);
}

#[tokio::test]
async fn explain_must_be_true_or_false() {
    let app = App::start().await;
    let wrong = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0PLAYGEN1" } });
    assert_eq!(app.post("/api/plugin-engine?explain=yes", &wrong).await.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn explanation_for_another_user_is_forbidden() {
    let app = App::start().await;
    let ann = app.key("acme", &[Role::User], Some("ann")).await;
    let mut other = send("C0PLAYGEN1");
    other["userId"] = json!("admin");
    assert_eq!(app.send(&ann, Method::POST, EXPLAIN, Some(&other)).await.problem(403), "forbidden");
}

#[tokio::test]
async fn explanation_tells_the_idempotency_state() {
    let app = App::start().await;
    let mut keyed = send("C0PLAYGEN1");
    keyed["idempotencyKey"] = json!("k1");
    let explanation = explained(&app, &keyed).await;
    assert_eq!((&explanation["idempotency"], &explanation["wouldCall"]), (&json!("new"), &json!(true)));
    app.post("/api/plugin-engine", &keyed).await.data();
    let explanation = explained(&app, &keyed).await;
    assert_eq!((&explanation["idempotency"], &explanation["wouldCall"]), (&json!("answered"), &json!(false)));
    // An action whose outcome is unknown runs again only with resolve=retry.
    keyed["idempotencyKey"] = json!("k2");
    app.misbehave(Service::Slack, Mode::Error, 1);
    app.post("/api/plugin-engine", &keyed).await.failure();
    let explanation = explained(&app, &keyed).await;
    assert_eq!((&explanation["idempotency"], &explanation["wouldCall"]), (&json!("unknown"), &json!(false)));
    let retry = app.post(&format!("{EXPLAIN}&resolve=retry"), &keyed).await.json()["explanation"].clone();
    assert_eq!((&retry["idempotency"], &retry["wouldCall"]), (&json!("again"), &json!(true)));
}

#[tokio::test]
async fn explanation_tells_the_scheduled_time() {
    let app = App::start().await;
    let mut later = send("C0PLAYGEN1");
    // On Lambdas the machine's clock decides the next time.
    later["schedule"] = json!({ "cron": "0 9 ? 1 2#1 2035", "timezone": "Europe/Berlin" });
    let explanation = explained(&app, &later).await;
    assert_eq!(
        (&explanation["scheduledTime"], &explanation["wouldCall"]),
        (&json!("2035-01-01T08:00:00Z"), &json!(false))
    );
    assert_eq!(app.get("/api/plugin-engine/tasks").await.json()["tasks"], json!([]));
}

#[tokio::test]
async fn explanation_of_an_invalid_schedule_is_refused() {
    let app = App::start().await;
    let mut later = send("C0PLAYGEN1");
    later["schedule"] = json!({ "cron": "never" });
    assert_eq!(app.post(EXPLAIN, &later).await.pointers(), ["/schedule/cron"]);
}

#[tokio::test]
async fn explanation_names_missing_scopes() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let url = link(&app, "slack", &json!({ "scopes": ["chat:write"] })).await;
    let mut browser = Browser::new(&app);
    browser.open(&url).await;
    let provider = leads_to(&browser.ask(Method::POST, &url, None).await);
    let back = browser.decide(&provider, "allow").await;
    browser.open(&back).await;
    let explanation = explained(&app, &send("C0PLAYGEN1")).await;
    let missing = json!(["channels:read", "channels:history", "groups:read", "groups:history"]);
    assert_eq!(explanation["missingScopes"], missing, "{explanation}");
}

/// The explanation of a call of a plugin with an API key.
async fn explained_own() -> Answer {
    let auth = json!({ "type": "api_key", "header": "X-Key", "prefix": "Key " });
    let plugins = vec![own::manifest("http://127.0.0.1:9", &auth)];
    let app = App::with(Options { plugins, ..Options::default() }).await;
    app.connect("own", own::TOKEN).await;
    app.post(EXPLAIN, &json!({ "tool": "own", "intent": "act", "context": { "path": "a/b" } })).await
}

#[tokio::test]
async fn explanation_redacts_credentials() {
    let answer = explained_own().await;
    assert_eq!(answer.json()["explanation"]["request"]["headers"]["x-key"], json!("Key [hidden]"));
    assert!(!answer.text.contains(own::TOKEN));
}

#[tokio::test]
async fn explanation_shows_the_encoded_path() {
    let answer = explained_own().await;
    assert_eq!(answer.json()["explanation"]["request"]["url"], json!("http://127.0.0.1:9/a%2Fb"));
}

#[tokio::test]
async fn explanation_shows_the_breaker_settings_of_the_plugin() {
    let answer = explained_own().await;
    assert_eq!(
        answer.json()["explanation"]["config"]["breaker"],
        json!({ "failures": 100, "window_s": 300, "open_s": 60, "open_max_s": 1800 })
    );
}
