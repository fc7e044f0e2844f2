//! The built-in plugin `policy`: Overseer itself evaluates an organization's rules.

use super::*;

const POLICY: &str = "/api/v1/plugins/policy";

async fn rules(bench: &Bench, rules: Value) -> Answer {
    let path = format!("{POLICY}/config");
    bench.app.send(&bench.app.admin, Method::PUT, &path, Some(&json!({ "rules": rules }))).await
}

/// A bench with three rules; no administrator has enabled the policy.
async fn with_rules() -> Bench {
    let bench = Bench::start().await;
    let forbids = json!([
        { "tool": "own", "intent": "read", "when": "parameters.path is startingwith \"secret\"", "reason": "secrets stay here" },
        { "tool": "own", "intent": "act", "when": "agent == \"agent_1\" and user != \"boss\"", "reason": "ask the boss" },
        { "tool": "slack", "reason": "no chatting" },
    ]);
    assert_eq!(rules(&bench, forbids).await.status, StatusCode::OK);
    bench
}

async fn enable(bench: &Bench) -> Value {
    bench.post(&format!("{POLICY}/enable"), json!({})).await
}

/// An intent that the rules allow.
fn of_another_agent() -> Value {
    json!({ "tool": "own", "intent": "act", "agentId": "agent_2", "context": { "path": "one" } })
}

#[tokio::test]
async fn policy_applies_once_enabled() {
    let bench = with_rules().await;
    let shown = bench.app.get(POLICY).await.json();
    assert_eq!((&shown["enabled"], &shown["life"]["state"]), (&json!(false), &json!("initialized")));
    bench.act("one").await.data();
    let enabled = enable(&bench).await;
    assert_eq!((&enabled["life"]["state"], &enabled["hooks"][0]["asked"]), (&json!("active"), &json!(true)));
    assert_eq!(bench.act("one").await.failure(), "vetoed");
    bench.post(&format!("{POLICY}/disable"), json!({})).await;
    bench.act("one").await.data();
}

#[tokio::test]
async fn policy_refuses_by_rule() {
    let bench = with_rules().await;
    enable(&bench).await;
    let veto = bench.act("one").await;
    assert_eq!(veto.failure(), "vetoed");
    assert_eq!(veto.json()["error"]["message"], "Policy forbids it: ask the boss");
    let boss =
        json!({ "tool": "own", "intent": "act", "userId": "boss", "agentId": "agent_1", "context": { "path": "one" } });
    // The policy lets the boss pass; the boss has no account.
    assert_eq!(bench.app.post(INTENTS, &boss).await.failure(), "not_connected");
    bench.app.post(INTENTS, &of_another_agent()).await.data();
    bench.app.intend("own", "read", json!({ "path": "public" })).await.data();
    bench.app.intend("own", "read", json!({})).await;
    let veto = bench.app.intend("own", "read", json!({ "path": "secret-1" })).await;
    assert_eq!(veto.json()["error"]["message"], "Policy forbids it: secrets stay here");
}

#[tokio::test]
async fn policy_makes_no_request() {
    let bench = with_rules().await;
    enable(&bench).await;
    assert_eq!(bench.act("one").await.failure(), "vetoed");
    bench.app.post(INTENTS, &of_another_agent()).await.data();
    assert_eq!(bench.asked().len(), 0);
}

#[tokio::test]
async fn changed_rule_applies_to_the_next_call() {
    let bench = with_rules().await;
    enable(&bench).await;
    bench.app.post(INTENTS, &of_another_agent()).await.data();
    rules(&bench, json!([{ "reason": "closed" }])).await.json();
    let veto = bench.app.post(INTENTS, &of_another_agent()).await;
    assert_eq!(veto.json()["error"]["message"], "Policy forbids it: closed");
}

#[tokio::test]
async fn unusable_rules_are_refused_with_their_pointer() {
    let bench = Bench::start().await;
    for (wrong, pointer) in [
        (json!([{ "reason": "a" }, { "when": "parameters.to ==", "reason": "b" }]), "/rules/1/when"),
        (json!([{ "when": "parameter.to == 1", "reason": "b" }]), "/rules/0/when"),
        (json!([{ "when": "parameters.to | shout", "reason": "b" }]), "/rules/0/when"),
        // A rule has no variable `now`.
        (json!([{ "tool": "own", "when": "(parameters.path | int) > now", "reason": "a" }]), "/rules/0/when"),
        (json!([{ "tool": "own" }]), "/rules/0/reason"),
        (json!([{ "reason": "x".repeat(301) }]), "/rules/0/reason"),
        (json!([{ "reason": "a", "when": "x".repeat(1001) }]), "/rules/0/when"),
        (json!((0..51).map(|_| json!({ "reason": "a" })).collect::<Vec<_>>()), "/rules"),
    ] {
        let answer = rules(&bench, wrong.clone()).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{wrong}");
        assert_eq!(answer.pointers(), [pointer], "{}", answer.text);
    }
    let most = json!((0..50).map(|_| json!({ "reason": "x".repeat(300) })).collect::<Vec<_>>());
    assert_eq!(rules(&bench, most).await.status, StatusCode::OK);
}

/// An enabled policy whose rule fails: it compares a number with a text.
async fn with_failing_rule() -> Bench {
    let bench = Bench::start().await;
    let rule = json!([{ "tool": "own", "when": "(parameters.path | int) > 3", "reason": "a" }]);
    assert_eq!(rules(&bench, rule).await.status, StatusCode::OK);
    enable(&bench).await;
    bench
}

#[tokio::test]
async fn failing_rule_forbids_the_call() {
    let bench = with_failing_rule().await;
    let answer = bench.act("one").await;
    assert_eq!(answer.failure(), "unavailable");
    assert!(answer.text.contains("its hook before_tool_call failed: its rule 0 failed\""), "{}", answer.text);
    assert_eq!(bench.service.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn cause_of_a_failing_rule_is_recorded() {
    let bench = with_failing_rule().await;
    bench.act("one").await.failure();
    let recorded = bench.errors("policy").await[0].clone();
    assert_eq!(recorded["intent"], "before_tool_call");
    assert!(recorded["message"].as_str().unwrap().starts_with("rules/0/when: the template"), "{recorded}");
}

#[tokio::test]
async fn native_runtime_is_for_built_in_plugins() {
    let bench = Bench::start().await;
    let mut native = bench.guard("guard", "1.0.0", &json!(["before_tool_call"]));
    native["runtime"] = json!({ "type": "native" });
    native["permissions"] = json!([]);
    let answer = bench.app.post("/plugins", &native).await;
    assert_eq!(answer.problem(400), "invalid_parameters");
    assert!(answer.text.contains("runtime: native is for plugins that come with Overseer"), "{}", answer.text);
    assert!(bench.app.engine.catalog.add(&native.to_string()).unwrap_err().to_string().contains("runtime: native"));
}
