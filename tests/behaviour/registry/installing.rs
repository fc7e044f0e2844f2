//! Versions: enable, upgrade, roll back, and the dependencies between plugins.

use std::sync::Arc;

use overseer_engine::core::intent::Intent;
use overseer_engine::engine::Engine;
use overseer_engine::invoke::runs::RequestOptions;
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::Bench;

/// A manifest that needs other plugins.
fn needing(bench: &Bench, name: &str, version: &str, others: &Value) -> Value {
    let mut manifest = bench.manifest(name, version);
    manifest["dependencies"] = json!({ "plugins": others });
    manifest
}

async fn look(bench: &Bench) -> String {
    bench.app.intend("desk", "look", json!({})).await.data()["path"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn version_is_pinned_until_changed() {
    let bench = Bench::start().await;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    bench.register(&bench.manifest("desk", "1.1.0")).await;
    assert_eq!(look(&bench).await, "/look/front?v=1.0.0");
    let upgrade = json!({ "version": "1.1.0", "config": { "desk": "back" } });
    let upgraded = bench.app.post("/api/v1/plugins/desk/upgrade", &upgrade).await;
    assert_eq!(upgraded.status, StatusCode::OK, "{}", upgraded.text);
    let upgraded = upgraded.json();
    assert_eq!((&upgraded["version"], &upgraded["previous_version"]), (&json!("1.1.0"), &json!("1.0.0")));
    assert_eq!(look(&bench).await, "/look/back?v=1.1.0");
    let back = bench.app.post("/api/v1/plugins/desk/rollback", &json!({})).await.json();
    assert_eq!((&back["version"], &back["previous_version"]), (&json!("1.0.0"), &json!("1.1.0")));
    assert_eq!(look(&bench).await, "/look/front?v=1.0.0");
    bench.app.post("/api/v1/plugins/desk/rollback", &json!({})).await;
    assert_eq!(look(&bench).await, "/look/back?v=1.1.0");
}

#[tokio::test]
async fn change_counts_in_every_process_at_the_next_intent() {
    let bench = Bench::start().await;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    let other = bench.app.deaf();
    let path = async |engine: &Arc<Engine>, action: &str| {
        let principal = engine.authenticate(&SecretString::from(bench.app.admin.as_str())).await.unwrap();
        let intent: Intent = serde_json::from_value(json!({ "tool": "desk", "intent": action })).unwrap();
        let answered = engine.execute(principal, intent, RequestOptions::default()).await?;
        Ok::<_, overseer_engine::core::error::Error>(answered.answer.result.unwrap().data["path"].clone())
    };
    assert_eq!(path(&other, "look").await.unwrap(), "/look/front?v=1.0.0");
    let mut manifest = bench.manifest("desk", "2.0.0");
    let mut stare = manifest["actions"][0].clone();
    stare["name"] = json!("stare");
    manifest["actions"].as_array_mut().unwrap().push(stare);
    bench.register(&manifest).await;
    bench.app.post("/api/v1/plugins/desk/upgrade", &json!({ "version": "2.0.0" })).await;
    // Also an action that only the newer version has.
    assert_eq!(path(&other, "stare").await.unwrap(), "/look/front?v=2.0.0");
    bench.app.post("/api/v1/plugins/desk/rollback", &json!({})).await;
    assert_eq!(path(&other, "look").await.unwrap(), "/look/front?v=1.0.0");
    assert!(path(&other, "stare").await.is_err());
}

#[tokio::test]
async fn new_permissions_of_an_upgrade_need_consent() {
    let bench = Bench::start().await;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    let mut next = bench.manifest("desk", "1.1.0");
    next["permissions"] = json!(["network:127.0.0.1", "network:more.example"]);
    next["description"] = json!("Takes and shows notes, and shreds them.");
    next["config_schema"]["properties"]["desk"]["maxLength"] = json!(4);
    next["default_config"] = json!({ "desk": "here" });
    next["actions"][1]["description"] = json!("Shreds.");
    next["actions"].as_array_mut().unwrap().remove(0);
    bench.register(&next).await;
    let config = json!({ "desk": "front" });
    let set = bench.app.send(&bench.app.admin, Method::PUT, "/api/v1/plugins/desk/config", Some(&config));
    assert_eq!(set.await.status, StatusCode::OK);
    let shown = bench.app.get("/api/v1/plugins/desk/diff?version=1.1.0").await.json();
    assert_eq!((&shown["from"], &shown["to"]), (&json!("1.0.0"), &json!("1.1.0")), "{shown}");
    assert_eq!(shown["to_grant"], json!(["network:more.example"]));
    assert_eq!(shown["config"][0]["pointer"], "/config/desk", "{shown}");
    let changes = shown["changes"].to_string();
    for said in ["look", "act", "network:more.example", "shreds them", "Shreds."] {
        assert!(changes.contains(said), "{said}: {changes}");
    }
    // The configuration that is set would not be right any more.
    let path = "/api/v1/plugins/desk/upgrade";
    let refused = bench.app.post(path, &json!({ "version": "1.1.0" })).await;
    assert_eq!(
        (refused.problem(400), refused.pointers()),
        ("invalid_parameters".to_owned(), vec!["/config/desk".to_owned()])
    );
    assert_eq!(look(&bench).await, "/look/front?v=1.0.0");
    let upgraded = bench.app.post(path, &json!({ "version": "1.1.0", "config": {} })).await.json();
    assert_eq!(upgraded["permissions"], json!(["network:127.0.0.1"]));
    assert_eq!(upgraded["to_grant"], json!(["network:more.example"]));
    let more = json!({ "permissions": ["network:127.0.0.1", "network:evil.example"] });
    let refused = bench.app.send(&bench.app.admin, Method::PATCH, "/api/v1/plugins/desk", Some(&more)).await;
    assert_eq!(refused.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn enable_lists_every_obstacle() {
    let bench = Bench::start().await;
    for manifest in [
        needing(&bench, "top", "1.0.0", &json!({ "middle": "^1.0.0" })),
        needing(&bench, "middle", "1.0.0", &json!({ "bottom": ">=1.0.0" })),
        bench.manifest("bottom", "1.2.0"),
        bench.manifest("bottom", "2.0.0-rc.1"),
        needing(&bench, "left", "1.0.0", &json!({ "right": "*" })),
        needing(&bench, "right", "1.0.0", &json!({ "left": "*" })),
        needing(&bench, "lonely", "1.0.0", &json!({ "nobody": "*" })),
    ] {
        let made = bench.register(&manifest).await;
        assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    }
    let enable = async |name: &str| bench.app.post(&format!("/api/v1/plugins/{name}/enable"), &json!({})).await;
    for (name, said) in [
        ("top", "enable first, in this order: bottom 1.2.0, middle 1.0.0"),
        ("left", "left -> right -> left"),
        ("lonely", "lonely needs nobody *, which is not registered"),
    ] {
        let refused = enable(name).await;
        assert_eq!(refused.problem(409), "conflict");
        assert!(refused.text.contains(said), "{name}: {}", refused.text);
    }
    for name in ["bottom", "middle", "top"] {
        assert_eq!(enable(name).await.status, StatusCode::OK, "{name}");
    }
    // What others need stays.
    let refused = bench.app.post("/api/v1/plugins/bottom/disable", &json!({})).await;
    assert_eq!(refused.problem(409), "conflict");
    assert!(refused.text.contains("needed by middle"), "{}", refused.text);
    bench.register(&bench.manifest("middle", "2.0.0")).await;
    let refused = bench.app.post("/api/v1/plugins/middle/upgrade", &json!({ "version": "2.0.0" })).await;
    assert!(refused.problem(409) == "conflict" && refused.text.contains("top needs middle ^1.0.0"), "{}", refused.text);
    for name in ["top", "middle", "bottom"] {
        let disabled = bench.app.post(&format!("/api/v1/plugins/{name}/disable"), &json!({})).await;
        assert_eq!(disabled.status, StatusCode::OK, "{}", disabled.text);
    }
    let refused = enable("top").await;
    assert_eq!(refused.problem(409), "conflict");
    assert!(refused.text.contains("middle"), "{}", refused.text);
}

#[tokio::test]
async fn inactive_version_stays_where_in_use() {
    let bench = Bench::start().await;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    let off = json!({ "is_active": false });
    let path = "/plugins/desk/1.0.0";
    let shown = bench.app.send(&bench.app.admin, Method::PATCH, path, Some(&off)).await;
    assert_eq!(shown.json()["versions"][0]["is_active"], false, "{}", shown.text);
    assert_eq!(look(&bench).await, "/look/front?v=1.0.0");
    bench.register(&bench.manifest("desk", "1.1.0")).await;
    bench.app.post("/api/v1/plugins/desk/upgrade", &json!({ "version": "1.1.0" })).await;
    let refused = bench.app.post("/api/v1/plugins/desk/upgrade", &json!({ "version": "1.0.0" })).await;
    assert_eq!(refused.problem(409), "conflict", "{}", refused.text);
    let refused = bench.app.post("/api/v1/plugins/desk/upgrade", &json!({ "version": "3.0.0" })).await;
    assert_eq!(
        (refused.problem(400), refused.pointers()),
        ("invalid_parameters".to_owned(), vec!["/version".to_owned()])
    );
}

#[tokio::test]
async fn plugin_lifecycle_is_complete() {
    let bench = Bench::start().await;
    let app = &bench.app;
    let life = async |path: &str| app.get(path).await.json()["life"].clone();
    let mut manifest = bench.manifest("desk", "1.0.0");
    manifest["breaker"] = json!({ "failures": 1 });
    manifest["actions"][1]["request"]["path"] = json!("/fails");
    bench.register(&manifest).await;
    assert_eq!(life("/plugins/desk").await, json!({ "state": "discovered" }));
    bench.install(&manifest).await;
    let enabled_at = app.engine.ports.clock.now().to_string();
    assert_eq!(life("/plugins/desk").await, json!({ "state": "active", "since": enabled_at }));
    // An administrator pauses it, and lets it go on.
    app.clock.advance(60);
    let paused_at = app.engine.ports.clock.now().to_string();
    app.post("/api/v1/plugins/desk/disable", &json!({ "reason": "The desk moves." })).await;
    let paused = json!({ "state": "paused", "since": paused_at, "reason": "The desk moves." });
    assert_eq!(life("/api/v1/plugins/desk").await, paused);
    app.post("/api/v1/plugins/desk/enable", &json!({})).await;
    assert_eq!(life("/api/v1/plugins/desk").await["state"], "active");
    // It fails, and no other does.
    bench.install(&bench.manifest("chair", "1.0.0")).await;
    assert_eq!(app.intend("desk", "act", json!({})).await.failure(), "unavailable");
    let failed = life("/api/v1/plugins/desk").await;
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(
        failed["reason"].as_str().unwrap().contains("failed too often") && failed["since"] == paused_at,
        "{failed}"
    );
    assert_eq!(life("/api/v1/plugins/chair").await["state"], "active");
    // Its use ends; what is registered is there still, and read.
    let stopped = app.delete("/api/v1/plugins/desk").await;
    assert_eq!(stopped.json(), json!({ "state": "stopped" }), "{}", stopped.text);
    assert_eq!(app.intend("desk", "look", json!({})).await.problem(404), "unknown_plugin");
    assert_eq!(app.delete("/api/v1/plugins/desk").await.problem(404), "unknown_plugin");
    assert_eq!(app.delete("/api/v1/plugins/slack").await.problem(409), "conflict");
    assert_eq!(life("/plugins/desk").await, json!({ "state": "initialized" }));
    // Enabled again it begins anew, with nothing granted.
    let again = app.post("/api/v1/plugins/desk/enable", &json!({})).await.json();
    assert_eq!((&again["permissions"], &again["life"]["state"]), (&json!([]), &json!("active")));
    // In the end no version of it can be enabled, and nothing is in use.
    app.delete("/api/v1/plugins/desk").await;
    for active in [false, true, false] {
        let change = json!({ "is_active": active });
        for _ in 0..2 {
            app.send(&app.admin, Method::PATCH, "/plugins/desk/1.0.0", Some(&change)).await.json();
        }
    }
    assert_eq!(life("/plugins/desk").await, json!({ "state": "unloaded" }));
    assert_eq!(app.post("/api/v1/plugins/desk/enable", &json!({})).await.problem(409), "conflict");
    let kinds: Vec<_> = app.events.lock().unwrap().iter().map(|event| event.kind).collect();
    // Overseer emits one event for each change, and none for a request that changes nothing.
    for (kind, times) in [
        ("plugin.registered", 2),
        ("plugin.enabled", 4),
        ("plugin.disabled", 1),
        ("breaker.opened", 1),
        ("plugin.stopped", 2),
        ("plugin.unloaded", 2),
        ("plugin.loaded", 1),
    ] {
        assert_eq!(kinds.iter().filter(|one| **one == kind).count(), times, "{kind}: {kinds:?}");
    }
}

#[tokio::test]
async fn call_in_flight_outlives_the_uninstall() {
    let bench = Bench::start().await;
    let app = &bench.app;
    let mut manifest = bench.manifest("desk", "1.0.0");
    manifest["actions"][0]["request"]["path"] = json!("/waits");
    bench.install(&manifest).await;
    let looking = app.intend("desk", "look", json!({}));
    let stopping = async {
        bench.gate.reached().await;
        let stopping = app.delete("/api/v1/plugins/desk").await;
        assert_eq!(stopping.json(), json!({ "state": "stopping" }), "{}", stopping.text);
        bench.gate.open();
    };
    let (looked, ()) = tokio::join!(looking, stopping);
    assert_eq!(looked.data()["path"], "/waits?v=1.0.0");
}

#[tokio::test]
async fn incompatible_plugin_is_not_enabled() {
    let bench = Bench::start().await;
    let mut manifest = bench.manifest("desk", "1.0.0");
    manifest["compatible_versions"] = json!(">=99.0.0");
    assert_eq!(bench.register(&manifest).await.status, StatusCode::OK);
    let refused = bench.app.post("/api/v1/plugins/desk/enable", &json!({})).await;
    assert!(refused.problem(409) == "conflict" && refused.text.contains(">=99.0.0"), "{}", refused.text);
}

#[tokio::test]
async fn rollback_restores_no_withdrawn_permission() {
    let bench = Bench::start().await;
    let app = &bench.app;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    bench.register(&bench.manifest("desk", "1.1.0")).await;
    app.post("/api/v1/plugins/desk/upgrade", &json!({ "version": "1.1.0" })).await;
    // Not a permission.
    app.send(&app.admin, Method::PATCH, "/api/v1/plugins/desk", Some(&json!({ "permissions": [] }))).await;
    let back = app.post("/api/v1/plugins/desk/rollback", &json!({})).await.json();
    assert_eq!((&back["version"], &back["permissions"]), (&json!("1.0.0"), &json!([])), "{back}");
    // Rollback refuses a deactivated version.
    let off = json!({ "is_active": false });
    app.send(&app.admin, Method::PATCH, "/plugins/desk/1.1.0", Some(&off)).await;
    assert_eq!(app.post("/api/v1/plugins/desk/rollback", &json!({})).await.problem(409), "conflict");
}

#[tokio::test]
async fn rendered_path_stays_at_the_service() {
    let bench = Bench::start().await;
    let other = bench.service.address.port().wrapping_add(1);
    for (version, path) in [
        ("1.0.0", "{{ '.evil.example' }}/x".to_owned()),
        ("1.0.1", format!("{{% if false %}}/{{% endif %}}:{other}/x")),
        ("1.0.2", "{% if false %}/{% endif %}@evil.example/x".to_owned()),
    ] {
        let mut manifest = bench.manifest("desk", version);
        manifest["permissions"] = json!(["network:127.0.0.1", "network:127.0.0.1.evil.example"]);
        manifest["actions"][0]["request"]["path"] = json!(path);
        // Registration may refuse the manifest already.
        if bench.register(&manifest).await.status != StatusCode::OK {
            continue;
        }
        let enable = json!({ "version": version, "permissions": ["network:127.0.0.1"] });
        let path = if version == "1.0.0" { "enable" } else { "upgrade" };
        bench.app.post(&format!("/api/v1/plugins/desk/{path}"), &enable).await;
        let answer = bench.app.intend("desk", "look", json!({})).await;
        assert_eq!(answer.failure(), "unavailable", "{version}");
        assert!(answer.text.contains("the plugin is at fault"), "{}", answer.text);
    }
    assert!(bench.service.calls().is_empty(), "{:?}", bench.service.calls());
}

#[tokio::test]
async fn unknown_outcome_is_not_retried_by_another_version() {
    let bench = Bench::start().await;
    let app = &bench.app;
    let mut unsafe_one = bench.manifest("desk", "1.0.0");
    unsafe_one["actions"][1]["request"]["path"] = json!("/fails");
    bench.install(&unsafe_one).await;
    let act = json!({ "tool": "desk", "intent": "act", "idempotencyKey": "order-1" });
    let first = app.post("/api/plugin-engine", &act).await;
    assert_eq!(first.json()["error"]["mayHaveHappened"], true, "{}", first.text);
    // The next version says that the service knows a repetition; of this one it was never told the key.
    let mut keyed = bench.manifest("desk", "2.0.0");
    keyed["actions"][1]["effect"] = json!("keyed");
    keyed["actions"][1]["request"]["headers"] = json!({ "idempotency-key": "{{ idempotency_key }}" });
    bench.register(&keyed).await;
    let upgraded = app.post("/api/v1/plugins/desk/upgrade", &json!({ "version": "2.0.0" })).await;
    assert_eq!(upgraded.status, StatusCode::OK, "{}", upgraded.text);
    let calls = bench.service.calls().len();
    let again = app.post("/api/plugin-engine", &act).await;
    assert_eq!(again.json()["error"]["mayHaveHappened"], true, "{}", again.text);
    assert_eq!(bench.service.calls().len(), calls, "it was done again");
    let decided = app.post("/api/plugin-engine?resolve=retry", &act).await;
    assert_eq!(decided.json()["success"], true, "{}", decided.text);
    // An answer is an answer, also where the plugin may not be used any more.
    app.send(&app.admin, Method::PATCH, "/api/v1/plugins/desk", Some(&json!({ "permissions": [] }))).await;
    assert_eq!(app.post("/api/plugin-engine", &act).await.json()["success"], true);
}
