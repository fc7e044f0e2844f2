//! The page, the log and every switch.

use serde_json::{Value, json};

use crate::testing::Bench;
use crate::{Mode, Service, Switch};

#[tokio::test]
async fn page_escapes_received_calls() {
    let bench = Bench::new();
    let text = "<script>alert('x')</script>";
    bench.slack("chat.postMessage", json!({"channel": "general", "text": text})).await;
    let page = bench.send("GET", "/playground", &[], String::new()).await;
    assert!(page.text.contains("stand-in"));
    assert!(page.text.contains("#general: &lt;script&gt;alert(&#39;x&#39;)"));
    assert!(!page.text.contains("<script"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'unsafe-inline'"));
    assert!(page.header("content-security-policy").contains("; form-action 'self';"));
    // With no-referrer a browser sends Origin: null with the page's own forms, which the local server refuses.
    assert_eq!(page.header("referrer-policy"), "same-origin");
}

#[tokio::test]
async fn log_masks_tokens() {
    let bench = Bench::new();
    bench.playground.accept_token(Service::Slack, "xoxb-canary");
    let body = json!({"channel": "general", "text": "my xoxb-canary", "token": "other-secret"});
    bench.call(Service::Slack, "POST", "chat.postMessage", "xoxb-canary", body).await;
    bench.call(Service::Slack, "POST", "chat.postMessage", "xoxb-wrong", json!({"text": "xoxb-wrong"})).await;
    for path in ["/playground", "/playground/received"] {
        let html = bench.send("GET", path, &[], String::new()).await.text;
        assert!(!["xoxb-canary", "other-secret", "xoxb-wrong"].iter().any(|secret| html.contains(secret)), "{html}");
    }
}

#[tokio::test]
async fn log_keeps_the_latest_calls() {
    let bench = Bench::new();
    for _ in 0..502 {
        bench.slack("auth.test", Value::Null).await;
    }
    assert_eq!((bench.playground.received().len(), bench.playground.received_total()), (500, 502));
    let list = bench.send("GET", "/playground/received", &[], String::new()).await;
    assert_eq!((list.json().as_array().unwrap().len(), list.header("x-total-count")), (500, "502"));
    assert_eq!(bench.send("DELETE", "/playground/received", &[], String::new()).await.status, 204);
    assert_eq!((bench.playground.received().len(), bench.playground.received_total()), (0, 0));
}

#[tokio::test]
async fn rate_limits_and_errors_have_each_vendors_shape() {
    let bench = Bench::new();
    let paths = [
        (Service::Slack, "auth.test", "/error", "ratelimited", "internal_error"),
        (Service::Gmail, "users/me/messages", "/error/status", "RESOURCE_EXHAUSTED", "INTERNAL"),
        (Service::Notion, "users", "/code", "rate_limited", "internal_server_error"),
    ];
    for (service, path, place, limited, failed) in paths {
        let token = service.standing_token();
        bench.switch(service, "rate_limited", 1).await;
        let reply = bench.call(service, "GET", path, token, Value::Null).await;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, "30"));
        assert_eq!(reply.json().pointer(place).unwrap(), limited);
        bench.switch(service, "error", 1).await;
        let reply = bench.call(service, "GET", path, token, Value::Null).await;
        assert_eq!((reply.status.as_u16(), reply.json().pointer(place).unwrap()), (500, &json!(failed)));
        bench.switch(service, "expired_token", 1).await;
        let reply = bench.call(service, "GET", path, token, Value::Null).await;
        assert_eq!(reply.status, if service == Service::Slack { 200 } else { 401 });
    }
    let notes: Vec<String> = bench.playground.received().into_iter().map(|received| received.note).collect();
    assert_eq!(notes[..3], ["switch: rate_limited", "switch: error", "switch: expired_token"]);
}

#[tokio::test]
async fn other_switches_misbehave() {
    let bench = Bench::new();
    let call = async || bench.slack("chat.postMessage", json!({"channel": "x", "text": "y"})).await;
    bench.switch(Service::Slack, "nonsense", 1).await;
    let nonsense = call().await;
    assert_eq!(nonsense.status, 200);
    assert!(nonsense.header("content-type").starts_with("text/html"));
    bench.switch(Service::Slack, "oversized", 1).await;
    assert!(call().await.text.len() > 5 * 1024 * 1024);
    bench.switch(Service::Slack, "redirect", 1).await;
    let redirect = call().await;
    assert_eq!((redirect.status.as_u16(), redirect.header("location")), (307, "http://example.com/"));
    bench.switch(Service::Slack, "echo", 1).await;
    let echo = call().await.json();
    assert_eq!(echo["debug_authorization"], "Bearer xoxb-playground");
    assert_eq!(echo["error"], "channel_not_found (Bearer xoxb-playground)");
    assert_eq!(bench.playground.received().pop().unwrap().note, "channel_not_found (switch: echo)");
    assert_eq!(call().await.json()["error"], "channel_not_found");
    bench.switch(Service::Gmail, "echo", 2).await;
    let listed = bench.gmail("GET", "messages", Value::Null).await.json();
    assert_eq!(listed["debug_authorization"], "Bearer ya29.playground");
    let missing = bench.gmail("GET", "messages/x", Value::Null).await.json();
    assert!(missing["error"]["message"].as_str().unwrap().ends_with("(Bearer ya29.playground)"));
}

#[tokio::test(start_paused = true)]
async fn timeout_switch_never_answers_in_time() {
    let bench = Bench::new();
    bench.switch(Service::Slack, "timeout", 1).await;
    let patient = tokio::time::Duration::from_secs(119);
    assert!(tokio::time::timeout(patient, bench.slack("auth.test", Value::Null)).await.is_err());
    assert_eq!(bench.playground.received()[0].note, "switch: timeout");
    assert_eq!(bench.slack("auth.test", Value::Null).await.json()["ok"], true);
}

#[tokio::test]
async fn switches_count_authenticated_calls_only() {
    let bench = Bench::new();
    bench.playground.set_switch(Switch::new(Service::Slack, Mode::Error, 2));
    let refused = bench.call(Service::Slack, "GET", "auth.test", "wrong", Value::Null).await;
    assert_eq!(refused.json()["error"], "invalid_auth");
    assert_eq!(bench.slack("auth.test", Value::Null).await.status, 500);
    let left = bench.send("GET", "/playground/switches", &[], String::new()).await.json();
    assert_eq!(left, json!([{"service": "slack", "mode": "error", "calls": 1, "retry_after": 30}]));
    bench.switch(Service::Slack, "error", 0).await;
    assert_eq!(bench.slack("auth.test", Value::Null).await.status, 200);
}

#[tokio::test]
async fn invalid_switch_names_its_field() {
    let bench = Bench::new();
    let fields = [("service", "gmail"), ("mode", "rate_limited"), ("calls", "1"), ("retry_after", "7")];
    let set = bench.form("/playground/switches", &fields).await;
    assert_eq!((set.status.as_u16(), set.header("location")), (303, "/playground"));
    let page = bench.send("GET", "/playground", &[], String::new()).await;
    assert!(page.text.contains("rate_limited for 1 more calls"));
    assert_eq!(bench.gmail("GET", "messages", Value::Null).await.header("retry-after"), "7");

    let cases = [
        ("{", "/"),
        (r#"{"service": "fax"}"#, "service"),
        (r#"{"service": "slack", "mode": "polite"}"#, "mode"),
        (r#"{"service": "slack", "mode": "error"}"#, "calls"),
        (r#"{"service": "slack", "mode": "error", "calls": 1001}"#, "calls"),
        (r#"{"service": "slack", "mode": "error", "calls": 1, "retry_after": -1}"#, "retry_after"),
    ];
    for (body, field) in cases {
        let reply = bench.send("POST", "/playground/switches", &[], body.to_owned()).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (400, "application/problem+json"));
        assert_eq!(reply.json()["errors"][0]["pointer"], json!(format!("/{}", field.trim_start_matches('/'))));
    }
}
