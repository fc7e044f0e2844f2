//! The built-in plugins, each action under each of its names, against the playground.

mod gmail;
mod gmail_reading;
mod notion;
mod older;
mod slack;
mod tools;

use serde_json::{Value, json};

use crate::support::app::{Answer, App, refused};

/// Checks the shape of a success and returns its data.
#[track_caller]
fn success(answer: &Answer, plugin: &str, action: &str) -> Value {
    let data = answer.data();
    let whole = answer.json();
    for field in whole.as_object().unwrap().keys() {
        let known = ["success", "message", "data", "externalId", "metadata", "requestId"];
        assert!(known.contains(&field.as_str()), "{field}");
    }
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(whole["message"].as_str().is_some_and(|message| !message.is_empty()), "{whole}");
    assert_eq!(whole["requestId"].as_str().unwrap(), answer.headers["x-request-id"].to_str().unwrap());
    let mut metadata = whole["metadata"].clone();
    assert!(metadata["durationMs"].is_u64(), "{metadata}");
    metadata["durationMs"] = json!(0);
    if let Some(run) = metadata.as_object_mut().unwrap().remove("runId") {
        assert!(run.as_str().is_some_and(|run| run.len() == 28), "{run}");
    }
    let expected = json!({ "plugin": plugin, "version": "1.0.0", "action": action, "durationMs": 0, "attempts": 1 });
    assert_eq!(metadata, expected);
    data
}

#[tokio::test]
async fn agent_id_is_optional() {
    let app = App::start().await;
    let body = json!({ "tool": "slack", "intent": "send", "context": { "channel": "#general", "text": "hello" } });
    success(&app.post("/api/plugin-engine", &body).await, "slack", "send_message");
}
