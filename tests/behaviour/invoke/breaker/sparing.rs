//! An open breaker stops every kind of call to a failing service. A working service keeps its breaker closed.

use std::sync::Arc;

use async_trait::async_trait;
use overseer_engine::invoke::runs::RequestOptions;
use overseer_engine::ports::table::TableError;
use overseer_playground::{Mode, Service};
use serde_json::json;

use crate::support::app::App;
use crate::support::hooked::{Hooks, Operation};
use crate::support::scripted::{Does, Scripted, act_as, says};

const INTENTS: &str = "/api/plugin-engine";

#[tokio::test]
async fn open_breaker_stops_name_lookups() {
    let app = App::start().await;
    app.misbehave(Service::Slack, Mode::Redirect, 1000);
    for _ in 0..5 {
        assert_eq!(app.intend("slack", "channels", json!({})).await.failure(), "unavailable");
    }
    assert_eq!(app.intend("slack", "channels", json!({})).await.failure(), "disabled");
    let before = app.playground.received_total();
    for _ in 0..3 {
        let sent = app.intend("slack", "send", json!({ "channel": "#general", "text": "hello" })).await;
        assert_eq!(sent.failure(), "disabled");
    }
    assert_eq!(app.playground.received_total(), before);
}

#[tokio::test]
async fn oversized_answers_leave_the_breaker_closed() {
    let large = || Does::Says(200, json!("x".repeat(5 * 1024 * 1024)));
    let setup = Scripted::with_breaker(vec![large(), large(), large(), large(), large(), says(200)], &json!({})).await;
    for _ in 0..5 {
        assert_eq!(setup.app.post(INTENTS, &act_as("read")).await.failure(), "unavailable");
    }
    setup.app.post(INTENTS, &act_as("read")).await.data();
}

/// The ledger cannot be written.
struct NoLedger;

#[async_trait]
impl Hooks for NoLedger {
    async fn before(&self, asked: &Operation<'_>) -> Result<(), TableError> {
        if asked.puts("run#") { Err(TableError::store("there is no ledger")) } else { Ok(()) }
    }
}

#[tokio::test]
async fn unrecorded_trial_frees_its_slot() {
    let bad = || says(500);
    let setup = Scripted::with_breaker(vec![bad(), bad(), bad(), bad(), bad(), says(200)], &json!({})).await;
    for _ in 0..5 {
        setup.app.post(INTENTS, &act_as("unsafe")).await.failure();
    }
    assert_eq!(setup.app.post(INTENTS, &act_as("unsafe")).await.failure(), "disabled");
    setup.app.clock.advance(60);
    let intent = serde_json::from_value(act_as("unsafe")).unwrap();
    let engine = setup.app.hooked(Arc::new(NoLedger));
    engine.execute(setup.principal().await, intent, RequestOptions::default()).await.unwrap_err();
    assert_eq!(setup.calls(), 5);
    setup.app.post(INTENTS, &act_as("unsafe")).await.data();
}
