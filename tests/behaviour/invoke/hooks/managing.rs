//! Overseer asks a hook only if an administrator has granted it, its plugin is active, and it has a signing secret.

use futures_util::future::join_all;
use overseer_engine::access::principal::Role;
use overseer_engine::registry::hooks::HOOKED_MAX;

use super::*;

fn asked(view: &Value) -> Vec<bool> {
    view["hooks"].as_array().unwrap().iter().map(|hook| hook["asked"].as_bool().unwrap()).collect()
}

#[tokio::test]
async fn ungranted_hook_is_not_asked() {
    let bench = Bench::start().await;
    let path = "/api/v1/plugins/guard";
    bench.post("/plugins", bench.guard("guard", "1.0.0", &json!(["before_tool_call", "on_error"]))).await;
    let early = json!({ "permissions": ["hook:before_tool_call"] });
    let early = bench.app.post(&format!("{path}/enable"), &early).await;
    assert_eq!(early.problem(409), "conflict");
    assert!(early.text.contains("POST /api/v1/plugins/guard/hook-secret"), "{}", early.text);

    let view = bench.post(&format!("{path}/enable"), json!({})).await;
    assert_eq!(view["to_grant"], json!(["network:127.0.0.1", "hook:before_tool_call", "hook:on_error"]));
    assert_eq!(
        view["hooks"][0],
        json!({ "on": "before_tool_call", "priority": 100, "timeout_ms": 2000, "on_failure": "fatal", "asked": false })
    );
    let grant = |permissions: Value| json!({ "permissions": permissions });
    let both = grant(json!(["network:127.0.0.1", "hook:before_tool_call"]));
    assert_eq!(bench.app.send(&bench.app.admin, Method::PATCH, path, Some(&both)).await.problem(409), "conflict");
    let made = bench.post(&format!("{path}/hook-secret"), json!({})).await;
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_") && made.get("old_signs_until").is_none());
    bench.act("one").await.data();

    // Each of the two is needed.
    for permissions in [json!(["network:127.0.0.1"]), json!(["hook:before_tool_call"])] {
        assert_eq!(asked(&bench.ok(Method::PATCH, path, &grant(permissions)).await), [false, false]);
        bench.act("one").await.data();
    }
    assert_eq!(bench.asked().len(), 0);
    assert_eq!(asked(&bench.ok(Method::PATCH, path, &both).await), [true, false]);
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
    // Consent is taken back at once.
    bench.ok(Method::PATCH, path, &grant(json!([]))).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
    // The secret is shown nowhere.
    let secret = made["secret"].as_str().unwrap();
    for path in [path, "/api/v1/plugins", "/api/v1/plugins/guard/config"] {
        assert!(!bench.app.get(path).await.text.contains(secret), "{path}");
    }
}

#[tokio::test]
async fn disabled_plugin_is_not_asked() {
    let bench = Bench::start().await;
    let path = "/api/v1/plugins/guard";
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.post(&format!("{path}/disable"), json!({})).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 0);
    bench.post(&format!("{path}/enable"), json!({})).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);

    let before = bench.app.table.items().await;
    let has = |keys: &[overseer_engine::ports::table::Key], what: &str| {
        keys.iter().any(|key| key.partition.contains(what) || key.sort == what)
    };
    assert!(has(&before, "hooks") && has(&before, "#secret#"));
    bench.ok(Method::DELETE, path, &Value::Null).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
    // Neither the list nor a secret is left: the account's own was there before the plugin.
    let left = bench.app.table.items().await;
    let secrets = |keys: &[overseer_engine::ports::table::Key]| {
        keys.iter().filter(|key| key.partition.contains("#secret#")).count()
    };
    assert!(!has(&left, "hooks"));
    assert_eq!(secrets(&before) - secrets(&left), 1);
}

#[tokio::test]
async fn new_version_keeps_granted_hooks_only() {
    let bench = Bench::start().await;
    let path = "/api/v1/plugins/guard";
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.post("/plugins", bench.guard("guard", "1.1.0", &json!(["before_tool_call", "after_tool_call"]))).await;
    let mut plain = bench.guard("guard", "1.2.0", &json!([]));
    plain["actions"] =
        json!([{ "name": "look", "description": "Looks.", "effect": "read", "request": { "path": "/look" } }]);
    bench.post("/plugins", plain).await;
    let diff = bench.app.get(&format!("{path}/diff?version=1.1.0")).await.json();
    assert_eq!(diff["to_grant"], json!(["hook:after_tool_call"]));
    assert_eq!(diff["changes"]["hooks_added"], json!(["after_tool_call"]));
    let upgraded = bench.post(&format!("{path}/upgrade"), json!({ "version": "1.1.0" })).await;
    assert_eq!(asked(&upgraded), [true, false]);
    bench.act("one").await.data();
    assert_eq!(bench.asked(), ["/guard/hooks/before_tool_call"]);
    bench.grant("guard").await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 3);
    bench.post(&format!("{path}/upgrade"), json!({ "version": "1.2.0" })).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 3);
    bench.post(&format!("{path}/rollback"), json!({})).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 5);
}

#[tokio::test]
async fn replaced_hook_secret_signs_for_a_day() {
    let bench = Bench::start().await;
    let first = bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let made = bench.post("/api/v1/plugins/guard/hook-secret", json!({})).await;
    let second = made["secret"].as_str().unwrap().to_owned();
    assert_eq!(made["old_signs_until"], "2026-11-22T09:00:00Z");
    bench.act("one").await.data();
    assert_eq!((bench.last().signed_with(&first), bench.last().signed_with(&second)), (1, 1));
    bench.app.clock.advance(24 * 3600);
    bench.act("one").await.data();
    assert_eq!((bench.last().signed_with(&first), bench.last().signed_with(&second)), (0, 1));
}

#[tokio::test]
async fn replaced_hook_secrets_are_deleted() {
    let bench = Bench::start().await;
    let mut secrets = vec![bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await];
    let stored = async || bench.app.table.items().await.iter().filter(|key| key.partition.contains("#secret#")).count();
    let before = stored().await;
    for _ in 0..5 {
        let made = bench.post("/api/v1/plugins/guard/hook-secret", json!({})).await;
        secrets.push(made["secret"].as_str().unwrap().to_owned());
    }
    // The one that counts, and three before it, each as long as was said.
    bench.act("one").await.data();
    let signs: Vec<_> = secrets.iter().map(|secret| bench.last().signed_with(secret)).collect();
    assert_eq!(signs, [0, 0, 1, 1, 1, 1]);
    assert_eq!(stored().await, before + 3);
    bench.ok(Method::DELETE, "/api/v1/plugins/guard", &Value::Null).await;
    assert_eq!(stored().await, before - 1);
}

#[tokio::test]
async fn missing_guard_fails_closed() {
    let bench = Bench::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guard/plugin.yaml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let guard = bench.guard("guard", "1.0.0", &json!(["before_tool_call"]));
    std::fs::write(&file, guard.to_string()).unwrap();
    let read = || bench.app.engine.catalog.read_folder(folder.path()).unwrap();
    read();
    let path = "/api/v1/plugins/guard";
    // What the operator brought has its permissions from there; it is asked once it is enabled.
    let early = bench.app.post(&format!("{path}/enable"), &json!({})).await;
    assert_eq!(early.problem(409), "conflict");
    assert!(early.text.contains("and enable it then"), "{}", early.text);
    bench.post(&format!("{path}/hook-secret"), json!({})).await;
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 0);
    assert_eq!(asked(&bench.post(&format!("{path}/enable"), json!({})).await), [true]);
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);

    // Its author takes the hooks out, an administrator changes something, and the hooks come back: until it is enabled
    // again it is not asked, and that is what is shown.
    let mut plain = guard.clone();
    plain["hooks"] = json!([]);
    plain["actions"] =
        json!([{ "name": "look", "description": "Looks.", "effect": "read", "request": { "path": "/look" } }]);
    std::fs::write(&file, plain.to_string()).unwrap();
    read();
    bench.ok(Method::PUT, &format!("{path}/config"), &json!({ "level": 2 })).await;
    std::fs::write(&file, guard.to_string()).unwrap();
    read();
    assert_eq!(asked(&bench.app.get(path).await.json()), [false]);
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
    assert_eq!(asked(&bench.post(&format!("{path}/enable"), json!({})).await), [true]);
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 2);

    // Without its file the hook cannot answer: the call is refused.
    std::fs::remove_file(&file).unwrap();
    read();
    let refused = bench.act("one").await;
    assert_eq!(refused.problem(503), "unavailable");
    assert!(refused.text.contains("DELETE /api/v1/plugins/guard"), "{}", refused.text);
    assert_eq!(bench.service.calls().len(), 4);
    bench.ok(Method::DELETE, path, &Value::Null).await;
    bench.act("one").await.data();
    assert_eq!(bench.app.delete(path).await.problem(404), "unknown_plugin");
}

#[tokio::test]
async fn operator_plugin_does_not_hide_a_guard_of_the_same_name() {
    let bench = Bench::start().await;
    let path = "/api/v1/plugins/guard";
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x/plugin.yaml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut plain = bench.guard("guard", "9.0.0", &json!([]));
    plain["actions"] =
        json!([{ "name": "look", "description": "Looks.", "effect": "read", "request": { "path": "/look" } }]);
    std::fs::write(&file, plain.to_string()).unwrap();
    bench.app.engine.catalog.read_folder(folder.path()).unwrap();
    assert_eq!(bench.app.get(path).await.json()["version"], "9.0.0");
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
    // What is changed while the other is there agrees with what is shown after it, and granting anew repairs it.
    bench.post(&format!("{path}/disable"), json!({})).await;
    bench.post(&format!("{path}/enable"), json!({})).await;
    std::fs::remove_file(&file).unwrap();
    bench.app.engine.catalog.read_folder(folder.path()).unwrap();
    assert_eq!(asked(&bench.app.get(path).await.json()), [false]);
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
    bench.grant("guard").await;
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
async fn hook_secret_requires_an_administrator() {
    let bench = Bench::start().await;
    bench.post("/plugins", bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.post("/api/v1/plugins/guard/enable", json!({})).await;
    for role in [Role::Operator, Role::Service] {
        let key = bench.app.key("acme", &[role], None).await;
        let answer = bench.app.send(&key, Method::POST, "/api/v1/plugins/guard/hook-secret", None).await;
        assert_eq!(answer.problem(403), "forbidden");
    }
    for name in ["slack", "policy"] {
        let answer = bench.app.post(&format!("/api/v1/plugins/{name}/hook-secret"), &json!({})).await;
        assert_eq!(answer.problem(409), "conflict", "{name}");
    }
    assert_eq!(bench.app.post("/api/v1/plugins/nothing/hook-secret", &json!({})).await.problem(404), "unknown_plugin");
}

#[tokio::test]
async fn hooks_of_ten_plugins_are_the_most() {
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
    // All at once: each writes the one list.
    bench.app.table.slow_down();
    let granted = join_all((0..HOOKED_MAX).map(granting)).await;
    assert!(granted.iter().all(|status| *status == StatusCode::OK), "{granted:?}");
    assert_eq!(granting(HOOKED_MAX).await, StatusCode::CONFLICT);
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), HOOKED_MAX);
    bench.post("/api/v1/plugins/guard-3/disable", json!({})).await;
    assert_eq!(granting(HOOKED_MAX).await, StatusCode::OK);
}

#[tokio::test]
async fn processes_share_the_hook_secret() {
    let bench = Bench::start().await;
    let secret = bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let engine = bench.app.deaf();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = overseer::server::routes(engine, &bench.app.playground, address);
    tokio::spawn(axum::serve(listener, routes).into_future());
    let intent = json!({ "tool": "own", "intent": "act", "context": { "path": "one" } });
    let request = bench.app.client.post(format!("http://{address}{INTENTS}")).bearer_auth(&bench.app.admin);
    let request = request.header("content-type", "application/json").body(intent.to_string());
    Answer::of(request.send().await.unwrap()).await.data();
    assert_eq!(bench.last().signed_with(&secret), 1);
}

/// What ARCHITECTURE.md says that each step costs.
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
