//! A sweep reads in proportion to what is due, not to what exists.

use futures_util::future::try_join_all;
use overseer_engine::invoke::runs::RequestOptions;
use overseer_engine::ports::Table as _;
use overseer_engine::ports::table::{BATCH_MAX, Condition, Item, Key, NewItem, Read, Write};
use serde_json::json;

use crate::support::app::App;

const FUTURE: usize = 100_000;

/// A copy of the task under another id, as the engine would store it.
fn copy(item: &Item, id: &str, number: usize) -> NewItem {
    let other = format!("{number:0width$}", width = id.len());
    let named = |text: &str| text.replace(id, &other);
    let key = |key: &Key| Key { partition: key.partition.clone(), sort: named(&key.sort) };
    let stored = item.stored.clone();
    NewItem { key: key(&stored.key), body: named(&stored.body), list: stored.list.as_ref().map(key), ..stored }
}

#[tokio::test]
async fn sweep_reads_in_proportion_to_due_tasks() {
    let app = App::start().await;
    let engine = app.deaf();
    let principal = app.engine.authenticate(&app.admin.as_str().into()).await.unwrap();
    let make = async |time: &str| {
        let context = json!({ "channel": "#general", "text": "hello" });
        let intent = json!({ "tool": "slack", "intent": "send", "scheduledTime": time, "context": context });
        let intent = serde_json::from_value(intent).unwrap();
        engine.schedule(&principal, intent, &RequestOptions::default()).await.unwrap().answer.task.id
    };
    // One by the engine, and copies of it: the engine would need a minute for a hundred thousand.
    let id = make("2027-11-21T09:00:00Z").await;
    let key = Key { partition: "org#acme#user#admin".to_owned(), sort: format!("task#{id}") };
    let item = app.table.get(&key, Read::Consistent).await.unwrap().unwrap();
    let numbers: Vec<_> = (1..FUTURE).collect();
    let batches = numbers.chunks(BATCH_MAX).map(|numbers| {
        let puts = numbers.iter().map(|number| Write::Put(copy(&item, id.as_str(), *number), Condition::Absent));
        app.table.transact(puts.collect())
    });
    try_join_all(batches).await.unwrap();

    // Two reads for each hundred, and one for each of the queues of accounts and webhooks.
    let mut due = 0;
    for (more, reads) in [(0, 3), (5, 4), (245, 8)] {
        for _ in 0..more {
            make("2026-11-21T09:00:00Z").await;
        }
        due += more;
        app.table.take();
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.due, report.enqueued, report.left), (due, due, 0));
        assert_eq!(app.table.take(), (reads, 0), "{due} of {FUTURE} are due");
    }
    // When all of them are due, one sweep enqueues its limit.
    app.clock.advance(366 * 24 * 3600);
    assert_eq!(engine.sweep().await.unwrap().due, 10_000);
    // The last two of these reads find no pending accounts and nothing for webhooks.
    assert_eq!(app.table.take(), (202, 0));
}
