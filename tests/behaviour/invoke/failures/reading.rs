//! How Overseer reads a service's answers.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::any;
use futures_util::stream;
use serde_json::{Value, json};

use super::failed;
use crate::support::app::{Answer, App};
use crate::support::own::OwnService;

const LIMIT: usize = 4 * 1024 * 1024;

async fn read(app: &App, path: &str) -> Answer {
    app.intend("own", "read", json!({ "path": path })).await
}

/// A JSON string of that many bytes.
fn sized(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// Without a length, in pieces.
fn chunked(text: &str) -> Response {
    let pieces: Vec<_> = text.as_bytes().chunks(100_000).map(<[u8]>::to_vec).collect();
    Response::new(Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>))))
}

#[tokio::test]
async fn answer_is_limited_to_four_mebibytes() {
    let routes = Router::new()
        .route("/exact", any(async || sized(LIMIT)))
        .route("/more", any(async || sized(LIMIT + 1)))
        .route("/chunked", any(async || chunked(&sized(LIMIT))))
        .route("/chunked-more", any(async || chunked(&sized(LIMIT + 1))))
        .route(
            "/endless",
            any(async || {
                Response::new(Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 65_536]))))
            }),
        );
    let app = OwnService::start(routes).await.app().await;
    for path in ["exact", "chunked"] {
        assert_eq!(read(&app, path).await.data().as_str().unwrap().len(), LIMIT - 2, "{path}");
    }
    for path in ["more", "chunked-more", "endless"] {
        failed(&read(&app, path).await, "unavailable", false);
        failed(&app.intend("own", "act", json!({ "path": path })).await, "unavailable", false);
    }
}

#[tokio::test]
async fn byte_limit_covers_all_pages_of_an_intent() {
    let page = |next: Option<&str>| json!({ "items": ["x".repeat(LIMIT / 2)], "next": next }).to_string();
    let (first, second) = (page(Some("2")), page(None));
    let routes = Router::new().route(
        "/list",
        any(async move |request: axum::extract::Request| if request.uri().query().is_none() { first } else { second }),
    );
    let service = OwnService::start(routes).await;
    failed(&service.app().await.intend("own", "list", json!({})).await, "unavailable", false);
    assert_eq!(service.calls(), ["GET /list", "GET /list?at=2"]);
}

#[tokio::test]
async fn repeated_page_ends_the_paging() {
    let routes = Router::new().route("/list", any(async || json!({ "items": [], "next": "same" }).to_string()));
    let service = OwnService::start(routes).await;
    service.app().await.intend("own", "list", json!({})).await;
    assert_eq!(service.calls().len(), 2);
}

#[tokio::test]
async fn paging_ends_after_a_hundred_empty_pages() {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let endless = async move || {
        let next = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        json!({ "items": [], "next": next.to_string() }).to_string()
    };
    let service = OwnService::start(Router::new().route("/list", any(endless))).await;
    let data = service.app().await.intend("own", "list", json!({})).await.data();
    assert_eq!(data, json!({ "items": [], "more": true, "next_cursor": "99" }));
    assert_eq!(service.calls().len(), 100);
}

/// An Overseer whose service answers with the status that the path names, and no body.
async fn answering_statuses() -> App {
    let routes = Router::new().route(
        "/{status}",
        any(async |axum::extract::Path(status): axum::extract::Path<u16>| StatusCode::from_u16(status).unwrap()),
    );
    OwnService::start(routes).await.app().await
}

#[tokio::test]
async fn statuses_become_codes() {
    let app = answering_statuses().await;
    for (status, code, read_again, act_again) in [
        (400, "rejected", false, false),
        (401, "reconnect_required", false, false),
        (403, "rejected", false, false),
        (404, "rejected", false, false),
        (408, "timeout", true, false),
        (409, "rejected", false, false),
        (429, "rate_limited", true, true),
        (500, "unavailable", true, false),
        (502, "unavailable", true, false),
        (503, "unavailable", true, false),
        (504, "timeout", true, false),
    ] {
        let context = json!({ "path": status.to_string() });
        failed(&app.intend("own", "read", context.clone()).await, code, read_again);
        failed(&app.intend("own", "act", context).await, code, act_again);
    }
}

#[tokio::test]
async fn success_without_body_gives_null() {
    let app = answering_statuses().await;
    for status in [200, 201, 204] {
        assert_eq!(read(&app, &status.to_string()).await.data(), Value::Null);
    }
}

#[tokio::test]
async fn retry_after_is_read_in_both_forms() {
    let routes = Router::new().route(
        "/{*wait}",
        any(async |axum::extract::Path(wait): axum::extract::Path<String>| {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", wait)])
        }),
    );
    let app = OwnService::start(routes).await.app().await;
    for (wait, seconds) in [
        ("0", Some(0)),
        ("120", Some(120)),
        ("Sat, 21 Nov 2026 09:01:30 GMT", Some(90)),
        ("Sat, 21 Nov 2026 08:00:00 GMT", None),
        ("soon", None),
        ("-5", None),
        ("0.2", Some(1)),
        ("inf", None),
        ("99999999999999999999999", Some(u64::MAX)),
    ] {
        let error = failed(&read(&app, wait).await, "rate_limited", true);
        assert_eq!(error.get("retryAfter").and_then(Value::as_u64), seconds, "{wait}");
    }
}

#[tokio::test]
async fn service_message_is_shortened_to_one_line() {
    let said = json!({ "code": "bad_thing", "message": format!("first\r\nsecond \u{7} {}", "é".repeat(5000)) });
    let routes = Router::new().fallback(async move || (StatusCode::BAD_REQUEST, said.to_string()));
    let app = OwnService::start(routes).await.app().await;
    let error = failed(&read(&app, "x").await, "rejected", false);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("bad_thing") && message.contains("first"), "{message}");
    assert!(message.chars().count() < 500 && !message.chars().any(char::is_control));
}

/// The data of an answer with these bytes.
async fn data_of(bytes: &'static [u8]) -> Value {
    let routes = Router::new().route("/x", any(async move || bytes));
    let app = OwnService::start(routes).await.app().await;
    read(&app, "x").await.data()
}

#[tokio::test]
async fn byte_order_mark_of_an_answer_is_passed_over() {
    assert_eq!(data_of(b"\xef\xbb\xbf{\"a\":1}").await, json!({ "a": 1 }));
}

#[tokio::test]
async fn bad_byte_of_an_answer_costs_its_character() {
    assert_eq!(data_of(b"{\"a\":\"x\xff\",\"b\":1}").await, json!({ "a": "x\u{fffd}", "b": 1 }));
}

#[tokio::test]
async fn lone_surrogate_of_an_answer_costs_its_character() {
    assert_eq!(data_of(br#"{"a":"x\ud83d","b":1}"#).await, json!({ "a": "x\u{fffd}", "b": 1 }));
}

#[tokio::test]
async fn large_integer_of_an_answer_becomes_a_string() {
    assert_eq!(data_of(br#"{"id":18446744073709551616}"#).await, json!({ "id": "18446744073709551616" }));
}

#[tokio::test]
async fn malformed_answers_are_unavailable() {
    let mut html = HeaderMap::new();
    html.insert("content-type", "text/html".parse().unwrap());
    let deep = "[".repeat(100_000);
    let routes = Router::new()
        .route("/html", any(async || (html, "<p>not found</p>")))
        .route("/half", any(async || "{\"a\": [1, 2"))
        .route("/binary", any(async || vec![0_u8, 159, 146, 150]))
        .route("/deep", any(async || deep))
        .route("/two", any(async || "{} {}"));
    let app = OwnService::start(routes).await.app().await;
    for path in ["html", "half", "binary", "deep", "two"] {
        failed(&read(&app, path).await, "unavailable", true);
        failed(&app.intend("own", "act", json!({ "path": path })).await, "unavailable", false);
    }
}

#[tokio::test]
async fn broken_connection_is_unavailable() {
    let broken = async || {
        let pieces = [Ok(b"{\"a\":".to_vec()), Err(std::io::Error::other("gone"))];
        Response::new(Body::from_stream(stream::iter(pieces)))
    };
    let service = OwnService::start(Router::new().fallback(broken)).await;
    let app = service.app().await;
    failed(&read(&app, "x").await, "unavailable", true);
    failed(&app.intend("own", "act", json!({ "path": "x" })).await, "unavailable", false);
    assert_eq!(service.calls(), ["GET /x", "GET /x", "GET /x", "POST /x"], "only reading is tried again");
}

/// The answer to a search that finds these items; the service refuses item 7.
async fn search(items: &[u16]) -> Answer {
    let item = async |axum::extract::Path(item): axum::extract::Path<u16>| {
        let status = if item == 7 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        (status, [("retry-after", "9")], json!({ "number": item }).to_string())
    };
    let list = json!({ "items": items }).to_string();
    let routes = Router::new().route("/list", any(async move || list)).route("/item/{item}", any(item));
    OwnService::start(routes).await.app().await.intend("own", "each", json!({})).await
}

#[tokio::test]
async fn search_keeps_the_order_of_its_parts() {
    let items: Vec<u16> = (10..30).collect();
    let expected: Vec<Value> = items.iter().map(|number| json!({ "number": number })).collect();
    assert_eq!(search(&items).await.data(), json!({ "items": expected, "more": false }));
}

#[tokio::test]
async fn failed_part_fails_the_search() {
    let items: Vec<u16> = (1..9).collect();
    assert_eq!(failed(&search(&items).await, "rate_limited", true)["retryAfter"], json!(9));
}

#[tokio::test]
async fn item_answer_is_read_with_its_item() {
    for (of, good) in [("a", true), ("b", false)] {
        let routes = Router::new()
            .route("/list", any(async || json!({ "items": ["a"] }).to_string()))
            .route("/item/{id}", any(async move || json!({ "of": of }).to_string()));
        let answer = OwnService::start(routes).await.app().await.intend("own", "each", json!({})).await;
        assert_eq!(answer.json()["success"], json!(good), "{}", answer.text);
    }
}
