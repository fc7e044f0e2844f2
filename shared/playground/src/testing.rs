//! Shared by the tests of this crate: a playground with its own clock, and a small client.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Clock, Playground, Service};

pub(crate) const START: i64 = 1_800_000_000;
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

pub(crate) struct Bench {
    pub(crate) playground: Playground,
    time: Arc<AtomicI64>,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::start(Playground::new)
    }

    pub(crate) fn with_key(key: [u8; 32]) -> Self {
        Self::start(|clock| Playground::with_key(clock, key))
    }

    fn start(make: impl FnOnce(Clock) -> Playground) -> Self {
        let time = Arc::new(AtomicI64::new(START));
        let clock = Arc::clone(&time);
        Self { playground: make(Arc::new(move || clock.load(Ordering::Relaxed))), time }
    }

    pub(crate) fn wait(&self, seconds: i64) {
        self.time.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.playground.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        assert!(parts.headers["server"].to_str().unwrap().contains("stand-in"));
        Reply { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// A vendor call with a token and, unless it is `Null`, a JSON body.
    pub(crate) async fn call(&self, service: Service, method: &str, path: &str, token: &str, body: Value) -> Reply {
        let authorization = format!("Bearer {token}");
        let headers = [
            (AUTHORIZATION.as_str(), authorization.as_str()),
            (CONTENT_TYPE.as_str(), "application/json"),
            ("notion-version", "2022-06-28"),
        ];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, &format!("{}/{path}", service.base_path()), &headers, body).await
    }

    pub(crate) async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let body = serde_urlencoded::to_string(fields).unwrap();
        self.send("POST", path, &[(CONTENT_TYPE.as_str(), FORM)], body).await
    }

    pub(crate) async fn slack(&self, method: &str, body: Value) -> Reply {
        self.call(Service::Slack, "POST", method, "xoxb-playground", body).await
    }

    pub(crate) async fn gmail(&self, method: &str, path: &str, body: Value) -> Reply {
        self.call(Service::Gmail, method, &format!("users/me/{path}"), "ya29.playground", body).await
    }

    pub(crate) async fn notion(&self, method: &str, path: &str, body: Value) -> Reply {
        self.call(Service::Notion, method, path, "ntn_playground", body).await
    }

    pub(crate) async fn switch(&self, service: Service, mode: &str, calls: u32) {
        let body = json!({"service": service, "mode": mode, "calls": calls}).to_string();
        let reply =
            self.send("POST", "/playground/switches", &[(CONTENT_TYPE.as_str(), "application/json")], body).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    }
}
