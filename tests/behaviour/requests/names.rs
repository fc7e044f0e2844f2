use overseer_engine::access::principal::Role;
use reqwest::Method;
use serde_json::json;

use super::{INTENTS, hello, refused};
use crate::support::app::App;

#[tokio::test]
async fn name_of_255_bytes_is_accepted() {
    let app = App::start().await;
    for name in ["u".repeat(255), format!("{}u", "é".repeat(127)), "👋".repeat(63), "a b/c#d%..".to_owned()] {
        let connect = json!({ "token": "xoxb-playground", "userId": name });
        app.post("/api/plugin-engine/integrations/slack/connect", &connect).await.json();
        let mut body = hello();
        (body["userId"], body["agentId"]) = (json!(name), json!(name));
        app.post(INTENTS, &body).await.data();
    }
}

#[tokio::test]
async fn invalid_name_is_refused() {
    let app = App::start().await;
    for name in ["u".repeat(256), "é".repeat(128), "👋".repeat(64), String::new(), "a\u{0}".to_owned(), "\t".to_owned()]
    {
        for field in ["userId", "agentId"] {
            let mut body = hello();
            body[field] = json!(name);
            refused(&app, &app.post(INTENTS, &body).await, &[format!("/{field}").as_str()]);
        }
    }
}

#[tokio::test]
async fn invalid_alias_is_refused() {
    let app = App::start().await;
    for alias in ["", "Work", "1st", "a b", "é", &"a".repeat(64)] {
        let mut body = hello();
        body["integration"] = json!(alias);
        refused(&app, &app.post(INTENTS, &body).await, &["/integration"]);
    }
}

#[tokio::test]
async fn alias_of_63_bytes_is_accepted() {
    let app = App::start().await;
    let mut body = hello();
    body["integration"] = json!("a".repeat(63));
    assert_eq!(app.post(INTENTS, &body).await.failure(), "not_connected");
}

#[tokio::test]
async fn tool_or_intent_of_invalid_length_is_refused() {
    let app = App::start().await;
    for field in ["tool", "intent"] {
        for name in [String::new(), "x".repeat(256), "x".repeat(500_000)] {
            let mut body = hello();
            body[field] = json!(name);
            let answer = app.post(INTENTS, &body).await;
            assert!(answer.text.len() < 2000, "the answer repeats the whole name: {} bytes", answer.text.len());
            refused(&app, &answer, &[format!("/{field}").as_str()]);
        }
    }
}

#[tokio::test]
async fn unknown_tool_suggests_the_nearest_names() {
    let app = App::start().await;
    for (name, nearest) in
        [("slak", Some("slack")), ("Slack", Some("slack")), ("g-mail", Some("gmail")), ("quux", None)]
    {
        let answer = app.intend(name, "send", json!({})).await;
        assert_eq!(answer.problem(404), "unknown_plugin");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(name), "{detail}");
        match nearest {
            Some(nearest) => assert!(detail.contains("did you mean") && detail.contains(nearest), "{detail}"),
            None => assert!(!detail.contains("did you mean"), "{detail}"),
        }
    }
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn unknown_action_suggests_the_nearest_names_of_its_tool() {
    let app = App::start().await;
    for (tool, name, nearest) in [
        ("slack", "send_mesage", Some("send_message")),
        ("slack", "sendMessage", Some("send_message")),
        ("gmail", "send_message", Some("send_mail")),
        ("notion", "serach", Some("search")),
        ("notion", "fly", None),
    ] {
        let answer = app.intend(tool, name, json!({})).await;
        assert_eq!(answer.problem(404), "unknown_action", "{tool} {name}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(name) && detail.contains(tool), "{detail}");
        match nearest {
            Some(nearest) => assert!(detail.contains("did you mean") && detail.contains(nearest), "{detail}"),
            None => assert!(!detail.contains("did you mean"), "{detail}"),
        }
    }
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn similar_user_names_have_separate_accounts() {
    let app = App::start().await;
    app.key("acme", &[Role::Service], None).await;
    let names = ["a", "A", "a ", "a#b", "a%23b", "é", "e\u{301}", "a/b"];
    for (index, name) in names.iter().enumerate() {
        let mut body = hello();
        body["userId"] = json!(name);
        assert_eq!(app.post(INTENTS, &body).await.failure(), "not_connected", "{name}");
        let token = format!("token-of-number-{index}");
        app.playground.accept_token(overseer_playground::Service::Slack, &token);
        let connect = json!({ "token": token, "userId": name });
        let path = "/api/plugin-engine/integrations/slack/connect";
        let answer = app.send(&app.admin, Method::POST, path, Some(&connect)).await;
        assert_eq!(answer.json()["userId"], json!(name));
        app.post(INTENTS, &body).await.data();
    }
}
