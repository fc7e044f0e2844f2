//! Retries while the caller waits, deduplication by the service, and calls that Overseer never repeats.

mod keyed;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use overseer_engine::access::principal::Role;
use overseer_engine::outbound::address::AllowedAddress;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Options};
use crate::support::own::OwnService;

/// What a service answers with: the status, the time to wait and its code, if it says so.
#[derive(Clone, Copy, Default)]
struct Says {
    status: u16,
    retry_after: Option<&'static str>,
    code: Option<&'static str>,
}

const FAILS: Says = Says { status: 500, retry_after: None, code: None };
const WORKS: Says = Says { status: 200, ..FAILS };

/// Says that it is too much, and when to come back.
fn limited(retry_after: &'static str) -> Says {
    Says { status: 429, retry_after: Some(retry_after), code: None }
}

type Script = Arc<Mutex<VecDeque<Says>>>;

/// Sends the next scripted answer; after the last one, success. Status 0 never answers.
async fn answer(State(script): State<Script>) -> Response {
    let Says { status, retry_after, code } = script.lock().unwrap().pop_front().unwrap_or(WORKS);
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let mut response = (StatusCode::from_u16(status).unwrap(), json!({ "code": code }).to_string()).into_response();
    if let Some(after) = retry_after {
        response.headers_mut().insert("retry-after", after.parse().unwrap());
    }
    response
}

/// An Overseer with the plugin `shop`, and its scripted service.
struct Setup {
    app: App,
    service: OwnService,
    script: Script,
}

/// The plugin, with one action of each effect, each by the name of that.
fn plugin(address: SocketAddr) -> Value {
    let parameters = json!({ "type": "object", "properties": { "amount": { "type": "integer" } } });
    let action = |effect: &str, request: Value| {
        json!({ "name": effect, "description": "Does.", "effect": effect, "parameters": parameters, "request": request,
                "response": { "error": { "code": "body.code", "did_nothing": ["locked"] } } })
    };
    json!({
        "name": "shop", "version": "1.0.0", "display_name": "Shop", "description": "A service of a test.",
        "runtime": { "type": "http", "base_url": format!("http://{address}") },
        "permissions": ["network:127.0.0.1"], "auth": { "type": "none" }, "breaker": { "failures": 100 },
        "actions": [
            action("read", json!({ "path": "/read" })),
            action("idempotent", json!({ "method": "PUT", "path": "/idempotent" })),
            action("unsafe", json!({ "method": "POST", "path": "/unsafe" })),
            action("keyed", json!({ "method": "POST", "path": "/keyed", "json": { "amount": "{{ amount }}" },
                                    "headers": { "idempotency-key": "{{ idempotency_key }}" } })),
        ],
    })
}

impl Setup {
    async fn start() -> Self {
        Self::with_budget(None).await
    }

    async fn with_budget(budget: Option<Duration>) -> Self {
        let script = Script::default();
        let service = OwnService::start(Router::new().fallback(any(answer)).with_state(script.clone())).await;
        let (plugins, allowed) =
            (vec![plugin(service.address).to_string()], vec![AllowedAddress::Socket(service.address)]);
        let app = App::with(Options { plugins, allowed, budget, ..Options::default() }).await;
        Self { app, service, script }
    }

    /// What the service says from here on, before it works again.
    fn says(&self, script: impl IntoIterator<Item = Says>) {
        *self.script.lock().unwrap() = script.into_iter().collect();
    }

    async fn intend(&self, intent: &str) -> Answer {
        self.app.intend("shop", intent, json!({})).await
    }

    fn calls(&self) -> usize {
        self.service.calls().len()
    }

    /// By what the service was to know each call so far.
    fn keys(&self) -> Vec<String> {
        let key = |headers: &axum::http::HeaderMap| headers["idempotency-key"].to_str().unwrap().to_owned();
        self.service.headers().iter().map(key).collect()
    }
}

/// Checks a failure, and how often the service was called for it; gives the error.
#[track_caller]
fn failed(answer: &Answer, code: &str, attempts: u32) -> Value {
    assert_eq!(answer.failure(), code, "{}", answer.text);
    assert_eq!(answer.json()["metadata"]["attempts"], json!(attempts), "{}", answer.text);
    answer.json()["error"].take()
}

#[tokio::test]
async fn idempotent_call_is_retried_twice() {
    let setup = Setup::start().await;
    for effect in ["read", "idempotent"] {
        let before = setup.calls();
        setup.says([FAILS; 4]);
        let error = failed(&setup.intend(effect).await, "unavailable", 3);
        assert_eq!((&error["retryable"], error.get("mayHaveHappened")), (&json!(true), None), "{error}");
        assert_eq!(setup.calls() - before, 3);
    }
}

#[tokio::test]
async fn retry_ends_with_the_first_success() {
    let setup = Setup::start().await;
    for effect in ["read", "idempotent"] {
        let before = setup.calls();
        setup.says([FAILS, WORKS]);
        let answer = setup.intend(effect).await;
        answer.data();
        assert_eq!(answer.json()["metadata"]["attempts"], json!(2));
        assert_eq!(setup.calls() - before, 2);
    }
}

#[tokio::test]
async fn ledger_records_all_tries_as_one_run() {
    let setup = Setup::start().await;
    setup.says([FAILS; 4]);
    failed(&setup.intend("idempotent").await, "unavailable", 3);
    setup.says([FAILS, WORKS]);
    setup.intend("idempotent").await.data();
    let runs = setup.app.get("/api/plugin-engine/runs").await.json();
    let attempts: Vec<_> = runs["runs"].as_array().unwrap().iter().map(|run| &run["attempts"]).collect();
    assert_eq!(attempts, [2, 3], "{runs}");
}

#[tokio::test]
async fn permanent_failure_is_tried_once() {
    let setup = Setup::start().await;
    for (status, code) in [(400, "rejected"), (401, "rejected"), (404, "rejected"), (409, "rejected")] {
        let before = setup.calls();
        setup.says([Says { status, ..FAILS }]);
        failed(&setup.intend("read").await, code, 1);
        assert_eq!(setup.calls() - before, 1, "{status}");
    }
}

/// The rows of the table in `docs/reliability.md` that are about statuses: the statuses, the code, and whether each kind of
/// effect is retried.
fn documented_statuses() -> Vec<(Vec<u16>, String, [bool; 3])> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| HTTP "));
    let row = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let numbers = cells[0].split([',', ' ']).filter(|word| word.len() == 3);
        let statuses = numbers.filter_map(|word| word.parse().ok()).filter(|status| *status != 401).collect();
        let retried = [cells[2], cells[3], cells[4]].map(|cell| cell == "retry");
        (statuses, cells[1].trim_matches('`').to_owned(), retried)
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn every_status_is_retried_as_documented() {
    let setup = Setup::start().await;
    let rows = documented_statuses();
    assert_eq!(rows.len(), 5, "{rows:?}");
    for (statuses, code, [repeatable, keyed, not_safe]) in rows {
        assert!(!statuses.is_empty(), "{code}");
        for status in statuses {
            for (effect, retried) in
                [("read", repeatable), ("idempotent", repeatable), ("keyed", keyed), ("unsafe", not_safe)]
            {
                let says = Says { status, retry_after: Some("0"), code: Some("other") };
                setup.says(if retried { vec![says; 3] } else { vec![says] });
                failed(&setup.intend(effect).await, &code, if retried { 3 } else { 1 });
            }
        }
    }
}

#[tokio::test]
async fn unsafe_call_is_sent_once() {
    let setup = Setup::start().await;
    for (status, code) in [(500, "unavailable"), (503, "unavailable"), (504, "timeout"), (408, "timeout")] {
        let before = setup.calls();
        // Even where the service says when to come back: it does not say that it did nothing.
        setup.says([Says { status, retry_after: Some("0"), code: Some("other") }]);
        let error = failed(&setup.intend("unsafe").await, code, 1);
        assert_eq!((&error["retryable"], &error["mayHaveHappened"]), (&json!(false), &json!(true)), "{error}");
        assert_eq!(setup.calls() - before, 1, "{status}");
    }
}

#[tokio::test]
async fn unsent_call_is_retried() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (plugins, allowed) = (vec![plugin(address).to_string()], vec![AllowedAddress::Socket(address)]);
    let app = App::with(Options { plugins, allowed, ..Options::default() }).await;
    for effect in ["unsafe", "keyed"] {
        let error = failed(&app.intend("shop", effect, json!({})).await, "unavailable", 3);
        assert_eq!((&error["retryable"], error.get("mayHaveHappened")), (&json!(true), None), "{error}");
    }
}

/// The manifest says of this code that the service did nothing.
const LOCKED: Says = Says { status: 500, retry_after: None, code: Some("locked") };

#[tokio::test]
async fn refusal_before_any_effect_is_retried() {
    let setup = Setup::start().await;
    for says in [limited("0"), Says { retry_after: None, ..limited("0") }, LOCKED, Says { status: 504, ..LOCKED }] {
        let before = setup.calls();
        setup.says([says]);
        setup.intend("unsafe").await.data();
        assert_eq!(setup.calls() - before, 2, "{}", says.status);
    }
}

#[tokio::test]
async fn refusal_before_any_effect_is_retried_twice() {
    let setup = Setup::start().await;
    for (says, code) in [(limited("0"), "rate_limited"), (LOCKED, "unavailable")] {
        let before = setup.calls();
        setup.says([says; 4]);
        let error = failed(&setup.intend("unsafe").await, code, 3);
        assert_eq!((&error["retryable"], error.get("mayHaveHappened")), (&json!(true), None), "{error}");
        assert_eq!(setup.calls() - before, 3, "{code}");
    }
}

#[tokio::test]
async fn undeclared_code_may_have_had_an_effect() {
    let setup = Setup::start().await;
    setup.says([Says { code: Some("other"), ..FAILS }]);
    let error = failed(&setup.intend("unsafe").await, "unavailable", 1);
    assert_eq!(error["mayHaveHappened"], json!(true), "{error}");
}

#[tokio::test]
async fn retry_after_is_honoured_within_the_budget() {
    let setup = Setup::start().await;
    let began = Instant::now();
    setup.says([limited("1")]);
    setup.intend("unsafe").await.data();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(setup.calls(), 2);
}

#[tokio::test]
async fn retry_date_counts_from_the_clock() {
    let setup = Setup::start().await;
    // The date is the time of the clock.
    setup.says([limited("Sat, 21 Nov 2026 09:00:00 GMT")]);
    setup.intend("unsafe").await.data();
    assert_eq!(setup.calls(), 2);
}

#[tokio::test]
async fn wait_beyond_the_budget_is_left_to_the_caller() {
    let setup = Setup::start().await;
    for (after, seconds) in [("Sun, 22 Nov 2026 09:00:00 GMT", 86_400), ("3600", 3600)] {
        for effect in ["read", "unsafe", "keyed"] {
            let before = setup.calls();
            setup.says([limited(after)]);
            let error = failed(&setup.intend(effect).await, "rate_limited", 1);
            assert_eq!((&error["retryable"], &error["retryAfter"]), (&json!(true), &json!(seconds)), "{error}");
            assert_eq!(setup.calls() - before, 1, "{effect}");
        }
    }
}

const BUDGET: Duration = Duration::from_millis(900);
/// The service never answers.
const SILENT: Says = Says { status: 0, ..FAILS };

#[tokio::test]
async fn wait_of_the_whole_budget_is_not_begun() {
    let setup = Setup::with_budget(Some(BUDGET)).await;
    setup.says([limited("1")]);
    let began = Instant::now();
    let error = failed(&setup.intend("read").await, "rate_limited", 1);
    assert_eq!(error["retryAfter"], json!(1));
    assert!(began.elapsed() < BUDGET, "Overseer waited in vain: {:?}", began.elapsed());
}

#[tokio::test]
async fn tries_share_one_budget() {
    let setup = Setup::with_budget(Some(BUDGET)).await;
    setup.says([limited("0"), SILENT]);
    let began = Instant::now();
    let error = failed(&setup.intend("unsafe").await, "timeout", 2);
    assert_eq!((&error["retryable"], &error["mayHaveHappened"]), (&json!(false), &json!(true)), "{error}");
    assert!(began.elapsed() < Duration::from_millis(1_700), "{:?}", began.elapsed());
}

#[tokio::test]
async fn spent_budget_allows_no_retry() {
    let setup = Setup::with_budget(Some(BUDGET)).await;
    setup.says([SILENT]);
    failed(&setup.intend("read").await, "timeout", 1);
    assert_eq!(setup.calls(), 1);
}
