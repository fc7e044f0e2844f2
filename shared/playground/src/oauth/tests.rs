//! The OAuth flow from consent to revocation, and every way in which it must fail.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::authorization::challenge;
use super::{CLIENT_ID, CLIENT_SECRET};
use crate::Service;
use crate::testing::{Bench, Reply};

const REDIRECT: &str = "http://localhost:9999/callback?keep=1";
const VERIFIER: &str = "a-verifier-that-is-long-enough-to-be-one-0123456789";

async fn authorize(bench: &Bench, service: Service, changes: &[(&str, &str)]) -> Reply {
    let challenge = challenge(VERIFIER);
    let mut fields = vec![
        ("response_type", "code"),
        ("client_id", CLIENT_ID),
        ("redirect_uri", REDIRECT),
        ("state", "a&b"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    fields.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    fields.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
    let query = serde_urlencoded::to_string(fields).unwrap();
    bench.send("GET", &format!("/playground/oauth/{service}/authorize?{query}"), &[], String::new()).await
}

async fn decide(bench: &Bench, service: Service, page: &Reply, decision: &str) -> Reply {
    let (_, rest) = page.text.split_once("name=\"request\" value=\"").unwrap();
    let (id, _) = rest.split_once('"').unwrap();
    let path = format!("/playground/oauth/{service}/consent");
    bench.form(&path, &[("request", id), ("decision", decision)]).await
}

async fn code(bench: &Bench, service: Service) -> String {
    let page = authorize(bench, service, &[]).await;
    let reply = decide(bench, service, &page, "allow").await;
    let location = reply.header("location");
    assert!(location.starts_with("http://localhost:9999/callback?keep=1&code="), "{location}");
    assert!(location.ends_with("&state=a%26b"));
    let (_, rest) = location.split_once("code=").unwrap();
    rest.split_once('&').unwrap().0.to_owned()
}

async fn post(bench: &Bench, service: Service, place: &str, secret: &str, fields: &[(&str, &str)]) -> Reply {
    let path = format!("/playground/oauth/{service}/{place}");
    if service == Service::Notion {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{CLIENT_ID}:{secret}")));
        let body: serde_json::Map<String, Value> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let headers = [("authorization", basic.as_str()), ("content-type", "application/json")];
        return bench.send("POST", &path, &headers, Value::from(body).to_string()).await;
    }
    let fields = [fields, &[("client_id", CLIENT_ID), ("client_secret", secret)]].concat();
    bench.form(&path, &fields).await
}

async fn redeem(bench: &Bench, service: Service, code: &str, verifier: &str, redirect: &str) -> Reply {
    let fields =
        [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", redirect), ("code_verifier", verifier)];
    post(bench, service, "token", CLIENT_SECRET, &fields).await
}

async fn refresh(bench: &Bench, service: Service, token: &Value) -> Reply {
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token.as_str().unwrap())];
    post(bench, service, "token", CLIENT_SECRET, &fields).await
}

async fn granted(bench: &Bench, service: Service) -> Value {
    let code = code(bench, service).await;
    redeem(bench, service, &code, VERIFIER, REDIRECT).await.json()
}

/// "" where the token opens the service, else the vendor's word for the refusal.
async fn refusal(bench: &Bench, service: Service, token: &Value) -> String {
    let (path, place) = match service {
        Service::Slack => ("auth.test", "/error"),
        Service::Gmail => ("users/me/messages", "/error/status"),
        Service::Notion => ("pages/11111111-1111-4111-8111-111111111111", "/code"),
    };
    let reply = bench.call(service, "GET", path, token.as_str().unwrap(), Value::Null).await.json();
    reply.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn error_of(reply: &Reply) -> String {
    reply.json()["error"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_full_flow_of_every_service() {
    let bench = Bench::new();
    for service in Service::ALL {
        let first = granted(&bench, service).await;
        assert_eq!(refusal(&bench, service, &first["access_token"]).await, "");
        bench.wait(3599);
        assert_eq!(refusal(&bench, service, &first["access_token"]).await, "");
        bench.wait(1);
        let expired = refusal(&bench, service, &first["access_token"]).await;
        assert!(["token_expired", "UNAUTHENTICATED", "unauthorized"].contains(&expired.as_str()));

        let second = refresh(&bench, service, &first["refresh_token"]).await.json();
        assert_ne!(second["refresh_token"], first["refresh_token"]);
        assert_eq!(refusal(&bench, service, &second["access_token"]).await, "");
        let other = if service == Service::Slack { Service::Gmail } else { Service::Slack };
        assert_ne!(refusal(&bench, other, &second["access_token"]).await, "");
        assert_ne!(refusal(&bench, service, &second["refresh_token"]).await, "");

        let reused = refresh(&bench, service, &first["refresh_token"]).await;
        let (status, error) =
            if service == Service::Slack { (200, "invalid_refresh_token") } else { (400, "invalid_grant") };
        assert_eq!((reused.status.as_u16(), error_of(&reused).as_str()), (status, error));
        assert_ne!(refusal(&bench, service, &second["access_token"]).await, "");
        assert_eq!(error_of(&refresh(&bench, service, &second["refresh_token"]).await), error);
    }
}

#[tokio::test]
async fn answers_have_the_vendors_shapes() {
    let bench = Bench::new();
    let slack = granted(&bench, Service::Slack).await;
    assert_eq!((&slack["ok"], &slack["token_type"], &slack["expires_in"]), (&json!(true), &json!("bot"), &json!(3600)));
    assert!(slack["access_token"].as_str().unwrap().starts_with("xoxe.xoxb-"));
    assert_eq!(slack["scope"], "chat:write,channels:read,channels:history");
    assert!(slack["team"]["id"].is_string() && slack["authed_user"]["id"].is_string());
    let gmail = granted(&bench, Service::Gmail).await;
    assert_eq!((&gmail["token_type"], &gmail["expires_in"]), (&json!("Bearer"), &json!(3600)));
    let notion = granted(&bench, Service::Notion).await;
    assert_eq!((&notion["token_type"], notion.get("expires_in")), (&json!("bearer"), None));
    assert!(notion["bot_id"].is_string() && notion["workspace_id"].is_string() && notion["owner"].is_object());
}

#[tokio::test]
async fn a_code_needs_its_verifier_and_redirect_uri_in_time() {
    let bench = Bench::new();
    let slack_errors = ["invalid_code", "bad_redirect_uri", "invalid_code"];
    for service in Service::ALL {
        let wrong = VERIFIER.replace('a', "b");
        let verifier = redeem(&bench, service, &code(&bench, service).await, &wrong, REDIRECT).await;
        let redirect = redeem(&bench, service, &code(&bench, service).await, VERIFIER, "http://localhost/").await;
        let late = code(&bench, service).await;
        bench.wait(60);
        let late = redeem(&bench, service, &late, VERIFIER, REDIRECT).await;
        let errors = [verifier, redirect, late].map(|reply| error_of(&reply));
        if service == Service::Slack {
            assert_eq!(errors, slack_errors);
        } else {
            assert_eq!(errors, ["invalid_grant"; 3]);
        }
    }
    let foreign = code(&bench, Service::Gmail).await;
    assert_eq!(error_of(&redeem(&bench, Service::Notion, &foreign, VERIFIER, REDIRECT).await), "invalid_grant");
}

#[tokio::test]
async fn a_code_used_twice_takes_back_what_it_gave() {
    let bench = Bench::new();
    for service in Service::ALL {
        let code = code(&bench, service).await;
        let first = redeem(&bench, service, &code, VERIFIER, REDIRECT).await.json();
        let again = error_of(&redeem(&bench, service, &code, VERIFIER, REDIRECT).await);
        assert_eq!(again, if service == Service::Slack { "code_already_used" } else { "invalid_grant" });
        assert_ne!(refusal(&bench, service, &first["access_token"]).await, "");
        assert_ne!(error_of(&refresh(&bench, service, &first["refresh_token"]).await), "");
    }
}

#[tokio::test]
async fn clients_authenticate() {
    let bench = Bench::new();
    for service in Service::ALL {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", "x")];
        let wrong = post(&bench, service, "token", "guess", &fields).await;
        let (status, error) =
            if service == Service::Slack { (200, "bad_client_secret") } else { (401, "invalid_client") };
        assert_eq!((wrong.status.as_u16(), error_of(&wrong).as_str()), (status, error));
        let grant = post(&bench, service, "token", CLIENT_SECRET, &[("grant_type", "password")]).await;
        let error = if service == Service::Slack { "invalid_grant_type" } else { "unsupported_grant_type" };
        assert_eq!(error_of(&grant), error);
    }
    let in_body = json!({"grant_type": "refresh_token", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET});
    let reply = bench.send("POST", "/playground/oauth/notion/token", &[], in_body.to_string()).await;
    assert_eq!(error_of(&reply), "invalid_client");
    let basic = format!("Basic {}", BASE64_STANDARD.encode("playground:playground-secret"));
    let headers = [("authorization", basic.as_str())];
    let body = "grant_type=refresh_token&refresh_token=x".to_owned();
    let reply = bench.send("POST", "/playground/oauth/gmail/token", &headers, body).await;
    assert_eq!(error_of(&reply), "invalid_grant");
}

#[tokio::test]
async fn revocation_takes_back_the_family() {
    let bench = Bench::new();
    for service in Service::ALL {
        for kind in ["access_token", "refresh_token"] {
            let tokens = granted(&bench, service).await;
            let fields = [("token", tokens[kind].as_str().unwrap())];
            assert_eq!(post(&bench, service, "revoke", CLIENT_SECRET, &fields).await.status, 200);
            assert_ne!(refusal(&bench, service, &tokens["access_token"]).await, "");
            assert_ne!(error_of(&refresh(&bench, service, &tokens["refresh_token"]).await), "");
        }
        assert_eq!(post(&bench, service, "revoke", CLIENT_SECRET, &[("token", "unknown")]).await.status, 200);
        let standing = [("token", service.standing_token())];
        post(&bench, service, "revoke", CLIENT_SECRET, &standing).await;
        assert_eq!(refusal(&bench, service, &json!(service.standing_token())).await, "");
    }
    let anonymous = bench.form("/playground/oauth/gmail/revoke", &[("token", "x")]).await;
    assert_eq!(anonymous.status, 200);
}

#[tokio::test]
async fn a_bad_client_or_redirect_uri_never_redirects() {
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
    ];
    for (name, value, error) in cases {
        let reply = authorize(&bench, Service::Slack, &[(name, value)]).await;
        let location = reply.header("location");
        assert_eq!(reply.status, 303);
        assert!(location.contains(&format!("error={error}&")) && location.ends_with("state=a%26b"), "{location}");
    }
}

#[tokio::test]
async fn consent_can_be_denied_and_is_asked_once() {
    let bench = Bench::new();
    let page = authorize(&bench, Service::Gmail, &[("scope", "<b>")]).await;
    assert!(page.text.contains("&lt;b&gt;") && !page.text.contains("<b>"));
    // What follows the form is not for this page to say: the client may redirect on to anywhere.
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline';") && !policy.contains("form-action"));
    assert!(policy.ends_with("base-uri 'none'; frame-ancestors 'none'"));
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
