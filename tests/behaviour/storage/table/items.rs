//! Single items: storing, conditions, batches and counters.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "these are tests, called by a macro")]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use overseer_engine::ports::table::{Condition, Due, Key, NewItem, Read, Version, Write};
use tokio::task::JoinSet;

use super::{Store, body, item, key, refused, too_large, wrong};

/// An item with everything that an item can have.
fn full(store: &Store) -> NewItem {
    NewItem {
        key: key("p", "a"),
        body: r#"{"text":"\"ä\\\u0000"}"#.to_owned(),
        count: Some(-7),
        expires_at: Some(store.clock.after_seconds(60)),
        due: Some(Due { queue: "q".to_owned(), at: store.clock.after_seconds(5) }),
        list: Some(key("l", "1")),
    }
}

pub(super) async fn item_is_read_as_written(store: Store) {
    let (table, full) = (&store.table, full(&store));
    assert_eq!(table.get(&full.key, Read::Consistent).await.unwrap(), None);
    let first = table.put(full.clone(), Condition::Any).await.unwrap();
    for read in [Read::Consistent, Read::Eventual] {
        let found = table.get(&full.key, read).await.unwrap().unwrap();
        assert_eq!(found.stored, full);
        assert_eq!(found.version, first);
    }
}

pub(super) async fn replacing_item_keeps_nothing_of_the_other(store: Store) {
    let (table, full) = (&store.table, full(&store));
    let first = table.put(full.clone(), Condition::Any).await.unwrap();
    let second = table.put(item("p", "a"), Condition::Any).await.unwrap();
    assert_ne!(first, second);
    let found = table.get(&full.key, Read::Consistent).await.unwrap().unwrap();
    assert_eq!((found.stored, found.version), (item("p", "a"), second));
}

pub(super) async fn item_can_be_removed_twice(store: Store) {
    let table = &store.table;
    table.put(item("p", "a"), Condition::Any).await.unwrap();
    for _ in 0..2 {
        table.delete(&key("p", "a"), Condition::Any).await.unwrap();
        assert_eq!(table.get(&key("p", "a"), Read::Consistent).await.unwrap(), None);
    }
}

pub(super) async fn times_lose_their_fractions(store: Store) {
    let fraction = SignedDuration::new(60, 123_999_999);
    let mut new = item("p", "a");
    new.expires_at = Some(store.clock.now_plus(fraction));
    new.due = Some(Due { queue: "q".to_owned(), at: store.clock.now_plus(fraction) });
    store.table.put(new.clone(), Condition::Any).await.unwrap();
    let found = store.table.get(&new.key, Read::Consistent).await.unwrap().unwrap().stored;
    assert_eq!(found.expires_at, Some(store.clock.after_seconds(60)));
    assert_eq!(found.due.unwrap().at, store.clock.now_plus(SignedDuration::from_millis(60_123)));
}

pub(super) async fn absent_condition_is_checked(store: Store) {
    let first = store.table.put(body("p", "a", "1"), Condition::Absent).await.unwrap();
    let (index, current) = refused(store.table.put(body("p", "a", "2"), Condition::Absent).await);
    let current = current.unwrap();
    assert_eq!((index, &current.version, &current.stored), (0, &first, &body("p", "a", "1")));
    assert_eq!(store.table.get(&key("p", "a"), Read::Consistent).await.unwrap(), Some(current));
}

pub(super) async fn version_condition_is_checked(store: Store) {
    let table = &store.table;
    let unknown = || Condition::Version(Version("unknown".to_owned()));
    assert_eq!(refused(table.put(item("p", "a"), unknown()).await), (0, None));
    let first = table.put(body("p", "a", "1"), Condition::Any).await.unwrap();
    let (_, current) = refused(table.put(body("p", "a", "2"), unknown()).await);
    assert_eq!(current.unwrap().version, first);
    let second = table.put(body("p", "a", "2"), Condition::Version(first.clone())).await.unwrap();
    let (_, current) = refused(table.put(body("p", "a", "3"), Condition::Version(first)).await);
    let current = current.unwrap();
    assert_eq!((current.version, current.stored), (second, body("p", "a", "2")));
}

pub(super) async fn delete_can_be_conditional(store: Store) {
    let (table, place) = (&store.table, key("p", "a"));
    table.delete(&place, Condition::Absent).await.unwrap();
    let unknown = Condition::Version(Version("unknown".to_owned()));
    assert_eq!(refused(table.delete(&place, unknown.clone()).await), (0, None));
    let version = table.put(item("p", "a"), Condition::Any).await.unwrap();
    for condition in [Condition::Absent, unknown] {
        let (index, current) = refused(table.delete(&place, condition).await);
        assert_eq!((index, current.unwrap().version), (0, version.clone()));
    }
    table.delete(&place, Condition::Version(version)).await.unwrap();
    assert_eq!(table.get(&place, Read::Consistent).await.unwrap(), None);
}

pub(super) async fn old_version_never_matches_a_recreated_item(store: Store) {
    let old = store.table.put(item("p", "a"), Condition::Any).await.unwrap();
    store.table.delete(&key("p", "a"), Condition::Any).await.unwrap();
    let new = store.table.put(item("p", "a"), Condition::Any).await.unwrap();
    let (_, current) = refused(store.table.put(item("p", "a"), Condition::Version(old)).await);
    assert_eq!(current.unwrap().version, new);
}

pub(super) async fn lost_update_is_refused(store: Store) {
    let read = store.table.put(body("p", "a", "0"), Condition::Any).await.unwrap();
    let won = store.table.put(body("p", "a", "1"), Condition::Version(read.clone())).await.unwrap();
    let (_, current) = refused(store.table.put(body("p", "a", "2"), Condition::Version(read)).await);
    assert_eq!(current.unwrap().version, won);
}

/// Puts fifty items under one key at once. Exactly one may succeed, and the other errors must hold that one.
async fn race(store: &Store, condition: Condition) {
    let mut race = JoinSet::new();
    for number in 0..50 {
        let (table, condition) = (Arc::clone(&store.table), condition.clone());
        race.spawn(async move { table.put(body("p", "a", &number.to_string()), condition).await });
    }
    let (won, lost): (Vec<_>, Vec<_>) = race.join_all().await.into_iter().partition(Result::is_ok);
    let current = store.table.get(&key("p", "a"), Read::Consistent).await.unwrap().unwrap();
    let won: Vec<_> = won.into_iter().map(Result::unwrap).collect();
    assert_eq!(won, std::slice::from_ref(&current.version));
    for result in lost {
        assert_eq!(refused(result), (0, Some(current.clone())));
    }
}

pub(super) async fn one_of_fifty_concurrent_updates_wins(store: Store) {
    let version = store.table.put(item("p", "a"), Condition::Any).await.unwrap();
    race(&store, Condition::Version(version)).await;
}

pub(super) async fn one_of_fifty_concurrent_creators_wins(store: Store) {
    race(&store, Condition::Absent).await;
}

pub(super) async fn batch_keeps_its_order(store: Store) {
    store.fill(&["a", "b", "c"]).await;
    assert_eq!(store.table.batch_get(&[], Read::Consistent).await.unwrap(), []);
    let keys = [key("p", "c"), key("q", "a"), key("p", "a"), key("p", "x"), key("p", "b")];
    for read in [Read::Consistent, Read::Eventual] {
        let found = store.table.batch_get(&keys, read).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|item| item.map(|item| item.stored)).collect();
        assert_eq!(found, [Some(item("p", "c")), None, Some(item("p", "a")), None, Some(item("p", "b"))]);
    }
}

pub(super) async fn batch_has_a_hundred_items_at_most(store: Store) {
    let keys: Vec<Key> = (0..101).map(|number| key("p", &format!("{number:03}"))).collect();
    store.fill(&["099", "100"]).await;
    let found = store.table.batch_get(&keys[..100], Read::Consistent).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [vec![false; 99], vec![true]].concat());
    assert_eq!(too_large(store.table.batch_get(&keys, Read::Consistent).await), (101, 100));
    wrong(store.table.batch_get(&[key("p", "a"), key("p", "b"), key("p", "a")], Read::Consistent).await);
}

pub(super) async fn counter_adds(store: Store) {
    let (table, place) = (&store.table, key("p", "a"));
    let expires_at = Some(store.clock.after_seconds(60));
    assert_eq!(table.add(&place, 5, expires_at).await.unwrap(), 5);
    let made = table.get(&place, Read::Consistent).await.unwrap().unwrap();
    assert_eq!(made.stored, NewItem { count: Some(5), expires_at, ..body("p", "a", "") });
    assert_eq!(table.add(&place, -12, Some(store.clock.after_seconds(600))).await.unwrap(), -7);
    assert_eq!(table.add(&place, 0, None).await.unwrap(), -7);
    let found = table.get(&place, Read::Consistent).await.unwrap().unwrap();
    assert_eq!(found.stored, NewItem { count: Some(-7), ..made.stored });
    assert_eq!(found.version, made.version);
}

pub(super) async fn counter_keeps_the_rest_of_its_item(store: Store) {
    let full = NewItem {
        count: None,
        due: Some(Due { queue: "q".to_owned(), at: Timestamp::UNIX_EPOCH }),
        list: Some(key("l", "1")),
        ..body("p", "a", r#"{"x":1}"#)
    };
    let version = store.table.put(full.clone(), Condition::Any).await.unwrap();
    assert_eq!(store.table.add(&full.key, 3, Some(store.clock.after_seconds(1))).await.unwrap(), 3);
    let found = store.table.get(&full.key, Read::Consistent).await.unwrap().unwrap();
    assert_eq!((found.stored, found.version), (NewItem { count: Some(3), ..full }, version.clone()));
    store.table.put(item("p", "a"), Condition::Version(version)).await.unwrap();
}

pub(super) async fn counter_does_not_wrap(store: Store) {
    let (table, place) = (&store.table, key("p", "a"));
    for (edge, step) in [(i64::MAX, 1), (i64::MIN, -1)] {
        table.put(NewItem { count: Some(edge), ..item("p", "a") }, Condition::Any).await.unwrap();
        wrong(table.add(&place, step, None).await);
        wrong(table.add(&place, edge, Some(store.clock.after_seconds(1))).await);
        wrong(
            table
                .transact(vec![Write::Put(item("p", "b"), Condition::Any), Write::Add(place.clone(), step, None)])
                .await,
        );
        assert_eq!(table.get(&key("p", "b"), Read::Consistent).await.unwrap(), None);
        assert_eq!(table.add(&place, -step, None).await.unwrap(), edge - step);
    }
}

pub(super) async fn two_hundred_concurrent_additions_all_count(store: Store) {
    let mut race = JoinSet::new();
    for amount in 1..=200 {
        let table = Arc::clone(&store.table);
        race.spawn(async move { table.add(&key("p", "a"), amount, None).await.unwrap() });
    }
    let sums = race.join_all().await;
    assert_eq!(sums.into_iter().max(), Some(20_100));
    assert_eq!(store.table.add(&key("p", "a"), 0, None).await.unwrap(), 20_100);
}
