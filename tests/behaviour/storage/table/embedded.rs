//! What the embedded store promises beyond the port.

#![expect(clippy::unwrap_used, reason = "a clock is no test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use jiff::{SignedDuration, Timestamp};
use overseer_engine::ports::table::{Condition, Due, NewItem, Query, Range, Read, Write};
use overseer_engine::ports::{Clock, RandomIds, Table};
use overseer_local::RedbTable;
use tokio::task::JoinSet;

use super::{Store, TestClock, body, follow, item, key, query};

#[tokio::test]
async fn file_keeps_everything() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let path = folder.path().join("overseer.redb");
    let full = NewItem {
        key: key("p", "a"),
        body: "body".to_owned(),
        count: Some(7),
        expires_at: Some(clock.after_seconds(60)),
        due: Some(Due { queue: "q".to_owned(), at: clock.after_seconds(5) }),
        list: Some(key("l", "1")),
    };
    let table = RedbTable::open(&path, clock.clone(), Arc::new(RandomIds)).unwrap();
    let version = table.put(full.clone(), Condition::Any).await.unwrap();
    for sort in ["b", "c"] {
        table.put(item("p", sort), Condition::Any).await.unwrap();
    }
    let two = Query { limit: 2, ..query(Range::All) };
    let cursor = table.query(two.clone()).await.unwrap().next;
    drop(table);

    let table = RedbTable::open(&path, clock.clone(), Arc::new(RandomIds)).unwrap();
    let found = table.get(&full.key, Read::Consistent).await.unwrap().unwrap();
    assert_eq!((found.stored, found.version), (full.clone(), version));
    assert_eq!(table.query_list(Query::partition("l", 9)).await.unwrap().entries, std::slice::from_ref(&full.key));
    let due = table.query_due("q", clock.after_seconds(5), 9, None).await.unwrap().entries;
    assert_eq!(due.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), [full.key]);
    let rest = table.query(Query { cursor, ..two }).await.unwrap().entries;
    assert_eq!(rest.into_iter().map(|item| item.stored).collect::<Vec<_>>(), [item("p", "c")]);
}

/// A clock whose readers wait while the test holds it. The writer reads it once before each commit.
struct HeldClock {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Clock for HeldClock {
    fn now(&self) -> Timestamp {
        let held = self.held.lock().unwrap();
        drop(self.changed.wait_while(held, |held| *held).unwrap());
        Timestamp::UNIX_EPOCH
    }
}

#[tokio::test]
async fn thousand_concurrent_writes_share_two_commits_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(HeldClock { held: Mutex::new(true), changed: Condvar::new() });
    let path = folder.path().join("overseer.redb");
    let table = Arc::new(RedbTable::open(&path, clock.clone(), Arc::new(RandomIds)).unwrap());
    let (mut writes, queued) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for number in 0..1_000 {
        let (table, queued) = (Arc::clone(&table), Arc::clone(&queued));
        writes.spawn(async move {
            queued.fetch_add(1, Ordering::Relaxed);
            table.put(item("p", &format!("{number}")), Condition::Absent).await.unwrap();
        });
    }
    // Nothing comes between a task's count and its place in the queue, since all run on this thread.
    while queued.load(Ordering::Relaxed) < 1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(table.commits(), 0);
    *clock.held.lock().unwrap() = false;
    clock.changed.notify_all();
    writes.join_all().await;
    assert!((1..=2).contains(&table.commits()), "{} commits", table.commits());
    assert_eq!(table.stored_items().await.unwrap(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_never_sees_half_a_transaction() {
    let store = Store::redb_in_memory().await;
    let keys = [key("p", "a"), key("p", "b")];
    store.table.transact(keys.clone().map(|key| Write::Add(key, 0, None)).to_vec()).await.unwrap();
    let mut moves = JoinSet::new();
    for amount in 0..100 {
        let (table, [from, to]) = (Arc::clone(&store.table), keys.clone());
        moves.spawn(async move {
            table.transact(vec![Write::Add(from, -amount, None), Write::Add(to, amount, None)]).await.unwrap();
        });
    }
    while !moves.is_empty() {
        let found = store.table.batch_get(&keys, Read::Consistent).await.unwrap();
        assert_eq!(found.into_iter().filter_map(|item| item.unwrap().stored.count).sum::<i64>(), 0);
        moves.join_next().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn due_items_come_in_the_order_of_their_times() {
    let store = Store::redb_in_memory().await;
    for (sort, after_seconds) in [("z", 5), ("y", 3), ("a", 4), ("x", 3), ("b", -9)] {
        let at = store.clock.after_seconds(after_seconds);
        let due = Some(Due { queue: "q".to_owned(), at });
        store.table.put(NewItem { due, ..item("p", sort) }, Condition::Any).await.unwrap();
    }
    let until = store.clock.after_seconds(5);
    for limit in 1..=6 {
        let page = |cursor| async { store.table.query_due("q", until, limit, cursor).await.unwrap() };
        let found = follow(limit, None, page).await;
        assert_eq!(found.iter().map(|entry| entry.key.sort.as_str()).collect::<Vec<_>>(), ["b", "x", "y", "a", "z"]);
    }
}

#[tokio::test]
async fn write_sees_earlier_writes_of_the_same_commit() {
    let store = Store::redb_in_memory().await;
    let (one, other) = tokio::join!(
        store.table.put(body("p", "a", "1"), Condition::Absent),
        store.table.put(body("p", "a", "2"), Condition::Absent),
    );
    assert!(one.is_ok() != other.is_ok());
}

#[tokio::test]
async fn expired_items_leave_indexes_at_once() {
    let clock = TestClock::new();
    let table = RedbTable::in_memory(clock.clone(), Arc::new(RandomIds)).unwrap();
    for number in 0..250_i64 {
        let new = NewItem {
            expires_at: Some(clock.after_seconds(if number % 2 == 0 { 1 } else { 1_000 })),
            due: Some(Due { queue: "q".to_owned(), at: clock.after_seconds(0) }),
            list: Some(key("l", "1")),
            ..item("p", &format!("{number:03}"))
        };
        table.put(new, Condition::Any).await.unwrap();
    }
    clock.advance(SignedDuration::from_secs(1));
    let page = table.query_list(Query::partition("l", 125)).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (125, None));
    let page = table.query_due("q", clock.after_seconds(0), 125, None).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (125, None));
    assert_eq!(table.stored_items().await.unwrap(), 250);
    for left in [150, 125, 125] {
        table.add(&key("p", "249"), 1, None).await.unwrap();
        assert_eq!(table.stored_items().await.unwrap(), left);
    }
}
