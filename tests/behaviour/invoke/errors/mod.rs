//! The error log: its failures, their resolution and counts, and the fallbacks that agents pass on.

mod counts;
mod fallbacks;
mod resolution;

use axum::Router;
use axum::extract::Json as Body;
use axum::http::StatusCode as Status;
use axum::routing::{any, post};
use overseer_engine::access::principal::Role;
use overseer_engine::outbound::address::AllowedAddress;
use overseer_playground::{Mode, Service};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Options};
use crate::support::own::OwnService;

const ERRORS: &str = "/api/plugin-engine/errors";

/// An Overseer without any connected account.
async fn unconnected() -> App {
    App::with(Options { unconnected: true, ..Options::default() }).await
}

/// An Overseer with the plugin `safe`, which needs no account, and whose service says back what it was sent.
async fn telling() -> App {
    let echo = |Body(body): Body<Value>| async move {
        let (text, at) = (body["combination"].as_str().unwrap_or("nothing").to_owned(), body["at"].to_string());
        (Status::BAD_REQUEST, Body(json!({ "message": format!("{text} at {at} does not open it") })))
    };
    let service = OwnService::start(Router::new().route("/open", post(echo)).route("/{*rest}", any(async || ""))).await;
    let parameters = json!({
        "type": "object",
        "properties": {
            "combination": { "$ref": "#/$defs/secret" },
            "doors": { "type": "array", "items": { "type": "object", "properties": { "code": { "$ref": "#/$defs/secret" } } } },
        },
        "$defs": { "secret": { "type": "string", "x-secret": true } },
    });
    let manifest = json!({
        "name": "safe", "version": "1.2.0", "display_name": "Safe", "description": "A safe of a test.",
        "runtime": { "type": "http", "base_url": format!("http://{}", service.address) },
        "permissions": ["network:127.0.0.1"], "auth": { "type": "none" },
        "actions": [{
            "name": "open", "aliases": ["unlock"], "description": "Opens it.", "effect": "unsafe", "parameters": parameters,
            "request": { "method": "POST", "path": "/open",
                         "json": { "combination": "{{ combination }}", "at": "{{ parameters.at }}" } },
            "response": { "error": { "message": "body.message" } },
        }],
    });
    let allowed = vec![AllowedAddress::Socket(service.address)];
    App::with(Options { plugins: vec![manifest.to_string()], allowed, unconnected: true, ..Options::default() }).await
}

/// An intent that fails: the user has no account.
fn fetching(user: &str, agent: &str) -> Value {
    json!({ "userId": user, "agentId": agent, "tool": "gmail", "intent": "fetch", "context": { "query": "from:ada" } })
}

fn sending(user: &str, agent: &str) -> Value {
    json!({ "userId": user, "agentId": agent, "tool": "slack", "intent": "send",
            "context": { "channel": "C0PLAYGEN1", "text": "hello" } })
}

/// What a list has, by that key.
async fn listed_as(app: &App, key: &str, query: &str) -> Vec<Value> {
    let answer = app.send(key, Method::GET, &format!("{ERRORS}{query}"), None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()["errors"].as_array().unwrap().clone()
}

async fn listed(app: &App, query: &str) -> Vec<Value> {
    listed_as(app, &app.admin, query).await
}

fn ids(errors: &[Value]) -> Vec<&str> {
    errors.iter().map(|error| error["id"].as_str().unwrap()).collect()
}

async fn resolve(app: &App, key: &str, id: &str, body: Value) -> Answer {
    app.send(key, Method::POST, &format!("{ERRORS}/{id}/resolve"), Some(&body)).await
}

async fn bulk(app: &App, key: &str, body: Value) -> Answer {
    app.send(key, Method::POST, &format!("{ERRORS}/bulk"), Some(&body)).await
}

#[tokio::test]
async fn failure_records_the_request() {
    let app = App::start().await;
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    let answer = app.intend("slack", "send", json!({ "channel": "C0PLAYGEN1", "text": "hello" })).await;
    assert_eq!(answer.failure(), "rate_limited");
    let said = answer.json();
    let errors = listed(&app, "").await;
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    let expected = json!({
        "id": error["id"], "createdAt": "2026-11-21T09:00:00Z", "userId": "admin", "agentId": "agent_1", "tool": "slack",
        "version": "1.0.0", "intent": "send_message", "code": "rate_limited", "message": said["message"],
        "retryable": true, "mayHaveHappened": false, "retryAfter": 30, "attempts": 1,
        "requestId": said["requestId"], "runId": said["metadata"]["runId"],
    });
    assert_eq!(error, &expected);
    let mut whole = app.get(&format!("{ERRORS}/{}", error["id"].as_str().unwrap())).await.json();
    assert_eq!(whole["context"].take(), json!({ "channel": "C0PLAYGEN1", "text": "hello" }));
    whole.as_object_mut().unwrap().remove("context");
    assert_eq!(whole, expected);
}

#[tokio::test]
async fn only_failed_calls_are_recorded() {
    let app = App::start().await;
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    app.intend("slack", "send", json!({ "channel": "C0PLAYGEN1", "text": "hello" })).await.failure();
    app.intend("slack", "send", json!({ "channel": "C0PLAYGEN1", "text": "hello" })).await.data();
    // Overseer refuses these before it calls the service.
    app.intend("slack", "send", json!({})).await.problem(400);
    app.intend("slack", "nothing", json!({})).await.problem(404);
    assert_eq!(listed(&app, "").await.len(), 1);
}

#[tokio::test]
async fn failed_task_attempt_is_recorded() {
    let app = unconnected().await;
    let mut intent = sending("ann", "agent_1");
    intent["scheduledTime"] = json!("2026-11-21T09:00:00Z");
    assert_eq!(app.post("/api/plugin-engine", &intent).await.status, StatusCode::ACCEPTED);
    while listed(&app, "?userId=ann&code=not_connected").await.is_empty() {
        tokio::task::yield_now().await;
    }
}

/// The newest failure as its own path shows it.
async fn newest(app: &App) -> Answer {
    let error = listed(app, "").await.remove(0);
    app.get(&format!("{ERRORS}/{}", error["id"].as_str().unwrap())).await
}

#[tokio::test]
async fn failure_redacts_secrets() {
    const SECRET: &str = "31-right-7-left";
    let app = telling().await;
    let context = json!({ "combination": SECRET, "at": 9, "apiKey": { "a": [SECRET] },
                          "doors": [{ "code": SECRET, "name": "front" }],
                          "headers": [{ "name": "Authorization", "value": SECRET }] });
    let answer = app.intend("safe", "unlock", context).await;
    assert_eq!(answer.failure(), "rejected");
    assert!(answer.text.contains(SECRET), "the service echoes the secret: {}", answer.text);
    let error = listed(&app, "").await.remove(0);
    let whole = newest(&app).await;
    assert!(!whole.text.contains(SECRET) && !error.to_string().contains(SECRET), "{}", whole.text);
    let whole = whole.json();
    assert_eq!(
        whole["context"],
        json!({ "combination": "[removed]", "at": 9, "apiKey": "[removed]",
                "doors": [{ "code": "[removed]", "name": "front" }],
                "headers": [{ "name": "Authorization", "value": "[removed]" }] })
    );
    assert!(whole["message"].as_str().unwrap().contains("does not open it"), "{whole}");
}

#[tokio::test]
async fn failure_of_an_alias_records_the_action() {
    let app = telling().await;
    assert_eq!(app.intend("safe", "unlock", json!({ "combination": "no" })).await.failure(), "rejected");
    let whole = newest(&app).await.json();
    assert_eq!((&whole["intent"], &whole["version"]), (&json!("open"), &json!("1.2.0")));
}

#[tokio::test]
async fn recorded_context_is_limited_to_16_kib() {
    let app = telling().await;
    let large = json!({ "a": vec!["x".repeat(5_000); 100], "b": "é".repeat(1_001) });
    app.intend("safe", "open", large).await.failure();
    let whole = newest(&app).await.json();
    let context = whole["context"].to_string();
    assert!(context.len() <= 16 * 1024 && context.contains("[left out]"), "{context}");
    assert_eq!(whole["context"]["a"][0], json!(format!("{}…", "x".repeat(1_000))));
}

#[tokio::test]
async fn failure_list_can_be_filtered() {
    let app = unconnected().await;
    for intent in
        [sending("ann", "a"), sending("ann", "b"), sending("bob", "a"), fetching("ann", "a"), fetching("bob", "b")]
    {
        app.post("/api/plugin-engine", &intent).await.failure();
        app.clock.advance(1);
    }
    app.connect("slack", "xoxb-playground").await;
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    app.post("/api/plugin-engine", &sending("admin", "a")).await.failure();
    for (query, count) in [
        ("", 6),
        ("?userId=ann", 3),
        ("?agentId=a", 4),
        ("?tool=slack", 4),
        ("?intent=fetch_messages", 2),
        ("?code=rate_limited", 1),
        ("?code=vetoed", 0),
        ("?userId=ann&agentId=a&tool=slack&intent=send_message&code=not_connected&resolved=false", 1),
        ("?resolved=true", 0),
        ("?userId=nobody", 0),
    ] {
        assert_eq!(listed(&app, query).await.len(), count, "{query}");
    }
    let all = listed(&app, "").await;
    resolve(&app, &app.admin, ids(&all)[2], json!({})).await.json();
    assert_eq!(ids(&listed(&app, "?resolved=true").await), [ids(&all)[2]]);
    assert_eq!(listed(&app, "?resolved=false").await.len(), 5);
}

#[tokio::test]
async fn invalid_failure_filters_are_refused() {
    let app = unconnected().await;
    for query in
        ["?code=tired", "?limit=0", "?limit=101", "?resolved=perhaps", "?status=failed", "?tool=No", "?cursor=x"]
    {
        assert_eq!(app.get(&format!("{ERRORS}{query}")).await.problem(400), "invalid_parameters", "{query}");
    }
}

/// An Overseer with one failure of `ann` and one of `bob`, and the keys of the two.
async fn failures_of_two_users() -> (App, String, String) {
    let app = unconnected().await;
    let ann = app.key("acme", &[Role::User], Some("ann")).await;
    let bob = app.key("acme", &[Role::User], Some("bob")).await;
    app.post("/api/plugin-engine", &sending("ann", "a")).await.failure();
    app.post("/api/plugin-engine", &sending("bob", "a")).await.failure();
    (app, ann, bob)
}

#[tokio::test]
async fn failure_of_another_user_is_hidden() {
    let (app, ann, bob) = failures_of_two_users().await;
    let stranger = app.key("other", &[Role::Administrator], Some("ann")).await;
    let own = listed_as(&app, &ann, "").await;
    assert_eq!((own.len(), &own[0]["userId"]), (1, &json!("ann")));
    let id = ids(&own)[0];
    for (who, key) in [("another user", &bob), ("another organization", &stranger)] {
        let list = listed_as(&app, key, "").await;
        assert!(!ids(&list).contains(&id), "{who}");
        let one = app.send(key, Method::GET, &format!("{ERRORS}/{id}"), None).await;
        assert_eq!(one.problem(404), "not_found", "{who}");
        assert_eq!(resolve(&app, key, id, json!({})).await.problem(404), "not_found", "{who}");
        let many = bulk(&app, key, json!({ "ids": [id] })).await.json();
        assert_eq!((&many["resolved"], &many["notFound"]), (&json!([]), &json!([id])), "{who}");
        let all = bulk(&app, key, json!({ "filter": {} })).await.json();
        assert!(!all["resolved"].as_array().unwrap().contains(&json!(id)), "{who}");
    }
    assert_eq!(app.get(&format!("{ERRORS}/{id}")).await.json().get("resolved"), None);
}

#[tokio::test]
async fn user_cannot_query_failures_of_all_users() {
    let (app, _, bob) = failures_of_two_users().await;
    for path in ["?userId=ann", "/stats", "/trends", "/fallbacks"] {
        let answer = app.send(&bob, Method::GET, &format!("{ERRORS}{path}"), None).await;
        assert_eq!(answer.problem(403), "forbidden", "{path}");
    }
    let body = json!({ "filter": { "userId": "ann" } });
    assert_eq!(bulk(&app, &bob, body).await.problem(403), "forbidden");
}

#[tokio::test]
async fn service_key_sees_failures_of_all_users() {
    let (app, ..) = failures_of_two_users().await;
    let bot = app.key("acme", &[Role::Service], None).await;
    assert_eq!(listed_as(&app, &bot, "").await.len(), 2);
    assert_eq!(app.send(&bot, Method::GET, &format!("{ERRORS}/stats"), None).await.json()["total"], 2);
}

#[tokio::test]
async fn statistics_are_separate_by_organization() {
    let app = unconnected().await;
    app.post("/api/plugin-engine", &sending("ann", "a")).await.failure();
    let stranger = app.key("other", &[Role::Administrator], Some("ann")).await;
    let stats = app.send(&stranger, Method::GET, &format!("{ERRORS}/stats"), None).await.json();
    assert_eq!((&stats["total"], &stats["byTool"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn partial_failure_id_is_not_found() {
    let (app, ann, _) = failures_of_two_users().await;
    let own = listed_as(&app, &ann, "").await;
    let id = ids(&own)[0];
    let bot = app.key("acme", &[Role::Service], None).await;
    for part in ["0", id.get(..id.len() - 1).unwrap(), "not-an-id", "%20"] {
        let answer = app.send(&bot, Method::GET, &format!("{ERRORS}/{part}"), None).await;
        assert_eq!(answer.problem(404), "not_found", "{part}");
    }
}

#[tokio::test]
async fn failure_list_requires_a_key() {
    let app = unconnected().await;
    let unknown = app.request(Method::GET, ERRORS).send().await.unwrap();
    assert_eq!(Answer::of(unknown).await.problem(401), "unauthenticated");
}

#[tokio::test]
async fn failures_are_kept_for_thirty_days() {
    let app = unconnected().await;
    app.post("/api/plugin-engine", &sending("ann", "a")).await.failure();
    let id = ids(&listed(&app, "").await)[0].to_owned();
    app.clock.advance(30 * 86_400 - 1);
    // Resolving it does not keep it longer.
    resolve(&app, &app.admin, &id, json!({})).await.json();
    assert_eq!(listed(&app, "").await.len(), 1);
    app.clock.advance(1);
    assert_eq!(app.get(&format!("{ERRORS}/{id}")).await.problem(404), "not_found");
    assert_eq!(listed(&app, "").await.len(), 0);
    assert_eq!(resolve(&app, &app.admin, &id, json!({})).await.problem(404), "not_found");
}
