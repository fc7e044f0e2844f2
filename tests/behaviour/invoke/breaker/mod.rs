//! The breaker: Overseer stops calling a plugin that fails too often, and one trial call brings it back.

mod administering;
mod sparing;
mod tasks;
mod trying;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{LOCATION, RETRY_AFTER};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use futures_util::future::join_all;
use overseer_engine::access::principal::Role;
use overseer_engine::outbound::address::AllowedAddress;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Barrier, Semaphore};

use crate::support::app::{Answer, App, Options};
use crate::support::own::{OwnService, TOKEN, manifest};

const OWN: &str = "/api/v1/plugins/own";

/// An Overseer with the plugin `own`, whose service answers what the path asks for.
struct Setup {
    app: App,
    service: OwnService,
    gate: Arc<Gate>,
}

/// Holds calls back until the test lets them go.
struct Gate {
    arrived: Semaphore,
    may_go: Semaphore,
    together: Barrier,
}

/// How many calls `together` waits for.
const TOGETHER: usize = 50;

async fn answer(State(gate): State<Arc<Gate>>, Path(path): Path<String>) -> Response {
    let status = match path.split_once('-') {
        Some(("held", status)) => {
            gate.arrived.add_permits(1);
            gate.may_go.acquire().await.unwrap().forget();
            status
        }
        Some(("together", status)) => {
            gate.together.wait().await;
            status
        }
        _ => path.as_str(),
    };
    let status = match status {
        "nonsense" => return "<html>".into_response(),
        status => StatusCode::from_u16(status.parse().unwrap()).unwrap(),
    };
    match status {
        // What is beyond the budget is not waited for.
        StatusCode::TOO_MANY_REQUESTS => (status, [(RETRY_AFTER, "3600")], "{}").into_response(),
        // To another origin, where it is not followed.
        StatusCode::FOUND => (status, [(LOCATION, "http://127.0.0.1:1/")]).into_response(),
        status => (status, "{}").into_response(),
    }
}

/// The plugin, with its breaker as `breaker` says.
fn plugin(base_url: &str, breaker: Value, auth: &Value) -> String {
    let mut plugin: Value = serde_json::from_str(&manifest(base_url, auth)).unwrap();
    plugin["breaker"] = breaker;
    plugin.to_string()
}

impl Setup {
    /// With a breaker as it is usually.
    async fn start() -> Self {
        Self::with(json!({}), Options::default()).await
    }

    async fn with(breaker: Value, options: Options) -> Self {
        Self::signing_in(breaker, &json!({ "type": "none" }), options).await
    }

    async fn signing_in(breaker: Value, auth: &Value, options: Options) -> Self {
        let (arrived, may_go) = (Semaphore::new(0), Semaphore::new(0));
        let gate = Arc::new(Gate { arrived, may_go, together: Barrier::new(TOGETHER) });
        let service = OwnService::start(Router::new().route("/{path}", any(answer)).with_state(gate.clone())).await;
        let plugins = vec![plugin(&format!("http://{}", service.address), breaker, auth)];
        let allowed = vec![AllowedAddress::Socket(service.address)];
        let app = App::with(Options { plugins, allowed, ..options }).await;
        if auth["type"] != "none" {
            app.connect("own", TOKEN).await;
        }
        Self { app, service, gate }
    }

    /// An action with an effect; the service answers with the status `path`.
    async fn act(&self, path: &str) -> Answer {
        self.app.intend("own", "act", json!({ "path": path })).await
    }

    async fn read(&self, path: &str) -> Answer {
        self.app.intend("own", "read", json!({ "path": path })).await
    }

    /// As [`Self::act`], with another key and for a user.
    async fn act_as(&self, key: &str, user: &str, path: &str) -> Answer {
        let body = json!({ "tool": "own", "intent": "act", "userId": user, "context": { "path": path } });
        self.app.send(key, Method::POST, "/api/plugin-engine", Some(&body)).await
    }

    /// Fails so often that actions with an effect are out of use.
    async fn open(&self) {
        for _ in 0..5 {
            assert_eq!(self.act("500").await.failure(), "unavailable");
        }
        assert_eq!(self.breaker("write").await["state"], "open");
    }

    /// One of the breakers as it is shown.
    async fn breaker(&self, class: &str) -> Value {
        self.app.get(OWN).await.json()["breaker"][class].take()
    }

    fn calls(&self) -> usize {
        self.service.calls().len()
    }

    /// The events of breakers and plugins so far, each with its detail.
    fn events(&self) -> Vec<(&'static str, Value)> {
        let events = self.app.events.lock().unwrap();
        let ours =
            events.iter().filter(|event| event.kind.starts_with("breaker.") || event.kind.starts_with("plugin."));
        ours.map(|event| (event.kind, event.detail.clone())).collect()
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.events().into_iter().map(|(kind, _)| kind).collect()
    }
}

/// Checks that an intent was answered at once as one that may be sent again after `retry_after`, and gives the error.
#[track_caller]
fn out_of_use(answer: &Answer, retry_after: u64) -> Value {
    assert_eq!(answer.failure(), "disabled", "{}", answer.text);
    let error = answer.json()["error"].take();
    let said = (&error["retryable"], &error["retryAfter"], error.get("mayHaveHappened"));
    assert_eq!(said, (&json!(true), &json!(retry_after), None), "{error}");
    assert_eq!(answer.json()["metadata"]["attempts"], json!(0));
    error
}

/// Five failures, one a second: the breaker opens at 09:00:04.
async fn open_in_four_seconds(setup: &Setup) {
    for second in 0..5 {
        setup.app.clock.advance(i64::from(second > 0));
        assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": second }));
        assert_eq!(setup.act("500").await.failure(), "unavailable");
    }
}

#[tokio::test]
async fn five_failures_within_five_minutes_open_the_breaker() {
    let setup = Setup::start().await;
    open_in_four_seconds(&setup).await;
    out_of_use(&setup.act("200").await, 60);
    setup.app.clock.advance(59);
    out_of_use(&setup.act("200").await, 1);
    assert_eq!(setup.calls(), 5, "an open breaker lets no call through");
}

#[tokio::test]
async fn open_breaker_names_the_time_of_retry() {
    let setup = Setup::start().await;
    open_in_four_seconds(&setup).await;
    let error = out_of_use(&setup.act("200").await, 60);
    assert!(error["message"].as_str().unwrap().contains("2026-11-21T09:01:04Z"), "{error}");
    assert!(error["fallback"].as_str().unwrap().contains("after 60 s"), "{error}");
}

#[tokio::test]
async fn plugin_view_shows_an_open_breaker() {
    let setup = Setup::start().await;
    open_in_four_seconds(&setup).await;
    setup.app.clock.advance(59);
    let shown =
        json!({ "state": "open", "failures": 0, "since": "2026-11-21T09:00:04Z", "retry_at": "2026-11-21T09:01:04Z" });
    assert_eq!(setup.breaker("write").await, shown);
}

#[tokio::test]
async fn opening_emits_an_event() {
    let setup = Setup::start().await;
    open_in_four_seconds(&setup).await;
    out_of_use(&setup.act("200").await, 60);
    let opened = json!({ "tool": "own", "class": "write", "retryAt": "2026-11-21T09:01:04Z" });
    assert_eq!(setup.events(), [("breaker.opened", opened)]);
}

#[tokio::test]
async fn call_at_an_open_breaker_is_recorded_as_failure() {
    let setup = Setup::start().await;
    setup.open().await;
    for _ in 0..2 {
        out_of_use(&setup.act("200").await, 60);
    }
    let errors = setup.app.get("/api/plugin-engine/errors?code=disabled").await.json();
    assert_eq!(errors["errors"].as_array().unwrap().len(), 2, "{errors}");
}

#[tokio::test]
async fn open_breaker_stops_each_user_of_the_organization() {
    let setup = Setup::start().await;
    setup.open().await;
    out_of_use(&setup.act_as(&setup.app.admin, "ben", "200").await, 60);
}

#[tokio::test]
async fn breakers_are_separate_by_organization() {
    let setup = Setup::start().await;
    let other = setup.app.key("other", &[Role::Administrator], Some("admin")).await;
    setup.open().await;
    setup.act_as(&other, "admin", "200").await.data();
    let shown = setup.app.send(&other, Method::GET, OWN, None).await.json();
    assert_eq!(shown["breaker"]["write"], json!({ "state": "closed", "failures": 0 }));
}

#[tokio::test]
async fn breakers_are_separate_by_plugin() {
    let setup = Setup::start().await;
    setup.open().await;
    setup.app.intend("slack", "send", json!({ "channel": "C0PLAYGEN1", "text": "hello" })).await.data();
}

#[tokio::test]
async fn read_circuit_is_separate_from_writes() {
    let setup = Setup::start().await;
    setup.open().await;
    setup.read("200").await.data();
    let setup = Setup::start().await;
    for _ in 0..5 {
        assert_eq!(setup.read("302").await.failure(), "unavailable");
    }
    out_of_use(&setup.read("200").await, 60);
    setup.act("200").await.data();
    assert_eq!(setup.events()[0].1["class"], "read");
}

#[tokio::test]
async fn breaker_counts_only_faults_of_the_plugin() {
    let setup = Setup::signing_in(json!({ "failures": 100 }), &crate::support::app::oauth2(), Options::default()).await;
    let mut counted = 0;
    for (path, code, counts) in [
        ("500", "unavailable", true),
        ("502", "unavailable", true),
        ("503", "unavailable", true),
        ("504", "timeout", true),
        ("408", "timeout", true),
        ("302", "unavailable", true),
        ("nonsense", "unavailable", true),
        ("400", "rejected", false),
        ("403", "rejected", false),
        ("404", "rejected", false),
        ("409", "rejected", false),
        ("422", "rejected", false),
        ("429", "rate_limited", false),
        ("401", "reconnect_required", false),
    ] {
        assert_eq!(setup.act(path).await.failure(), code, "{path}");
        counted += usize::from(counts);
        assert_eq!(setup.breaker("write").await["failures"], json!(counted), "{path}");
    }
}

#[tokio::test]
async fn breaker_does_not_count_faults_of_the_caller() {
    let setup = Setup::signing_in(json!({ "failures": 100 }), &crate::support::app::oauth2(), Options::default()).await;
    setup.act("500").await.failure();
    assert_eq!(setup.act_as(&setup.app.admin, "ben", "200").await.failure(), "not_connected");
    for wrong in [json!({ "path": 5 }), json!({ "path": ".." })] {
        setup.app.intend("own", "act", wrong).await.problem(400);
    }
    assert_eq!(setup.breaker("write").await["failures"], json!(1));
}

/// The failures that the breaker counts after one intent for a service without a listener.
async fn failures_at_a_closed_port(is_allowed: bool) -> Value {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let allowed = if is_allowed { vec![AllowedAddress::Socket(address)] } else { vec![] };
    let plugins = vec![plugin(&format!("http://{address}"), json!({}), &json!({ "type": "none" }))];
    let app = App::with(Options { plugins, allowed, ..Options::default() }).await;
    assert_eq!(app.intend("own", "act", json!({ "path": "200" })).await.failure(), "unavailable");
    app.get(OWN).await.json()["breaker"]["write"]["failures"].take()
}

#[tokio::test]
async fn unreachable_service_counts_once_per_intent() {
    assert_eq!(failures_at_a_closed_port(true).await, json!(1));
}

#[tokio::test]
async fn refused_address_does_not_count_as_failure() {
    assert_eq!(failures_at_a_closed_port(false).await, json!(0));
}

#[tokio::test]
async fn failures_older_than_five_minutes_do_not_count() {
    let setup = Setup::start().await;
    for _ in 0..4 {
        setup.act("500").await.failure();
    }
    setup.app.clock.advance(299);
    assert_eq!(setup.breaker("write").await["failures"], json!(4));
    setup.app.clock.advance(1);
    assert_eq!(setup.breaker("write").await["failures"], json!(0));
    setup.act("500").await.failure();
    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": 1 }));
    // The window slides: these are the second to fifth of five minutes.
    setup.app.clock.advance(200);
    for failures in 2..=4 {
        setup.act("500").await.failure();
        assert_eq!(setup.breaker("write").await["failures"], json!(failures));
    }
    setup.app.clock.advance(99);
    setup.act("500").await.failure();
    out_of_use(&setup.act("200").await, 60);
}

/// Concurrent failures of a breaker that opens after `failures`.
async fn fail_together(failures: usize) -> Setup {
    let setup = Setup::with(json!({ "failures": failures }), Options::default()).await;
    setup.app.table.slow_down();
    let all = join_all((0..TOGETHER).map(|_| setup.act("together-500"))).await;
    assert!(all.iter().all(|answer| answer.failure() == "unavailable"));
    setup
}

#[tokio::test]
async fn concurrent_failures_all_count() {
    let setup = fail_together(TOGETHER + 1).await;
    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": TOGETHER }));
}

#[tokio::test]
async fn concurrent_failures_open_the_breaker_once() {
    let setup = fail_together(TOGETHER).await;
    assert_eq!(setup.breaker("write").await["state"], "open");
    assert_eq!(setup.kinds(), ["breaker.opened"]);
    out_of_use(&setup.act("200").await, 60);
}

/// What docs/figures.md says that the breaker costs.
#[tokio::test]
async fn breaker_costs_the_documented_round_trips() {
    let setup = Setup::signing_in(json!({}), &crate::support::app::oauth2(), Options::default()).await;
    setup.read("200").await.data();
    setup.app.table.take();
    let costs = |what: &str, expected: (usize, usize)| assert_eq!(setup.app.table.take(), expected, "{what}");
    setup.read("200").await.data();
    costs("a read", (1, 0));
    for _ in 0..4 {
        setup.read("302").await.failure();
        costs("a failure: the fallbacks; the record, the counter and the breaker", (2, 3));
        setup.read("200").await.data();
        costs("a read while failures are counted", (1, 0));
    }
    setup.act("200").await.data();
    costs("an action with an effect", (1, 2));
    setup.read("302").await.failure();
    costs("the failure that opens it, of which webhooks might want to hear", (3, 3));
    setup.read("200").await.failure();
    costs("what is answered at once", (2, 2));
    setup.app.clock.advance(60);
    setup.app.get(OWN).await.json();
    setup.app.table.take();
    setup.read("200").await.data();
    costs("a trial: its beginning, and its end", (3, 2));
    setup.read("200").await.data();
    costs("a read after it", (1, 0));
    setup.app.get(OWN).await.json();
    costs("looking at it", (1, 0));
    setup.app.get("/api/v1/plugins").await.json();
    costs("looking at all", (1, 0));
    // Overseer also reads which plugins need this one.
    for (what, path, reads) in [("disable", "/disable", 3), ("enable", "/enable", 2)] {
        setup.app.post(&format!("{OWN}{path}"), &json!({})).await.json();
        costs(what, (reads, 1));
    }
    setup.app.send(&setup.app.admin, Method::PATCH, OWN, Some(&json!({ "record_reads": true }))).await.json();
    costs("setting it", (2, 1));
}
