//! The stand-in of Gmail has Google's shapes, searches and errors.

use base64::Engine;
use serde_json::{Value, json};

use crate::Service;
use crate::mail::BASE64_URL;
use crate::testing::Bench;

const MAIL: &str =
    "From: me@example.com\r\nTo: Bob <bob@example.com>\r\nSubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\r\n\r\nHello <Bob>";

async fn ids(bench: &Bench, query: &str) -> Vec<String> {
    let list = bench.gmail("GET", &format!("messages?{query}"), Value::Null).await.json();
    let messages = list["messages"].as_array().cloned().unwrap_or_default();
    assert_eq!(messages.is_empty(), list.get("messages").is_none());
    messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

async fn read(bench: &Bench, query: &str) -> Value {
    let mail_ids = ids(bench, query).await;
    bench.gmail("GET", &format!("messages/{}", mail_ids[0]), Value::Null).await.json()
}

#[tokio::test]
async fn sent_mail_is_found() {
    let bench = Bench::new();
    for raw in [BASE64_URL.encode(MAIL), BASE64_URL.encode(MAIL).trim_end_matches('=').to_owned()] {
        let sent = bench.gmail("POST", "messages/send", json!({"raw": raw})).await.json();
        assert_eq!(sent["labelIds"], json!(["SENT"]));
        assert_eq!(sent["threadId"], sent["id"]);
        assert_eq!(ids(&bench, "q=gr%C3%BC%C3%9Fe+to:bob&labelIds=SENT").await[0], sent["id"]);
        let reply = json!({"raw": raw, "threadId": sent["threadId"]});
        let reply = bench.gmail("POST", "messages/send", reply).await.json();
        assert_eq!(reply["threadId"], sent["threadId"]);
    }
    let message = read(&bench, "labelIds=SENT").await;
    assert_eq!(message["snippet"], "Hello &lt;Bob&gt;");
    assert_eq!(message["internalDate"], "1800000000000");
    assert_eq!(message["payload"]["headers"][2], json!({"name": "Subject", "value": "Grüße"}));
    let received = bench.playground.received().remove(0);
    assert_eq!(received.body["decoded"], MAIL);
    assert_eq!(received.note, "to Bob <bob@example.com>: Grüße");
}

#[tokio::test]
async fn profile_names_the_mailbox() {
    let bench = Bench::new();
    let first = bench.gmail("GET", "messages", Value::Null).await.json()["messages"][0]["threadId"].clone();
    let raw = BASE64_URL.encode(MAIL);
    bench.gmail("POST", "messages/send", json!({"raw": raw, "threadId": first})).await;
    let profile = bench.gmail("GET", "profile", Value::Null).await.json();
    assert_eq!(
        profile,
        json!({
            "emailAddress": "you@playground.example", "messagesTotal": 6, "threadsTotal": 5, "historyId": "1000",
        })
    );
    let unknown = bench.call(Service::Gmail, "GET", "users/me/profile", "x", Value::Null).await;
    assert_eq!(unknown.json()["error"]["status"], "UNAUTHENTICATED");
}

#[tokio::test]
async fn drafts_need_no_recipient() {
    let bench = Bench::new();
    let raw = BASE64_URL.encode("Subject: later\r\n\r\ntext");
    let draft = bench.gmail("POST", "drafts", json!({"message": {"raw": raw}})).await.json();
    assert_eq!(draft["message"]["labelIds"], json!(["DRAFT"]));
    assert!(bench.playground.received()[0].body["message"]["decoded"].is_string());
    assert_eq!(ids(&bench, "labelIds=DRAFT").await, [draft["message"]["id"].as_str().unwrap()]);
}

#[tokio::test]
async fn seeds_have_gmails_shapes() {
    let bench = Bench::new();
    assert_eq!(ids(&bench, "").await.len(), 5);
    let plain = read(&bench, "q=from:ada").await;
    assert_eq!(plain["payload"]["mimeType"], "text/plain");
    assert_eq!(plain["payload"]["partId"], "");
    let data = plain["payload"]["body"]["data"].as_str().unwrap();
    assert!(String::from_utf8(BASE64_URL.decode(data).unwrap()).unwrap().starts_with("Shall we meet"));

    let alternative = read(&bench, "q=subject:plugins").await["payload"].clone();
    assert_eq!(alternative["mimeType"], "multipart/alternative");
    assert_eq!(alternative["body"], json!({"size": 0}));
    assert_eq!(alternative["parts"][1]["mimeType"], "text/html");
    assert_eq!(alternative["parts"][1]["partId"], "1");

    let attachment = read(&bench, "q=invoice").await["payload"]["parts"][1].clone();
    assert_eq!(attachment["filename"], "invoice.pdf");
    assert_eq!(attachment["body"]["size"], 19);
    assert!(attachment["body"]["attachmentId"].is_string() && attachment["body"].get("data").is_none());

    let html = read(&bench, "q=operational").await;
    assert_eq!(html["payload"]["mimeType"], "text/html");
    assert!(!html["snippet"].as_str().unwrap().contains("h1"));

    let umlauts = read(&bench, "q=in:inbox+%22gr%C3%BC%C3%9Fe+aus%22").await;
    assert_eq!(umlauts["payload"]["headers"][0]["value"], "Jürgen Müller <juergen@example.de>");
    assert_eq!(umlauts["snippet"], "Schöne Grüße aus Köln – bis später!");
}

#[tokio::test]
async fn each_format_has_its_fields() {
    let bench = Bench::new();
    let id = ids(&bench, "q=lunch").await.remove(0);
    let get = async |query: &str| bench.gmail("GET", &format!("messages/{id}?{query}"), Value::Null).await;
    assert_eq!(get("format=minimal").await.json().get("payload"), None);
    let metadata = get("format=metadata&metadataHeaders=subject").await.json()["payload"].clone();
    assert_eq!(metadata["headers"], json!([{"name": "Subject", "value": "Lunch on Thursday?"}]));
    assert!(metadata.get("body").is_none());
    let raw = get("format=raw").await.json()["raw"].as_str().unwrap().to_owned();
    assert!(BASE64_URL.decode(raw).unwrap().starts_with(b"From: Ada"));
    assert_eq!(get("format=cuneiform").await.status, 400);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let bench = Bench::new();
    let first = bench.gmail("GET", "messages?maxResults=3", Value::Null).await.json();
    assert_eq!(first["messages"].as_array().unwrap().len(), 3);
    assert_eq!(first["resultSizeEstimate"], 5);
    let token = first["nextPageToken"].as_str().unwrap();
    let path = format!("messages?maxResults=3&pageToken={token}");
    let second = bench.gmail("GET", &path, Value::Null).await.json();
    assert_eq!(second["messages"].as_array().unwrap().len(), 2);
    assert_eq!(second.get("nextPageToken"), None);
    assert_ne!(first["messages"][2], second["messages"][0]);
    assert!(ids(&bench, "q=nowhere").await.is_empty());
}

#[tokio::test]
async fn failures_have_googles_shape() {
    let bench = Bench::new();
    let no_recipient = BASE64_URL.encode("Subject: x\r\n\r\ntext");
    let no_address = BASE64_URL.encode("To: bob\r\nSubject: x\r\n\r\ntext");
    let good = BASE64_URL.encode(MAIL);
    let cases = [
        ("POST", "messages/send", json!({}), 400, "INVALID_ARGUMENT"),
        ("POST", "messages/send", json!({"raw": "***"}), 400, "INVALID_ARGUMENT"),
        ("POST", "messages/send", json!({"raw": no_recipient}), 400, "INVALID_ARGUMENT"),
        ("POST", "messages/send", json!({"raw": no_address}), 400, "INVALID_ARGUMENT"),
        ("POST", "messages/send", json!({"raw": good, "threadId": "x"}), 404, "NOT_FOUND"),
        ("POST", "drafts", json!({"raw": good}), 400, "INVALID_ARGUMENT"),
        ("GET", "messages/nope", Value::Null, 404, "NOT_FOUND"),
        ("GET", "messages?maxResults=none", Value::Null, 400, "INVALID_ARGUMENT"),
        ("GET", "messages?pageToken=x", Value::Null, 400, "INVALID_ARGUMENT"),
        ("DELETE", "messages", Value::Null, 404, "NOT_FOUND"),
    ];
    for (method, path, body, code, status) in cases {
        let reply = bench.gmail(method, path, body).await;
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status.as_u16(), &error["code"], &error["status"]), (code, &json!(code), &json!(status)));
        assert_eq!(error["errors"][0]["message"], error["message"]);
    }
    let last = bench.gmail("POST", "messages/send", json!({"raw": no_recipient})).await.json();
    assert_eq!(last["error"]["message"], "Recipient address required");

    let other = bench.call(Service::Gmail, "GET", "users/you/messages", "ya29.playground", Value::Null).await;
    assert_eq!(other.status, 403);
    let unknown = bench.call(Service::Gmail, "GET", "users/me/messages", "xoxb-playground", Value::Null).await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    let headers = [("authorization", "Bearer ya29.playground")];
    let path = "/playground/gmail/gmail/v1/users/me/messages/send";
    let broken = bench.send("POST", path, &headers, "{".to_owned()).await;
    assert_eq!((broken.status.as_u16(), &broken.json()["error"]["code"]), (400, &json!(400)));
    let huge = bench.send("POST", path, &headers, "x".repeat(8 * 1024 * 1024 + 1)).await;
    assert_eq!((huge.status.as_u16(), &huge.json()["error"]["code"]), (413, &json!(413)));
}

#[tokio::test]
async fn deeply_nested_mail_is_harmless() {
    let bench = Bench::new();
    for (levels, status) in [(400, 200), (50_000, 400)] {
        let messages = "Content-Type: message/rfc822\r\n\r\n".repeat(levels);
        let parts: Vec<String> = (0..levels)
            .map(|level| format!("Content-Type: multipart/mixed; boundary=\"b{level}\"\r\n\r\n--b{level}\r\n"))
            .collect();
        for nested in [messages, parts.concat()] {
            let raw = BASE64_URL.encode(format!("To: a@b.c\r\n{nested}"));
            let reply = bench.gmail("POST", "messages/send", json!({"raw": raw})).await;
            assert_eq!(reply.status, status, "{}", reply.text);
        }
    }
    assert_eq!(read(&bench, "labelIds=SENT").await["labelIds"], json!(["SENT"]));
}

#[test]
fn search_refuses_unknown_operators() {
    assert_eq!(super::age("7d"), Some(7 * 86_400));
    assert_eq!(super::age("2y"), Some(730 * 86_400));
    assert_eq!((super::age("d"), super::age("7"), super::age("")), (None, None, None));
    assert_eq!(super::terms("at 10:30 from:ann").ok().unwrap().len(), 3);
    for unknown in ["has:attachment", "-from:ada", "a OR b", "{a b}", "larger:5M", "newer_than:7h", "older_than:7dd"] {
        assert!(super::terms(unknown).is_err(), "{unknown}");
    }
}
