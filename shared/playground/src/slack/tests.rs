//! The stand-in of Slack has Slack's shapes, pages and error codes.

use serde_json::{Value, json};

use crate::Service;
use crate::testing::{Bench, FORM, START};

#[tokio::test]
async fn history_lists_the_newest_post_first() {
    let bench = Bench::new();
    let posted = bench.slack("chat.postMessage", json!({"channel": "#general", "text": "hello"})).await.json();
    assert_eq!(posted["ok"], true);
    assert_eq!(posted["message"]["text"], "hello");
    let id = posted["channel"].as_str().unwrap();
    for channel in [id, "general"] {
        let again = bench.slack("chat.postMessage", json!({"channel": channel, "text": "again"})).await.json();
        assert_eq!(again["channel"], id);
        assert_ne!(again["ts"], posted["ts"]);
    }
    let path = format!("conversations.history?channel={id}&limit=3");
    let history = bench.call(Service::Slack, "GET", &path, "xoxb-playground", Value::Null).await.json();
    let texts: Vec<&str> =
        history["messages"].as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["again", "again", "hello"]);
    assert_eq!(history["has_more"], true);

    let cursor = &history["response_metadata"]["next_cursor"];
    let rest = bench.slack("conversations.history", json!({"channel": id, "cursor": cursor})).await.json();
    assert_eq!(rest["messages"].as_array().unwrap().len(), 2);
    assert_eq!(rest["has_more"], false);
    assert_eq!(rest["response_metadata"]["next_cursor"], "");

    let after = bench.slack("conversations.history", json!({"channel": id, "oldest": posted["ts"]})).await.json();
    assert_eq!(after["messages"].as_array().unwrap().len(), 2);
    let before = json!({"channel": id, "latest": posted["ts"], "inclusive": true});
    assert_eq!(bench.slack("conversations.history", before).await.json()["messages"][0]["text"], "hello");
}

#[tokio::test]
async fn replies_stay_in_their_thread() {
    let bench = Bench::new();
    let parent = bench.slack("chat.postMessage", json!({"channel": "random", "text": "parent"})).await.json();
    let reply = json!({"channel": "random", "text": "reply", "thread_ts": parent["ts"]});
    let reply = bench.slack("chat.postMessage", reply).await.json();
    assert_eq!(reply["message"]["thread_ts"], parent["ts"]);
    let history = bench.slack("conversations.history", json!({"channel": parent["channel"]})).await.json();
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
    let orphan = json!({"channel": "random", "text": "orphan", "thread_ts": "1.000001"});
    assert_eq!(bench.slack("chat.postMessage", orphan).await.json()["message"].get("thread_ts"), None);
}

#[tokio::test]
async fn forms_are_accepted() {
    let bench = Bench::new();
    let headers = [("authorization", "Bearer xoxb-playground"), ("content-type", FORM)];
    let body = "channel=alerts&blocks=%5B%7B%22type%22%3A%22divider%22%7D%5D".to_owned();
    let reply = bench.send("POST", "/playground/slack/api/chat.postMessage", &headers, body).await.json();
    assert_eq!(reply["message"]["blocks"][0]["type"], "divider");
    assert_eq!(bench.playground.received()[0].body["channel"], "alerts");
}

#[tokio::test]
async fn channels_come_in_pages() {
    let bench = Bench::new();
    let (mut cursor, mut names) = (String::new(), Vec::new());
    loop {
        let page = bench.slack("conversations.list", json!({"limit": 2, "cursor": cursor})).await.json();
        names.extend(page["channels"].as_array().unwrap().iter().map(|channel| channel["name"].clone()));
        cursor = page["response_metadata"]["next_cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["general", "random", "alerts", "deployments", "support"]);
}

#[tokio::test]
async fn schedule_is_limited_to_120_days() {
    let bench = Bench::new();
    let schedule = async |post_at: i64| {
        let body = json!({"channel": "general", "text": "later", "post_at": post_at});
        bench.slack("chat.scheduleMessage", body).await.json()
    };
    assert_eq!(schedule(START).await["error"], "time_in_past");
    assert_eq!(schedule(START + 120 * 86_400 + 1).await["error"], "time_too_far");
    let scheduled = schedule(START + 120 * 86_400).await;
    assert_eq!(scheduled["post_at"], START + 120 * 86_400);
    assert!(scheduled["scheduled_message_id"].as_str().unwrap().starts_with('Q'));
}

#[tokio::test]
async fn failures_have_status_200() {
    let bench = Bench::new();
    let long = "x".repeat(40_001);
    let cases = [
        ("chat.postMessage", json!({"channel": "nowhere", "text": "a"}), "channel_not_found"),
        ("chat.postMessage", json!({"channel": "general"}), "no_text"),
        ("chat.postMessage", json!({"channel": "general", "text": long}), "msg_too_long"),
        ("chat.postMessage", json!({"text": "a"}), "invalid_arguments"),
        ("chat.postMessage", json!({"channel": "general", "text": 1}), "invalid_arguments"),
        ("chat.postMessage", json!({"channel": "general", "text": "a", "thread_ts": "x"}), "invalid_thread_ts"),
        ("chat.postMessage", json!({"channel": "general", "blocks": 1}), "invalid_blocks"),
        ("chat.scheduleMessage", json!({"channel": "general", "text": "a", "post_at": "x"}), "invalid_time"),
        ("conversations.history", json!({"channel": "general"}), "channel_not_found"),
        ("conversations.history", json!({"channel": "C0PLAYGEN1", "cursor": "x"}), "invalid_cursor"),
        ("conversations.list", json!({"limit": 0}), "invalid_limit"),
        ("chat.whisper", json!({}), "unknown_method"),
    ];
    for (method, body, error) in cases {
        let reply = bench.slack(method, body).await;
        assert_eq!(reply.status, 200);
        assert_eq!((&reply.json()["ok"], &reply.json()["error"]), (&json!(false), &json!(error)));
    }
    let tested = bench.slack("auth.test", Value::Null).await.json();
    assert_eq!((&tested["ok"], &tested["team"]), (&json!(true), &json!("Playground")));
}

#[tokio::test]
async fn token_is_checked_first() {
    let bench = Bench::new();
    let path = "/playground/slack/api/no.such";
    let missing = bench.send("POST", path, &[], "{".to_owned()).await;
    assert_eq!((missing.status.as_u16(), &missing.json()["error"]), (200, &json!("not_authed")));
    for token in ["nonsense", "ya29.playground", "ntn_playground"] {
        let reply = bench.call(Service::Slack, "POST", "auth.test", token, Value::Null).await;
        assert_eq!(reply.json()["error"], "invalid_auth");
    }
    let headers = [("authorization", "Bearer xoxb-playground"), ("content-type", "application/json")];
    assert_eq!(bench.send("POST", path, &headers, "{".to_owned()).await.json()["error"], "invalid_json");
    bench.playground.accept_token(Service::Slack, "canary");
    assert_eq!(bench.call(Service::Slack, "POST", "auth.test", "canary", Value::Null).await.json()["ok"], true);
}
