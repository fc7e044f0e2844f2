//! The route by which an external scheduler starts the sweep every minute.

use overseer_engine::outbound::config::{Config, ConfigError};
use overseer_engine::plugin::catalog::Catalog;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::app::{Answer, App, Options};

const CRON: &str = "/api/plugin-engine/cron";
/// 31 characters, and 32.
const SHORT: &str = "0123456789abcdef0123456789ABCDE";
const TOKEN: &str = "0123456789abcdef0123456789ABCDEF";

async fn with_token() -> App {
    App::with(Options { cron_token: Some(TOKEN.to_owned()), ..Options::default() }).await
}

async fn call(app: &App, authorization: Option<&str>) -> Answer {
    let mut request = app.request(Method::POST, CRON);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    Answer::of(request.send().await.unwrap()).await
}

#[track_caller]
fn refused(answer: &Answer) {
    assert_eq!(answer.problem(401), "unauthenticated");
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    let detail = "send the header Authorization: Bearer with the CRON_SECRET_TOKEN of this Overseer; if it was started \
                  without one, this route refuses every request";
    assert_eq!(answer.json()["detail"], detail);
}

#[tokio::test]
async fn cron_route_without_a_token_refuses_every_caller() {
    let app = App::start().await;
    let admin = format!("Bearer {}", app.admin);
    for authorization in [None, Some("Bearer "), Some("Bearer"), Some(""), Some(admin.as_str())] {
        refused(&call(&app, authorization).await);
    }
}

#[tokio::test]
async fn cron_route_accepts_only_its_token() {
    let app = with_token().await;
    let wrong = [
        TOKEN.to_owned(),
        format!("Basic {TOKEN}"),
        format!("Bearer{TOKEN}"),
        format!("Bearer {}", TOKEN.to_lowercase()),
        format!("Bearer {TOKEN}0"),
        format!("Bearer {SHORT}"),
        format!("Bearer {TOKEN} {TOKEN}"),
        format!("Bearer {}", app.admin),
    ];
    refused(&call(&app, None).await);
    for authorization in &wrong {
        refused(&call(&app, Some(authorization)).await);
    }
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer "] {
        let answer = call(&app, Some(&format!("{scheme} {TOKEN}"))).await;
        assert_eq!(answer.status, StatusCode::OK, "{scheme}: {}", answer.text);
        assert_eq!(answer.text, r#"{"due":0,"enqueued":0,"claimed":0,"succeeded":0,"failed":0,"left":0}"#);
    }
}

#[tokio::test]
async fn cron_route_accepts_get() {
    let app = with_token().await;
    let get = app.request(Method::GET, CRON).header("authorization", format!("Bearer {TOKEN}"));
    let answer = Answer::of(get.send().await.unwrap()).await;
    let posted = app.send(TOKEN, Method::POST, CRON, None).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, posted.json()));
}

#[tokio::test]
async fn cron_route_refuses_other_methods() {
    let app = with_token().await;
    let answer = app.send(TOKEN, Method::PUT, CRON, None).await;
    assert_eq!(answer.problem(405), "method_not_allowed");
    assert_eq!(answer.headers["allow"], "GET,HEAD,POST");
}

#[tokio::test]
async fn cron_token_is_valid_on_no_other_route() {
    let app = with_token().await;
    assert_eq!(app.send(TOKEN, Method::GET, "/api/plugin-engine/tasks", None).await.problem(401), "unauthenticated");
}

#[tokio::test]
async fn cron_route_enqueues_due_tasks() {
    let app = with_token().await;
    let intent = json!({ "tool": "slack", "intent": "send", "scheduledTime": "2026-11-21T10:00:00Z",
                         "context": { "channel": "C0PLAYGEN1", "text": "hello" } });
    let made = app.post("/api/plugin-engine", &intent).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
    let made = made.json();
    let task = format!("/api/plugin-engine/tasks/{}", made["task"]["id"].as_str().unwrap());
    let authorization = format!("Bearer {TOKEN}");
    let answer = call(&app, Some(&authorization)).await;
    assert_eq!(answer.json()["due"], json!(0), "it is not due yet: {}", answer.text);

    app.clock.advance(3600);
    let answer = call(&app, Some(&authorization)).await;
    assert_eq!(answer.text, r#"{"due":1,"enqueued":1,"claimed":0,"succeeded":0,"failed":0,"left":0}"#);
    while app.get(&task).await.json()["status"] != "succeeded" {
        tokio::task::yield_now().await;
    }
    let answer = call(&app, Some(&authorization)).await;
    assert_eq!(answer.json()["due"], json!(0), "{}", answer.text);
    assert_eq!(app.playground.received_total(), 1);
}

fn read(token: &str) -> Result<Config, ConfigError> {
    Config::read(&Catalog::built_in(), |name| (name == "CRON_SECRET_TOKEN").then(|| token.to_owned()))
}

#[test]
fn invalid_cron_token_stops_the_start() {
    for token in [SHORT, &format!(" {SHORT} "), &"ü".repeat(32), &format!("{TOKEN} {TOKEN}")] {
        let said = read(token).unwrap_err().to_string();
        let start = "the environment variable CRON_SECRET_TOKEN is wrong: must have at least 32 characters";
        assert!(said.starts_with(start) && !said.contains(token.trim()), "{said}");
    }
}

#[test]
fn cron_token_is_read_without_spaces_around_it() {
    for token in [TOKEN.to_owned(), format!(" {TOKEN}\n"), "x".repeat(1000)] {
        assert!(read(&token).unwrap().is_cron_token(Some(&token.trim().into())), "{token}");
    }
}

#[test]
fn empty_cron_token_counts_as_unset() {
    for token in ["", "  "] {
        let config = read(token).unwrap();
        assert!(!config.is_cron_token(Some(&token.into())) && !config.is_cron_token(None));
    }
}
