//! Overseer asks a hook only if an administrator has granted it, its plugin is active, and it has a signing secret.

use futures_util::future::join_all;
use overseer_engine::registry::hooks::HOOKED_MAX;

use super::*;

pub(super) fn asked(view: &Value) -> Vec<bool> {
    view["hooks"].as_array().unwrap().iter().map(|hook| hook["asked"].as_bool().unwrap()).collect()
}

pub(super) fn grant(permissions: &[&str]) -> Value {
    json!({ "permissions": permissions })
}

/// A bench whose guard is enabled, without a grant and without a secret; and the view of the guard.
pub(super) async fn with_ungranted_guard() -> (Bench, Value) {
    let bench = Bench::start().await;
    bench.post("/plugins", bench.guard("guard", "1.0.0", &json!(["before_tool_call", "on_error"]))).await;
    let view = bench.post(&format!("{GUARD}/enable"), json!({})).await;
    (bench, view)
}

pub(super) const BOTH: [&str; 2] = ["network:127.0.0.1", "hook:before_tool_call"];

#[tokio::test]
async fn hook_grant_needs_a_secret() {
    let bench = Bench::start().await;
    bench.post("/plugins", bench.guard("guard", "1.0.0", &json!(["before_tool_call", "on_error"]))).await;
    let early = bench.app.post(&format!("{GUARD}/enable"), &grant(&["hook:before_tool_call"])).await;
    assert_eq!(early.problem(409), "conflict");
    assert!(early.text.contains("POST /api/v1/plugins/guard/hook-secret"), "{}", early.text);
    bench.post(&format!("{GUARD}/enable"), json!({})).await;
    let early = bench.app.send(&bench.app.admin, Method::PATCH, GUARD, Some(&grant(&BOTH))).await;
    assert_eq!(early.problem(409), "conflict");
    bench.post(&format!("{GUARD}/hook-secret"), json!({})).await;
    assert_eq!(asked(&bench.ok(Method::PATCH, GUARD, &grant(&BOTH)).await), [true, false]);
}

#[tokio::test]
async fn plugin_view_lists_the_hooks_to_grant() {
    let (_bench, view) = with_ungranted_guard().await;
    assert_eq!(view["to_grant"], json!(["network:127.0.0.1", "hook:before_tool_call", "hook:on_error"]));
    assert_eq!(
        view["hooks"][0],
        json!({ "on": "before_tool_call", "priority": 100, "timeout_ms": 2000, "on_failure": "fatal", "asked": false })
    );
}

#[tokio::test]
async fn ungranted_hook_is_not_asked() {
    let (bench, _) = with_ungranted_guard().await;
    bench.post(&format!("{GUARD}/hook-secret"), json!({})).await;
    bench.act("one").await.data();
    // A hook needs its own permission and that of its address.
    for permission in BOTH {
        assert_eq!(asked(&bench.ok(Method::PATCH, GUARD, &grant(&[permission])).await), [false, false]);
        bench.act("one").await.data();
    }
    assert_eq!(bench.asked().len(), 0);
    bench.ok(Method::PATCH, GUARD, &grant(&BOTH)).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
}

#[tokio::test]
async fn withdrawn_grant_stops_a_hook_at_once() {
    let (bench, _) = with_ungranted_guard().await;
    bench.post(&format!("{GUARD}/hook-secret"), json!({})).await;
    bench.ok(Method::PATCH, GUARD, &grant(&BOTH)).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
    bench.ok(Method::PATCH, GUARD, &grant(&[])).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
}

#[tokio::test]
async fn disabled_plugin_is_not_asked() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.post(&format!("{GUARD}/disable"), json!({})).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 0);
    bench.post(&format!("{GUARD}/enable"), json!({})).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
}

#[tokio::test]
async fn removed_plugin_is_not_asked() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.ok(Method::DELETE, GUARD, &Value::Null).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 0);
}

#[tokio::test]
async fn removed_plugin_leaves_no_hook_data() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let before = bench.app.table.items().await;
    let has = |keys: &[overseer_engine::ports::table::Key], what: &str| {
        keys.iter().any(|key| key.partition.contains(what) || key.sort == what)
    };
    assert!(has(&before, "hooks") && has(&before, "#secret#"));
    bench.ok(Method::DELETE, GUARD, &Value::Null).await;
    // The secret of the account stays.
    let left = bench.app.table.items().await;
    let secrets = |keys: &[overseer_engine::ports::table::Key]| {
        keys.iter().filter(|key| key.partition.contains("#secret#")).count()
    };
    assert!(!has(&left, "hooks"));
    assert_eq!(secrets(&before) - secrets(&left), 1);
}

/// A guard without hooks, which has an action in their place.
pub(super) fn plain(bench: &Bench, version: &str) -> Value {
    let mut plain = bench.guard("guard", version, &json!([]));
    plain["actions"] =
        json!([{ "name": "look", "description": "Looks.", "effect": "read", "request": { "path": "/look" } }]);
    plain
}

/// A bench with a granted guard, a version 1.1.0 with one more hook, and a version 1.2.0 without hooks.
async fn with_versions() -> Bench {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.post("/plugins", bench.guard("guard", "1.1.0", &json!(["before_tool_call", "after_tool_call"]))).await;
    bench.post("/plugins", plain(&bench, "1.2.0")).await;
    bench
}

async fn upgrade(bench: &Bench, version: &str) -> Value {
    bench.post(&format!("{GUARD}/upgrade"), json!({ "version": version })).await
}

#[tokio::test]
async fn version_diff_lists_added_hooks() {
    let bench = with_versions().await;
    let diff = bench.app.get(&format!("{GUARD}/diff?version=1.1.0")).await.json();
    assert_eq!(diff["to_grant"], json!(["hook:after_tool_call"]));
    assert_eq!(diff["changes"]["hooks_added"], json!(["after_tool_call"]));
}

#[tokio::test]
async fn new_version_keeps_granted_hooks_only() {
    let bench = with_versions().await;
    assert_eq!(asked(&upgrade(&bench, "1.1.0").await), [true, false]);
    bench.act("one").await.data();
    assert_eq!(bench.asked(), ["/guard/hooks/before_tool_call"]);
    bench.grant("guard").await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 3);
}

#[tokio::test]
async fn version_without_hooks_is_not_asked() {
    let bench = with_versions().await;
    upgrade(&bench, "1.2.0").await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 0);
}

#[tokio::test]
async fn rollback_brings_granted_hooks_back() {
    let bench = with_versions().await;
    upgrade(&bench, "1.1.0").await;
    bench.grant("guard").await;
    upgrade(&bench, "1.2.0").await;
    bench.post(&format!("{GUARD}/rollback"), json!({})).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 2);
}

#[tokio::test]
async fn version_with_wider_hooks_needs_new_consent() {
    let bench = Bench::start().await;
    let path = "/api/v1/plugins/guard";
    let of = |tools: Value| json!([{ "on": "before_tool_call", "tools": tools }]);
    bench.install(&bench.guard("guard", "1.0.0", &of(json!(["own", "slack"])))).await;
    for (version, tools, to_grant) in [
        ("1.1.0", json!(["own"]), json!([])),
        ("1.2.0", json!(["own", "gmail"]), json!(["hook:before_tool_call"])),
        ("1.3.0", json!([]), json!(["hook:before_tool_call"])),
    ] {
        bench.post("/plugins", bench.guard("guard", version, &of(tools))).await;
        let diff = bench.app.get(&format!("{path}/diff?version={version}")).await.json();
        assert_eq!((&diff["to_grant"], &diff["changes"]["hooks_added"]), (&to_grant, &json!([])), "{version}");
        assert_eq!(diff["changes"]["hooks_widened"], json!(to_grant != json!([])), "{version}");
        let upgraded = bench.post(&format!("{path}/upgrade"), json!({ "version": version })).await;
        assert_eq!(asked(&upgraded), [to_grant == json!([])], "{version}");
        bench.grant("guard").await;
    }
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
}

#[tokio::test]
async fn at_most_ten_plugins_have_granted_hooks() {
    let bench = Bench::start().await;
    for index in 0..=HOOKED_MAX {
        let name = format!("guard-{index}");
        bench.post("/plugins", bench.guard(&name, "1.0.0", &json!(["before_tool_call"]))).await;
        bench.post(&format!("/api/v1/plugins/{name}/enable"), json!({})).await;
        bench.post(&format!("/api/v1/plugins/{name}/hook-secret"), json!({})).await;
    }
    let grant = json!({ "permissions": ["network:127.0.0.1", "hook:before_tool_call"] });
    let granting = |index: usize| {
        let (bench, grant) = (&bench, &grant);
        async move {
            let path = format!("/api/v1/plugins/guard-{index}");
            bench.app.send(&bench.app.admin, Method::PATCH, &path, Some(grant)).await.status
        }
    };
    // Concurrent grants write the same list.
    bench.app.table.slow_down();
    let granted = join_all((0..HOOKED_MAX).map(granting)).await;
    assert!(granted.iter().all(|status| *status == StatusCode::OK), "{granted:?}");
    assert_eq!(granting(HOOKED_MAX).await, StatusCode::CONFLICT);
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), HOOKED_MAX);
    bench.post("/api/v1/plugins/guard-3/disable", json!({})).await;
    assert_eq!(granting(HOOKED_MAX).await, StatusCode::OK);
}

/// What docs/figures.md says that each step costs.
#[tokio::test]
async fn hook_steps_cost_the_documented_round_trips() {
    let bench = Bench::start().await;
    let path = "/api/v1/plugins/guard";
    bench.post("/plugins", bench.guard("guard", "1.0.0", &json!(["before_tool_call", "on_reasoning_step"]))).await;
    bench.post(&format!("{path}/enable"), json!({})).await;
    let secret = || bench.post("/api/v1/plugins/guard/hook-secret", json!({}));
    secret().await;
    bench.app.table.take();
    secret().await;
    assert_eq!(bench.app.table.take(), (3, 2), "a secret");
    let all = json!({ "permissions": ["network:127.0.0.1", "hook:before_tool_call", "hook:on_reasoning_step"] });
    bench.ok(Method::PATCH, path, &json!({ "record_reads": true })).await;
    assert_eq!(bench.app.table.take(), (3, 1), "a change");
    bench.ok(Method::PATCH, path, &all).await;
    assert_eq!(bench.app.table.take(), (4, 1), "a change that concerns hooks");
    // Both secrets are read once.
    for expected in [(3, 0), (1, 0)] {
        bench.post("/api/v1/hooks/on_reasoning_step", json!({ "data": 1 })).await;
        assert_eq!(bench.app.table.take(), expected, "a moment");
    }
    bench.receiver.answer(StatusCode::NOT_FOUND);
    bench.post("/api/v1/hooks/on_reasoning_step", json!({ "data": 1 })).await;
    assert_eq!(bench.app.table.take(), (2, 2), "a hook that fails");
}
