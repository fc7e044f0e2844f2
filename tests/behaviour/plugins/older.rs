//! Plugins in the older forms of manifests: they are accepted unchanged, and report why they cannot run here.

use overseer_engine::access::principal::Role;
use serde_json::json;

use crate::support::app::{App, Options};

const PATH: &str = "/api/plugin-engine";

fn manifests() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests");
    let files = ["claude-environment.yaml", "module.json", "booking.yaml", "crm.yaml"];
    files.map(|file| std::fs::read_to_string(format!("{folder}/{file}")).unwrap()).to_vec()
}

#[tokio::test]
async fn code_action_reports_why_it_cannot_run() {
    let app = App::with(Options { plugins: manifests(), ..Options::default() }).await;
    let intent = json!({ "tool": "crm", "intent": "CreateLead",
        "context": { "name": "Ann", "email": "ann@example.com", "source": "web" } });
    let answer = app.post(PATH, &intent).await.json();
    assert_eq!((&answer["success"], &answer["error"]["code"]), (&json!(false), &json!("disabled")), "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("Customer Relationship Management cannot run here"), "{message}");
    assert!(message.contains("functions/leads/create") && message.contains("runtime: { type: http"), "{message}");
    assert_eq!(answer["metadata"]["attempts"], 0, "{answer}");
}

#[tokio::test]
async fn parameters_of_an_older_manifest_are_enforced() {
    let app = App::with(Options { plugins: manifests(), ..Options::default() }).await;
    let wrong = json!({ "tool": "crm", "intent": "CreateLead", "context": { "name": "Ann", "email": 5 } });
    let problem = app.post(PATH, &wrong).await;
    assert_eq!(problem.status, 400);
    let text = problem.json().to_string();
    assert!(text.contains("/context/email") && text.contains("/context/source"), "{text}");
}

#[tokio::test]
async fn action_of_an_older_manifest_keeps_its_name() {
    let app = App::with(Options { plugins: manifests(), ..Options::default() }).await;
    let small = json!({ "tool": "crm", "intent": "createlead", "context": {} });
    assert!(app.post(PATH, &small).await.json().to_string().contains("CreateLead"));
}

#[tokio::test]
async fn plugin_without_actions_has_nothing_to_call() {
    let app = App::with(Options { plugins: manifests(), ..Options::default() }).await;
    let user = app.key("acme", &[Role::User], Some("ann")).await;
    let list = app.send(&user, reqwest::Method::GET, PATH, None).await.json();
    let tools = list["tools"].as_array().unwrap();
    let environment = tools.iter().find(|tool| tool["tool"] == "claude-environment").unwrap();
    assert_eq!(environment["actions"], json!([]));
    let openai = app.get(&format!("{PATH}?format=openai")).await.json();
    let names = openai["tools"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|tool| tool["function"]["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"booking__GetAllPatients") && names.contains(&"unique_plugin_id__action_name"),
        "{names:?}"
    );
}
