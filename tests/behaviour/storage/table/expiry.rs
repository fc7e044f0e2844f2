//! Expired items, whether or not the store has removed them.

#![expect(clippy::unwrap_used, reason = "these are tests, called by a macro")]

use jiff::SignedDuration;
use overseer_engine::ports::table::{Condition, NewItem, Query, Range, Read, Write};

use super::{Store, body, item, key, query, refused};

impl Store {
    fn expiring(&self, sort: &str, after_seconds: i64) -> NewItem {
        NewItem { expires_at: Some(self.clock.after_seconds(after_seconds)), ..body("p", sort, "old") }
    }

    async fn stands(&self, sort: &str) -> bool {
        let place = key("p", sort);
        let got = self.table.get(&place, Read::Consistent).await.unwrap().is_some();
        let batch = self.table.batch_get(&[place], Read::Consistent).await.unwrap();
        assert_eq!(batch.iter().map(Option::is_some).collect::<Vec<_>>(), [got]);
        assert_eq!(self.sorts(query(Range::Prefix(sort.to_owned()))).await.len(), usize::from(got));
        got
    }
}

pub(super) async fn item_expires_to_the_second(store: Store) {
    store.table.put(store.expiring("a", 10), Condition::Any).await.unwrap();
    let mut fraction = store.expiring("b", 10);
    fraction.expires_at = Some(store.clock.now_plus(SignedDuration::from_millis(10_900)));
    store.table.put(fraction, Condition::Any).await.unwrap();
    store.clock.advance(SignedDuration::from_millis(9_999));
    assert!(store.stands("a").await && store.stands("b").await);
    store.clock.advance(SignedDuration::from_millis(1));
    assert!(!store.stands("a").await && !store.stands("b").await);
    store.table.put(store.expiring("c", 0), Condition::Any).await.unwrap();
    store.table.put(store.expiring("d", -1_000_000), Condition::Any).await.unwrap();
    assert!(!store.stands("c").await && !store.stands("d").await);
}

pub(super) async fn expired_items_count_as_absent(store: Store) {
    let table = &store.table;
    let mut versions = Vec::new();
    for sort in ["a", "b", "c", "d"] {
        versions.push(table.put(store.expiring(sort, 1), Condition::Any).await.unwrap());
    }
    store.clock.advance(SignedDuration::from_secs(1));
    for (sort, version) in ["a", "b", "c", "d"].into_iter().zip(versions) {
        let condition = Condition::Version(version);
        assert_eq!(refused(table.put(item("p", sort), condition.clone()).await), (0, None));
        assert_eq!(refused(table.delete(&key("p", sort), condition).await), (0, None));
    }
    table.put(item("p", "a"), Condition::Absent).await.unwrap();
    table.put(item("p", "b"), Condition::Any).await.unwrap();
    table.delete(&key("p", "c"), Condition::Absent).await.unwrap();
    assert_eq!(store.sorts(query(Range::All)).await, ["a", "b"]);
    // The item that replaces an expired one does not inherit its expiry.
    store.clock.advance(SignedDuration::from_hours(1_000));
    store.table.put(item("p", "z"), Condition::Any).await.unwrap();
    assert_eq!(store.sorts(query(Range::All)).await, ["a", "b", "z"]);
}

pub(super) async fn expired_items_do_not_shorten_pages(store: Store) {
    let sorts: Vec<String> = (0..30).map(|number| format!("{number:02}")).collect();
    let mut expected = Vec::new();
    for (number, sort) in sorts.iter().enumerate() {
        // Runs of one, two and more expired items, at both ends too.
        if [3, 5, 8, 9, 17, 28].contains(&number) {
            expected.push(sort.clone());
            store.table.put(store.expiring(sort, 100), Condition::Any).await.unwrap();
        } else {
            store.table.put(store.expiring(sort, 1), Condition::Any).await.unwrap();
        }
    }
    store.clock.advance(SignedDuration::from_secs(1));
    let reversed: Vec<String> = expected.iter().rev().cloned().collect();
    for limit in 1..=8 {
        let forwards = Query { limit, ..query(Range::All) };
        assert_eq!(store.sorts(forwards.clone()).await, expected, "limit {limit}");
        assert_eq!(store.sorts(Query { backwards: true, ..forwards }).await, reversed, "limit {limit}");
    }
    store.clock.advance(SignedDuration::from_secs(99));
    assert!(store.sorts(query(Range::All)).await.is_empty());
}

pub(super) async fn expired_counter_starts_again(store: Store) {
    let place = key("p", "a");
    let old = NewItem { count: Some(41), list: Some(key("l", "1")), ..store.expiring("a", 10) };
    let old = store.table.put(old, Condition::Any).await.unwrap();
    assert_eq!(store.table.add(&place, 1, None).await.unwrap(), 42);
    store.clock.advance(SignedDuration::from_secs(10));
    let expires_at = Some(store.clock.after_seconds(5));
    assert_eq!(store.table.add(&place, 1, expires_at).await.unwrap(), 1);
    let found = store.table.get(&place, Read::Consistent).await.unwrap().unwrap();
    assert_eq!(found.stored, NewItem { count: Some(1), expires_at, ..body("p", "a", "") });
    assert_ne!(found.version, old);
    assert!(store.listed(Query::partition("l", 10)).await.is_empty());
    store.clock.advance(SignedDuration::from_secs(5));
    assert_eq!(store.table.add(&place, 7, None).await.unwrap(), 7);
}

pub(super) async fn transaction_sees_expired_items_as_absent(store: Store) {
    let version = store.table.put(store.expiring("a", 1), Condition::Any).await.unwrap();
    let expiring = store.expiring("b", 1);
    store.table.put(NewItem { count: Some(5), ..expiring }, Condition::Any).await.unwrap();
    store.clock.advance(SignedDuration::from_secs(1));
    let stale = Write::Check(key("p", "a"), Condition::Version(version));
    let writes = vec![Write::Put(item("p", "c"), Condition::Any), stale];
    assert_eq!(refused(store.table.transact(writes).await), (1, None));
    let writes = vec![Write::Check(key("p", "a"), Condition::Absent), Write::Add(key("p", "b"), 2, None)];
    store.table.transact(writes).await.unwrap();
    let found = store.table.get(&key("p", "b"), Read::Consistent).await.unwrap().unwrap();
    assert_eq!(found.stored, NewItem { count: Some(2), ..body("p", "b", "") });
}
