use std::collections::BTreeMap;

use overseer_engine::access::principal::Role;
use overseer_engine::plugin::catalog::Catalog;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{App, Options};

const PATH: &str = "/api/plugin-engine";

fn connected(list: &Value) -> BTreeMap<String, Value> {
    let tools = list["tools"].as_array().unwrap();
    tools.iter().map(|tool| (tool["tool"].as_str().unwrap().to_owned(), tool["connected"].clone())).collect()
}

fn all(value: &Value) -> BTreeMap<String, Value> {
    ["gmail", "notion", "slack"].map(|name| (name.to_owned(), value.clone())).into()
}

#[tokio::test]
async fn tool_list_names_every_action_as_an_intent_does() {
    let app = App::start().await;
    let list = app.get(PATH).await.json();
    let tools: BTreeMap<&str, &Value> =
        list["tools"].as_array().unwrap().iter().map(|tool| (tool["tool"].as_str().unwrap(), tool)).collect();
    assert_eq!(tools.keys().copied().collect::<Vec<_>>(), ["gmail", "notion", "slack"]);
    let slack = tools["slack"];
    assert_eq!((&slack["displayName"], &slack["version"]), (&json!("Slack"), &json!("1.0.0")));
    for (tool, expected) in [
        ("gmail", vec!["send_email", "create_draft", "fetch_messages"]),
        ("notion", vec!["create_page", "update_page", "append_content", "query_database", "search"]),
        ("slack", vec!["send_message", "schedule_message", "list_channels", "fetch_messages"]),
    ] {
        let actions = tools[tool]["actions"].as_array().unwrap();
        let names: Vec<_> = actions.iter().map(|action| action["intent"].as_str().unwrap()).collect();
        assert_eq!(names, expected);
        for action in actions {
            assert_eq!(action["parameters"]["type"], "object");
            assert!(action["description"].as_str().is_some_and(|text| !text.is_empty()));
            assert!(["read", "idempotent", "keyed", "unsafe"].contains(&action["effect"].as_str().unwrap()));
        }
    }
    assert_eq!(slack["actions"][0]["aliases"], json!(["send", "post_message"]));
    assert_eq!(slack["actions"][0]["parameters"]["required"], json!(["channel", "text"]));
}

#[tokio::test]
async fn tool_list_shows_connected_accounts() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    assert_eq!(connected(&app.get(PATH).await.json()), all(&json!(false)));
    app.connect("slack", "xoxb-playground").await;
    let mut one = all(&json!(false));
    one.insert("slack".to_owned(), json!(true));
    assert_eq!(connected(&app.get(PATH).await.json()), one);
    assert_eq!(connected(&app.get(&format!("{PATH}?userId=admin")).await.json()), one);
    assert_eq!(connected(&app.get(&format!("{PATH}?userId=other")).await.json()), all(&json!(false)));
}

#[tokio::test]
async fn user_sees_only_own_connected_accounts() {
    let app = App::start().await;
    let user = app.key("acme", &[Role::User], Some("ann")).await;
    assert_eq!(connected(&app.send(&user, Method::GET, PATH, None).await.json()), all(&json!(false)));
    let foreign = app.send(&user, Method::GET, &format!("{PATH}?userId=admin"), None).await;
    assert_eq!(foreign.problem(403), "forbidden");
}

#[tokio::test]
async fn tool_list_without_a_user_shows_no_connection() {
    let app = App::start().await;
    let service = app.key("acme", &[Role::Service], None).await;
    assert_eq!(connected(&app.send(&service, Method::GET, PATH, None).await.json()), all(&Value::Null));
}

#[tokio::test]
async fn plugin_without_auth_counts_as_connected() {
    let manifest = r#"{"name": "open", "version": "0.1.0", "display_name": "Open", "description": "d",
        "runtime": {"type": "http", "base_url": "https://open.example"}, "permissions": ["network:open.example"],
        "actions": [{"name": "a", "description": "d", "effect": "read", "request": {"path": "/"}}]}"#;
    let app = App::with(Options { plugins: vec![manifest.to_owned()], ..Options::default() }).await;
    assert_eq!(connected(&app.get(PATH).await.json())["open"], json!(true));
}

#[tokio::test]
async fn each_format_has_its_vendors_shape() {
    let app = App::start().await;
    let own = app.get(&format!("{PATH}?format=overseer")).await.json();
    assert_eq!(own, app.get(PATH).await.json());
    let mut expected: Vec<(String, Value)> = Vec::new();
    for tool in own["tools"].as_array().unwrap() {
        for action in tool["actions"].as_array().unwrap() {
            let name = format!("{}__{}", tool["tool"].as_str().unwrap(), action["intent"].as_str().unwrap());
            expected.push((name, action["parameters"].clone()));
        }
    }
    for (format, within, schema) in
        [("openai", "/function", "parameters"), ("anthropic", "", "input_schema"), ("mcp", "", "inputSchema")]
    {
        let list = app.get(&format!("{PATH}?format={format}")).await.json();
        let tools = list["tools"].as_array().unwrap();
        let found: Vec<(String, Value)> = tools
            .iter()
            .map(|tool| {
                let described = tool.pointer(within).unwrap();
                assert!(described["description"].is_string());
                let name = described["name"].as_str().unwrap();
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                assert!(name.len() <= 64 && name.chars().all(plain), "{name}");
                (name.to_owned(), described[schema].clone())
            })
            .collect();
        assert_eq!(found, expected, "{format}");
        assert!(format != "openai" || tools.iter().all(|tool| tool["type"] == "function"));
    }
}

#[tokio::test]
async fn mcp_format_marks_actions_that_only_read() {
    let app = App::start().await;
    let mcp = app.get(&format!("{PATH}?format=mcp")).await.json();
    for tool in mcp["tools"].as_array().unwrap() {
        let reads = ["fetch_messages", "list_channels", "query_database", "search"];
        let reads = reads.iter().any(|name| tool["name"].as_str().unwrap().ends_with(&format!("__{name}")));
        assert_eq!(tool["annotations"]["readOnlyHint"], json!(reads), "{tool}");
    }
}

#[test]
fn action_name_that_models_refuse_fails_its_manifest() {
    let manifest = |action: usize| {
        json!({
            "name": "p".repeat(32), "version": "0.1.0", "display_name": "Long", "description": "d",
            "runtime": { "type": "http", "base_url": "https://open.example" },
            "permissions": ["network:open.example"],
            "actions": [{
                "name": "a".repeat(action), "description": "d", "effect": "read", "request": { "path": "/" },
            }],
        })
        .to_string()
    };
    let catalog = Catalog::default();
    assert!(catalog.add(&manifest(31)).unwrap_err().to_string().contains("62 characters"));
    catalog.add(&manifest(30)).unwrap();
}

#[tokio::test]
async fn unknown_format_or_query_parameter_is_refused() {
    let app = App::start().await;
    for query in ["format=xml", "format=", "format=OpenAI", "explain=true", "userId=", "user_id=ann", "format=mcp&x"] {
        let answer = app.get(&format!("{PATH}?{query}")).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{query}");
    }
}

#[tokio::test]
async fn unknown_query_parameter_of_an_intent_is_refused() {
    let app = App::start().await;
    let body = json!({ "tool": "slack", "intent": "send", "context": { "channel": "#general", "text": "hello" } });
    for query in ["explian=true", "dryRun", "userId=admin"] {
        let answer = app.post(&format!("{PATH}?{query}"), &body).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{query}");
    }
    assert_eq!(app.playground.received_total(), 0);
}
