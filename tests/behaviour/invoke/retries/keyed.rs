//! Actions whose service deduplicates by a key from Overseer.

use std::collections::BTreeSet;

use overseer_engine::core::ids::OrgId;
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::Work;

use super::{Answer, App, FAILS, Method, Role, Setup, Value, failed, json, limited, plugin};

/// An intent to pay, with the caller's own key.
fn paying(key: &str) -> Value {
    json!({ "tool": "shop", "intent": "keyed", "context": { "amount": 5 }, "userId": "ann", "idempotencyKey": key })
}

async fn pay(setup: &Setup, key: &str) -> Answer {
    setup.app.post("/api/plugin-engine", &paying(key)).await
}

/// The one key that the service was told in the calls since it had been called `before` times.
#[track_caller]
fn one_key(setup: &Setup, before: usize, calls: usize) -> String {
    let keys = setup.keys().split_off(before);
    assert_eq!(keys.len(), calls, "{keys:?}");
    let one: BTreeSet<_> = keys.iter().collect();
    assert_eq!(one.len(), 1, "{keys:?}");
    keys[0].clone()
}

#[tokio::test]
async fn tries_of_one_intent_share_the_service_key() {
    let setup = Setup::start().await;
    setup.says([FAILS, FAILS]);
    let answer = setup.intend("keyed").await;
    answer.data();
    assert_eq!(answer.json()["metadata"]["attempts"], json!(3));
    one_key(&setup, 0, 3);
}

#[tokio::test]
async fn service_key_is_a_uuid_of_version_8() {
    let setup = Setup::start().await;
    setup.intend("keyed").await.data();
    let key = one_key(&setup, 0, 1);
    let parts: Vec<_> = key.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{key}");
    assert!(parts[2].starts_with('8') && parts[3].starts_with('a'), "{key}");
    assert!(key.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'), "{key}");
}

#[tokio::test]
async fn each_intent_has_its_own_service_key() {
    let setup = Setup::start().await;
    for _ in 0..2 {
        setup.intend("keyed").await.data();
    }
    let keys = setup.keys();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn caller_key_gives_one_service_key() {
    let setup = Setup::start().await;
    setup.says([limited("3600")]);
    failed(&pay(&setup, "order-1").await, "rate_limited", 1);
    // The service did nothing: the caller may retry with the same key.
    pay(&setup, "order-1").await.data();
    let first = one_key(&setup, 0, 2);
    assert!(!first.contains("order"), "{first}");
}

#[tokio::test]
async fn repeated_payment_is_replayed() {
    let setup = Setup::start().await;
    pay(&setup, "order-1").await.data();
    let replayed = pay(&setup, "order-1").await;
    assert_eq!(replayed.headers["idempotent-replayed"], "true");
    assert_eq!(setup.calls(), 1);
}

#[tokio::test]
async fn service_key_is_separate_by_owner() {
    let setup = Setup::start().await;
    pay(&setup, "order-1").await.data();
    pay(&setup, "order-2").await.data();
    let mut of_ben = paying("order-1");
    of_ben["userId"] = json!("ben");
    setup.app.post("/api/plugin-engine", &of_ben).await.data();
    let other = setup.app.key("other", &[Role::Administrator], None).await;
    setup.app.send(&other, Method::POST, "/api/plugin-engine", Some(&paying("order-1"))).await.data();
    let keys: BTreeSet<_> = setup.keys().into_iter().collect();
    assert_eq!((setup.calls(), keys.len()), (4, 4), "{keys:?}");
}

#[tokio::test]
async fn unknown_outcome_without_key_is_not_retryable() {
    let setup = Setup::start().await;
    setup.says([FAILS; 3]);
    let error = failed(&setup.intend("keyed").await, "unavailable", 3);
    assert_eq!((&error["retryable"], &error["mayHaveHappened"]), (&json!(false), &json!(true)), "{error}");
    assert!(error["message"].as_str().unwrap().contains("check whether it happened before a retry"), "{error}");
}

/// A payment under `order-1` of unknown outcome.
async fn with_unknown_payment() -> (Setup, Answer) {
    let setup = Setup::start().await;
    setup.says([FAILS; 3]);
    let unclear = pay(&setup, "order-1").await;
    failed(&unclear, "unavailable", 3);
    (setup, unclear)
}

/// The run of an intent.
async fn run(setup: &Setup, answer: &Answer) -> Value {
    let run = answer.json()["metadata"]["runId"].as_str().unwrap().to_owned();
    setup.app.get(&format!("/api/plugin-engine/runs/{run}")).await.json()
}

#[tokio::test]
async fn unknown_outcome_is_retryable_with_the_callers_key() {
    let (setup, unclear) = with_unknown_payment().await;
    let error = unclear.json()["error"].take();
    assert_eq!((&error["retryable"], &error["mayHaveHappened"]), (&json!(true), &json!(true)), "{error}");
    assert!(error["message"].as_str().unwrap().contains("retry with the same idempotency key"), "{error}");
    assert!(error["fallback"].as_str().unwrap().contains("with the same idempotency key"), "{error}");
    assert_eq!(run(&setup, &unclear).await["state"], "unknown");
}

#[tokio::test]
async fn key_of_unknown_outcome_stays_with_its_payment() {
    let (setup, _) = with_unknown_payment().await;
    let mut another = paying("order-1");
    another["context"]["amount"] = json!(6);
    assert_eq!(setup.app.post("/api/plugin-engine", &another).await.problem(422), "key_reused");
}

#[tokio::test]
async fn retry_of_unknown_outcome_keeps_the_service_key() {
    let (setup, unclear) = with_unknown_payment().await;
    let again = pay(&setup, "order-1").await;
    again.data();
    assert_eq!(again.headers.get("idempotent-replayed"), None);
    one_key(&setup, 0, 4);
    let before = run(&setup, &unclear).await;
    assert_eq!(before["resolution"]["as"], "retried", "{before}");
    assert_eq!(pay(&setup, "order-1").await.headers["idempotent-replayed"], "true");
    assert_eq!(setup.calls(), 4);
}

#[tokio::test]
async fn concurrent_retries_make_one_call() {
    let (setup, _) = with_unknown_payment().await;
    let all = futures_util::future::join_all((0..20).map(|_| pay(&setup, "order-1"))).await;
    for answer in all {
        if answer.status == 409 {
            assert_eq!(answer.problem(409), "in_progress");
        } else {
            answer.data();
        }
    }
    one_key(&setup, 0, 4);
}

#[tokio::test]
async fn abandoned_key_stays_final() {
    let (setup, _) = with_unknown_payment().await;
    for path in ["/api/plugin-engine?resolve=abandon", "/api/plugin-engine"] {
        let answer = setup.app.post(path, &paying("order-1")).await;
        assert_eq!(answer.failure(), "outcome_unknown", "{}", answer.text);
        assert_eq!(answer.json()["error"]["retryable"], json!(false));
    }
    assert_eq!(setup.calls(), 3);
}

#[tokio::test]
async fn parameter_cannot_replace_the_key() {
    let setup = Setup::start().await;
    let answer = setup.app.intend("shop", "keyed", json!({ "idempotency_key": "mine" })).await;
    answer.data();
    assert_ne!(one_key(&setup, 0, 1), "mine");
}

async fn made(app: &App, when: Value) -> String {
    let mut intent = json!({ "tool": "shop", "intent": "keyed", "maxAttempts": 3 });
    intent.as_object_mut().unwrap().extend(when.as_object().unwrap().clone());
    app.post("/api/plugin-engine", &intent).await.json()["task"]["id"].as_str().unwrap().to_owned()
}

/// The alarm of a task goes off when it is due, and the task's state after that.
async fn fire(setup: &Setup, id: &str, seconds: i64) -> String {
    setup.app.clock.advance(seconds);
    let work = Work { org: OrgId::parse("acme").unwrap(), kind: "task".into(), id: format!("{id} admin"), revision: 1 };
    setup.app.engine.dispatch(work, None).await.unwrap();
    loop {
        let task = setup.app.get(&format!("/api/plugin-engine/tasks/{id}")).await.json();
        let status = task["status"].as_str().unwrap().to_owned();
        if status != "running" {
            return status;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn task_attempt_makes_one_call() {
    let setup = Setup::start().await;
    let once = made(&setup.app, json!({ "scheduledTime": "2026-11-21T09:01:00Z" })).await;
    setup.says([FAILS, FAILS]);
    for (calls, state) in [(1, "retrying"), (2, "retrying"), (3, "succeeded")] {
        assert_eq!(fire(&setup, &once, 60).await, state);
        assert_eq!(setup.calls(), calls);
    }
}

#[tokio::test]
async fn attempts_of_one_task_run_share_the_service_key() {
    let setup = Setup::start().await;
    let once = made(&setup.app, json!({ "scheduledTime": "2026-11-21T09:01:00Z" })).await;
    setup.says([FAILS, FAILS]);
    for _ in 0..3 {
        fire(&setup, &once, 60).await;
    }
    one_key(&setup, 0, 3);
}

#[tokio::test]
async fn each_run_of_a_task_has_its_service_key() {
    let setup = Setup::start().await;
    let once = made(&setup.app, json!({ "scheduledTime": "2026-11-21T09:01:00Z" })).await;
    assert_eq!(fire(&setup, &once, 60).await, "succeeded");
    let first = one_key(&setup, 0, 1);
    let again = made(&setup.app, json!({ "schedule": { "rate": "1 hour" } })).await;
    setup.says([FAILS]);
    assert_eq!(fire(&setup, &again, 3600).await, "retrying");
    assert_eq!(fire(&setup, &again, 60).await, "scheduled");
    let second = one_key(&setup, 1, 2);
    assert_eq!(fire(&setup, &again, 3600).await, "scheduled");
    let third = one_key(&setup, 3, 1);
    assert_eq!(BTreeSet::from([first, second, third]).len(), 3);
}

#[tokio::test]
async fn unsafe_task_with_unknown_outcome_is_not_retried() {
    let setup = Setup::start().await;
    let intent = json!({ "tool": "shop", "intent": "unsafe", "scheduledTime": "2026-11-21T09:01:00Z" });
    let id = setup.app.post("/api/plugin-engine", &intent).await.json()["task"]["id"].as_str().unwrap().to_owned();
    setup.says([FAILS]);
    assert_eq!(fire(&setup, &id, 60).await, "outcome_unknown");
    assert_eq!(setup.calls(), 1);
}

/// Adds the plugin to a catalog, with one action changed; the refusal of it.
fn added(name: &str, change: impl FnOnce(&mut Value)) -> Result<(), String> {
    let mut changed = plugin("127.0.0.1:1".parse().unwrap());
    let actions = changed["actions"].as_array_mut().unwrap();
    change(actions.iter_mut().find(|action| action["name"] == name).unwrap());
    Catalog::built_in().add(&changed.to_string()).map(drop).map_err(|error| error.to_string())
}

fn key_header() -> Value {
    json!({ "x-key": "{{ idempotency_key }}" })
}

/// Parameters with one of the name of the key.
fn own_parameter() -> Value {
    json!({ "type": "object", "properties": { "idempotency_key": { "type": "string" } } })
}

#[test]
fn keyed_action_must_send_its_key() {
    let needs = added("keyed", |action| action["request"]["headers"] = json!({})).unwrap_err();
    assert!(needs.contains("actions.keyed.effect: keyed needs idempotency_key"), "{needs}");
}

#[test]
fn key_may_be_anywhere_in_the_request() {
    for (field, value) in
        [("json", json!({ "key": "{{ idempotency_key }}" })), ("path", json!("/{{ idempotency_key }}"))]
    {
        added("keyed", |action| {
            action["request"].as_object_mut().unwrap().remove("headers");
            action["request"][field] = value;
        })
        .unwrap();
    }
}

#[test]
fn only_a_keyed_action_may_send_a_key() {
    let closed = json!({ "type": "object", "additionalProperties": false });
    for name in ["read", "idempotent", "unsafe"] {
        for parameters in [None, Some(&closed)] {
            let error = added(name, |action| {
                action["request"]["headers"] = key_header();
                if let Some(parameters) = parameters {
                    action["parameters"] = parameters.clone();
                }
            })
            .unwrap_err();
            assert!(error.contains(&format!("actions.{name}.")) && error.contains("idempotency_key"), "{error}");
        }
    }
}

#[test]
fn unkeyed_action_may_have_an_idempotency_key_parameter() {
    for name in ["read", "idempotent", "unsafe"] {
        added(name, |action| {
            action["request"]["headers"] = key_header();
            action["parameters"] = own_parameter();
        })
        .unwrap();
    }
}

#[test]
fn parameter_may_not_shadow_the_key() {
    let taken = added("keyed", |action| {
        action["request"]["headers"] = key_header();
        action["parameters"] = own_parameter();
    })
    .unwrap_err();
    assert!(taken.contains("actions.keyed.parameters: idempotency_key"), "{taken}");
}
