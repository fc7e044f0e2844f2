//! Plugins of one organization do not affect another.

use overseer_engine::access::principal::Role;
use reqwest::Method;
use serde_json::{Value, json};

use super::Bench;

#[tokio::test]
async fn plugin_names_are_separate_by_organization() {
    let bench = Bench::start().await;
    let app = &bench.app;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    let globex = app.key("globex", &[Role::Administrator], Some("hank")).await;
    let ask =
        async |method: Method, path: &str, body: Option<Value>| app.send(&globex, method, path, body.as_ref()).await;
    // Nothing of the one is there for the other.
    assert_eq!(ask(Method::GET, "/plugins", None).await.json()["plugins"], json!([]));
    for path in ["/plugins/desk", "/api/v1/plugins/desk", "/api/v1/plugins/desk/config", "/api/v1/plugins/desk/diff"] {
        assert_eq!(ask(Method::GET, path, None).await.problem(404), "unknown_plugin", "{path}");
    }
    let intent = json!({ "tool": "desk", "intent": "look" });
    assert_eq!(ask(Method::POST, "/api/plugin-engine", Some(intent.clone())).await.problem(404), "unknown_plugin");
    for what in ["enable", "disable", "rollback", "reset"] {
        let path = format!("/api/v1/plugins/desk/{what}");
        assert_eq!(ask(Method::POST, &path, Some(json!({}))).await.problem(404), "unknown_plugin", "{what}");
    }
    let tools = ask(Method::GET, "/api/plugin-engine?userId=hank", None).await.text;
    assert!(!tools.contains("desk"), "{tools}");
    // Another plugin by the same name and version.
    let mut own = bench.manifest("desk", "1.0.0");
    own["actions"][0]["request"]["path"] = json!("/globex");
    assert_eq!(ask(Method::POST, "/plugins", Some(own)).await.status.as_u16(), 200);
    let grant = json!({ "permissions": ["network:127.0.0.1"] });
    assert_eq!(ask(Method::POST, "/api/v1/plugins/desk/enable", Some(grant)).await.status.as_u16(), 200);
    let look = ask(Method::POST, "/api/plugin-engine", Some(intent)).await;
    assert_eq!(look.data()["path"], "/globex?v=1.0.0");
    assert_eq!(app.intend("desk", "look", json!({})).await.data()["path"], "/look/front?v=1.0.0");
}

#[tokio::test]
async fn global_plugin_is_enabled_per_organization() {
    let bench = Bench::start().await;
    let app = &bench.app;
    let platform = app.key("platform", &[Role::PlatformAdministrator], None).await;
    let made = app.send(&platform, Method::POST, "/plugins?scope=global", Some(&bench.manifest("desk", "1.0.0"))).await;
    assert_eq!(made.json()["scope"], "global", "{}", made.text);
    let globex = app.key("globex", &[Role::Administrator], Some("hank")).await;
    let listed = app.get("/plugins?scope=global").await;
    assert_eq!(listed.json()["plugins"][0]["name"], "desk");
    // The administrator's key id is not shown to another organization.
    let (by, seen) = (&made.json()["key"], app.get("/plugins/desk/1.0.0").await.text);
    for text in [listed.text, seen, app.get("/plugins/desk").await.text] {
        assert!(!text.contains(by.as_str().unwrap()), "{text}");
    }
    let enable = json!({ "permissions": ["network:127.0.0.1"], "config": { "desk": "acme" } });
    let enabled = app.post("/api/v1/plugins/desk/enable", &enable).await;
    assert_eq!(enabled.json()["scope"], "global", "{}", enabled.text);
    assert_eq!(app.intend("desk", "look", json!({})).await.data()["path"], "/look/acme?v=1.0.0");
    let intent = json!({ "tool": "desk", "intent": "look" });
    let refused = app.send(&globex, Method::POST, "/api/plugin-engine", Some(&intent)).await;
    assert_eq!(refused.problem(404), "unknown_plugin");
    // An organization's own goes before.
    let mut own = bench.manifest("desk", "2.0.0");
    own["default_config"] = json!({ "desk": "own" });
    app.send(&globex, Method::POST, "/plugins", Some(&own)).await;
    let grant = json!({ "permissions": ["network:127.0.0.1"] });
    let enabled = app.send(&globex, Method::POST, "/api/v1/plugins/desk/enable", Some(&grant)).await.json();
    assert_eq!((&enabled["scope"], &enabled["version"]), (&json!("organization"), &json!("2.0.0")));
    let look = app.send(&globex, Method::POST, "/api/plugin-engine", Some(&intent)).await;
    assert_eq!(look.data()["path"], "/look/own?v=2.0.0");
    // Both can be looked at.
    for (query, version, state) in [("", "2.0.0", "active"), ("?scope=global", "1.0.0", "discovered")] {
        let shown = app.send(&globex, Method::GET, &format!("/plugins/desk{query}"), None).await.json();
        assert_eq!((&shown["versions"][0]["version"], &shown["life"]["state"]), (&json!(version), &json!(state)));
    }
}

#[tokio::test]
async fn function_call_names_its_plugin() {
    let bench = Bench::start().await;
    let app = &bench.app;
    bench.install(&bench.manifest("booking", "1.0.0")).await;
    let call = json!({ "function": "act", "parameters": { "note": "a" }, "sessionId": "s-1" });
    for path in ["/api/plugins/booking", "/api/booking"] {
        let answer = app.post(path, &call).await.json();
        assert_eq!((&answer["success"], &answer["sessionId"]), (&json!(true), &json!("s-1")), "{answer}");
        assert_eq!(answer["result"]["body"], json!({ "note": "a", "loud": false }), "{path}");
    }
    // A key makes it safe to call again, in the body or as a header.
    let keyed = || {
        let request = app.request(Method::POST, "/api/booking").header("idempotency-key", "call-1");
        let request = request.header("authorization", format!("Bearer {}", app.admin));
        request.header("content-type", "application/json").body(call.to_string()).send()
    };
    let calls = bench.service.calls().len();
    assert!(!keyed().await.unwrap().headers().contains_key("idempotent-replayed"));
    assert_eq!(keyed().await.unwrap().headers()["idempotent-replayed"], "true");
    assert_eq!(bench.service.calls().len(), calls + 1);
    let refused = app.post("/api/booking", &json!({ "function": "act", "parameters": { "note": 7 } })).await;
    assert_eq!(
        (refused.problem(400), refused.pointers()),
        ("invalid_parameters".to_owned(), vec!["/parameters/note".to_owned()])
    );
    assert_eq!(app.post("/api/booking", &json!({ "function": "GetAllPatients" })).await.problem(404), "unknown_action");
    assert_eq!(app.post("/api/plugins/crm", &call).await.problem(404), "unknown_plugin");
    let asked = |org: &'static str| {
        let request = app.request(Method::POST, "/api/booking").header("x-organization-id", org);
        let request = request.header("authorization", format!("Bearer {}", app.admin));
        request.header("content-type", "application/json").body(call.to_string()).send()
    };
    assert_eq!(asked("acme").await.unwrap().status().as_u16(), 200);
    assert_eq!(asked("globex").await.unwrap().status().as_u16(), 403);
}

#[tokio::test]
async fn redirect_uri_belongs_to_one_organizations_plugin() {
    let bench = Bench::start().await;
    let app = &bench.app;
    let mut manifest = bench.manifest("desk", "1.0.0");
    manifest["auth"] = crate::support::app::oauth2();
    // Where tokens come from is reached as well.
    let refused = bench.register(&manifest).await;
    assert_eq!(refused.problem(400), "invalid_parameters");
    assert!(refused.text.contains("permissions: add network:provider.example"), "{}", refused.text);
    manifest["permissions"] = json!(["network:127.0.0.1", "network:provider.example"]);
    bench.install(&manifest).await;
    let globex = app.key("globex", &[Role::Administrator], Some("hank")).await;
    app.send(&globex, Method::POST, "/plugins", Some(&manifest)).await;
    let grant = json!({ "permissions": manifest["permissions"] });
    app.send(&globex, Method::POST, "/api/v1/plugins/desk/enable", Some(&grant)).await;
    let path = "/api/plugin-engine/integrations/desk/client";
    let client = json!({ "clientId": "a", "clientSecret": "only-a-test" });
    let mut uris = Vec::new();
    for key in [&app.admin, &globex] {
        let set = app.send(key, Method::PUT, path, Some(&client)).await;
        uris.push(set.json()["redirectUri"].as_str().unwrap().to_owned());
    }
    assert!(uris.iter().all(|uri| uri.contains("/oauth/callback/desk~")), "{uris:?}");
    assert_ne!(uris[0], uris[1]);
    // Connecting sends a credential to the plugin's service and its provider: an administrator must have granted that.
    // A pending connection fails once the administrator revokes the grant.
    let link = app.post("/api/plugin-engine/integrations/desk/connect", &json!({})).await.json();
    let link = link["connectUrl"].as_str().unwrap().to_owned();
    assert_eq!(app.client.get(&link).send().await.unwrap().status().as_u16(), 200);
    for granted in [json!([]), json!(["network:127.0.0.1"]), json!(["network:provider.example"])] {
        let grant = json!({ "permissions": granted });
        app.send(&app.admin, Method::PATCH, "/api/v1/plugins/desk", Some(&grant)).await;
        let refused = app.post("/api/plugin-engine/integrations/desk/connect", &json!({})).await;
        assert_eq!(refused.problem(403), "forbidden", "{grant}");
        let page = app.client.get(&link).send().await.unwrap();
        assert_eq!(page.status().as_u16(), 400, "{grant}");
    }
    // A client is there to remove also when its plugin is gone.
    app.delete("/api/v1/plugins/desk").await;
    let removed = app.delete(path).await;
    assert_eq!((removed.status.as_u16(), removed.json().get("clientId")), (200, None), "{}", removed.text);
    assert_eq!(app.delete(path).await.problem(404), "unknown_plugin");
}
