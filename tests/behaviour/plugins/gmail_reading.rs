use serde_json::{Value, json};

use super::{refused, success};
use crate::support::app::App;

async fn fetch(app: &App, context: Value) -> Value {
    app.intend("gmail", "fetch_messages", context).await.data()
}

fn subjects(data: &Value) -> Vec<&str> {
    let messages = data["messages"].as_array().unwrap();
    messages.iter().map(|message| message["headers"]["subject"].as_str().unwrap()).collect()
}

const INBOX: [&str; 5] =
    ["Grüße aus Köln", "All systems operational", "Invoice 2024-117", "This week in plugins", "Lunch on Thursday?"];

#[tokio::test]
async fn every_alias_finds_mails() {
    let app = App::start().await;
    for name in ["fetch_messages", "fetch", "search"] {
        let data = success(&app.intend("gmail", name, json!({})).await, "gmail", "fetch_messages");
        assert_eq!(subjects(&data), INBOX);
        assert_eq!((&data["more"], data.get("next_page_token")), (&json!(false), None));
    }
    assert!(app.playground.received().iter().all(|call| call.method == "GET"));
    let list = app.playground.received().remove(0);
    assert_eq!(list.path, "/playground/gmail/gmail/v1/users/me/messages");
    // An omitted parameter is not sent.
    assert_eq!(list.body, json!({ "maxResults": "10" }));
}

#[tokio::test]
async fn mail_has_its_headers_snippet_and_decoded_text() {
    let app = App::start().await;
    let data = fetch(&app, json!({ "query": "subject:Grüße" })).await;
    assert_eq!(subjects(&data), ["Grüße aus Köln"]);
    let message = &data["messages"][0];
    assert_eq!(message["text"].as_str().unwrap().trim_end(), "Schöne Grüße aus Köln – bis später!");
    assert_eq!(message.get("html"), None);
    assert_eq!(message["headers"]["from"], "Jürgen Müller <juergen@example.de>");
    assert_eq!(message["headers"]["to"], "you@playground.example");
    assert_eq!(message["headers"].get("cc"), None);
    assert!(message["snippet"].as_str().unwrap().starts_with("Schöne Grüße"));
    assert!(message["id"].is_string() && message["thread_id"].is_string());
    assert_eq!(message["label_ids"], json!(["INBOX", "UNREAD"]));
}

#[tokio::test]
async fn mail_text_is_found_in_nested_parts() {
    let app = App::start().await;
    for (query, text, html) in [
        ("subject:plugins", Some("Three new plugins this week."), None),
        ("subject:invoice", Some("The invoice is attached."), None),
        ("subject:operational", None, Some("<h1>All systems operational</h1>")),
    ] {
        let data = fetch(&app, json!({ "query": query })).await;
        let message = &data["messages"][0];
        assert_eq!(message.get("text").and_then(Value::as_str).map(str::trim_end), text, "{query}");
        let found = message.get("html").and_then(Value::as_str);
        assert_eq!(found.is_some(), html.is_some(), "{query}");
        assert!(html.is_none_or(|html| found.unwrap().contains(html)), "{query}");
    }
}

#[tokio::test]
async fn sent_mail_is_read_back() {
    let app = App::start().await;
    let mail = json!({
        "to": "Jörg <j@example.com>", "cc": "c@example.com", "reply_to": "r@example.com", "subject": "Übermorgen",
        "body": "Um zwölf?\n日本", "html": "<p>Um zwölf?</p>",
        "attachments": [{ "filename": "a.txt", "content_type": "text/plain", "content": "bm90IHRoZSB0ZXh0" }],
    });
    let sent = app.intend("gmail", "send", mail).await.data();
    let data = fetch(&app, json!({ "query": "in:sent" })).await;
    let message = &data["messages"][0];
    assert_eq!((&message["id"], &message["thread_id"]), (&sent["id"], &sent["thread_id"]));
    assert_eq!(message["text"].as_str().unwrap().replace("\r\n", "\n").trim_end(), "Um zwölf?\n日本");
    let headers = &message["headers"];
    assert_eq!(headers["subject"], "Übermorgen");
    assert_eq!((&headers["to"], &headers["cc"]), (&json!("Jörg <j@example.com>"), &json!("c@example.com")));
    assert_eq!(headers["reply_to"], "r@example.com");
    assert!(headers["date"].as_str().unwrap().contains("21 Nov 2026 09:00:00"), "{headers}");
}

#[tokio::test]
async fn empty_search_succeeds() {
    let app = App::start().await;
    let data = fetch(&app, json!({ "query": "subject:nothing-like-it" })).await;
    assert_eq!(data, json!({ "messages": [], "more": false }));
}

#[tokio::test]
async fn mail_pages_have_no_loss_or_duplicate() {
    let app = App::start().await;
    for limit in [1, 2, 4, 5, 50] {
        let (mut found, mut context) = (Vec::new(), json!({ "limit": limit }));
        loop {
            let page = fetch(&app, context.clone()).await;
            assert!(subjects(&page).len() <= limit);
            found.extend(subjects(&page).into_iter().map(str::to_owned));
            let Some(token) = page.get("next_page_token") else {
                assert_eq!(page["more"], json!(false));
                break;
            };
            assert_eq!(page["more"], json!(true));
            context["page_token"] = token.clone();
        }
        assert_eq!(found, INBOX, "limit {limit}");
    }
}

#[tokio::test]
async fn labels_narrow_a_query() {
    let app = App::start().await;
    app.intend("gmail", "draft", json!({ "to": "a@example.com", "subject": "Draft", "body": "b" })).await.data();
    assert_eq!(subjects(&fetch(&app, json!({ "label_ids": ["DRAFT"] })).await), ["Draft"]);
    let both = json!({ "label_ids": ["INBOX", "UNREAD"], "query": "from:ada" });
    assert_eq!(subjects(&fetch(&app, both).await), ["Lunch on Thursday?"]);
}

#[tokio::test]
async fn limits_out_of_range_are_refused() {
    let app = App::start().await;
    for (context, pointers) in [
        (json!({ "limit": 0 }), ["/context/limit"]),
        (json!({ "limit": 51 }), ["/context/limit"]),
        (json!({ "limit": 1.5 }), ["/context/limit"]),
        (json!({ "query": ["a"] }), ["/context/query"]),
        (json!({ "max": 5 }), ["/context/max"]),
    ] {
        refused(&app, &app.intend("gmail", "fetch", context).await, &pointers);
    }
}

#[tokio::test]
async fn mail_has_the_time_of_its_receipt() {
    let app = App::start().await;
    let data = app.intend("gmail", "fetch", json!({ "query": "subject:invoice" })).await.data();
    let mail = &data["messages"][0];
    assert!(mail["received_ms"].as_str().unwrap().parse::<i64>().unwrap() > 0, "{mail}");
}

#[tokio::test]
async fn mail_lists_its_attachments() {
    let app = App::start().await;
    let data = app.intend("gmail", "fetch", json!({ "query": "subject:invoice" })).await.data();
    let mail = &data["messages"][0];
    let files = mail["attachments"].as_array().unwrap();
    assert_eq!(files.len(), 1, "{mail}");
    assert!(files[0]["filename"].as_str().unwrap().contains("nvoice"), "{mail}");
    assert!(files[0]["attachment_id"].is_string() && files[0]["size"].is_u64(), "{mail}");
    let plain = app.intend("gmail", "fetch", json!({ "query": "subject:lunch" })).await.data();
    assert_eq!(plain["messages"][0]["attachments"], json!([]));
}
