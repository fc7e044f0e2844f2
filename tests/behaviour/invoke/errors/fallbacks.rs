//! Fallbacks: the messages that agents pass on about a failure.

use overseer_engine::access::principal::Role;
use overseer_playground::{Mode, Service};
use reqwest::Method;
use serde_json::{Value, json};

use super::{fetching, sending, unconnected};
use crate::support::app::{Answer, App};

const FALLBACKS: &str = "/api/plugin-engine/errors/fallbacks";

async fn fallback_of(app: &App, intent: &Value) -> String {
    let answer = app.post("/api/plugin-engine", intent).await;
    answer.failure();
    answer.json()["error"]["fallback"].as_str().unwrap().to_owned()
}

async fn set(app: &App, body: Value) -> Answer {
    app.send(&app.admin, Method::PUT, FALLBACKS, Some(&body)).await
}

/// A fallback for each scope, each more specific than those before it.
fn scopes() -> [Value; 4] {
    [
        json!({ "message": "of the organization" }),
        json!({ "tool": "slack", "message": "of the plugin" }),
        json!({ "agentId": "a", "message": "of the agent" }),
        json!({ "tool": "slack", "agentId": "a", "message": "of both" }),
    ]
}

/// An Overseer with a fallback for each scope.
async fn with_fallbacks() -> App {
    let app = unconnected().await;
    for fallback in scopes() {
        set(&app, fallback).await.json();
    }
    app
}

#[tokio::test]
async fn set_fallback_is_shown() {
    let app = unconnected().await;
    for fallback in scopes() {
        let mut answer = set(&app, fallback.clone()).await.json();
        assert_eq!(answer["updatedAt"].take(), json!("2026-11-21T09:00:00Z"));
        answer.as_object_mut().unwrap().remove("updatedAt");
        assert_eq!(answer, fallback);
    }
}

#[tokio::test]
async fn most_specific_fallback_is_used() {
    let app = unconnected().await;
    for fallback in scopes() {
        set(&app, fallback.clone()).await.json();
        assert_eq!(fallback_of(&app, &sending("ann", "a")).await, fallback["message"]);
    }
    assert_eq!(fallback_of(&app, &sending("ann", "b")).await, "of the plugin");
    assert_eq!(fallback_of(&app, &fetching("ann", "a")).await, "of the agent");
    assert_eq!(fallback_of(&app, &fetching("ann", "b")).await, "of the organization");
    let mut without_agent = fetching("ann", "");
    without_agent.as_object_mut().unwrap().remove("agentId");
    assert_eq!(fallback_of(&app, &without_agent).await, "of the organization");
}

#[tokio::test]
async fn fallback_can_be_replaced() {
    let app = with_fallbacks().await;
    set(&app, json!({ "tool": "slack", "agentId": "a", "message": "of both, again" })).await.json();
    assert_eq!(fallback_of(&app, &sending("ann", "a")).await, "of both, again");
}

#[tokio::test]
async fn fallback_list_has_pages() {
    let app = with_fallbacks().await;
    // A replaced fallback is listed once.
    set(&app, json!({ "tool": "slack", "agentId": "a", "message": "of both, again" })).await.json();
    let listed = app.get(&format!("{FALLBACKS}?limit=3")).await.json();
    let rest = app.get(&format!("{FALLBACKS}?cursor={}", listed["nextCursor"].as_str().unwrap())).await.json();
    assert_eq!((listed["fallbacks"].as_array().unwrap().len(), rest["fallbacks"].as_array().unwrap().len()), (3, 1));
}

#[tokio::test]
async fn fallbacks_are_separate_by_organization() {
    let own = fallback_of(&unconnected().await, &sending("ann", "a")).await;
    let app = with_fallbacks().await;
    let other = app.key("other", &[Role::Administrator], Some("ann")).await;
    let theirs = app.send(&other, Method::POST, "/api/plugin-engine", Some(&sending("ann", "a"))).await;
    assert_eq!(theirs.json()["error"]["fallback"], json!(own), "the other organization has the default");
    assert_eq!(app.send(&other, Method::GET, FALLBACKS, None).await.json()["fallbacks"], json!([]));
}

#[tokio::test]
async fn deleted_fallback_gives_way_to_the_next() {
    let own = fallback_of(&unconnected().await, &sending("ann", "a")).await;
    let app = with_fallbacks().await;
    for (query, then) in [
        ("?tool=slack&agentId=a", "of the agent"),
        ("?agentId=a", "of the plugin"),
        ("?tool=slack", "of the organization"),
        ("", own.as_str()),
    ] {
        app.delete(&format!("{FALLBACKS}{query}")).await.json();
        assert_eq!(fallback_of(&app, &sending("ann", "a")).await, then, "{query}");
    }
}

#[tokio::test]
async fn deleted_fallback_is_not_found() {
    let app = with_fallbacks().await;
    for query in ["?tool=slack&agentId=a", "?agentId=a", "?tool=slack", ""] {
        app.delete(&format!("{FALLBACKS}{query}")).await.json();
        assert_eq!(app.delete(&format!("{FALLBACKS}{query}")).await.problem(404), "not_found", "{query}");
    }
}

#[tokio::test]
async fn fallback_requires_an_administrator() {
    let app = unconnected().await;
    let good = json!({ "message": "x" });
    for role in [Role::Service, Role::User] {
        let key = app.key("acme", &[role], Some("ann")).await;
        assert_eq!(app.send(&key, Method::PUT, FALLBACKS, Some(&good)).await.problem(403), "forbidden");
        assert_eq!(app.send(&key, Method::DELETE, FALLBACKS, None).await.problem(403), "forbidden");
    }
    assert_eq!(app.get(FALLBACKS).await.json()["fallbacks"], json!([]));
    set(&app, good).await.json();
}

#[tokio::test]
async fn invalid_fallback_is_refused() {
    let app = unconnected().await;
    for (body, pointers) in [
        (json!({}), vec!["/message"]),
        (json!({ "message": "" }), vec!["/message"]),
        (json!({ "message": " \n" }), vec!["/message"]),
        (json!({ "message": "é".repeat(1_001) }), vec!["/message"]),
        (json!({ "message": "x", "plugin": "slack" }), vec!["/plugin"]),
        (json!({ "message": "x", "agentId": "" }), vec!["/agentId"]),
    ] {
        assert_eq!(set(&app, body.clone()).await.pointers(), pointers, "{body}");
    }
    assert_eq!(set(&app, json!({ "tool": "slak", "message": "x" })).await.problem(404), "unknown_plugin");
    assert_eq!(app.get(FALLBACKS).await.json()["fallbacks"], json!([]));
    set(&app, json!({ "message": "é".repeat(1_000) })).await.json();
}

#[tokio::test]
async fn default_fallback_names_the_connect_link() {
    let own = fallback_of(&unconnected().await, &sending("ann", "a")).await;
    assert!(own.contains("not connected") && own.contains("integrations/slack/connect"), "{own}");
}

#[tokio::test]
async fn default_fallback_names_the_next_step() {
    let app = App::start().await;
    let send = sending("admin", "a");
    for (mode, expected) in [
        (Mode::RateLimited, "after 30 s"),
        (Mode::ExpiredToken, "integrations/slack/connect"),
        (Mode::Error, "Look there first"),
    ] {
        app.misbehave(Service::Slack, mode, 1);
        let said = fallback_of(&app, &send).await;
        assert!(said.starts_with("Tell the person") && said.contains(expected), "{said}");
    }
    app.misbehave(Service::Gmail, Mode::Error, 3);
    let said = fallback_of(&app, &fetching("admin", "a")).await;
    assert!(said.contains("once more after 30 s"), "{said}");
    let refused = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0NOWHERE1", "text": "hello" } });
    let said = fallback_of(&app, &refused).await;
    assert!(said.contains("refused") && said.contains("Do not send the same intent again"), "{said}");
}
