use overseer_engine::access::principal::Role;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{INTENTS, hello};
use crate::support::app::{Answer, App};

/// Sends an intent with these headers and no others.
async fn with_headers(app: &App, headers: &[(&str, &str)]) -> Answer {
    let mut request = app.request(Method::POST, INTENTS).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.body(hello().to_string()).send().await.unwrap()).await
}

#[tokio::test]
async fn request_without_a_bearer_key_is_unauthenticated() {
    let app = App::start().await;
    let basic = "Basic YWRtaW46YWRtaW4=";
    let raw = app.admin.clone();
    let other = format!("Token {}", app.admin);
    let joined = format!("Bearer{}", app.admin);
    for headers in [
        vec![],
        vec![("authorization", "")],
        vec![("authorization", "Bearer")],
        vec![("authorization", basic)],
        vec![("authorization", raw.as_str())],
        vec![("authorization", other.as_str())],
        vec![("authorization", joined.as_str())],
        vec![("x-api-key", raw.as_str())],
        vec![("x-organization-id", "acme")],
        vec![("cookie", raw.as_str())],
    ] {
        let answer = with_headers(&app, &headers).await;
        assert_eq!(answer.problem(401), "unauthenticated", "{headers:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    for path in [INTENTS, "/api/v1/keys"] {
        let answer = Answer::of(app.request(Method::GET, path).send().await.unwrap()).await;
        assert_eq!(answer.problem(401), "unauthenticated");
    }
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn bad_key_is_unauthenticated() {
    let app = App::start().await;
    let (id, secret) = app.admin.strip_prefix("ovs_").unwrap().split_once('_').unwrap();
    let flipped = if secret.starts_with('0') { "1" } else { "0" };
    let huge = "x".repeat(10_000);
    for key in [
        "ovs".to_owned(),
        "ovs_".to_owned(),
        "ovs__".to_owned(),
        format!("ovs_{id}"),
        format!("ovs_{id}_"),
        format!("ovs__{secret}"),
        format!("ovs_{id}_{secret}_"),
        format!("ovs_{id}_{secret}_more"),
        format!("ovs_{id}_{secret}0"),
        format!("ovs_{id}_{}", secret.to_uppercase()),
        format!("ovs_{id}_{}", secret.split_at(secret.len() - 1).0),
        format!("ovs_{id}_{flipped}{}", secret.split_at(1).1),
        format!("OVS_{id}_{secret}"),
        format!("{id}_{secret}"),
        format!("ovs_{}_{secret}", id.to_uppercase()),
        format!("ovs_0123456789abcdef_{secret}"),
        format!("ovs_{huge}_{secret}"),
        format!("ovs_{id}_{huge}"),
        format!("ovs_{id}#key_{secret}"),
        format!("ovs_{id} {secret}"),
        format!("ovs_../{id}_{secret}"),
        "null".to_owned(),
        "\"".to_owned(),
    ] {
        let answer = app.send(&key, Method::POST, INTENTS, Some(&hello())).await;
        assert_eq!(answer.problem(401), "unauthenticated", "{key}");
        assert!(!answer.text.contains(secret) && !answer.text.contains(id), "{}", answer.text);
    }
    let request = app.request(Method::GET, INTENTS).header("authorization", &b"Bearer ovs_\xff\xfe"[..]);
    assert_eq!(Answer::of(request.send().await.unwrap()).await.problem(401), "unauthenticated");
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn scheme_is_case_insensitive() {
    let app = App::start().await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {}", app.admin);
        with_headers(&app, &[("authorization", value.as_str())]).await.data();
    }
}

#[tokio::test]
async fn organization_header_must_match_the_key() {
    let app = App::start().await;
    let other = app.key("other", &[Role::Administrator], Some("admin")).await;
    let (own, foreign) = (format!("Bearer {}", app.admin), format!("Bearer {other}"));
    with_headers(&app, &[("authorization", &own), ("x-organization-id", "acme")]).await.data();
    for (key, org) in
        [(&own, "other"), (&own, ""), (&own, "ACME"), (&own, "acme2"), (&own, "acme, other"), (&foreign, "acme")]
    {
        let answer = with_headers(&app, &[("authorization", key), ("x-organization-id", org)]).await;
        assert_eq!(answer.problem(403), "forbidden", "{org}");
    }
    assert_eq!(app.playground.received_total(), 1);
}

#[tokio::test]
async fn repeated_organization_header_must_match_each_time() {
    let app = App::start().await;
    let own = format!("Bearer {}", app.admin);
    for (first, second) in [("other", "acme"), ("acme", "other")] {
        let twice = [("authorization", own.as_str()), ("x-organization-id", first), ("x-organization-id", second)];
        assert_eq!(with_headers(&app, &twice).await.problem(403), "forbidden");
    }
}

#[tokio::test]
async fn key_decides_whose_account_is_used() {
    let app = App::start().await;
    let user = app.key("acme", &[Role::User], Some("ann")).await;
    let service = app.key("acme", &[Role::Service], None).await;
    let bound = app.key("acme", &[Role::Service], Some("ann")).await;
    let token = json!({ "token": "xoxb-playground" });
    let path = "/api/plugin-engine/integrations/slack/connect";
    assert_eq!(app.send(&user, Method::POST, path, Some(&token)).await.json()["userId"], "ann");
    for (key, user_id, expected) in [
        (&user, None, Ok("ann")),
        (&user, Some("ann"), Ok("ann")),
        (&user, Some("admin"), Err(403)),
        (&user, Some("Ann"), Err(403)),
        (&service, Some("ann"), Ok("ann")),
        (&service, Some("admin"), Ok("admin")),
        (&service, None, Err(400)),
        (&bound, None, Ok("ann")),
        (&bound, Some("admin"), Ok("admin")),
        (&app.admin, Some("ann"), Ok("ann")),
    ] {
        let mut body = hello();
        if let Some(user_id) = user_id {
            body["userId"] = json!(user_id);
        }
        let before = app.playground.received_total();
        let answer = app.send(key, Method::POST, INTENTS, Some(&body)).await;
        match expected {
            Ok(_) => drop(answer.data()),
            Err(403) => assert_eq!(answer.problem(403), "forbidden"),
            Err(status) => {
                assert_eq!(answer.problem(status), "invalid_parameters");
                assert_eq!(answer.pointers(), ["/userId"]);
            }
        }
        assert_eq!(app.playground.received_total() - before, u64::from(expected.is_ok()), "{user_id:?}");
    }
    // A service key may act for a user without an account, who is not connected.
    let mut body = hello();
    body["userId"] = json!("nobody");
    assert_eq!(app.send(&service, Method::POST, INTENTS, Some(&body)).await.failure(), "not_connected");
    // The key also decides for whom an account may be connected.
    for (key, status) in [(&user, StatusCode::FORBIDDEN), (&service, StatusCode::OK), (&app.admin, StatusCode::OK)] {
        let body = json!({ "token": "xoxb-playground", "userId": "bob" });
        assert_eq!(app.send(key, Method::POST, path, Some(&body)).await.status, status);
    }
}

#[tokio::test]
async fn bad_key_is_reported_before_a_bad_body() {
    let app = App::start().await;
    let request = app.request(Method::POST, INTENTS).header("content-type", "text/plain").body("not json");
    assert_eq!(Answer::of(request.send().await.unwrap()).await.problem(401), "unauthenticated");
}

#[tokio::test]
async fn two_authorization_headers_are_refused() {
    let app = App::start().await;
    let own = format!("Bearer {}", app.admin);
    for other in [own.as_str(), "Bearer x", "Basic eA=="] {
        let answer = with_headers(&app, &[("authorization", &own), ("authorization", other)]).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{other}");
    }
}

#[tokio::test]
async fn refused_upload_is_read_before_the_answer() {
    let app = App::start().await;
    let upload = vec![b'x'; 4 * 1024 * 1024];
    for path in ["/plugins", INTENTS] {
        // A client that writes all of its request before it reads the answer.
        let head = format!("POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n", app.address, upload.len());
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&upload).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 401", "{path}");
    }
}
