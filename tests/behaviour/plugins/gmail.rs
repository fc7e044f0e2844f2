use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mail_parser::{Address, Message, MessageParser, MimeHeaders as _};
use serde_json::{Value, json};

use super::{refused, success};
use crate::support::app::{App, START_S};

/// The raw mail of the last call.
#[track_caller]
fn raw(app: &App, pointer: &str) -> Vec<u8> {
    let body = app.last_received().body;
    let text = body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {body}"));
    let raw = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).unwrap();
    // RFC 5322, 2.1.1.
    assert!(raw.split(|byte| *byte == b'\n').all(|line| line.len() <= 999), "a line is too long");
    assert!(raw.is_ascii(), "what is not ASCII must be encoded");
    raw
}

fn parsed(raw: &[u8]) -> Message<'_> {
    MessageParser::default().parse(raw).unwrap()
}

/// Names and addresses of a header.
fn mailboxes(address: Option<&Address<'_>>) -> Vec<(String, String)> {
    let one = |addr: &mail_parser::Addr<'_>| {
        (addr.name().unwrap_or_default().to_owned(), addr.address().unwrap_or_default().to_owned())
    };
    address.map(|address| address.iter().map(one).collect()).unwrap_or_default()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect()
}

fn mail(more: Value) -> Value {
    let mut mail = json!({ "to": "ann@example.com", "subject": "Hello", "body": "How are you?" });
    let Value::Object(more) = more else { panic!("not an object") };
    mail.as_object_mut().unwrap().extend(more);
    mail
}

#[tokio::test]
async fn every_alias_sends_a_mail() {
    let app = App::start().await;
    for name in ["send_email", "send", "send_mail"] {
        let answer = app.intend("gmail", name, mail(json!({}))).await;
        let data = success(&answer, "gmail", "send_email");
        assert_eq!(answer.json()["externalId"], data["id"]);
        assert!(data["id"].is_string() && data["thread_id"].is_string(), "{data}");
        let received = app.last_received();
        assert_eq!(received.method, "POST");
        assert_eq!(received.path, "/playground/gmail/gmail/v1/users/me/messages/send");
        let raw = raw(&app, "/raw");
        let message = parsed(&raw);
        assert_eq!(mailboxes(message.to()), pairs(&[("", "ann@example.com")]));
        assert_eq!(message.subject(), Some("Hello"));
        assert_eq!(message.body_text(0).unwrap().trim_end(), "How are you?");
        assert_eq!(message.date().unwrap().to_timestamp(), START_S);
        let content_type = message.content_type().unwrap();
        assert_eq!((content_type.ctype(), content_type.subtype()), ("text", Some("plain")));
        for absent in ["Cc", "Bcc", "Reply-To", "From"] {
            assert!(message.header(absent).is_none(), "{absent}");
        }
    }
}

#[tokio::test]
async fn draft_is_not_sent() {
    let app = App::start().await;
    for name in ["create_draft", "draft"] {
        let answer = app.intend("gmail", name, mail(json!({ "subject": name }))).await;
        let data = success(&answer, "gmail", "create_draft");
        assert_eq!(answer.json()["externalId"], data["id"]);
        assert!(data["message_id"].is_string() && data["thread_id"].is_string(), "{data}");
        assert_eq!(app.last_received().path, "/playground/gmail/gmail/v1/users/me/drafts");
        assert_eq!(parsed(&raw(&app, "/message/raw")).subject(), Some(name));
    }
    let found = app.intend("gmail", "fetch", json!({ "query": "in:sent" })).await.data();
    assert_eq!(found["messages"], json!([]));
}

#[tokio::test]
async fn addresses_are_accepted_as_people_write_them() {
    let app = App::start().await;
    for (to, expected) in [
        (json!("ann@example.com"), pairs(&[("", "ann@example.com")])),
        (json!(["a@example.com", "B <b@example.com>"]), pairs(&[("", "a@example.com"), ("B", "b@example.com")])),
        (
            json!("Ann Lee <ann@example.com>, b@example.com"),
            pairs(&[("Ann Lee", "ann@example.com"), ("", "b@example.com")]),
        ),
        (json!("\"Lee, Ann\" <ann@example.com>"), pairs(&[("Lee, Ann", "ann@example.com")])),
        (json!("\"Ann \\\"A\\\" Lee\" <ann@example.com>"), pairs(&[("Ann \"A\" Lee", "ann@example.com")])),
        (json!("Jürgen Müller <j@example.de>"), pairs(&[("Jürgen Müller", "j@example.de")])),
        (json!("\"Müller, Jürgen\" <j@example.de>"), pairs(&[("Müller, Jürgen", "j@example.de")])),
        (json!("山田太郎 <yamada@example.jp>"), pairs(&[("山田太郎", "yamada@example.jp")])),
        (json!("o'brien+tag@sub.example.co.uk"), pairs(&[("", "o'brien+tag@sub.example.co.uk")])),
    ] {
        app.intend("gmail", "send", mail(json!({ "to": to }))).await.data();
        assert_eq!(mailboxes(parsed(&raw(&app, "/raw")).to()), expected, "{to}");
    }
}

#[tokio::test]
async fn every_address_header_arrives() {
    let app = App::start().await;
    let many: Vec<String> = (0..500).map(|number| format!("Person {number} <p{number}@example.com>")).collect();
    let context = mail(json!({
        "to": many, "cc": "c@example.com, Jörg <d@example.com>", "bcc": ["e@example.com"],
        "reply_to": "Reply <r@example.com>",
    }));
    app.intend("gmail", "send", context).await.data();
    let raw = raw(&app, "/raw");
    let message = parsed(&raw);
    assert_eq!(mailboxes(message.to()).len(), 500);
    assert_eq!(mailboxes(message.to())[499], ("Person 499".into(), "p499@example.com".into()));
    assert_eq!(mailboxes(message.cc()), pairs(&[("", "c@example.com"), ("Jörg", "d@example.com")]));
    assert_eq!(mailboxes(message.bcc()), pairs(&[("", "e@example.com")]));
    assert_eq!(mailboxes(message.reply_to()), pairs(&[("Reply", "r@example.com")]));
}

#[tokio::test]
async fn subjects_and_texts_arrive_unchanged() {
    let app = App::start().await;
    let long = "Überlänge 🎉 ".repeat(70);
    for (subject, body) in [
        ("", "empty subject"),
        ("Grüße aus Köln – bis später!", "Schöne Grüße\n\n– J."),
        ("日本語の件名", "日本語の本文"),
        ("Re: 1 =? 2", "=3D stays =3D\n.\n..\nFrom here\n-- \n"),
        (long.trim_end(), &"wort ".repeat(1000)),
        (&"x".repeat(998), &"y".repeat(5000)),
        ("trailing", "tab\tand  spaces  \nend"),
    ] {
        app.intend("gmail", "send", mail(json!({ "subject": subject, "body": body }))).await.data();
        let raw = raw(&app, "/raw");
        let message = parsed(&raw);
        assert_eq!(message.subject().unwrap_or_default(), subject);
        assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n").trim_end(), body.trim_end());
    }
}

#[tokio::test]
async fn subject_that_looks_encoded_is_not_decoded() {
    let app = App::start().await;
    let subject = "=?UTF-8?Q?not=20encoded?=";
    app.intend("gmail", "send", mail(json!({ "subject": subject }))).await.data();
    assert_eq!(parsed(&raw(&app, "/raw")).subject(), Some(subject));
}

#[tokio::test]
async fn html_is_the_last_alternative_after_text() {
    let app = App::start().await;
    let html = "<p>Wie geht’s? <b>Gut</b> &amp; \"schön\"</p>";
    app.intend("gmail", "send", mail(json!({ "html": html }))).await.data();
    let raw = raw(&app, "/raw");
    let message = parsed(&raw);
    let content_type = message.content_type().unwrap();
    assert_eq!((content_type.ctype(), content_type.subtype()), ("multipart", Some("alternative")));
    let kinds: Vec<_> = message.parts.iter().skip(1).map(|part| part.content_type().unwrap().subtype()).collect();
    assert_eq!(kinds, [Some("plain"), Some("html")]);
    assert_eq!(message.body_text(0).unwrap().trim_end(), "How are you?");
    assert_eq!(message.body_html(0).unwrap().trim_end(), html);
    assert_eq!(message.attachment_count(), 0);
}

#[tokio::test]
async fn attachments_arrive_byte_for_byte() {
    let app = App::start().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(2000).collect();
    let csv = b"a,b\r\n1,2\r\n\r\n".as_slice();
    let attachments = json!([
        { "filename": "all bytes.bin", "content": STANDARD.encode(&bytes) },
        { "filename": "Übersicht – März.pdf", "content_type": "application/pdf", "content": STANDARD.encode("%PDF") },
        { "filename": "\"quoted\"; name=x.csv", "content_type": "text/csv", "content": STANDARD.encode(csv) },
        { "filename": "empty", "content_type": "image/png", "content": "" },
    ]);
    let context = mail(json!({ "attachments": attachments, "html": "<p>see attached</p>" }));
    app.intend("gmail", "send", context).await.data();
    let raw = raw(&app, "/raw");
    let message = parsed(&raw);
    let found: Vec<(String, String, &[u8])> = message
        .attachments()
        .map(|part| {
            let kind = part.content_type().unwrap();
            let kind = format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default());
            (part.attachment_name().unwrap_or_default().to_owned(), kind, part.contents())
        })
        .collect();
    let expected: Vec<(String, String, &[u8])> = vec![
        ("all bytes.bin".into(), "application/octet-stream".into(), &bytes),
        ("Übersicht – März.pdf".into(), "application/pdf".into(), b"%PDF"),
        ("\"quoted\"; name=x.csv".into(), "text/csv".into(), csv),
        ("empty".into(), "image/png".into(), b""),
    ];
    assert_eq!(found, expected);
    assert_eq!(message.body_text(0).unwrap().trim_end(), "How are you?");
}

#[tokio::test]
async fn invalid_mail_is_refused_with_its_pointer() {
    let app = App::start().await;
    let file = |content: &str| json!([{ "filename": "f", "content": "QQ==" }, { "filename": "f", "content": content }]);
    for intent in ["send", "draft"] {
        for (more, pointer) in [
            (json!({ "to": "nobody" }), "/context/to"),
            (json!({ "to": "" }), "/context/to"),
            (json!({ "to": [] }), "/context/to"),
            (json!({ "to": "a@example.com, b" }), "/context/to"),
            (json!({ "to": ["a@example.com", "b@"] }), "/context/to/1"),
            (json!({ "to": ["a@example.com", 5] }), "/context/to/1"),
            (json!({ "to": "a@example.com\r\nBcc: e@example.com" }), "/context/to"),
            (json!({ "to": "A\r\nBcc: e@example.com <a@example.com>" }), "/context/to"),
            (json!({ "cc": ["@example.com"] }), "/context/cc/0"),
            (json!({ "bcc": "b c@example.com" }), "/context/bcc"),
            (json!({ "reply_to": "x <y>" }), "/context/reply_to"),
            (json!({ "subject": "one\r\nBcc: e@example.com" }), "/context/subject"),
            (json!({ "subject": "one\ntwo" }), "/context/subject"),
            (json!({ "subject": "x".repeat(999) }), "/context/subject"),
            (json!({ "attachments": file("not base64!") }), "/context/attachments/1/content"),
            (json!({ "attachments": file("QQ") }), "/context/attachments/1/content"),
            (json!({ "attachments": [{ "filename": "f" }] }), "/context/attachments/0/content"),
            (json!({ "attachments": [{ "filename": "a\nb", "content": "" }] }), "/context/attachments/0/filename"),
            (
                json!({ "attachments": [{ "filename": "f", "content": "", "content_type": "a/b\r\nX: y" }] }),
                "/context/attachments/0/content_type",
            ),
        ] {
            refused(&app, &app.intend("gmail", intent, mail(more)).await, &[pointer]);
        }
    }
}

#[tokio::test]
async fn every_missing_field_of_a_mail_is_named() {
    let app = App::start().await;
    let all = app.intend("gmail", "send", json!({})).await;
    refused(&app, &all, &["/context/body", "/context/subject", "/context/to"]);
}
