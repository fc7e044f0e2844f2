//! Transactions of several writes.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "these are tests, called by a macro")]

use std::sync::Arc;

use overseer_engine::ports::table::{Condition, Item, Key, Query, Range, Read, Version, Write};
use tokio::task::JoinSet;

use super::{Store, body, item, key, query, refused, too_large, wrong};

fn put(sort: &str) -> Write {
    Write::Put(body("p", sort, "new"), Condition::Any)
}

fn unknown() -> Condition {
    Condition::Version(Version("unknown".to_owned()))
}

impl Store {
    /// Everything in the partition "p".
    async fn whole(&self) -> Vec<Item> {
        self.table.query(Query { limit: 1_000, ..query(Range::All) }).await.unwrap().entries
    }
}

pub(super) async fn every_kind_of_write_works(store: Store) {
    store.fill(&["deleted", "replaced", "counted", "checked"]).await;
    store.table.add(&key("p", "counted"), 40, None).await.unwrap();
    let checked = store.table.get(&key("p", "checked"), Read::Consistent).await.unwrap().unwrap();
    let expires_at = Some(store.clock.after_seconds(9));
    let writes = vec![
        Write::Delete(key("p", "deleted"), Condition::Any),
        put("replaced"),
        put("made"),
        Write::Add(key("p", "counted"), 2, expires_at),
        Write::Add(key("p", "counter"), -3, expires_at),
        Write::Check(key("p", "checked"), Condition::Version(checked.version.clone())),
        Write::Check(key("p", "nowhere"), Condition::Absent),
        Write::Check(key("p", "anything"), Condition::Any),
        Write::Delete(key("p", "nothing"), Condition::Absent),
        Write::Put(item("other", "made"), Condition::Absent),
    ];
    let versions = store.table.transact(writes).await.unwrap();
    let remaining = store.whole().await;
    let remaining: Vec<_> = remaining
        .iter()
        .map(|item| (item.stored.key.sort.as_str(), item.stored.body.as_str(), item.stored.count))
        .collect();
    let expected = [
        ("checked", "{}", None),
        ("counted", "{}", Some(42)),
        ("counter", "", Some(-3)),
        ("made", "new", None),
        ("replaced", "new", None),
    ];
    assert_eq!(remaining, expected);
    let mut stored: Vec<Version> = Vec::new();
    for item_key in [key("p", "replaced"), key("p", "made"), key("other", "made")] {
        stored.push(store.table.get(&item_key, Read::Consistent).await.unwrap().unwrap().version);
    }
    assert_eq!(versions, stored, "a version for each put, in their order");
    let counter = store.table.get(&key("p", "counter"), Read::Consistent).await.unwrap().unwrap();
    assert_eq!(counter.stored.expires_at, expires_at);
    let untouched = store.table.get(&key("p", "checked"), Read::Consistent).await.unwrap().unwrap();
    assert_eq!(untouched, checked);
    store.table.transact(Vec::new()).await.unwrap();
}

pub(super) async fn transaction_writes_all_or_nothing(store: Store) {
    store.fill(&["a", "b", "c"]).await;
    let before = store.whole().await;
    let refusals = [
        Write::Put(item("p", "b"), Condition::Absent),
        Write::Delete(key("p", "b"), unknown()),
        Write::Check(key("p", "b"), Condition::Absent),
        Write::Check(key("p", "x"), unknown()),
    ];
    for refusal in refusals {
        let name = refusal.key().sort.clone();
        let stored_item = before.iter().find(|item| item.stored.key.sort == name).cloned();
        let writes = vec![
            put("a"),
            Write::Delete(key("p", "c"), Condition::Any),
            Write::Add(key("p", "d"), 1, None),
            put("e"),
            refusal,
            put("f"),
        ];
        assert_eq!(refused(store.table.transact(writes).await), (4, stored_item));
        assert_eq!(store.whole().await, before);
    }
}

pub(super) async fn failing_write_is_named(store: Store) {
    store.fill(&["5"]).await;
    let stored_item = store.whole().await.pop();
    for failing in 0..10 {
        let mut writes: Vec<Write> = (10..20).map(|number| put(&number.to_string())).collect();
        writes[failing] = Write::Check(key("p", "5"), Condition::Absent);
        assert_eq!(refused(store.table.transact(writes.clone()).await), (failing, stored_item.clone()));
        if failing < 9 {
            // If several fail, the error names one of them.
            writes[9] = Write::Check(key("p", "6"), unknown());
            let (index, _) = refused(store.table.transact(writes).await);
            assert!([failing, 9].contains(&index));
        }
    }
    assert_eq!(store.whole().await.len(), 1);
}

pub(super) async fn transaction_has_a_hundred_writes_at_most(store: Store) {
    let writes: Vec<Write> = (0..101).map(|number| put(&format!("{number:03}"))).collect();
    assert_eq!(too_large(store.table.transact(writes.clone()).await), (101, 100));
    assert!(store.whole().await.is_empty());
    store.table.transact(writes[..100].to_vec()).await.unwrap();
    assert_eq!(store.whole().await.len(), 100);
}

pub(super) async fn transaction_has_one_write_for_each_item(store: Store) {
    let item_key: Key = key("p", "a");
    let second = [
        put("a"),
        Write::Delete(item_key.clone(), Condition::Any),
        Write::Check(item_key.clone(), Condition::Any),
        Write::Add(item_key, 1, None),
    ];
    for second in second {
        wrong(store.table.transact(vec![put("a"), put("b"), second]).await);
    }
    assert!(store.whole().await.is_empty());
}

pub(super) async fn concurrent_transactions_are_isolated(store: Store) {
    // Transfers between counters keep their total.
    let accounts = ["a", "b", "c", "d"];
    let mut moves = JoinSet::new();
    for number in 0..100 {
        let table = Arc::clone(&store.table);
        moves.spawn(async move {
            let (from, to) = (accounts[number % 4], accounts[(number + 1 + number % 3) % 4]);
            let amount = i64::try_from(number).unwrap();
            let writes = vec![Write::Add(key("p", from), -amount, None), Write::Add(key("p", to), amount, None)];
            table.transact(writes).await.unwrap();
        });
    }
    moves.join_all().await;
    assert_eq!(store.whole().await.into_iter().filter_map(|item| item.stored.count).sum::<i64>(), 0);
}
