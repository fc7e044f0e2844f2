//! The built-in plugin `policy`: Overseer itself evaluates an organization's rules.

use super::*;

const POLICY: &str = "/api/v1/plugins/policy";

async fn rules(bench: &Bench, rules: Value) -> Answer {
    let path = format!("{POLICY}/config");
    bench.app.send(&bench.app.admin, Method::PUT, &path, Some(&json!({ "rules": rules }))).await
}

#[tokio::test]
async fn policy_refuses_by_rule() {
    let bench = Bench::start().await;
    let shown = bench.app.get(POLICY).await.json();
    assert_eq!((&shown["enabled"], &shown["life"]["state"]), (&json!(false), &json!("initialized")));
    let forbids = json!([
        { "tool": "own", "intent": "read", "when": "parameters.path is startingwith \"secret\"", "reason": "secrets stay here" },
        { "tool": "own", "intent": "act", "when": "agent == \"agent_1\" and user != \"boss\"", "reason": "ask the boss" },
        { "tool": "slack", "reason": "no chatting" },
    ]);
    assert_eq!(rules(&bench, forbids).await.status, StatusCode::OK);
    // No administrator has enabled the plugin yet.
    bench.act("one").await.data();
    let enabled = bench.post(&format!("{POLICY}/enable"), json!({})).await;
    assert_eq!((&enabled["life"]["state"], &enabled["hooks"][0]["asked"]), (&json!("active"), &json!(true)));

    let veto = bench.act("one").await;
    assert_eq!(veto.failure(), "vetoed");
    assert_eq!(veto.json()["error"]["message"], "Policy forbids it: ask the boss");
    let boss =
        json!({ "tool": "own", "intent": "act", "userId": "boss", "agentId": "agent_1", "context": { "path": "one" } });
    // It is none of the policy's business that the boss has no account.
    assert_eq!(bench.app.post(INTENTS, &boss).await.failure(), "not_connected");
    let other = json!({ "tool": "own", "intent": "act", "agentId": "agent_2", "context": { "path": "one" } });
    bench.app.post(INTENTS, &other).await.data();
    bench.app.intend("own", "read", json!({ "path": "public" })).await.data();
    bench.app.intend("own", "read", json!({})).await;
    let veto = bench.app.intend("own", "read", json!({ "path": "secret-1" })).await;
    assert_eq!(veto.json()["error"]["message"], "Policy forbids it: secrets stay here");
    assert_eq!(bench.asked().len(), 0);

    // A rule counts for the very next call.
    rules(&bench, json!([{ "reason": "closed" }])).await.json();
    assert_eq!(bench.app.post(INTENTS, &other).await.json()["error"]["message"], "Policy forbids it: closed");
    bench.post(&format!("{POLICY}/disable"), json!({})).await;
    bench.act("one").await.data();
}

#[tokio::test]
async fn unusable_rules_are_refused_with_their_pointer() {
    let bench = Bench::start().await;
    for (wrong, pointer) in [
        (json!([{ "reason": "a" }, { "when": "parameters.to ==", "reason": "b" }]), "/rules/1/when"),
        (json!([{ "when": "parameter.to == 1", "reason": "b" }]), "/rules/0/when"),
        (json!([{ "when": "parameters.to | shout", "reason": "b" }]), "/rules/0/when"),
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

#[tokio::test]
async fn failing_rule_forbids() {
    let bench = Bench::start().await;
    // The rule compares a number with a value that is none: it fails, and the call is forbidden.
    let rule = json!([{ "tool": "own", "when": "(parameters.path | int) > now", "reason": "a" }]);
    assert_eq!(rules(&bench, rule).await.pointers(), ["/rules/0/when"], "there is no now");
    let rule = json!([{ "tool": "own", "when": "(parameters.path | int) > 3", "reason": "a" }]);
    assert_eq!(rules(&bench, rule).await.status, StatusCode::OK);
    bench.post(&format!("{POLICY}/enable"), json!({})).await;
    let answer = bench.act("one").await;
    assert_eq!(answer.failure(), "unavailable");
    assert!(answer.text.contains("its hook before_tool_call failed: its rule 0 failed\""), "{}", answer.text);
    // Why is for administrators.
    let recorded = bench.errors("policy").await[0].clone();
    assert_eq!(recorded["intent"], "before_tool_call");
    assert!(recorded["message"].as_str().unwrap().starts_with("rules/0/when: the template"), "{recorded}");
    assert_eq!(bench.service.calls(), Vec::<String>::new());
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
