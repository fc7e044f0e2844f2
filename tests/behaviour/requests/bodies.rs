use futures_util::stream;
use reqwest::Method;
use serde_json::{Value, json};

use super::{INTENTS, hello, post_text, raw, refused};
use crate::support::app::{Answer, App};

const MEBIBYTE: usize = 1024 * 1024;

#[tokio::test]
async fn body_that_is_not_an_intent_is_refused() {
    let app = App::start().await;
    for text in ["", " ", "{", "not json", "{\"tool\": \"slack\",}", "{} {}", "\u{feff}{}", "{'tool': 1}", "NaN"] {
        refused(&app, &post_text(&app, INTENTS, text).await, &[""]);
    }
    refused(&app, &post_text(&app, INTENTS, b"{\"tool\": \"\xff\"}".to_vec()).await, &[""]);
    for value in [json!(null), json!(1), json!("x"), json!([]), json!([hello()])] {
        refused(&app, &post_text(&app, INTENTS, value.to_string()).await, &[""]);
    }
}

#[tokio::test]
async fn repeated_field_is_refused() {
    let app = App::start().await;
    let twice =
        r##"{"tool": "gmail", "tool": "slack", "intent": "send", "context": {"channel": "#general", "text": "x"}}"##;
    assert_eq!(post_text(&app, INTENTS, twice).await.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn repeated_key_is_refused_at_any_depth() {
    let app = App::start().await;
    let body = r##"{"tool": "slack", "intent": "send", "context": {"channel": "#general", "text": "x",
        "blocks": [{"type": "divider", "type": "header"}], "text": "y"}}"##;
    refused(&app, &post_text(&app, INTENTS, body).await, &["/context/blocks/0/type", "/context/text"]);
}

#[tokio::test]
async fn integer_that_would_be_rounded_is_refused() {
    let app = App::start().await;
    let body = |number: &str| {
        format!(
            r##"{{"tool": "slack", "intent": "send", "context": {{"channel": "#general", "text": "x", "blocks": [{{"type": "divider", "n": {number}}}]}}}}"##
        )
    };
    for number in ["18446744073709551616", "-9223372036854775809"] {
        refused(&app, &post_text(&app, INTENTS, body(number)).await, &["/context/blocks/0/n"]);
    }
    for number in ["18446744073709551615", "-9223372036854775808"] {
        post_text(&app, INTENTS, body(number)).await.data();
        assert_eq!(app.last_received().body["blocks"][0]["n"].to_string(), number);
    }
}

#[tokio::test]
async fn content_coding_is_unsupported() {
    let app = App::start().await;
    let send = async |coding: &str| {
        let request = app.request(Method::POST, INTENTS).bearer_auth(&app.admin).header("content-encoding", coding);
        Answer::of(request.body(hello().to_string()).send().await.unwrap()).await
    };
    for coding in ["gzip", "br", "identity, gzip", ""] {
        assert_eq!(send(coding).await.problem(415), "unsupported_media_type", "{coding}");
    }
    send("Identity").await.data();
}

#[tokio::test]
async fn malformed_chunks_are_a_bad_request() {
    let app = App::start().await;
    let request = format!(
        "POST {INTENTS} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{{}}",
        app.address, app.admin,
    );
    let answer = raw(&app, &request).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"code\":\"invalid_parameters\""), "{answer}");
}

#[tokio::test]
async fn media_type_must_be_json() {
    let app = App::start().await;
    let send = async |media_type: Option<&str>| {
        let mut request = app.request(Method::POST, INTENTS).bearer_auth(&app.admin);
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        Answer::of(request.body(hello().to_string()).send().await.unwrap()).await
    };
    for wrong in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data", "", "json"]
    {
        assert_eq!(send(Some(wrong)).await.problem(415), "unsupported_media_type", "{wrong}");
    }
    assert_eq!(app.playground.received_total(), 0);
    for right in [Some("application/json"), Some("Application/JSON; charset=utf-8"), Some("application/json;a=b"), None]
    {
        send(right).await.data();
    }
}

/// An intent of `bytes` bytes, whose text is too long for its action.
fn sized(bytes: usize) -> String {
    let body = |text: &str| json!({ "tool": "slack", "intent": "send", "context": { "channel": "C", "text": text } });
    let rest = body("").to_string().len();
    body(&"x".repeat(bytes - rest)).to_string()
}

#[tokio::test]
async fn body_larger_than_one_mebibyte_is_refused() {
    let app = App::start().await;
    let chunked = |text: String| {
        let pieces: Vec<_> = text.into_bytes().chunks(50_000).map(<[u8]>::to_vec).collect();
        reqwest::Body::wrap_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
    };
    assert_eq!(sized(MEBIBYTE).len(), MEBIBYTE);
    refused(&app, &post_text(&app, INTENTS, sized(MEBIBYTE)).await, &["/context/text"]);
    refused(&app, &post_text(&app, INTENTS, chunked(sized(MEBIBYTE))).await, &["/context/text"]);
    for path in [INTENTS, "/api/plugin-engine/integrations/slack/connect", "/api/v1/keys"] {
        let answer = post_text(&app, path, sized(MEBIBYTE + 1)).await;
        assert_eq!(answer.problem(413), "too_large", "{path}");
        let answer = post_text(&app, path, chunked(sized(MEBIBYTE + 1))).await;
        assert_eq!(answer.problem(413), "too_large", "{path}");
    }
    app.post(INTENTS, &hello()).await.data();
}

/// An intent with `depth` levels of nesting, counted from the body itself.
fn nested(depth: usize) -> String {
    // The body, the context, the blocks and the block are four levels.
    let (open, close) = ("[".repeat(depth - 4), "]".repeat(depth - 4));
    format!(
        "{{\"tool\":\"slack\",\"intent\":\"send\",\"context\":{{\"channel\":\"#general\",\"text\":\"[[[[{{{{\",\
         \"blocks\":[{{\"a\":{open}{close}}}]}}}}"
    )
}

#[tokio::test]
async fn body_nested_deeper_than_64_levels_is_refused() {
    let app = App::start().await;
    for depth in [65, 66, 1000, 300_000] {
        refused(&app, &post_text(&app, INTENTS, nested(depth)).await, &[""]);
    }
    post_text(&app, INTENTS, nested(64)).await.data();
    let sent: Value = serde_json::from_str(&nested(64)).unwrap();
    assert_eq!(app.last_received().body["blocks"], sent["context"]["blocks"]);
}

#[tokio::test]
async fn invalid_fields_are_reported_at_once() {
    let app = App::start().await;
    for (body, pointers) in [
        (json!({}), vec!["/intent", "/tool"]),
        (json!({ "tool": "slack" }), vec!["/intent"]),
        (json!({ "tool": 1, "intent": null, "context": [] }), vec!["/context", "/intent", "/tool"]),
        (json!({ "tool": "slack", "intent": "send", "contxt": {} }), vec!["/contxt"]),
        (json!({ "tool": "slack", "agent_id": "a", "x/y~z": 1 }), vec!["/agent_id", "/intent", "/x~1y~0z"]),
        (
            json!({ "tool": [], "intent": {}, "agentId": 1, "userId": false, "integration": 2, "scheduledTime": 3 }),
            vec!["/agentId", "/integration", "/intent", "/scheduledTime", "/tool", "/userId"],
        ),
        (
            json!({ "tool": "", "intent": "", "agentId": "", "userId": "", "integration": "" }),
            vec!["/agentId", "/integration", "/intent", "/tool", "/userId"],
        ),
    ] {
        refused(&app, &app.post(INTENTS, &body).await, &pointers);
    }
}

#[tokio::test]
async fn rules_beyond_the_schema_are_reported_with_the_rest() {
    let app = App::start().await;
    let body = json!({
        "tool": 1, "intent": "send", "userId": "é".repeat(128), "agentId": "a\nb", "integration": "Not An Alias",
    });
    refused(&app, &app.post(INTENTS, &body).await, &["/agentId", "/integration", "/tool", "/userId"]);
    let body = json!({ "tool": "slack", "intent": "send", "userId": "é".repeat(128), "agentId": "a\nb" });
    refused(&app, &app.post(INTENTS, &body).await, &["/agentId", "/userId"]);
}

#[tokio::test]
async fn unusable_fields_are_refused() {
    let app = App::start().await;
    let long = "k".repeat(256);
    for (field, value) in [
        ("scheduledTime", json!("")),
        ("idempotencyKey", json!("")),
        ("idempotencyKey", json!(long)),
        ("idempotencyKey", json!("a\nb")),
        ("maxAttempts", json!(3)),
    ] {
        let mut body = hello();
        body[field] = value;
        refused(&app, &app.post(INTENTS, &body).await, &[format!("/{field}").as_str()]);
    }
    let mut both = hello();
    (both["scheduledTime"], both["idempotencyKey"]) = (json!("2026-11-20T09:00:00Z"), json!(""));
    refused(&app, &app.post(INTENTS, &both).await, &["/idempotencyKey"]);
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn invalid_idempotency_header_is_refused() {
    let app = App::start().await;
    for value in ["", "\"\"", &"k".repeat(256)] {
        let request = app
            .request(Method::POST, INTENTS)
            .bearer_auth(&app.admin)
            .header("content-type", "application/json")
            .header("Idempotency-Key", value);
        let answer = Answer::of(request.body(hello().to_string()).send().await.unwrap()).await;
        assert_eq!(answer.problem(400), "invalid_parameters");
        assert!(answer.json()["detail"].as_str().unwrap().contains("Idempotency-Key"));
    }
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn error_never_repeats_a_value() {
    let app = App::start().await;
    let canary = "canary-value-7f3a";
    for (tool, intent, context) in [
        ("slack", "send", json!({ "channel": [canary], "text": { "a": canary } })),
        ("slack", "send", json!({ "channel": format!("{canary}{}", "x".repeat(255)), "text": "t" })),
        ("slack", "schedule", json!({ "channel": "C", "text": "t", "post_at": canary })),
        ("gmail", "send", json!({ "to": canary, "subject": "s", "body": "b" })),
        ("gmail", "send", json!({ "to": ["a@b.c", canary], "subject": "s", "body": "b" })),
        ("gmail", "send", json!({ "to": "a@b.c", "subject": format!("{canary}\n"), "body": "b" })),
        (
            "gmail",
            "send",
            json!({ "to": "a@b.c", "subject": "s", "body": "b", "attachments": [{ "filename": "f", "content": canary }] }),
        ),
        ("notion", "search", json!({ "kind": canary })),
        ("notion", "update", json!({ "page_id": canary, "title": "t" })),
        ("notion", "search", json!({ "surprise": canary })),
    ] {
        let answer = app.intend(tool, intent, context).await;
        assert_eq!(answer.problem(400), "invalid_parameters");
        assert!(!answer.text.contains(canary), "{}", answer.text);
    }
    for body in [
        json!({ "tool": "slack", "intent": "send", "userId": [canary], "agentId": { "a": canary } }),
        json!({ "tool": "slack", "intent": "send", "userId": format!("{canary}\n") }),
        json!({ "tool": "slack", "intent": "send", "integration": canary.to_uppercase() }),
    ] {
        let answer = app.post(INTENTS, &body).await;
        assert_eq!(answer.problem(400), "invalid_parameters");
        assert!(!answer.text.to_lowercase().contains(canary), "{}", answer.text);
    }
    let broken = format!("{{\"context\": {{\"text\": \"{canary}\"}}, \"token\": \"{canary}\" oops");
    assert!(!post_text(&app, INTENTS, broken).await.text.contains(canary));
}
