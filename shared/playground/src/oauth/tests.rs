//! The OAuth flow from consent to revocation, and its refusals.

mod consent;
mod revocation;

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
    code_for(bench, service, &[]).await
}

async fn code_for(bench: &Bench, service: Service, changes: &[(&str, &str)]) -> String {
    let page = authorize(bench, service, changes).await;
    let reply = decide(bench, service, &page, "allow").await;
    let location = reply.header("location");
    assert!(location.starts_with("http://localhost:9999/callback?keep=1&code="), "{location}");
    assert!(location.ends_with("&state=a%26b"));
    let (_, rest) = location.split_once("code=").unwrap();
    rest.split_once('&').unwrap().0.to_owned()
}

async fn post(bench: &Bench, service: Service, endpoint: &str, secret: &str, fields: &[(&str, &str)]) -> Reply {
    let path = format!("/playground/oauth/{service}/{endpoint}");
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

async fn granted_for(bench: &Bench, service: Service, changes: &[(&str, &str)]) -> Value {
    let code = code_for(bench, service, changes).await;
    redeem(bench, service, &code, VERIFIER, REDIRECT).await.json()
}

async fn slack_method(bench: &Bench, method: &str, token: &Value) -> Value {
    bench.call(Service::Slack, "POST", method, token.as_str().unwrap(), Value::Null).await.json()
}

/// Revokes a token by the vendor's method.
async fn revoke(bench: &Bench, service: Service, token: &Value) -> Reply {
    let token = token.as_str().unwrap();
    match service {
        Service::Slack => bench.call(service, "POST", "auth.revoke", token, Value::Null).await,
        Service::Gmail => bench.form("/playground/oauth/gmail/revoke", &[("token", token)]).await,
        Service::Notion => post(bench, service, "revoke", CLIENT_SECRET, &[("token", token)]).await,
    }
}

/// "" if the service accepts the token, else the vendor's error code.
async fn refusal(bench: &Bench, service: Service, token: &Value) -> String {
    let (path, pointer) = match service {
        Service::Slack => ("auth.test", "/error"),
        Service::Gmail => ("users/me/messages", "/error/status"),
        Service::Notion => ("pages/11111111-1111-4111-8111-111111111111", "/code"),
    };
    let reply = bench.call(service, "GET", path, token.as_str().unwrap(), Value::Null).await.json();
    reply.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn error_of(reply: &Reply) -> String {
    reply.json()["error"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn every_service_completes_the_flow() {
    let bench = Bench::new();
    for service in Service::ALL {
        let first = granted(&bench, service).await;
        assert_eq!(refusal(&bench, service, &first["access_token"]).await, "");
        bench.wait(3599);
        assert_eq!(refusal(&bench, service, &first["access_token"]).await, "");
        bench.wait(1);
        let expired = refusal(&bench, service, &first["access_token"]).await;
        assert!(["token_expired", "UNAUTHENTICATED", "unauthorized"].contains(&expired.as_str()));

        let second = refresh(&bench, service, &first["refresh_token"]).await;
        assert_eq!(second.header("cache-control"), "no-store");
        let second = second.json();
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
async fn token_responses_have_the_vendors_shapes() {
    let bench = Bench::new();
    let slack = granted(&bench, Service::Slack).await;
    assert_eq!((&slack["ok"], &slack["token_type"], &slack["expires_in"]), (&json!(true), &json!("bot"), &json!(3600)));
    assert!(slack["access_token"].as_str().unwrap().starts_with("xoxe.xoxb-"));
    assert_eq!(slack["scope"], "chat:write,channels:read,channels:history");
    assert!(slack["team"]["id"].is_string());
    assert_eq!(slack["authed_user"], json!({"id": "U0PLAYHUMN"}));
    let refreshed = refresh(&bench, Service::Slack, &slack["refresh_token"]).await.json();
    assert_eq!((&refreshed["ok"], &refreshed["token_type"]), (&json!(true), &json!("bot")));
    assert_eq!((&refreshed["scope"], &refreshed["bot_user_id"]), (&slack["scope"], &slack["bot_user_id"]));
    let gmail = granted(&bench, Service::Gmail).await;
    assert_eq!((&gmail["token_type"], &gmail["expires_in"]), (&json!("Bearer"), &json!(3600)));
    let notion = granted(&bench, Service::Notion).await;
    assert_eq!((&notion["token_type"], notion.get("expires_in")), (&json!("bearer"), None));
    assert!(notion["bot_id"].is_string() && notion["workspace_id"].is_string() && notion["owner"].is_object());
    let token = notion["access_token"].as_str().unwrap();
    let me = bench.call(Service::Notion, "GET", "users/me", token, Value::Null).await.json();
    assert_eq!((&me["id"], &me["bot"]["owner"]), (&notion["bot_id"], &notion["owner"]));
    assert_eq!(me["bot"]["workspace_name"], notion["workspace_name"]);
}

#[tokio::test]
async fn code_requires_its_verifier_and_redirect_uri() {
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
async fn code_used_twice_revokes_its_tokens() {
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
async fn slack_separates_user_tokens_from_app_tokens() {
    let bench = Bench::new();
    let only = granted_for(&bench, Service::Slack, &[("user_scope", "chat:write,search:read")]).await;
    let person = &only["authed_user"];
    for missing in ["access_token", "refresh_token", "expires_in", "scope", "token_type", "bot_user_id"] {
        assert_eq!(only.get(missing), None, "{missing}");
    }
    assert_eq!((&only["ok"], &only["is_enterprise_install"]), (&json!(true), &json!(false)));
    assert!(only["app_id"].is_string() && only["team"]["name"].is_string() && only["enterprise"].is_null());
    assert_eq!((&person["token_type"], &person["expires_in"]), (&json!("user"), &json!(3600)));
    assert_eq!((&person["scope"], &person["id"]), (&json!("chat:write,search:read"), &json!("U0PLAYHUMN")));
    assert!(person["access_token"].as_str().unwrap().starts_with("xoxe.xoxp-1-"));
    assert!(person["refresh_token"].as_str().unwrap().starts_with("xoxe-1-"));

    let next = refresh(&bench, Service::Slack, &person["refresh_token"]).await.json();
    assert_eq!((&next["token_type"], &next["scope"]), (&json!("user"), &person["scope"]));
    assert_eq!((next.get("authed_user"), next.get("bot_user_id")), (None, None));
    assert!(next["access_token"].as_str().unwrap().starts_with("xoxe.xoxp-1-"));
    let tested = slack_method(&bench, "auth.test", &next["access_token"]).await;
    assert_eq!(
        (&tested["user_id"], &tested["user"], &tested["team"]),
        (&person["id"], &json!("you"), &json!("Playground"))
    );
    assert_eq!(tested.get("bot_id"), None);

    let both = [("scope", "chat:write"), ("user_scope", "search:read")];
    let code = code_for(&bench, Service::Slack, &both).await;
    let both = redeem(&bench, Service::Slack, &code, VERIFIER, REDIRECT).await.json();
    let person = &both["authed_user"];
    assert_eq!((&both["scope"], &person["scope"]), (&json!("chat:write"), &json!("search:read")));
    let tested = slack_method(&bench, "auth.test", &both["access_token"]).await;
    assert_eq!((&tested["user_id"], tested["bot_id"].is_string()), (&both["bot_user_id"], true));
    // Each is revoked alone, but reuse of the code revokes both.
    let again = granted_for(&bench, Service::Slack, &[("scope", "chat:write"), ("user_scope", "search:read")]).await;
    assert_eq!(slack_method(&bench, "auth.revoke", &again["authed_user"]["access_token"]).await["revoked"], true);
    assert_eq!(refusal(&bench, Service::Slack, &again["access_token"]).await, "");
    redeem(&bench, Service::Slack, &code, VERIFIER, REDIRECT).await;
    for token in [&both["access_token"], &person["access_token"]] {
        assert_eq!(refusal(&bench, Service::Slack, token).await, "token_revoked");
    }
    // Other vendors ignore the parameter.
    let gmail = granted_for(&bench, Service::Gmail, &[("user_scope", "x")]).await;
    assert_eq!(gmail["scope"], "https://www.googleapis.com/auth/gmail.modify");
}

#[tokio::test]
async fn tokens_survive_a_restart_with_the_same_key() {
    let key = [7; 32];
    let before = Bench::with_key(key);
    for service in Service::ALL {
        let tokens = granted(&before, service).await;
        let (after, stranger) = (Bench::with_key(key), Bench::with_key([8; 32]));
        for foreign in [&stranger, &Bench::new()] {
            assert_ne!(refusal(foreign, service, &tokens["access_token"]).await, "");
            assert_ne!(error_of(&refresh(foreign, service, &tokens["refresh_token"]).await), "");
        }
        after.wait(3599);
        assert_eq!(refusal(&after, service, &tokens["access_token"]).await, "");
        after.wait(1);
        assert_ne!(refusal(&after, service, &tokens["access_token"]).await, "");

        let next = refresh(&after, service, &tokens["refresh_token"]).await.json();
        assert_eq!(next.get("scope"), tokens.get("scope"));
        assert_eq!(refusal(&after, service, &next["access_token"]).await, "");
        assert_ne!(error_of(&refresh(&after, service, &tokens["refresh_token"]).await), "");
        assert_ne!(refusal(&after, service, &next["access_token"]).await, "");
        assert_ne!(error_of(&refresh(&after, service, &next["refresh_token"]).await), "");

        let revoking = Bench::with_key(key);
        assert_eq!(refusal(&revoking, service, &tokens["access_token"]).await, "");
        assert_eq!(revoke(&revoking, service, &tokens["access_token"]).await.status, 200);
        assert_ne!(refusal(&revoking, service, &tokens["access_token"]).await, "");
        assert_ne!(error_of(&refresh(&revoking, service, &tokens["refresh_token"]).await), "");
        // A new family is not affected by the revocation of an earlier one.
        assert_eq!(refusal(&revoking, service, &granted(&revoking, service).await["access_token"]).await, "");
    }
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let bench = Bench::new();
    for service in Service::ALL {
        let scope = "s".repeat(500);
        let tokens = granted_for(&bench, service, &[("scope", &scope)]).await;
        for kind in ["access_token", "refresh_token"] {
            let token = tokens[kind].as_str().unwrap();
            assert!(token.len() < 1024 && token.chars().all(|letter| letter.is_ascii_graphic()), "{token}");
        }
        let token = tokens["access_token"].as_str().unwrap();
        for position in [token.len() - 400, token.len() - 1, 20] {
            let changed = if token.as_bytes()[position] == b'Q' { "g" } else { "Q" };
            let mut forged = token.to_owned();
            forged.replace_range(position..=position, changed);
            assert_ne!(refusal(&bench, service, &json!(forged)).await, "", "{position}");
        }
        // A token is valid only with its own prefix.
        let own = match service {
            Service::Slack => "xoxe.xoxb-1-",
            Service::Gmail => "ya29.",
            Service::Notion => "ntn_",
        };
        let body = token.strip_prefix(own).unwrap();
        for other in ["", "xoxe.xoxb-1-", "xoxe.xoxp-1-", "xoxe-1-", "ya29.", "1//0", "ntn_", "nrt_"] {
            let accepted = refusal(&bench, service, &json!(format!("{other}{body}"))).await.is_empty();
            assert_eq!(accepted, other == own, "{other}");
        }
        let reply = authorize(&bench, service, &[("scope", &format!("{scope}s"))]).await;
        assert!(reply.header("location").contains("error=invalid_scope&"), "{}", reply.header("location"));
    }
}
