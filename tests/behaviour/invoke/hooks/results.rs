//! Hooks after calls and on failures: they change what the caller gets.

use super::*;

/// An intent with an effect, under a key.
fn keyed(key: &str, path: &str) -> Value {
    json!({ "tool": "own", "intent": "act", "idempotencyKey": key, "context": { "path": path } })
}

async fn with_after_hook() -> Bench {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["after_tool_call"]))).await;
    bench
}

#[tokio::test]
async fn after_hook_may_replace_a_result() {
    let bench = with_after_hook().await;
    bench.decides(&json!({ "decision": "replace", "data": { "path": "[hidden]" } }));
    let changed = bench.app.post(INTENTS, &keyed("a", "one")).await;
    assert_eq!(changed.data(), json!({ "path": "[hidden]" }));
}

#[tokio::test]
async fn after_hook_sees_parameters_with_the_result() {
    let bench = with_after_hook().await;
    bench.act("one").await.data();
    let asked = bench.last().json();
    assert_eq!((&asked["context"]["parameters"], &asked["data"]["path"]), (&json!({ "path": "one" }), &json!("one")));
}

#[tokio::test]
async fn after_hook_may_withhold_a_result() {
    let bench = with_after_hook().await;
    bench.decides(&json!({ "decision": "veto", "reason": "it has names in it" }));
    let withheld = bench.app.post(INTENTS, &keyed("b", "one")).await.json();
    assert_eq!((&withheld["success"], &withheld["data"]), (&json!(true), &Value::Null));
    assert_eq!(withheld["message"], "It was done; The guard withholds the result: it has names in it");
}

#[tokio::test]
async fn failed_after_hook_withholds_the_result() {
    let bench = with_after_hook().await;
    bench.receiver.answer(StatusCode::BAD_GATEWAY);
    let failed = bench.app.post(INTENTS, &keyed("c", "one")).await.json();
    assert_eq!((&failed["success"], &failed["data"]), (&json!(true), &Value::Null));
    assert!(failed["message"].as_str().unwrap().contains("its hook after_tool_call failed"), "{failed}");
}

/// Three calls whose results the after-hook replaces, withholds, and fails on.
async fn with_changed_results() -> Bench {
    let bench = with_after_hook().await;
    bench.decides(&json!({ "decision": "replace", "data": { "path": "[hidden]" } }));
    bench.app.post(INTENTS, &keyed("a", "one")).await.data();
    bench.decides(&json!({ "decision": "veto", "reason": "it has names in it" }));
    bench.app.post(INTENTS, &keyed("b", "one")).await.data();
    bench.receiver.answer(StatusCode::BAD_GATEWAY);
    bench.app.post(INTENTS, &keyed("c", "one")).await.data();
    bench
}

#[tokio::test]
async fn replay_gives_the_changed_result() {
    let bench = with_changed_results().await;
    assert_eq!(bench.app.post(INTENTS, &keyed("a", "one")).await.data(), json!({ "path": "[hidden]" }));
    assert_eq!(bench.app.post(INTENTS, &keyed("b", "one")).await.json()["data"], Value::Null);
    assert_eq!(bench.service.calls().len(), 3);
}

#[tokio::test]
async fn replay_asks_no_hook() {
    let bench = with_changed_results().await;
    let asked = bench.asked().len();
    for key in ["a", "b"] {
        bench.app.post(INTENTS, &keyed(key, "one")).await.data();
    }
    assert_eq!(bench.asked().len(), asked);
}

#[tokio::test]
async fn run_with_a_changed_result_succeeds() {
    let bench = with_changed_results().await;
    let runs = bench.app.get("/api/plugin-engine/runs").await.json();
    let runs = runs["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    assert!(runs.iter().all(|run| run["state"] == "succeeded"), "{runs:?}");
}

async fn with_error_hook() -> Bench {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["on_error", "after_tool_call"]))).await;
    bench
}

/// What the error hook puts in place of the error's words.
fn told() -> Value {
    json!({ "message": "Ask Ann.", "fallback": "Tell the person to ask Ann." })
}

#[tokio::test]
async fn error_hook_may_replace_the_agents_words() {
    let bench = with_error_hook().await;
    bench.decides(&json!({ "decision": "replace", "data": told() }));
    let answer = bench.act("400").await;
    assert_eq!(answer.failure(), "rejected");
    let error = answer.json()["error"].clone();
    assert_eq!((&error["message"], &error["fallback"]), (&told()["message"], &told()["fallback"]));
    let asked = bench.last().json();
    assert_eq!((&asked["type"], &asked["data"]["code"]), (&json!("on_error"), &json!("rejected")));
}

#[tokio::test]
async fn replay_gives_the_replaced_words() {
    let bench = with_error_hook().await;
    for _ in 0..2 {
        bench.decides(&json!({ "decision": "replace", "data": told() }));
        let error = bench.app.post(INTENTS, &keyed("k", "400")).await.json()["error"].clone();
        assert_eq!((&error["message"], &error["fallback"]), (&told()["message"], &told()["fallback"]));
    }
}

#[tokio::test]
async fn failure_records_the_original_words() {
    let bench = with_error_hook().await;
    bench.decides(&json!({ "decision": "replace", "data": told() }));
    bench.act("400").await.failure();
    assert!(bench.errors("own").await[0]["message"].as_str().unwrap().contains("not like that"));
}

#[tokio::test]
async fn error_hook_may_replace_words_only() {
    let bench = with_error_hook().await;
    for (changed, said) in [
        (json!({ "decision": "replace", "data": { "code": "timeout" } }), "code cannot be changed"),
        (json!({ "decision": "replace", "data": { "retryable": true } }), "retryable cannot be changed"),
        (json!({ "decision": "replace", "data": { "message": 7 } }), "message is not a string"),
        (json!({ "decision": "replace", "data": "no" }), "it is not an error object"),
        (json!({ "decision": "veto", "reason": "no" }), "nothing left to forbid"),
    ] {
        bench.decides(&changed);
        let error = bench.act("400").await.json()["error"].clone();
        assert_eq!((&error["code"], &error["retryable"]), (&json!("rejected"), &json!(false)));
        assert!(error["message"].as_str().unwrap().contains("not like that"), "{error}");
        let recorded = bench.errors("guard").await;
        assert!(recorded.iter().any(|one| one["message"].as_str().unwrap().contains(said)), "{said}: {recorded:?}");
    }
}

#[tokio::test]
async fn after_hook_is_not_asked_about_a_failure() {
    let bench = with_error_hook().await;
    bench.act("400").await.failure();
    assert_eq!(bench.asked(), ["/guard/hooks/on_error"]);
}

#[tokio::test]
async fn error_hook_is_asked_about_a_timed_out_call() {
    let bench =
        Bench::with(Options { budget: Some(std::time::Duration::from_millis(300)), ..Options::default() }).await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["on_error"]))).await;
    bench.decides(&json!({ "decision": "replace", "data": { "message": "It takes its time." } }));
    let answer = bench.act("never").await;
    assert_eq!(
        (answer.failure().as_str(), &answer.json()["error"]["message"]),
        ("timeout", &json!("It takes its time."))
    );
    assert_eq!(bench.errors("guard").await, Vec::<Value>::new());
}
