//! Agents built from configuration: their instructions, their tools, and the plugins that are left out.

mod channels;
pub mod explain;
mod locking;
mod running;

use overseer_engine::access::principal::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::registry::Bench;
use crate::support::app::{Answer, App};
use crate::support::scripted::{Scripted, says};

const CHANNEL: &str = "/api/v1/channels/twilio";
const AGENT: &str = "/api/v1/agents/twilio";

/// An Overseer with the plugins `booking` and `crm`, which both have an action `find`.
async fn both() -> Bench {
    let bench = Bench::start().await;
    bench.install(&booking(&bench, "1.0.0")).await;
    bench.install(&crm(&bench)).await;
    bench
}

fn booking(bench: &Bench, version: &str) -> Value {
    let mut manifest = bench.manifest("booking", version);
    manifest["instruction_template"] = json!("You are at the {{ config.desk }} desk.\n");
    manifest["data_adapters"] = json!([
        { "name": "local", "type": "database", "config": { "connectionString": "env:DATABASE" } },
        { "name": "opendental", "type": "api" },
    ]);
    manifest["actions"] = json!([action("find"), action("create")]);
    manifest
}

fn crm(bench: &Bench) -> Value {
    let mut manifest = bench.manifest("crm", "2.1.0");
    manifest["display_name"] = json!("Customers");
    manifest["instruction_template"] = json!("You know the customers.");
    manifest["actions"] = json!([action("find"), action("AddLead")]);
    manifest
}

fn action(name: &str) -> Value {
    json!({ "name": name, "description": format!("Does {name}."), "effect": if name == "find" { "read" } else { "unsafe" },
            "parameters": { "type": "object", "properties": { "what": { "type": "string" } } },
            "request": { "method": "POST", "path": format!("/{name}"), "json": { "what": "{{ what }}" } } })
}

fn assigned(plugin: &str, priority: u16) -> Value {
    json!({ "plugin": plugin, "priority": priority })
}

async fn put(app: &App, path: &str, body: &Value) -> Answer {
    app.send(&app.admin, Method::PUT, path, Some(body)).await
}

/// Sets the channel `twilio`.
async fn set(app: &App, assignments: Value) -> Value {
    ok(&put(app, CHANNEL, &json!({ "plugin_assignments": assignments })).await)
}

#[track_caller]
fn ok(answer: &Answer) -> Value {
    assert!(answer.status.is_success(), "{}", answer.text);
    answer.json()
}

/// The agent of the channel `twilio`.
async fn agent(app: &App) -> Value {
    ok(&app.get(AGENT).await)
}

fn names(agent: &Value) -> Vec<&str> {
    agent["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn agent_has_the_tools_of_its_plugins_by_priority() {
    let bench = both().await;
    set(&bench.app, json!([assigned("booking", 2), assigned("crm", 1)])).await;
    let built = agent(&bench.app).await;
    assert_eq!(built["instructions"], "You know the customers.\n\n---\n\nYou are at the front desk.");
    assert_eq!(names(&built), ["crm__find", "AddLead", "booking__find", "create"]);
    let renamed = |plugin: &str| json!({ "name": format!("{plugin}__find"), "plugin": plugin, "action": "find" });
    assert_eq!(built["renamed"], json!([renamed("crm"), renamed("booking")]));
    let tool = &built["tools"][3];
    assert_eq!(
        (&tool["plugin"], &tool["action"], &tool["effect"]),
        (&json!("booking"), &json!("create"), &json!("unsafe"))
    );
    assert_eq!(tool["parameters"]["properties"]["what"]["type"], "string");
    let local = json!({ "name": "local", "type": "database", "config": { "connectionString": "env:DATABASE" } });
    assert_eq!(built["data_routing"], json!({ "booking": local }));
    let plugins = json!([{ "name": "crm", "version": "2.1.0" }, { "name": "booking", "version": "1.0.0" }]);
    assert_eq!(built["plugins"], plugins);
    assert_eq!((&built["left_out"], &built["warnings"]), (&json!([]), &json!([])));
    assert!(built.get("locked").is_none() && built["hash"].as_str().unwrap().len() == 64, "{built}");
}

#[tokio::test]
async fn plugins_of_one_priority_are_ordered_by_name() {
    let bench = both().await;
    set(&bench.app, json!([{ "plugin": "crm" }, { "plugin": "booking", "data_adapter": "opendental" }])).await;
    ok(&put(&bench.app, "/api/v1/plugins/booking/config", &json!({ "desk": "back" })).await);
    let built = agent(&bench.app).await;
    assert_eq!(built["instructions"], "You are at the back desk.\n\n---\n\nYou know the customers.");
    assert_eq!(names(&built), ["booking__find", "create", "crm__find", "AddLead"]);
    assert_eq!(built["data_routing"]["booking"]["name"], "opendental");
}

#[tokio::test]
async fn tool_of_the_only_plugin_has_the_name_of_its_action() {
    let bench = both().await;
    set(&bench.app, json!([{ "plugin": "crm" }])).await;
    let built = agent(&bench.app).await;
    assert_eq!((names(&built), &built["renamed"]), (vec!["find", "AddLead"], &json!([])));
}

#[tokio::test]
async fn channel_without_plugins_has_an_agent_without_tools() {
    let bench = both().await;
    set(&bench.app, json!([])).await;
    let built = agent(&bench.app).await;
    assert_eq!((&built["instructions"], &built["tools"]), (&json!(""), &json!([])));
}

#[tokio::test]
async fn channel_instructions_replace_those_of_its_plugins() {
    let bench = both().await;
    let own =
        json!({ "plugin_assignments": [{ "plugin": "crm" }, { "plugin": "booking" }], "instructions": "Be brief.\n" });
    ok(&put(&bench.app, CHANNEL, &own).await);
    let built = agent(&bench.app).await;
    assert_eq!(built["instructions"], "Be brief.\n");
    assert_eq!(names(&built).len(), 4);
}

#[tokio::test]
async fn vendor_format_has_the_same_tools() {
    let bench = both().await;
    set(&bench.app, json!([assigned("booking", 2), assigned("crm", 1)])).await;
    let own = agent(&bench.app).await;
    for (format, within, schema) in
        [("openai", "/function", "parameters"), ("anthropic", "", "input_schema"), ("mcp", "", "inputSchema")]
    {
        let shown = ok(&bench.app.get(&format!("{AGENT}?format={format}")).await);
        for same in ["channel", "hash", "instructions"] {
            assert_eq!(shown[same], own[same], "{format}: {same}");
        }
        for (tool, own) in shown["tools"].as_array().unwrap().iter().zip(own["tools"].as_array().unwrap()) {
            let described = tool.pointer(within).unwrap();
            assert_eq!((&described["name"], &described[schema]), (&own["name"], &own["parameters"]), "{format}");
            assert_eq!(described["description"], own["description"], "{format}");
            // `calls` maps the model's name to the intent.
            let call = json!({ "tool": own["plugin"], "intent": own["action"] });
            assert_eq!(shown["calls"][own["name"].as_str().unwrap()], call, "{format}");
        }
        assert_eq!(shown["tools"].as_array().unwrap().len(), 4);
    }
}

#[tokio::test]
async fn mcp_tools_have_annotations() {
    let bench = both().await;
    set(&bench.app, json!([assigned("booking", 2), assigned("crm", 1)])).await;
    let mcp = ok(&bench.app.get(&format!("{AGENT}?format=mcp")).await);
    assert_eq!(mcp["tools"][0]["annotations"]["title"], "Customers: find");
    assert_eq!(mcp["tools"][0]["annotations"]["readOnlyHint"], true);
}

#[tokio::test]
async fn unknown_query_of_an_agent_is_refused() {
    let bench = both().await;
    set(&bench.app, json!([assigned("crm", 1)])).await;
    for query in ["format=xml", "formats=mcp"] {
        assert_eq!(bench.app.get(&format!("{AGENT}?{query}")).await.problem(400), "invalid_parameters");
    }
}

#[tokio::test]
async fn hash_is_equal_for_equal_configurations() {
    let (bench, elsewhere) = (both().await, Bench::start().await);
    set(&bench.app, json!([assigned("booking", 2), assigned("crm", 1)])).await;
    let first = agent(&bench.app).await;

    // Another server gets the same configuration in another order. Its service has another address, which is not part of the
    // agent.
    elsewhere.install(&crm(&elsewhere)).await;
    elsewhere.install(&booking(&elsewhere, "1.0.0")).await;
    elsewhere.app.clock.advance(1_000);
    let text = r#"{"plugin_assignments": [{"priority": 10, "enabled": true, "plugin": "crm"},
                   {"plugin": "booking", "data_adapter": "local", "priority": 20}]}"#;
    let request = elsewhere.app.request(Method::PUT, CHANNEL).header("content-type", "application/json").body(text);
    let request = request.header("authorization", format!("Bearer {}", elsewhere.app.admin));
    ok(&Answer::of(request.send().await.unwrap()).await);
    let same = agent(&elsewhere.app).await;
    assert_eq!((&same["hash"], &same["tools"]), (&first["hash"], &first["tools"]));
}

#[tokio::test]
async fn hash_changes_with_what_the_agent_gets() {
    let bench = both().await;
    set(&bench.app, json!([assigned("booking", 2), assigned("crm", 1)])).await;
    let first = agent(&bench.app).await;
    let original = json!([assigned("booking", 2), assigned("crm", 1)]);
    let mut seen = vec![first["hash"].clone()];
    for other in [
        json!([assigned("booking", 1), assigned("crm", 2)]),
        json!([assigned("booking", 2)]),
        json!([{ "plugin": "booking", "priority": 2, "data_adapter": "opendental" }, assigned("crm", 1)]),
    ] {
        set(&bench.app, other.clone()).await;
        let hash = agent(&bench.app).await["hash"].clone();
        assert!(!seen.contains(&hash), "{other}");
        seen.push(hash);
        set(&bench.app, original.clone()).await;
        assert_eq!(agent(&bench.app).await["hash"], first["hash"], "{other}");
    }
    ok(&put(&bench.app, "/api/v1/plugins/booking/config", &json!({ "desk": "back" })).await);
    assert_ne!(agent(&bench.app).await["hash"], first["hash"]);
}

#[tokio::test]
async fn hash_ignores_settings_that_no_template_uses() {
    let bench = both().await;
    set(&bench.app, json!([assigned("booking", 2), assigned("crm", 1)])).await;
    let first = agent(&bench.app).await;
    ok(&put(&bench.app, "/api/v1/plugins/booking/config", &json!({ "loud": true })).await);
    assert_eq!(agent(&bench.app).await["hash"], first["hash"]);
}

/// Installs two plugins whose instructions cannot be rendered: `broken` uses an unknown setting, those of `long` are too long.
async fn install_without_instructions(bench: &Bench) {
    let mut broken = bench.manifest("broken", "1.0.0");
    broken["instruction_template"] = json!("Say {{ config.code }}.");
    let mut long = bench.manifest("long", "1.0.0");
    long["default_config"]["desk"] = json!("forty characters, again and again again. ".repeat(90));
    long["instruction_template"] = json!("{{ config.desk }}".repeat(10));
    for manifest in [&broken, &long] {
        bench.install(manifest).await;
    }
}

#[tokio::test]
async fn unusable_plugin_is_left_out() {
    let bench = both().await;
    let app = &bench.app;
    install_without_instructions(&bench).await;
    ok(&bench.register(&bench.manifest("bare", "1.0.0")).await);
    ok(&app.post("/api/v1/plugins/bare/enable", &json!({})).await);
    let all = ["bare", "booking", "broken", "crm", "long", "notion"].map(|plugin| json!({ "plugin": plugin }));
    let mut all = all.to_vec();
    all.push(json!({ "plugin": "slack", "enabled": false }));
    set(app, json!(all)).await;
    ok(&app.post("/api/v1/plugins/crm/disable", &json!({ "reason": "we move" })).await);

    let built = agent(app).await;
    let left_out: Vec<(&str, &str)> = built["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["plugin"].as_str().unwrap(), one["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        left_out,
        [
            ("bare", "not_granted"),
            ("broken", "failed"),
            ("crm", "disabled"),
            ("long", "failed"),
            ("slack", "switched_off")
        ]
    );
    for (place, words) in
        [(0, "network:127.0.0.1"), (1, "instructions"), (2, "we move"), (3, "32768"), (4, "switched off")]
    {
        let message = built["left_out"][place]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(built["instructions"], "You are at the front desk.");
    assert!(names(&built).starts_with(&["find", "create"]), "{built}");
    assert!(names(&built).contains(&"create_page"));
}

#[tokio::test]
async fn channel_with_instructions_needs_none_of_its_plugins() {
    let bench = both().await;
    let app = &bench.app;
    install_without_instructions(&bench).await;
    let own =
        json!({ "plugin_assignments": [{ "plugin": "broken" }, { "plugin": "long" }], "instructions": "Be kind." });
    ok(&put(app, CHANNEL, &own).await);
    assert_eq!(agent(app).await["left_out"], json!([]));
}

#[tokio::test]
async fn open_breaker_is_a_warning() {
    let own = Scripted::with_breaker(vec![says(500)], &json!({ "failures": 1 })).await;
    let app = &own.app;
    set(app, json!([{ "plugin": "own" }])).await;
    let before = agent(app).await;
    assert_eq!((names(&before).len(), &before["warnings"]), (4, &json!([])));
    app.intend("own", "unsafe", json!({})).await.failure();
    assert_eq!(app.get("/api/v1/plugins/own").await.json()["breaker"]["write"]["state"], "open");
    let mut built = agent(app).await;
    assert_eq!(built["warnings"][0]["plugin"], "own");
    assert!(built["warnings"][0]["message"].as_str().unwrap().contains("failed too often"), "{built}");
    built["warnings"] = json!([]);
    assert_eq!(built, before);
}

#[tokio::test]
async fn role_decides_who_may_see_an_agent() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "crm" }])).await;
    for (role, status) in
        [(Role::Operator, 200), (Role::Service, 200), (Role::PlatformAdministrator, 200), (Role::User, 403)]
    {
        let key = app.key("acme", &[role], Some("ann")).await;
        assert_eq!(app.send(&key, Method::GET, AGENT, None).await.status.as_u16(), status, "{role:?}");
    }
}

#[tokio::test]
async fn channel_of_another_organization_is_not_found() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "crm" }])).await;
    let other = app.key("other", &[Role::Administrator], Some("eve")).await;
    for (method, path) in [
        (Method::GET, AGENT.to_owned()),
        (Method::GET, CHANNEL.to_owned()),
        (Method::DELETE, CHANNEL.to_owned()),
        (Method::GET, format!("{AGENT}/locks")),
        (Method::POST, format!("{AGENT}/lock")),
        (Method::POST, format!("{AGENT}/unlock")),
        (Method::POST, format!("{AGENT}/diff")),
    ] {
        assert_eq!(app.send(&other, method.clone(), &path, None).await.problem(404), "not_found", "{method} {path}");
    }
    assert_eq!(app.send(&other, Method::GET, "/api/v1/channels", None).await.json()["channels"], json!([]));
}

#[tokio::test]
async fn agent_of_an_unknown_channel_is_not_found() {
    let app = App::start().await;
    for name in ["nothing", "NOTHING", "no%20thing"] {
        assert_eq!(app.get(&format!("/api/v1/agents/{name}")).await.problem(404), "not_found", "{name}");
    }
}

#[tokio::test]
async fn agent_route_costs_at_most_three_reads() {
    let bench = both().await;
    set(&bench.app, json!([{ "plugin": "booking" }, { "plugin": "crm" }, { "plugin": "slack" }])).await;
    agent(&bench.app).await;
    bench.app.table.take();
    agent(&bench.app).await;
    assert_eq!(bench.app.table.take(), (2, 0));
    ok(&bench.app.post(&format!("{AGENT}/lock"), &json!({})).await);
    // The third read is of the webhooks.
    assert_eq!(bench.app.table.take(), (3, 1), "locking");
    agent(&bench.app).await;
    assert_eq!(bench.app.table.take(), (2, 0), "a locked agent");
    ok(&bench.app.post(&format!("{AGENT}/diff"), &json!({})).await);
    assert_eq!(bench.app.table.take(), (3, 0), "the difference");
    set(&bench.app, json!([{ "plugin": "crm" }])).await;
    assert_eq!(bench.app.table.take(), (2, 1), "setting the channel");
    ok(&bench.app.get(CHANNEL).await);
    ok(&bench.app.get("/api/v1/channels").await);
    assert_eq!(bench.app.table.take(), (2, 0), "reading and listing channels");
}
