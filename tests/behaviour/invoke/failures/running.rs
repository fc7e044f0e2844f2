//! Overseer completes a started run, also after the client hangs up.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::any;
use overseer_http::{intent, service};
use serde_json::json;
use tokio::sync::Notify;
use tower::ServiceExt as _;

use crate::support::own::OwnService;

#[tokio::test]
async fn work_continues_after_client_hangup() {
    let (arrived, gate, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
    let slow = {
        let (arrived, gate, done) = (arrived.clone(), gate.clone(), done.clone());
        async move || {
            arrived.notify_one();
            gate.notified().await;
            done.fetch_add(1, Ordering::SeqCst);
            "{}"
        }
    };
    let own = OwnService::start(Router::new().fallback(any(slow))).await;
    let app = own.app().await;
    let body = json!({ "tool": "own", "intent": "act", "context": { "path": "x" } });
    let request = Request::post("/api/plugin-engine")
        .header("authorization", format!("Bearer {}", app.admin))
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();

    // A server drops the future of a request whose client is gone.
    let answering = service(app.engine.clone(), intent::routes()).oneshot(request);
    tokio::select! {
        answer = answering => panic!("Overseer answered before the service did: {answer:?}"),
        () = arrived.notified() => {}
    }
    let mut finishing = pin!(app.engine.drain());
    assert!(futures_util::poll!(&mut finishing).is_pending(), "Overseer dropped the call with its client");
    gate.notify_one();
    finishing.await;
    assert_eq!(done.load(Ordering::SeqCst), 1);
    assert_eq!(own.calls(), ["POST /x"]);
}

#[tokio::test]
async fn drain_without_work_returns_at_once() {
    let app = OwnService::start(Router::new()).await.app().await;
    app.intend("slack", "send", json!({ "channel": "C0PLAYGEN1", "text": "hello" })).await.data();
    assert!(futures_util::poll!(pin!(app.engine.drain())).is_ready());
}
