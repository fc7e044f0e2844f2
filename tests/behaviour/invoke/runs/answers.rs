//! Answers of a service, and what the ledger records of them: an intent marked retryable can be sent again unchanged.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use serde_json::{Value, json};

use super::{is_replay, keyed, runs};
use crate::support::own::OwnService;
use crate::support::scripted::{Does, Scripted, act_as, says};

#[tokio::test]
async fn endless_retry_after_is_an_ordinary_failure() {
    let limited = async || (StatusCode::TOO_MANY_REQUESTS, [("retry-after", u64::MAX.to_string())], "{}");
    let service = OwnService::start(Router::new().fallback(any(limited))).await;
    let app = service.app().await;
    assert_eq!(app.intend("own", "act", json!({ "path": "x" })).await.failure(), "rate_limited");
    assert_eq!(runs(&app, "").await[0]["state"], "failed");
    assert_eq!(service.calls().len(), 1);
}

/// A service that breaks the first try off, and limits the next two.
fn broken_then_limited() -> Vec<Does> {
    vec![Does::BreaksOff, says(429), says(429), says(200)]
}

#[tokio::test]
async fn last_try_keeps_may_have_happened_of_the_first() {
    let setup = Scripted::start(broken_then_limited()).await;
    let answer = setup.app.post(super::INTENTS, &act_as("keyed")).await;
    assert_eq!((answer.failure().as_str(), setup.calls()), ("rate_limited", 3));
    let error = answer.json()["error"].take();
    assert_eq!((&error["mayHaveHappened"], &error["retryable"]), (&json!(true), &json!(false)), "{error}");
    assert_eq!(setup.run().await["state"], "unknown");
}

#[tokio::test]
async fn retry_with_the_callers_key_keeps_the_service_key() {
    let setup = Scripted::start(broken_then_limited()).await;
    let first = keyed(&setup.app, "k1", &act_as("keyed"), &[]).await;
    let error = first.json()["error"].take();
    assert_eq!((&error["mayHaveHappened"], &error["retryable"]), (&json!(true), &json!(true)), "{error}");
    keyed(&setup.app, "k1", &act_as("keyed"), &[]).await.data();
    let keys: Vec<_> = setup.service.headers().iter().map(|headers| headers["idempotency-key"].clone()).collect();
    assert_eq!(keys, vec![keys[0].clone(); 4]);
}

#[tokio::test]
async fn retryable_failure_frees_its_key() {
    let unsure = || Does::Says(500, json!({ "code": "unsure" }));
    let setup = Scripted::start(vec![unsure(), unsure(), unsure(), says(200)]).await;
    let first = keyed(&setup.app, "k1", &act_as("idempotent"), &[]).await;
    assert_eq!(first.failure(), "outcome_unknown");
    assert_eq!(first.json()["error"]["retryable"], json!(true), "{}", first.text);
    let again = keyed(&setup.app, "k1", &act_as("idempotent"), &[]).await;
    assert!(!is_replay(&again));
    again.data();
    assert_eq!(setup.calls(), 4);
}

#[tokio::test]
async fn interrupted_run_is_unknown_for_every_effect() {
    let setup = Scripted::start(vec![Does::BreaksOff]).await;
    for effect in ["idempotent", "keyed", "unsafe"] {
        setup.app.post(super::INTENTS, &act_as(effect)).await.failure();
        let run = setup.run().await;
        assert_eq!(
            (&run["effect"], &run["state"]),
            (&json!(effect), &json!("unknown")),
            "the state failed would say that nothing happened"
        );
        // The next run is newer.
        setup.app.clock.advance(1);
    }
}

#[tokio::test]
async fn overlong_external_id_does_not_lose_the_answer() {
    let setup = Scripted::start(vec![Does::Says(200, json!({ "id": "x".repeat(500_000) }))]).await;
    keyed(&setup.app, "k1", &act_as("unsafe"), &[]).await.data();
    setup.app.clock.advance(100);
    let run = setup.run().await;
    assert_eq!(run["state"], "succeeded", "{}", run["state"]);
    let again = keyed(&setup.app, "k1", &act_as("unsafe"), &[]).await;
    assert!(is_replay(&again));
    assert_eq!(again.data()["id"], Value::Null, "the stored answer leaves out data as large as the id");
}
