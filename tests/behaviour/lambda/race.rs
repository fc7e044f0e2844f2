//! The refresh race with 8 processes of the intent function, which share only AWS: 200 concurrent intents with one expired
//! token. The provider accepts each refresh token once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{App, Options, connected_two_hours_ago};

const PROCESSES: usize = 8;
const INTENTS: usize = 200;

/// A proxy before the playground's token endpoint, which counts refreshes.
#[derive(Clone, Default)]
struct Counter {
    to: Arc<OnceLock<String>>,
    renewals: Arc<AtomicUsize>,
    client: reqwest::Client,
}

async fn pass_on(State(counter): State<Counter>, mut headers: HeaderMap, body: Bytes) -> Response {
    if String::from_utf8_lossy(&body).contains("grant_type=refresh_token") {
        counter.renewals.fetch_add(1, Ordering::SeqCst);
    }
    headers.remove("host");
    let request = counter.client.post(counter.to.get().unwrap()).headers(headers).body(body);
    let answer = request.send().await.unwrap();
    let (status, kind) = (answer.status(), answer.headers()["content-type"].clone());
    (status, [("content-type", kind)], answer.bytes().await.unwrap()).into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the counts are what is to be seen")]
async fn eight_processes_renew_a_token_once() {
    let counter = Counter::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tokens = listener.local_addr().unwrap();
    let routes = Router::new().route("/token", post(pass_on)).with_state(counter.clone());
    tokio::spawn(axum::serve(listener, routes).into_future());
    let options = Options {
        unconnected: true,
        slack_tokens: format!("http://{tokens}/token").parse().ok(),
        allowed: vec![tokens.to_string().parse().unwrap()],
        ..Options::default()
    };
    let mut app = App::on_lambdas(options, "secrets-manager").await;
    app.admin = app.key("acme", &[overseer_engine::access::principal::Role::Administrator], Some("admin")).await;
    let stand_in = app.engine.config.stand_ins.values().find(|one| one.base_url.path().contains("slack")).unwrap();
    let own = stand_in.authorization_url.join("token").unwrap();
    counter.to.set(own.to_string()).unwrap();

    connected_two_hours_ago(&app, "slack", "admin").await;
    app.lambdas().gateway.processes("intent", PROCESSES).await;

    let app = Arc::new(app);
    let mut running = JoinSet::new();
    for _ in 0..INTENTS {
        let app = app.clone();
        running.spawn(async move {
            let outcome = app.intend("slack", "fetch", json!({ "channel": "C0PLAYGEN1" })).await.json();
            outcome["success"].as_bool().unwrap().then_some(()).ok_or(outcome)
        });
    }
    let ended = running.join_all().await;
    let failed: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
    println!(
        "{PROCESSES} processes, {INTENTS} intents: {} failed, {} renewals",
        failed.len(),
        counter.renewals.load(Ordering::SeqCst)
    );
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(counter.renewals.load(Ordering::SeqCst), 1);
}
