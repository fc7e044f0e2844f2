//! Crashes: no event is lost, and Overseer sends none for a change that was not committed.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use overseer_engine::ports::table::{TableError, Write};

use super::*;
use crate::support::hooked::{Hooks, Operation};

/// Whose alarm was lost, the sweep finds: first the event, then its deliveries.
#[tokio::test]
async fn crash_before_sending_loses_no_event() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    let deaf = app.deaf();
    // The process that wrote the event crashed at once.
    make_key(&deaf).await;
    assert_eq!((outbox(&app).await.len(), receiver.got().len()), (1, 0));
    let swept = app.engine.sweep().await.unwrap();
    assert_eq!((swept.due, swept.enqueued), (1, 1));
    reached(&app, &id, "succeeded").await;
    assert_eq!((outbox(&app).await.len(), receiver.got().len()), (0, 1));

    // The process that made the delivery crashed.
    make_key(&deaf).await;
    deaf.dispatch(outbox(&app).await.remove(0), None).await.unwrap();
    assert_eq!((deliveries(&app, &id).await.len(), receiver.got().len()), (2, 1));
    assert_eq!(app.engine.sweep().await.unwrap().enqueued, 1);
    reached(&app, &id, "succeeded").await;
    assert_eq!(receiver.got().len(), 2);

    // And a process whose alarms ended with it sets them again.
    make_key(&deaf).await;
    app.engine.set_alarms().await.unwrap();
    receiver.has(3).await;
    reached(&app, &id, "succeeded").await;
    assert_eq!(app.engine.sweep().await.unwrap().due, 0);
}

/// Fails writes that a test has chosen: before they happen, or after.
struct Failing {
    before: Option<fn(&Operation<'_>) -> bool>,
    after: Option<fn(&Operation<'_>) -> bool>,
    on: AtomicBool,
}

#[async_trait]
impl Hooks for Failing {
    async fn before(&self, asked: &Operation<'_>) -> Result<(), TableError> {
        let fails = self.on.load(Ordering::SeqCst) && self.before.is_some_and(|fails| fails(asked));
        if fails { Err(TableError::store("the store is gone")) } else { Ok(()) }
    }

    async fn after(&self, asked: &Operation<'_>) -> Result<(), TableError> {
        let fails = self.on.load(Ordering::SeqCst) && self.after.is_some_and(|fails| fails(asked));
        if fails { Err(TableError::store("the store is gone")) } else { Ok(()) }
    }
}

/// A write of an event together with something else.
fn with_an_event(asked: &Operation<'_>) -> bool {
    let Operation::Transact(writes) = asked else { return false };
    writes.len() == 2 && matches!(&writes[1], Write::Put(item, _) if item.key.partition.ends_with("#outbox"))
}

/// A delivery that is written down with an end.
fn an_end(asked: &Operation<'_>) -> bool {
    matches!(asked, Operation::Put(item) if item.key.partition.contains("#webhook#") && item.body.contains("\"sending\":null"))
}

#[tokio::test]
async fn change_and_its_event_are_one_transaction() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    let failing = Failing { before: Some(with_an_event), after: None, on: AtomicBool::new(true) };
    let broken = app.hooked(Arc::new(failing));
    let keys = async || app.get(KEYS).await.json()["keys"].as_array().unwrap().len();
    let before = keys().await;
    let new = || serde_json::from_value(json!({ "name": "a", "roles": ["service"] })).unwrap();
    broken.create_api_key(&acme(), new()).await.unwrap_err();
    assert_eq!((keys().await, outbox(&app).await.len()), (before, 0), "neither");
    // The answer of a write that happened is lost: both are there.
    let failing = Failing { before: None, after: Some(with_an_event), on: AtomicBool::new(true) };
    let broken = app.hooked(Arc::new(failing));
    broken.create_api_key(&acme(), new()).await.unwrap_err();
    assert_eq!((keys().await, outbox(&app).await.len()), (before + 1, 1), "both");
    app.engine.sweep().await.unwrap();
    receiver.has(1).await;
}

#[tokio::test]
async fn unreadable_webhooks_fail_the_change() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    let unread: fn(&Operation<'_>) -> bool = |asked| matches!(asked, Operation::Get(key) if key.sort == "webhooks");
    let failing = Arc::new(Failing { before: Some(unread), after: None, on: AtomicBool::new(true) });
    let broken = app.hooked(failing.clone());
    let new = || serde_json::from_value(json!({ "name": "a", "roles": ["service"] })).unwrap();
    broken.create_api_key(&acme(), new()).await.unwrap_err();
    failing.on.store(false, Ordering::SeqCst);
    broken.create_api_key(&acme(), new()).await.unwrap();
    assert_eq!(outbox(&app).await.len(), 1);
}

#[tokio::test]
async fn repeated_alarms_send_once() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    let deaf = app.deaf();
    make_key(&deaf).await;
    let event = outbox(&app).await.remove(0);
    let workers: Vec<_> = (0..10).map(|_| app.deaf()).collect();
    join_all(workers.iter().map(|worker| worker.dispatch(event.clone(), None))).await;
    let all = deliveries(&app, &id).await;
    assert_eq!((all.len(), receiver.got().len()), (1, 0));
    let work = alarm(&id, &all[0]);
    let reports = join_all(workers.iter().map(|worker| worker.dispatch(work.clone(), None))).await;
    assert_eq!(reports.into_iter().map(|report| report.unwrap().succeeded).sum::<usize>(), 1);
    assert_eq!(deaf.dispatch(work, None).await.unwrap(), WorkReport::default());
    assert_eq!(receiver.got().len(), 1);
}

#[tokio::test]
async fn delivery_of_a_lost_worker_is_sent_again() {
    let receiver = Receiver::start().await;
    let (app, deaf, id, work) = waiting(&receiver).await;
    // It arrives, and then nothing can be written any more.
    let failing = Failing { before: Some(an_end), after: None, on: AtomicBool::new(true) };
    app.hooked(Arc::new(failing)).dispatch(work.clone(), None).await.unwrap_err();
    assert_eq!(receiver.got().len(), 1);
    assert_eq!(deliveries(&app, &id).await[0]["sending"], true);
    let path = format!("{WEBHOOKS}/{id}/deliveries/{}/retry", work.id.split_once(' ').unwrap().1);
    assert_eq!(app.post(&path, &json!({})).await.problem(409), "conflict");
    app.clock.advance(59);
    assert_eq!(deaf.dispatch(work.clone(), None).await.unwrap(), WorkReport::default(), "it may still be under way");
    app.clock.advance(1);
    assert_eq!(deaf.sweep().await.unwrap().due, 1);
    assert_eq!(deaf.dispatch(work, None).await.unwrap().succeeded, 1);
    let got = receiver.got();
    assert_eq!(
        (got.len(), got[0].header("webhook-id")),
        (2, got[1].header("webhook-id")),
        "it can be told as the same"
    );
    assert_ne!(got[0].header("webhook-timestamp"), got[1].header("webhook-timestamp"));
    let delivery = deliveries(&app, &id).await.remove(0);
    assert_eq!((&delivery["status"], &delivery["attempts"][1]["status"]), (&json!("succeeded"), &json!(204)));
    assert!(delivery["attempts"][0]["problem"].as_str().unwrap().contains("reported no result"), "{delivery}");
}

#[tokio::test]
async fn unacknowledged_settlement_stands() {
    let receiver = Receiver::start().await;
    let (app, _, id, work) = waiting(&receiver).await;
    let failing = Failing { before: None, after: Some(an_end), on: AtomicBool::new(true) };
    assert_eq!(app.hooked(Arc::new(failing)).dispatch(work, None).await.unwrap().succeeded, 1);
    assert_eq!(deliveries(&app, &id).await[0]["status"], "succeeded");
    assert_eq!(receiver.got().len(), 1);
}

/// A disconnect event has the result of the token revocation, unless the disconnecting process crashed before it.
#[tokio::test]
async fn disconnect_event_has_the_revocation_result() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["integration.disconnected"]).await;
    app.connect("slack", "xoxb-playground").await;
    let disconnected = app.delete("/api/plugin-engine/integrations/slack").await.json();
    assert_eq!(receiver.has(1).await[0].json()["data"], disconnected);
    assert!(disconnected["notRevokedBecause"].as_str().unwrap().contains("by hand"), "{disconnected}");
    reached(&app, &id, "succeeded").await;

    app.connect("slack", "xoxb-playground").await;
    // The account is gone, and no more is heard of this process.
    let rest: fn(&Operation<'_>) -> bool =
        |asked| matches!(asked, Operation::Get(key) if key.partition.ends_with("#outbox"));
    let crashed = app.hooked(Arc::new(Failing { before: Some(rest), after: None, on: AtomicBool::new(true) }));
    let principal = crashed.authenticate(&app.admin.as_str().into()).await.unwrap();
    crashed.disconnect(&principal, "slack", serde_json::from_value(json!({})).unwrap()).await.unwrap();
    assert_eq!((outbox(&app).await.len(), app.engine.sweep().await.unwrap().due), (1, 0), "it waits for the rest");
    app.clock.advance(60);
    assert_eq!(app.engine.sweep().await.unwrap().enqueued, 1);
    let told = receiver.has(2).await[1].json();
    assert_eq!((&told["data"]["plugin"], &told["data"]["revoked"]), (&json!("slack"), &json!(false)));
    assert!(told["data"]["notRevokedBecause"].as_str().unwrap().contains("ended before it reported"), "{told}");
}
