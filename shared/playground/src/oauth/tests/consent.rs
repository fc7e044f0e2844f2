//! The authorization request and the consent page.

use super::*;

#[tokio::test]
async fn invalid_client_or_redirect_uri_never_redirects() {
    let bench = Bench::new();
    let cases = [
        ("client_id", "other"),
        ("client_id", ""),
        ("redirect_uri", ""),
        ("redirect_uri", "http://example.com/"),
        ("redirect_uri", "http://localhost.example.com/"),
        ("redirect_uri", "http://127.0.0.1@example.com/"),
        ("redirect_uri", "https://me@example.com/"),
        ("redirect_uri", "https://example.com/#part"),
        ("redirect_uri", "javascript:alert(1)"),
        ("redirect_uri", "/callback"),
    ];
    for (name, value) in cases {
        let reply = authorize(&bench, Service::Slack, &[(name, value)]).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (400, ""), "{name}={value}");
    }
    let twice = "/playground/oauth/slack/authorize?client_id=playground&client_id=playground";
    assert_eq!(bench.send("GET", twice, &[], String::new()).await.status, 400);
    for allowed in ["http://127.0.0.1:1/", "http://[::1]:1/", "https://example.com/callback"] {
        assert_eq!(authorize(&bench, Service::Slack, &[("redirect_uri", allowed)]).await.status, 200);
    }
}

#[tokio::test]
async fn other_problems_redirect_with_an_error() {
    let bench = Bench::new();
    let cases = [
        ("response_type", "token", "unsupported_response_type"),
        ("response_type", "", "invalid_request"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge", "short", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("code_challenge_method", "", "invalid_request"),
        ("scope", "chat:write channels:read", "invalid_scope"),
        ("user_scope", "chat:write channels:read", "invalid_scope"),
        ("scope", "\"", "invalid_scope"),
        ("scope", "chat:write,\u{e4}", "invalid_scope"),
    ];
    for (name, value, error) in cases {
        let reply = authorize(&bench, Service::Slack, &[(name, value)]).await;
        let location = reply.header("location");
        assert_eq!(reply.status, 303);
        assert!(location.contains(&format!("error={error}&")) && location.ends_with("state=a%26b"), "{location}");
    }
}

#[tokio::test]
async fn consent_form_works_once() {
    let bench = Bench::new();
    let page = authorize(&bench, Service::Gmail, &[("scope", "<b>")]).await;
    assert!(page.text.contains("&lt;b&gt;") && !page.text.contains("<b>"));
    // This page cannot limit form targets: the client may redirect on to anywhere.
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline';") && !policy.contains("form-action"));
    assert!(policy.ends_with("base-uri 'none'; frame-ancestors 'none'"));
    let scopes = [("scope", "chat:write"), ("user_scope", "search:read")];
    let slack = authorize(&bench, Service::Slack, &scopes).await;
    assert!(slack.text.contains("<li><code>chat:write</code></li><li><code>search:read</code> in your name</li>"));
    let denied = decide(&bench, Service::Gmail, &page, "deny").await;
    assert!(denied.header("location").starts_with("http://localhost:9999/callback?keep=1&error=access_denied&"));
    assert!(denied.header("location").ends_with("&state=a%26b"));
    assert!(!denied.header("location").contains("code="));
    assert_eq!(decide(&bench, Service::Gmail, &page, "allow").await.status, 400);
    let late = authorize(&bench, Service::Gmail, &[]).await;
    bench.wait(600);
    assert_eq!(decide(&bench, Service::Gmail, &late, "allow").await.status, 400);
    let other = authorize(&bench, Service::Gmail, &[]).await;
    assert_eq!(decide(&bench, Service::Slack, &other, "allow").await.status, 400);
    assert!(bench.playground.received().is_empty());
}
