//! The addresses that calls may reach, and the headers that they carry.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse as _;
use axum::routing::{any, get, post};
use overseer_engine::outbound::address::AllowedAddress;
use serde_json::json;
use tokio::net::TcpListener;

use super::failed;
use crate::support::app::{Answer, App, Options};
use crate::support::own::{OwnService, TOKEN, manifest};

async fn read(app: &App, path: &str) -> Answer {
    app.intend("own", "read", json!({ "path": path })).await
}

async fn act(app: &App, path: &str) -> Answer {
    app.intend("own", "act", json!({ "path": path })).await
}

/// A port without a listener.
async fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

async fn plugin_at(base_url: &str, allowed: Vec<AllowedAddress>) -> App {
    let plugins = vec![manifest(base_url, &crate::support::app::oauth2())];
    let app = App::with(Options { plugins, allowed, ..Options::default() }).await;
    app.connect("own", TOKEN).await;
    app
}

#[tokio::test]
async fn unreachable_service_is_retryable_for_every_action() {
    let address = closed_port().await;
    let app = plugin_at(&format!("http://{address}"), vec![AllowedAddress::Socket(address)]).await;
    failed(&read(&app, "x").await, "unavailable", true);
    // Overseer sent nothing: a retry is safe.
    failed(&act(&app, "x").await, "unavailable", true);
}

#[tokio::test]
async fn local_address_is_refused_before_connecting() {
    let service = OwnService::start(Router::new().fallback(async || "{}")).await;
    let other = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    for allowed in [vec![], vec![AllowedAddress::Socket(other)]] {
        let app = plugin_at(&format!("http://{}", service.address), allowed).await;
        for answer in [read(&app, "x").await, act(&app, "x").await] {
            let error = failed(&answer, "unavailable", false);
            assert!(error["message"].as_str().unwrap().contains("OVERSEER_ALLOW_ADDRESSES"), "{error}");
            assert_eq!(answer.json()["metadata"]["attempts"], json!(0), "the service was not called");
        }
    }
    assert_eq!(service.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn host_resolving_to_a_local_address_is_refused() {
    let service = OwnService::start(Router::new().fallback(async || "{}")).await;
    let port = service.address.port();
    // An allowed socket counts only where a URL has it literally.
    for allowed in [vec![], vec![AllowedAddress::Socket(service.address)]] {
        for base_url in [format!("https://localhost:{port}"), format!("https://LOCALHOST:{port}/")] {
            let plugins = vec![manifest(&base_url.to_lowercase(), &crate::support::app::oauth2())];
            let options = Options { plugins, allowed: allowed.clone(), ..Options::default() };
            let app = App::with(options).await;
            app.connect("own", TOKEN).await;
            let error = failed(&act(&app, "x").await, "unavailable", false);
            assert!(error["message"].as_str().unwrap().contains("OVERSEER_ALLOW_ADDRESSES"), "{error}");
        }
    }
    assert_eq!(service.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn redirect_within_the_service_keeps_the_credential() {
    let routes = Router::new()
        .route("/old", any(async || (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/new")])))
        .route("/new", any(async || "{\"new\":true}"));
    let service = OwnService::start(routes).await;
    let app = service.app().await;
    assert_eq!(read(&app, "old").await.data(), json!({ "new": true }));
    assert_eq!(act(&app, "old").await.data(), json!({ "new": true }));
    assert_eq!(service.calls(), ["GET /old", "GET /new", "POST /old", "POST /new"]);
    for headers in service.headers() {
        assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
    }
}

#[tokio::test]
async fn endless_redirect_ends() {
    let service = OwnService::start_with(|address| {
        let place = format!("http://{address}/round");
        Router::new().route("/round", any(async move || (StatusCode::FOUND, [(LOCATION, place)])))
    })
    .await;
    failed(&read(&service.app().await, "round").await, "unavailable", false);
    assert!(service.calls().len() < 20, "{}", service.calls().len());
}

#[tokio::test]
async fn redirect_to_another_origin_is_never_followed() {
    let other = OwnService::start(Router::new().fallback(async || "{}")).await;
    let port = other.address.port();
    let service = OwnService::start_with(|_| {
        let to = |place: String| any(async move || (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, place)]));
        Router::new()
            .route("/port", to(format!("http://127.0.0.1:{port}/x")))
            .route("/name", to(format!("http://localhost:{port}/x")))
            .route("/schemeless", to(format!("//127.0.0.1:{port}/x")))
            .route("/user", to(format!("http://127.0.0.1@127.0.0.1:{port}/x")))
            .route("/first", to("/port".to_owned()))
            .route("/file", to("file:///etc/passwd".to_owned()))
    })
    .await;
    // The operator allows the other origin for calls of its own.
    let auth = json!({ "type": "api_key", "header": "x-key" });
    let plugins = vec![manifest(&format!("http://{}", service.address), &auth)];
    let allowed = vec![AllowedAddress::Socket(service.address), AllowedAddress::Socket(other.address)];
    let app = App::with(Options { plugins, allowed, ..Options::default() }).await;
    app.connect("own", TOKEN).await;
    for path in ["port", "name", "schemeless", "user", "first", "file"] {
        failed(&read(&app, path).await, "unavailable", false);
        failed(&act(&app, path).await, "unavailable", false);
    }
    assert_eq!(other.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn credential_uses_the_declared_header() {
    for (auth, header, value) in [
        (crate::support::app::oauth2(), "authorization", format!("Bearer {TOKEN}")),
        (json!({ "type": "api_key" }), "authorization", TOKEN.to_owned()),
        (json!({ "type": "api_key", "header": "X-Api-Key" }), "x-api-key", TOKEN.to_owned()),
        (json!({ "type": "api_key", "prefix": "Token " }), "authorization", format!("Token {TOKEN}")),
        (json!({ "type": "api_key", "header": "x-auth", "prefix": "key=" }), "x-auth", format!("key={TOKEN}")),
    ] {
        let service = OwnService::start(Router::new().fallback(async || "{}")).await;
        let app = service.app_with(&auth, Options::default()).await;
        read(&app, "x").await.data();
        act(&app, "x").await.data();
        for headers in service.headers() {
            assert_eq!(headers[header], value, "{auth}");
            let with_token = headers.values().filter(|value| value.to_str().is_ok_and(|text| text.contains(TOKEN)));
            assert_eq!(with_token.count(), 1, "{auth}");
        }
    }
}

#[tokio::test]
async fn service_without_accounts_gets_no_credential() {
    let service = OwnService::start(Router::new().fallback(async || "{}")).await;
    let app = service.app_with(&json!({ "type": "none" }), Options::default()).await;
    read(&app, "x").await.data();
    act(&app, "x").await.data();
    for headers in service.headers() {
        assert_eq!(headers.get("authorization"), None);
        assert_eq!(headers.get("cookie"), None);
    }
}

#[tokio::test]
async fn unauthorized_answer_without_accounts_is_rejected() {
    let service = OwnService::start(Router::new().fallback(async || StatusCode::UNAUTHORIZED)).await;
    let app = service.app_with(&json!({ "type": "none" }), Options::default()).await;
    assert_eq!(read(&app, "x").await.failure(), "rejected");
}

#[tokio::test]
async fn caller_headers_are_not_forwarded() {
    let routes = Router::new().route("/x", get(async || "{}")).route("/y", post(async || "{}"));
    let service = OwnService::start(routes).await;
    let app = service.app().await;
    let body = json!({ "tool": "own", "intent": "read", "context": { "path": "x" }, "agentId": "agent_1" });
    let answer = app
        .request(reqwest::Method::POST, "/api/plugin-engine")
        .bearer_auth(&app.admin)
        .header("content-type", "application/json")
        .header("cookie", "session=1")
        .header("x-forwarded-for", "1.2.3.4")
        .header("referer", "http://localhost/secret")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    Answer::of(answer).await.data();
    let headers = service.headers().remove(0);
    let names: Vec<_> = headers.keys().map(reqwest::header::HeaderName::as_str).collect();
    for name in &names {
        assert!(["accept", "authorization", "host", "user-agent"].contains(name), "{names:?}");
    }
    assert!(!format!("{headers:?}").contains(&app.admin));
}

#[tokio::test]
async fn path_value_stays_in_its_segment() {
    let service = OwnService::start(Router::new().fallback(async || "{}".into_response())).await;
    let app = service.app().await;
    for (path, expected) in [
        ("a/b", "GET /a%2Fb"),
        ("a?b=c", "GET /a%3Fb%3Dc"),
        ("a#b", "GET /a%23b"),
        ("%2e%2e", "GET /%252e%252e"),
        ("é \\", "GET /%C3%A9%20%5C"),
        ("@evil.example", "GET /%40evil.example"),
    ] {
        read(&app, path).await.data();
        assert_eq!(service.calls().pop().as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn dot_segment_is_refused() {
    let service = OwnService::start(Router::new().fallback(async || "{}".into_response())).await;
    let app = service.app().await;
    for path in [".", ".."] {
        let answer = read(&app, path).await;
        assert_eq!(answer.problem(400), "invalid_parameters");
        assert!(answer.pointers().iter().all(|pointer| pointer.starts_with("/context")), "{:?}", answer.pointers());
    }
    assert_eq!(service.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn mistyped_path_value_is_refused() {
    let service = OwnService::start(Router::new().fallback(async || "{}".into_response())).await;
    let app = service.app().await;
    assert_eq!(app.intend("own", "read", json!({ "path": 5 })).await.pointers(), ["/context/path"]);
    assert_eq!(service.calls(), Vec::<String>::new());
}
