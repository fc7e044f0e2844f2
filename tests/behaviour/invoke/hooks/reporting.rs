//! Hook events that an agent's runtime reports.

use overseer_engine::access::principal::Role;

use super::*;

async fn report(bench: &Bench, hook: &str, body: Value) -> Value {
    bench.post(&format!("/api/v1/hooks/{hook}"), body).await
}

const ALL: [&str; 6] =
    ["before_agent_run", "after_agent_run", "before_tool_call", "after_tool_call", "on_error", "on_reasoning_step"];

/// A report at a hook; the hooks of tools also have a tool.
fn body_for(hook: &str) -> Value {
    let mut body = json!({ "agent_id": "lexi", "session_id": "s1", "channel": "front", "data": { "n": 1 } });
    if hook.contains("tool") || hook == "on_error" {
        body["tool"] = json!("browser");
        body["intent"] = json!("open");
    }
    body
}

#[tokio::test]
async fn report_reaches_the_hook_with_its_context() {
    let bench = Bench::start().await;
    let secret = bench.install(&bench.guard("guard", "1.0.0", &json!(ALL))).await;
    for hook in ALL {
        let body = body_for(hook);
        report(&bench, hook, body.clone()).await;
        let got = bench.last();
        assert_eq!((got.path.as_str(), got.signed_with(&secret)), (format!("/guard/hooks/{hook}").as_str(), 1));
        let context = got.json()["context"].clone();
        for (name, value) in [
            ("organization_id", "acme"),
            ("user_id", "admin"),
            ("agent_id", "lexi"),
            ("session_id", "s1"),
            ("channel", "front"),
        ] {
            assert_eq!(context[name], value, "{hook}");
        }
        assert_eq!((&context["tool"], &context["reported"]), (&body["tool"], &json!(true)));
    }
}

#[tokio::test]
async fn agent_report_gets_the_hooks_decision() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(ALL))).await;
    for hook in ALL {
        let said = report(&bench, hook, body_for(hook)).await;
        assert_eq!((&said["decision"], &said["data"]), (&json!("proceed"), &json!({ "n": 1 })), "{said}");
        bench.decides(&json!({ "decision": "replace", "data": "other" }));
        let said = report(&bench, hook, body_for(hook)).await;
        assert_eq!((&said["decision"], &said["data"]), (&json!("replace"), &json!("other")));
        if hook == "on_error" {
            continue;
        }
        bench.decides(&json!({ "decision": "veto", "reason": "enough" }));
        let mut said = report(&bench, hook, body_for(hook)).await;
        said["hooks"][0].as_object_mut().unwrap().remove("duration_ms").unwrap();
        assert_eq!(
            said,
            json!({ "decision": "veto", "reason": "enough", "by": "guard",
                    "hooks": [{ "plugin": "guard", "decision": "veto", "reason": "enough" }] })
        );
    }
}

#[tokio::test]
async fn report_without_hooks_proceeds() {
    let bench = Bench::start().await;
    let said = report(&bench, "on_reasoning_step", json!({ "data": [1, 2] })).await;
    assert_eq!(said, json!({ "decision": "proceed", "data": [1, 2], "hooks": [] }));
}

#[tokio::test]
async fn report_without_hooks_costs_one_read() {
    let bench = Bench::start().await;
    bench.app.table.take();
    report(&bench, "on_reasoning_step", json!({ "data": [1, 2] })).await;
    assert_eq!(bench.app.table.take(), (1, 0));
}

/// A report to two hooks that fail, the first of which may; the reply to it.
async fn report_to_failing_hooks(bench: &Bench) -> Value {
    let hooks = json!([{ "on": "before_agent_run", "on_failure": "ignore", "priority": 1 }, "before_agent_run"]);
    bench.install(&bench.guard("guard", "1.0.0", &hooks)).await;
    bench.receiver.answer("what?");
    bench.receiver.answer(StatusCode::NOT_FOUND);
    report(bench, "before_agent_run", json!({ "data": {} })).await
}

#[tokio::test]
async fn failed_fatal_hook_vetoes_the_report() {
    let bench = Bench::start().await;
    let said = report_to_failing_hooks(&bench).await;
    assert_eq!((&said["decision"], &said["by"]), (&json!("veto"), &json!("guard")));
    assert_eq!(said["reason"], "its hook before_agent_run failed: it answered with the status 404");
    let decisions: Vec<_> = said["hooks"].as_array().unwrap().iter().map(|ran| ran["decision"].clone()).collect();
    assert_eq!(decisions, ["failed", "failed"]);
}

#[tokio::test]
async fn each_failed_hook_of_a_report_is_recorded() {
    let bench = Bench::start().await;
    report_to_failing_hooks(&bench).await;
    assert_eq!(bench.errors("guard").await.len(), 2);
}

const STEP: &str = "/api/v1/hooks/on_reasoning_step";

/// A bench with a hook, and the key of the agent `lexi` on the channel `front`.
async fn with_agent() -> (Bench, String) {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["on_reasoning_step"]))).await;
    bench.ok(Method::PUT, "/api/v1/channels/front", &json!({ "plugin_assignments": [{ "plugin": "own" }] })).await;
    let key = json!({ "name": "a", "roles": ["agent"], "channel": "front", "agent_id": "lexi" });
    let key = bench.post("/api/v1/keys", key).await["key"].as_str().unwrap().to_owned();
    (bench, key)
}

async fn step(bench: &Bench, key: &str, body: Value) -> Answer {
    bench.app.send(key, Method::POST, STEP, Some(&body)).await
}

#[tokio::test]
async fn agent_reports_for_its_own_channel() {
    let (bench, key) = with_agent().await;
    let said = step(&bench, &key, json!({ "user_id": "ann", "data": 1 })).await;
    assert_eq!(said.status, StatusCode::OK, "{}", said.text);
    let context = bench.last().json()["context"].clone();
    assert_eq!((&context["agent_id"], &context["channel"]), (&json!("lexi"), &json!("front")));
    for other in [
        json!({ "user_id": "ann", "agent_id": "other", "data": 1 }),
        json!({ "user_id": "ann", "channel": "back", "data": 1 }),
    ] {
        assert_eq!(step(&bench, &key, other.clone()).await.problem(403), "forbidden", "{other}");
    }
}

#[tokio::test]
async fn agent_report_requires_a_user() {
    let (bench, key) = with_agent().await;
    let answer = step(&bench, &key, json!({ "data": 1 })).await;
    assert_eq!(
        (answer.problem(400), answer.pointers()),
        ("invalid_parameters".to_owned(), vec!["/user_id".to_owned()])
    );
}

#[tokio::test]
async fn user_reports_for_itself_only() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["on_reasoning_step"]))).await;
    let user = bench.app.key("acme", &[Role::User], Some("ben")).await;
    let own = step(&bench, &user, json!({ "data": 1 })).await;
    assert_eq!(own.status, StatusCode::OK, "{}", own.text);
    let other = step(&bench, &user, json!({ "user_id": "ann", "data": 1 })).await;
    assert_eq!(other.problem(403), "forbidden");
}

#[tokio::test]
async fn report_asks_hooks_of_its_organization_only() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["on_reasoning_step"]))).await;
    let globex = bench.app.key("globex", &[Role::Administrator], Some("admin")).await;
    let said = step(&bench, &globex, json!({ "data": 1 })).await.json();
    assert_eq!(said["hooks"], json!([]));
}

#[tokio::test]
async fn report_to_an_unknown_hook_is_not_found() {
    let bench = Bench::start().await;
    assert_eq!(bench.app.post("/api/v1/hooks/on_success", &json!({ "data": 1 })).await.problem(404), "not_found");
}

#[tokio::test]
async fn invalid_report_is_refused() {
    let bench = Bench::start().await;
    for (hook, body, pointer) in [
        ("on_reasoning_step", json!({}), "/data"),
        ("on_reasoning_step", json!({ "data": 1, "tool": "a" }), "/tool"),
        ("before_tool_call", json!({ "data": 1 }), "/tool"),
        ("before_tool_call", json!({ "data": 1, "intent": "a" }), "/tool"),
        ("before_tool_call", json!({ "data": 1, "tool": "" }), "/tool"),
        ("on_reasoning_step", json!({ "data": 1, "session_id": "s".repeat(256) }), "/session_id"),
        ("on_reasoning_step", json!({ "data": 1, "step": 1 }), "/step"),
    ] {
        let answer = bench.app.post(&format!("/api/v1/hooks/{hook}"), &body).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{body}");
        assert_eq!(answer.pointers(), [pointer], "{}", answer.text);
    }
    report(&bench, "on_reasoning_step", json!({ "data": null, "session_id": "s".repeat(255) })).await;
}
