use std::collections::BTreeSet;

use overseer_playground::Service;
use reqwest::Method;
use serde_json::{Value, json};

use super::{refused, success};
use crate::support::app::{App, START_S};

const GENERAL: &str = "C0PLAYGEN1";
const RANDOM: &str = "C0PLAYRND2";

/// Posts a message to #random without Overseer.
async fn say(app: &App, text: &str) {
    let said = app
        .request(Method::POST, "/playground/slack/api/chat.postMessage")
        .bearer_auth(Service::Slack.standing_token())
        .header("content-type", "application/json")
        .body(json!({ "channel": RANDOM, "text": text }).to_string())
        .send()
        .await
        .unwrap();
    assert!(said.text().await.unwrap().contains("\"ok\":true"));
}

fn texts(messages: &Value) -> Vec<String> {
    messages.as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

fn ids(items: &Value) -> Vec<String> {
    items.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_alias_sends_a_message() {
    let app = App::start().await;
    for name in ["send_message", "send", "post_message"] {
        let context = json!({ "channel": GENERAL, "text": format!("Grüße von {name} 👋 {{{{ 1 + 1 }}}}") });
        let answer = app.intend("slack", name, context.clone()).await;
        let data = success(&answer, "slack", "send_message");
        assert_eq!(data["channel"], GENERAL);
        assert_eq!(data["message"]["text"], context["text"]);
        assert!(data["ts"].is_string());
        assert_eq!(answer.json()["externalId"], data["ts"]);
        let received = app.last_received();
        assert_eq!((received.method.as_str(), received.status), ("POST", 200));
        assert_eq!(received.path, "/playground/slack/api/chat.postMessage");
        // An omitted parameter sends no key, not even null.
        assert_eq!(received.body, context);
    }
    assert_eq!(app.playground.received_total(), 3);
}

#[tokio::test]
async fn reply_goes_into_its_thread() {
    let app = App::start().await;
    let first = app.intend("slack", "send", json!({ "channel": "#general", "text": "question" })).await.data();
    let blocks = json!([{ "type": "section", "text": { "type": "mrkdwn", "text": "*bold*" }, "n": [1, 2.5, null] }]);
    let context = json!({ "channel": GENERAL, "text": "answer", "thread_ts": first["ts"], "blocks": blocks });
    let second = app.intend("slack", "send", context.clone()).await.data();
    assert_eq!(second["message"]["thread_ts"], first["ts"]);
    assert_eq!(app.last_received().body, context);
}

#[tokio::test]
async fn message_is_scheduled_by_time_or_by_seconds() {
    let app = App::start().await;
    let at = START_S + 3600;
    for (name, post_at) in [
        ("schedule_message", json!("2026-11-21T10:00:00Z")),
        ("schedule", json!("2026-11-21T12:00:00+02:00")),
        ("schedule", json!("2026-11-21T10:00:00.750Z")),
        ("schedule_message", json!(at)),
    ] {
        let context = json!({ "channel": GENERAL, "text": "later", "post_at": post_at });
        let answer = app.intend("slack", name, context).await;
        let data = success(&answer, "slack", "schedule_message");
        assert_eq!((&data["post_at"], &data["channel"]), (&json!(at), &json!(GENERAL)));
        assert_eq!(answer.json()["externalId"], data["scheduled_message_id"]);
        let received = app.last_received();
        assert_eq!(received.path, "/playground/slack/api/chat.scheduleMessage");
        assert_eq!(received.body, json!({ "channel": GENERAL, "text": "later", "post_at": at }));
    }
}

#[tokio::test]
async fn time_out_of_range_is_rejected_by_the_service() {
    let app = App::start().await;
    let now = app.engine.ports.clock.now().as_second();
    for post_at in [json!(now - 1), json!("2026-11-21T08:59:59Z"), json!(now + 121 * 86_400)] {
        let context = json!({ "channel": GENERAL, "text": "late", "post_at": post_at });
        let answer = app.intend("slack", "schedule", context).await;
        assert_eq!(answer.failure(), "rejected");
        assert_eq!(answer.json()["error"]["retryable"], json!(false));
    }
}

#[tokio::test]
async fn invalid_time_is_refused_before_any_call() {
    let app = App::start().await;
    for post_at in [json!("tomorrow"), json!("2026-11-21"), json!("2026-11-21T10:00:00"), json!(1.5), json!(null)] {
        let context = json!({ "channel": GENERAL, "text": "when?", "post_at": post_at });
        refused(&app, &app.intend("slack", "schedule", context).await, &["/context/post_at"]);
    }
}

#[tokio::test]
async fn every_alias_lists_channels() {
    let app = App::start().await;
    for name in ["list_channels", "channels"] {
        let data = success(&app.intend("slack", name, json!({})).await, "slack", "list_channels");
        assert_eq!(data["channels"].as_array().unwrap().len(), 5);
        let first = json!({
            "id": GENERAL, "name": "general", "is_private": false, "is_member": true, "is_archived": false,
            "num_members": 3, "topic": "",
        });
        assert_eq!(data["channels"][0], first);
        let asked = json!({ "types": "public_channel", "exclude_archived": "true", "limit": "100" });
        assert_eq!((app.last_received().method.as_str(), app.last_received().body), ("GET", asked));
    }
}

#[tokio::test]
async fn channel_pages_have_no_loss_or_duplicate() {
    let app = App::start().await;
    let whole = app.intend("slack", "channels", json!({ "limit": 1000 })).await.data();
    assert_eq!(whole["more"], json!(false));
    assert_eq!(whole.get("next_cursor"), None);

    for limit in [1, 2, 5] {
        let (mut found, mut context) = (Vec::new(), json!({ "limit": limit }));
        loop {
            let page = app.intend("slack", "list_channels", context.clone()).await.data();
            assert!(ids(&page["channels"]).len() <= limit, "{page}");
            found.extend(ids(&page["channels"]));
            let Some(cursor) = page.get("next_cursor") else {
                assert_eq!(page["more"], json!(false));
                break;
            };
            assert_eq!(page["more"], json!(true));
            context["cursor"] = cursor.clone();
        }
        assert_eq!(found, ids(&whole["channels"]), "limit {limit}");
    }
}

#[tokio::test]
async fn invalid_query_of_channels_is_refused() {
    let app = App::start().await;
    for (context, pointer) in [
        (json!({ "limit": 0 }), "/context/limit"),
        (json!({ "limit": 1001 }), "/context/limit"),
        (json!({ "limit": "5" }), "/context/limit"),
        (json!({ "exclude_archived": "yes" }), "/context/exclude_archived"),
    ] {
        let answer = app.intend("slack", "channels", context).await;
        answer.problem(400);
        assert_eq!(answer.pointers(), [pointer]);
    }
}

/// Sends three messages to #random.
async fn send_three(app: &App) {
    for text in ["one", "two", "three"] {
        app.intend("slack", "send", json!({ "channel": "#random", "text": text })).await.data();
    }
}

#[tokio::test]
async fn history_lists_the_newest_message_first() {
    let app = App::start().await;
    send_three(&app).await;
    for name in ["fetch_messages", "fetch", "channel_history"] {
        let data = success(&app.intend("slack", name, json!({ "channel": RANDOM })).await, "slack", "fetch_messages");
        assert_eq!(texts(&data["messages"]), ["three", "two", "one"]);
        let received = app.last_received();
        assert_eq!(received.path, "/playground/slack/api/conversations.history");
        assert_eq!(received.body, json!({ "channel": RANDOM, "limit": "15" }));
    }
}

#[tokio::test]
async fn history_can_be_limited_by_time() {
    let app = App::start().await;
    send_three(&app).await;
    let all = app.intend("slack", "fetch", json!({ "channel": RANDOM })).await.data();
    let middle = &all["messages"][1]["ts"];
    let newer = app.intend("slack", "fetch", json!({ "channel": RANDOM, "oldest": middle })).await.data();
    assert_eq!(texts(&newer["messages"]), ["three"]);
    let older = app.intend("slack", "fetch", json!({ "channel": RANDOM, "latest": middle })).await.data();
    assert_eq!(texts(&older["messages"]), ["one"]);
}

#[tokio::test]
async fn history_longer_than_a_page_continues_after_the_limit() {
    let app = App::start().await;
    for number in 0..205 {
        say(&app, &format!("{number}")).await;
    }
    let calls = app.playground.received_total();
    let first = app.intend("slack", "fetch", json!({ "channel": RANDOM, "limit": 203 })).await;
    let first = success(&first, "slack", "fetch_messages");
    assert_eq!(app.playground.received_total() - calls, 2);
    assert_eq!((texts(&first["messages"]).len(), &first["more"]), (203, &json!(true)));
    let rest = json!({ "channel": RANDOM, "limit": 203, "cursor": first["next_cursor"] });
    let rest = app.intend("slack", "fetch", rest).await.data();
    let found = [texts(&first["messages"]), texts(&rest["messages"])].concat();
    assert_eq!(found, (0..205).rev().map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 205);
    assert_eq!((&rest["more"], rest.get("next_cursor")), (&json!(false), None));
}

#[tokio::test]
async fn service_refusal_keeps_its_code() {
    let app = App::start().await;
    for (intent, context, code) in [
        ("send", json!({ "channel": "C0NOWHERE", "text": "hello" }), "channel_not_found"),
        ("fetch", json!({ "channel": "C0NOWHERE" }), "channel_not_found"),
        ("channels", json!({ "cursor": "bm9uc2Vuc2U=" }), "invalid_cursor"),
        ("send", json!({ "channel": GENERAL, "text": "hello", "thread_ts": "x" }), "invalid_thread_ts"),
    ] {
        let answer = app.intend("slack", intent, context).await;
        assert_eq!(answer.failure(), "rejected", "{}", answer.text);
        assert!(answer.json()["message"].as_str().unwrap().contains(code), "{}", answer.text);
        assert_eq!(answer.json()["error"]["retryable"], json!(false));
        assert_eq!(answer.json().get("data"), None);
    }
}

#[tokio::test]
async fn every_invalid_parameter_is_named() {
    let app = App::start().await;
    for (intent, context, pointers) in [
        ("send", json!({}), vec!["/context/channel", "/context/text"]),
        ("send", json!({ "channel": 5, "text": "" }), vec!["/context/channel", "/context/text"]),
        ("send", json!({ "channel": "C", "text": "t", "txt": 1 }), vec!["/context/txt"]),
        ("send", json!({ "channel": "C", "text": "x".repeat(40_001) }), vec!["/context/text"]),
        ("send", json!({ "channel": "C", "text": "t", "thread_ts": null }), vec!["/context/thread_ts"]),
        ("send", json!({ "channel": "C", "text": "t", "blocks": [1] }), vec!["/context/blocks/0"]),
        ("fetch", json!({ "limit": 0 }), vec!["/context/channel", "/context/limit"]),
    ] {
        refused(&app, &app.intend("slack", intent, context).await, &pointers);
    }
}
