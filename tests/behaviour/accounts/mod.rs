//! Accounts of every kind: tested, listed, several per user, owned by the organization, and with a failing refresh.

pub mod authorize;
pub mod connect;
pub mod refresh;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overseer_engine::access::principal::Role;
use overseer_playground::Service;
use reqwest::Method;
use serde_json::{Value, json};

use crate::accounts::authorize::{accounts, secrets};
use crate::support::app::{App, Options};
use crate::support::own::OwnService;

const CONNECT: &str = "/api/plugin-engine/integrations/own/connect";
const CLIENT: &str = "/api/plugin-engine/integrations/own/client";
const OWN: &str = "/api/plugin-engine/integrations/own";

/// A service with a token endpoint, both of which do as they are told.
#[derive(Clone, Default)]
struct Switchboard {
    /// The status of the next answers about tokens; 0 is a token.
    tokens: Arc<AtomicU16>,
    /// How many tokens were given.
    given: Arc<AtomicUsize>,
    /// The status of the next answers of the service itself; 0 is one that goes by the credential.
    service: Arc<AtomicU16>,
}

async fn token(State(board): State<Switchboard>) -> (StatusCode, String) {
    match board.tokens.load(Ordering::SeqCst) {
        0 => {
            let number = board.given.fetch_add(1, Ordering::SeqCst) + 1;
            let body =
                json!({ "access_token": format!("given-token-{number}"), "token_type": "Bearer", "expires_in": 3600 });
            (StatusCode::OK, body.to_string())
        }
        400 => (StatusCode::BAD_REQUEST, json!({ "error": "invalid_client" }).to_string()),
        status => (StatusCode::from_u16(status).unwrap(), "not today".to_owned()),
    }
}

/// Says who is there, if the credential is one of those that are good; and says the credential again.
async fn me(State(board): State<Switchboard>, headers: HeaderMap) -> (StatusCode, String) {
    let status = board.service.load(Ordering::SeqCst);
    if status != 0 {
        return (StatusCode::from_u16(status).unwrap(), String::new());
    }
    let said = headers.get("authorization").or(headers.get("x-key")).map_or("", |value| value.to_str().unwrap());
    let basic = format!("Basic {}", STANDARD.encode("ann:the password: ö"));
    let good = said == "good-key-of-ann" || said == basic || said.starts_with("Bearer given-token-");
    let body = json!({ "name": "Ann", "code": "no", "message": format!("you said {said}") }).to_string();
    (if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED }, body)
}

async fn service(board: &Switchboard) -> OwnService {
    let routes = Router::new().route("/me", get(me)).route("/token", post(token)).with_state(board.clone());
    OwnService::start(routes).await
}

/// An Overseer with the plugin `own`, which signs in by `auth`; nothing is connected.
async fn app_with(service: &OwnService, auth: Value) -> App {
    let manifest = crate::support::own::manifest(&format!("http://{}", service.address), &auth);
    let allowed = vec![overseer_engine::outbound::address::AllowedAddress::Socket(service.address)];
    App::with(Options { plugins: vec![manifest], allowed, unconnected: true, ..Options::default() }).await
}

fn me_test() -> Value {
    json!({ "request": { "path": "/me" }, "account": "body.name",
            "response": { "error": { "code": "body.code", "message": "body.message" } } })
}

#[tokio::test]
async fn api_key_is_tested_before_connecting() {
    let board = Switchboard::default();
    let service = service(&board).await;
    let app = app_with(&service, json!({ "type": "api_key", "header": "x-key", "test": me_test() })).await;

    let refused = app.post(CONNECT, &json!({ "token": "a-wrong-key" })).await;
    assert_eq!((refused.problem(400).as_str(), refused.pointers()), ("invalid_parameters", vec!["/token".to_owned()]));
    assert!(!refused.text.contains("a-wrong-key"), "{}", refused.text);
    assert_eq!(app.post(CONNECT, &json!({})).await.pointers(), ["/token"]);
    board.service.store(503, Ordering::SeqCst);
    assert_eq!(app.post(CONNECT, &json!({ "token": "good-key-of-ann" })).await.problem(503), "unavailable");
    assert!(accounts(&app, "own", "admin").await.is_empty());
    assert_eq!(secrets(&app).await, 0);

    board.service.store(0, Ordering::SeqCst);
    let connected = app.post(CONNECT, &json!({ "token": "good-key-of-ann" })).await.json();
    assert_eq!((&connected["state"], &connected["account"]), (&json!("active"), &json!("Ann")), "{connected}");
    app.intend("own", "read", json!({ "path": "me" })).await.data();
    for (field, value) in
        [("scopes", json!(["a"])), ("returnTo", json!("https://agent.example/")), ("username", json!("a"))]
    {
        let body = json!({ "token": "good-key-of-ann", field: value });
        assert!(app.post(CONNECT, &body).await.pointers().contains(&format!("/{field}")), "{field}");
    }
}

#[tokio::test]
async fn basic_credentials_need_both_parts() {
    let service = service(&Switchboard::default()).await;
    let app = app_with(&service, json!({ "type": "basic", "test": me_test() })).await;
    assert_eq!(app.post(CONNECT, &json!({})).await.pointers(), ["/password", "/username"]);
    let edges = [("a:b", "long enough"), ("", "long enough"), ("a", "short"), ("a", "with\ncontrol")];
    for (name, password) in edges {
        let answer = app.post(CONNECT, &json!({ "username": name, "password": password })).await;
        let pointer = if password == "long enough" { "/username" } else { "/password" };
        assert_eq!(answer.pointers(), [pointer], "{name} {password}");
    }
    let wrong = app.post(CONNECT, &json!({ "username": "ann", "password": "the password: o" })).await;
    assert_eq!(wrong.pointers(), ["/password"]);
    assert!(!wrong.text.contains("the password") && !wrong.text.contains(&STANDARD.encode("ann:the password")));
    let right = app.post(CONNECT, &json!({ "username": "ann", "password": "the password: ö" })).await.json();
    assert_eq!(right["state"], "active", "{right}");
    let said = app.intend("own", "read", json!({ "path": "me" })).await;
    // All but what its last bits share with the padding.
    assert_eq!(said.data()["message"], "you said Basic [secret removed]Y=", "{}", said.text);
}

fn client_credentials(service: &OwnService) -> Value {
    let token_url = format!("http://{}/token", service.address);
    json!({ "type": "client_credentials", "token_url": token_url, "scopes": ["read"], "token_params": { "audience": "a" },
            "client_authentication": "body", "test": me_test() })
}

/// The organization's own client, and its account.
async fn sign_in(app: &App) {
    let client = json!({ "clientId": "the-client", "clientSecret": "the-client-secret" });
    app.send(&app.admin, Method::PUT, CLIENT, Some(&client)).await;
    assert_eq!(app.post(CONNECT, &json!({})).await.json()["state"], "active");
}

#[tokio::test]
async fn organization_client_serves_every_user() {
    let board = Switchboard::default();
    let service = service(&board).await;
    let app = app_with(&service, client_credentials(&service)).await;
    assert!(app.post(CONNECT, &json!({})).await.problem(400) == "invalid_parameters");
    assert_eq!(app.get(CLIENT).await.json(), json!({ "plugin": "own" }));
    let client = json!({ "clientId": "the-client", "clientSecret": "the-client-secret" });
    let set = app.send(&app.admin, Method::PUT, CLIENT, Some(&client)).await;
    assert_eq!(set.json(), json!({ "plugin": "own", "clientId": "the-client", "source": "organization" }));

    let ann = app.key("acme", &[Role::User], Some("ann")).await;
    assert_eq!(app.send(&ann, Method::POST, CONNECT, Some(&json!({}))).await.problem(403), "forbidden");
    assert_eq!(app.post(CONNECT, &json!({ "owner": "user" })).await.pointers(), ["/owner"]);
    let connected = app.post(CONNECT, &json!({})).await.json();
    assert_eq!((&connected["owner"], &connected["renews"]), (&json!("organization"), &json!(true)), "{connected}");
    let intent = json!({ "tool": "own", "intent": "read", "context": { "path": "me" } });
    let first = app.send(&ann, Method::POST, "/api/plugin-engine", Some(&intent)).await;
    assert_eq!(first.data()["message"], "you said Bearer [secret removed]");
    app.clock.advance(3600);
    app.send(&ann, Method::POST, "/api/plugin-engine", Some(&intent)).await.data();
    assert_eq!(board.given.load(Ordering::SeqCst), 2);

    // Another organization has nothing of it.
    let other = app.key("other", &[Role::Administrator], Some("ann")).await;
    assert_eq!(app.send(&other, Method::POST, "/api/plugin-engine", Some(&intent)).await.failure(), "not_connected");
    assert_eq!(app.send(&other, Method::GET, CLIENT, None).await.json(), json!({ "plugin": "own" }));
    assert_eq!(app.send(&other, Method::GET, OWN, None).await.json()["accounts"], json!([]));
    assert_eq!(
        app.send(&other, Method::DELETE, &format!("{OWN}?owner=organization"), None).await.problem(404),
        "not_found"
    );

    // Not with another client, and not with none.
    app.send(&app.admin, Method::PUT, CLIENT, Some(&json!({ "clientId": "another" }))).await;
    app.clock.advance(3600);
    let changed = app.send(&ann, Method::POST, "/api/plugin-engine", Some(&intent)).await;
    assert_eq!(changed.failure(), "reconnect_required");
    let shown = accounts(&app, "own", "ann").await;
    assert_eq!((&shown[0]["state"], &shown[0]["reason"]), (&json!("reconnect_required"), &json!("client_changed")));
    assert_eq!(app.delete(CLIENT).await.json(), json!({ "plugin": "own" }));
}

#[tokio::test]
async fn clients_require_an_administrator() {
    let service = service(&Switchboard::default()).await;
    let app = app_with(&service, client_credentials(&service)).await;
    let bot = app.key("acme", &[Role::Service], None).await;
    for (method, body) in [(Method::GET, None), (Method::PUT, Some(json!({ "clientId": "c" }))), (Method::DELETE, None)]
    {
        assert_eq!(app.send(&bot, method, CLIENT, body.as_ref()).await.problem(403), "forbidden");
    }
    for (body, pointers) in [
        (json!({}), vec!["/clientId"]),
        (json!({ "clientId": "" }), vec!["/clientId"]),
        (json!({ "clientId": "c".repeat(256) }), vec!["/clientId"]),
        (json!({ "clientId": "c", "clientSecret": "" }), vec!["/clientSecret"]),
        (json!({ "clientId": "c", "clientSecret": "s".repeat(16_385) }), vec!["/clientSecret"]),
        (json!({ "clientId": "ö", "clientSecret": "s\n" }), vec!["/clientId", "/clientSecret"]),
    ] {
        assert_eq!(app.send(&app.admin, Method::PUT, CLIENT, Some(&body)).await.pointers(), pointers, "{body}");
    }
    for (id, secret) in [("c".to_owned(), "s".to_owned()), ("c".repeat(255), "s".repeat(16_384))] {
        let edge = json!({ "clientId": id, "clientSecret": secret });
        assert!(app.send(&app.admin, Method::PUT, CLIENT, Some(&edge)).await.status.is_success(), "{id}");
    }
    assert_eq!(secrets(&app).await, 1);
    assert!(app.delete(CLIENT).await.status.is_success());
    assert_eq!(secrets(&app).await, 0);
    let slack = app.get("/api/plugin-engine/integrations/slack/client").await.json();
    assert_eq!((&slack["source"], &slack["clientId"]), (&json!("stand_in"), &json!("playground")));
    let redirect = format!("http://{}/api/plugin-engine/oauth/callback/slack", app.address);
    assert_eq!(slack["redirectUri"], redirect);
}

#[tokio::test]
async fn failing_refresh_backs_off_for_four_days() {
    let board = Switchboard::default();
    let service = service(&board).await;
    let app = app_with(&service, client_credentials(&service)).await;
    sign_in(&app).await;
    let tries = || service.calls().iter().filter(|call| *call == "POST /token").count();
    let read = async || app.intend("own", "read", json!({ "path": "me" })).await;

    // Within the margin the token is still valid, even if the provider fails.
    board.tokens.store(503, Ordering::SeqCst);
    app.clock.advance(3600 - 300);
    read().await.data();
    read().await.data();
    assert_eq!(tries(), 2, "it was tried again at once");
    let shown = &accounts(&app, "own", "admin").await[0];
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("error"), &json!("refresh_failing")), "{shown}");
    assert_eq!(shown["lastError"]["message"], "the provider answered with HTTP 503", "{shown}");
    app.clock.advance(300);

    // 30 s after the first failure, then twice as long each time, and an hour at most.
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let before = tries();
        let failed = read().await;
        assert_eq!(failed.failure(), "unavailable");
        assert!(tries() - before <= 1);
        let wait = failed.json()["error"]["retryAfter"].as_i64().unwrap();
        app.clock.advance(wait - 1);
        let (before, early) = (tries(), read().await.json()["error"]["retryAfter"].clone());
        assert_eq!((tries(), early), (before, json!(1)), "it was tried before its time");
        pauses.push(wait);
        app.clock.advance(1);
    }
    // The first of them was 30 s after a failure that lies 300 s back.
    assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]);

    // It comes back by itself...
    board.tokens.store(0, Ordering::SeqCst);
    read().await.data();
    let shown = &accounts(&app, "own", "admin").await[0];
    assert_eq!((&shown["state"], shown.get("reason")), (&json!("active"), None), "{shown}");

    // ...unless nothing helps for four days. One failure of long ago says nothing about the time since.
    board.tokens.store(400, Ordering::SeqCst);
    app.clock.advance(3600);
    assert!(read().await.json()["message"].as_str().unwrap().contains("invalid_client"));
    app.clock.advance(5 * 86_400);
    for _ in 0..4 {
        assert_eq!(read().await.failure(), "unavailable");
        app.clock.advance(86_400);
    }
    let expired = read().await;
    assert_eq!(expired.failure(), "reconnect_required");
    assert!(expired.json()["message"].as_str().unwrap().contains("four days"), "{}", expired.text);
    let shown = &accounts(&app, "own", "admin").await[0];
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("expired"), &json!("refresh_failed")), "{shown}");
    board.tokens.store(0, Ordering::SeqCst);
    let before = tries();
    assert_eq!(read().await.failure(), "reconnect_required");
    assert_eq!(tries(), before, "an expired account was renewed");
    let kinds: Vec<_> = app.events.lock().unwrap().iter().map(|event| event.kind).collect();
    let failed = kinds.iter().filter(|kind| **kind == "integration.failed").count();
    assert_eq!(failed, 4, "each series of failures is told once, and its end: {kinds:?}");
    app.post(CONNECT, &json!({})).await.json();
    read().await.data();
}

#[tokio::test]
async fn refused_credential_is_refreshed_once() {
    let board = Switchboard::default();
    let service = service(&board).await;
    let app = app_with(&service, client_credentials(&service)).await;
    sign_in(&app).await;
    board.service.store(401, Ordering::SeqCst);
    let read = async || app.intend("own", "read", json!({ "path": "me" })).await;
    // The provider issued this token within the minute: a new one would not help.
    let answer = read().await;
    assert_eq!((answer.failure().as_str(), &answer.json()["metadata"]["attempts"]), ("reconnect_required", &json!(1)));
    app.clock.advance(60);
    let answer = read().await;
    assert_eq!((answer.failure().as_str(), &answer.json()["metadata"]["attempts"]), ("reconnect_required", &json!(2)));
    assert_eq!(board.given.load(Ordering::SeqCst), 2);
    let shown = &accounts(&app, "own", "admin").await[0];
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("reconnect_required"), &json!("refused")), "{shown}");
    // A service that thinks better of it is believed.
    board.service.store(0, Ordering::SeqCst);
    read().await.data();
    assert_eq!(accounts(&app, "own", "admin").await[0]["state"], "active");
}

#[tokio::test]
async fn one_account_is_the_default() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let connect = "/api/plugin-engine/integrations/slack/connect";
    for alias in ["work", "home"] {
        let token = format!("xoxb-of-{alias}");
        let connected = app.post(connect, &json!({ "token": token, "alias": alias })).await.json();
        assert_eq!(connected["default"], json!(alias == "work"), "the first one is");
    }
    let sends = async || app.intend("slack", "send", json!({ "channel": "#general", "text": "hello" })).await;
    app.playground.accept_token(Service::Slack, "xoxb-of-home");
    assert_eq!(sends().await.failure(), "reconnect_required");
    let default = "/api/plugin-engine/integrations/slack/default";
    let made = app.send(&app.admin, Method::PUT, default, Some(&json!({ "alias": "home" }))).await.json();
    assert_eq!((&made["alias"], &made["default"]), (&json!("home"), &json!(true)));
    sends().await.data();
    let unknown = app.send(&app.admin, Method::PUT, default, Some(&json!({ "alias": "elsewhere" }))).await;
    assert_eq!(unknown.problem(404), "not_found");
    // Without a name the default goes; then the other one is.
    let gone = app.delete("/api/plugin-engine/integrations/slack").await.json();
    assert_eq!((&gone["alias"], &gone["revoked"]), (&json!("home"), &json!(false)), "{gone}");
    assert!(gone["notRevokedBecause"].as_str().unwrap().contains("by hand"));
    assert_eq!(accounts(&app, "slack", "admin").await[0]["default"], json!(true));
    let gone = app.delete("/api/plugin-engine/integrations/slack?alias=work").await.json();
    assert_eq!(gone["alias"], "work");
    assert_eq!(app.delete("/api/plugin-engine/integrations/slack").await.problem(404), "not_found");
}

#[tokio::test]
async fn owner_has_at_most_20_accounts_at_a_plugin() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let connect = "/api/plugin-engine/integrations/slack/connect";
    for number in 0..20 {
        let body = json!({ "token": "xoxb-playground", "alias": format!("a{number}") });
        assert!(app.post(connect, &body).await.status.is_success(), "{number}");
    }
    let one_more = json!({ "token": "xoxb-playground", "alias": "one-more" });
    assert_eq!(app.post(connect, &one_more).await.pointers(), ["/alias"]);
    assert_eq!(secrets(&app).await, 20);
    // One of them may be replaced, and one less makes room.
    assert!(app.post(connect, &json!({ "token": "xoxb-playground", "alias": "a7" })).await.status.is_success());
    app.delete("/api/plugin-engine/integrations/slack?alias=a3").await.json();
    assert!(app.post(connect, &one_more).await.status.is_success());
}

#[tokio::test]
async fn own_account_has_precedence() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let connect = "/api/plugin-engine/integrations/slack/connect";
    let path = "/api/plugin-engine/integrations/slack";
    let ann = app.key("acme", &[Role::User], Some("ann")).await;
    let shared = json!({ "token": "xoxb-playground", "owner": "organization", "alias": "team" });
    assert_eq!(app.send(&ann, Method::POST, connect, Some(&shared)).await.problem(403), "forbidden");
    assert_eq!(app.post(connect, &shared).await.json()["owner"], "organization");
    let send = async |integration: Option<&str>| {
        let mut intent =
            json!({ "tool": "slack", "intent": "send", "context": { "channel": "#general", "text": "hello" } });
        if let Some(alias) = integration {
            intent["integration"] = json!(alias);
        }
        app.send(&ann, Method::POST, "/api/plugin-engine", Some(&intent)).await
    };
    send(None).await.data();
    send(Some("team")).await.data();
    app.send(&ann, Method::POST, connect, Some(&json!({ "token": "xoxb-of-ann-gone" }))).await.json();
    assert_eq!(send(None).await.failure(), "reconnect_required");
    send(Some("team")).await.data();
    let both = app.send(&ann, Method::GET, path, None).await.json()["accounts"].clone();
    let owners: Vec<_> = both.as_array().unwrap().iter().map(|account| account["owner"].clone()).collect();
    assert_eq!(owners, [json!("user"), json!("organization")]);
    let theirs = format!("{path}?owner=organization");
    assert_eq!(app.send(&ann, Method::DELETE, &theirs, None).await.problem(403), "forbidden");
    let default = json!({ "alias": "team", "owner": "organization" });
    assert_eq!(app.send(&ann, Method::PUT, &format!("{path}/default"), Some(&default)).await.problem(403), "forbidden");
    // Nor may she list another user's accounts.
    for request in [format!("{path}?userId=admin"), "/api/plugin-engine/integrations?userId=admin".to_owned()] {
        assert_eq!(app.send(&ann, Method::GET, &request, None).await.problem(403), "forbidden");
    }
    assert_eq!(app.delete(&theirs).await.json()["alias"], "team");
}

#[tokio::test]
async fn account_list_has_every_account_once() {
    let app = App::start().await;
    app.post("/api/plugin-engine/integrations/slack/connect", &json!({ "token": "xoxb-playground", "alias": "b" }))
        .await;
    for plugin in ["gmail", "notion"] {
        let body = json!({ "token": "some-token", "owner": "organization" });
        app.post(&format!("/api/plugin-engine/integrations/{plugin}/connect"), &body).await.json();
    }
    for limit in [1, 2, 3, 4, 100] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app.get(&format!("/api/plugin-engine/integrations?limit={limit}{cursor}")).await.json();
            for account in page["integrations"].as_array().unwrap() {
                assert!(!account.to_string().contains("xoxb-"), "{account}");
                seen.push(format!("{} {} {}", account["owner"], account["plugin"], account["alias"]).replace('"', ""));
            }
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let all = [
            "user gmail default",
            "user notion default",
            "user slack b",
            "user slack default",
            "organization gmail default",
            "organization notion default",
        ];
        assert_eq!(seen, all, "{limit}");
    }
    for wrong in ["limit=0", "limit=101", "cursor=x", "cursor=", "cursor=u%21", "user=ann"] {
        let answer = app.get(&format!("/api/plugin-engine/integrations?{wrong}")).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{wrong}");
    }
}
