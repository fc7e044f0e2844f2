//! The conformance suite of the `Table` port: every implementation must pass every case.
//!
//! A case takes a fresh [`Store`] and does not know the implementation behind it. To test another implementation, give
//! `Store` a constructor for it and name that in the list below.

#![expect(clippy::panic, clippy::unwrap_used, reason = "these are helpers of tests")]

mod durability;
mod dynamo;
mod embedded;
mod expiry;
mod indexes;
mod items;
mod limits;
mod queries;
mod transactions;

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use overseer_engine::ports::table::{Condition, Cursor, Item, Key, NewItem, Page, Query, Range, TableError};
use overseer_engine::ports::{Clock, RandomIds, Table};
use overseer_local::RedbTable;
use tempfile::TempDir;

use crate::support::memory::MemoryTable;

macro_rules! conformance {
    ($($implementation:ident),*; $cases:tt) => { $(conformance!(@ $implementation $cases);)* };
    (@ $implementation:ident { $($file:ident: $($case:ident),*;)* }) => {
        mod $implementation {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$file::$case(super::Store::$implementation().await).await;
                }
            )*)*
        }
    };
}

conformance! { redb_file, redb_in_memory, in_maps, dynamodb; {
    items: item_is_read_as_written, replacing_item_keeps_nothing_of_the_other, item_can_be_removed_twice, times_lose_their_fractions,
        absent_condition_is_checked, version_condition_is_checked,
        delete_can_be_conditional, old_version_never_matches_a_recreated_item, lost_update_is_refused,
        one_of_fifty_concurrent_updates_wins, one_of_fifty_concurrent_creators_wins, batch_keeps_its_order,
        batch_has_a_hundred_items_at_most, counter_adds, counter_keeps_the_rest_of_its_item,
        counter_does_not_wrap, two_hundred_concurrent_additions_all_count;
    queries: ranges_include_their_bounds, keys_are_ordered_by_their_bytes, pages_of_any_size_give_the_same_list,
        cursor_of_another_query_is_refused, garbled_cursor_is_refused, forged_cursor_stays_within_its_query,
        cursor_outlives_its_item,
        large_items_come_in_short_pages, keys_are_not_confused_by_separators, invalid_queries_are_refused;
    indexes: list_is_paged_in_order, list_has_ranges, item_leaves_its_list, due_items_are_listed_from_their_time_on,
        due_items_are_paged, item_leaves_its_queue, cursors_of_other_orders_are_refused,
        index_keys_are_not_confused_by_separators;
    expiry: item_expires_to_the_second, expired_items_count_as_absent, expired_items_do_not_shorten_pages,
        expired_counter_starts_again, transaction_sees_expired_items_as_absent;
    transactions: transaction_writes_all_or_nothing, every_kind_of_write_works, failing_write_is_named, transaction_has_a_hundred_writes_at_most,
        transaction_has_one_write_for_each_item, concurrent_transactions_are_isolated;
    limits: keys_have_limits, item_has_a_limit, queue_has_a_limit, lists_have_limits;
} }

/// A clock that only the test moves.
struct TestClock(Mutex<Timestamp>);

impl TestClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new("2026-11-21T09:00:00Z".parse().unwrap())))
    }

    fn advance(&self, by: SignedDuration) {
        *self.0.lock().unwrap() += by;
    }

    fn now_plus(&self, by: SignedDuration) -> Timestamp {
        self.now() + by
    }

    fn after_seconds(&self, seconds: i64) -> Timestamp {
        self.now_plus(SignedDuration::from_secs(seconds))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// An empty store of some implementation.
struct Store {
    table: Arc<dyn Table>,
    clock: Arc<TestClock>,
    _folder: Option<TempDir>,
}

impl Store {
    fn redb_file() -> Ready<Self> {
        let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
        let path = folder.path().join("overseer.redb");
        let table = RedbTable::open(&path, clock.clone(), Arc::new(RandomIds)).unwrap();
        ready(Self { table: Arc::new(table), clock, _folder: Some(folder) })
    }

    fn redb_in_memory() -> Ready<Self> {
        let clock = TestClock::new();
        let table = RedbTable::in_memory(clock.clone(), Arc::new(RandomIds)).unwrap();
        ready(Self { table: Arc::new(table), clock, _folder: None })
    }

    fn in_maps() -> Ready<Self> {
        let clock = TestClock::new();
        let table = MemoryTable::new(clock.clone(), Arc::new(RandomIds));
        ready(Self { table: Arc::new(table), clock, _folder: None })
    }

    async fn dynamodb() -> Self {
        let (table, _, clock) = dynamo::start().await;
        Self { table: Arc::new(table), clock, _folder: None }
    }

    /// Stores small items under these sort keys of the partition "p".
    async fn fill(&self, sorts: &[&str]) {
        for sort in sorts {
            self.table.put(item("p", sort), Condition::Any).await.unwrap();
        }
    }

    /// The sort keys of a query's items, over all its pages from its cursor on.
    async fn sorts(&self, query: Query) -> Vec<String> {
        let limit = query.limit;
        let page = |cursor| {
            let query = Query { cursor, ..query.clone() };
            async { self.table.query(query).await.unwrap() }
        };
        follow(limit, query.cursor.clone(), page).await.into_iter().map(|item| item.stored.key.sort).collect()
    }

    /// The keys in a list, over all its pages.
    async fn listed(&self, query: Query) -> Vec<Key> {
        let limit = query.limit;
        let page = |cursor| {
            let query = Query { cursor, ..query.clone() };
            async { self.table.query_list(query).await.unwrap() }
        };
        follow(limit, None, page).await
    }

    /// The sort keys of due items, over all pages. Sorted, since a store may keep a queue in shards.
    async fn due(&self, queue: &str, until: Timestamp, limit: usize) -> Vec<String> {
        let page = |cursor| async move { self.table.query_due(queue, until, limit, cursor).await.unwrap() };
        let mut sorts: Vec<_> = follow(limit, None, page).await.into_iter().map(|entry| entry.key.sort).collect();
        sorts.sort();
        sorts
    }
}

/// The entries of all pages. Checks that no page is too long.
async fn follow<T, F: Future<Output = Page<T>>>(
    limit: usize,
    mut cursor: Option<Cursor>,
    page: impl Fn(Option<Cursor>) -> F,
) -> Vec<T> {
    let mut entries = Vec::new();
    for _ in 0..10_000 {
        let page = page(cursor).await;
        assert!(page.entries.len() <= limit, "{} entries on a page of {limit}", page.entries.len());
        entries.extend(page.entries);
        match page.next {
            Some(next) => cursor = Some(next),
            None => return entries,
        }
    }
    panic!("the pages do not end");
}

/// The cursor with another text in it.
fn forged(cursor: &Cursor, from: &str, to: &str) -> Cursor {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(&cursor.0).unwrap()).unwrap();
    let other = text.replace(&format!("{from:?}"), &format!("{to:?}"));
    assert_ne!(text, other);
    Cursor(URL_SAFE_NO_PAD.encode(other))
}

fn key(partition: &str, sort: &str) -> Key {
    Key { partition: partition.to_owned(), sort: sort.to_owned() }
}

fn item(partition: &str, sort: &str) -> NewItem {
    body(partition, sort, "{}")
}

fn body(partition: &str, sort: &str, body: &str) -> NewItem {
    let key = key(partition, sort);
    NewItem { key, body: body.to_owned(), count: None, expires_at: None, due: None, list: None }
}

/// All of the partition "p" in pages of ten.
fn query(range: Range) -> Query {
    Query { range, ..Query::partition("p", 10) }
}

/// The index of the refused write, and the stored item.
fn refused<T>(result: Result<T, TableError>) -> (usize, Option<Item>) {
    match result.map(drop) {
        Err(TableError::Condition { index, current }) => (index, current.map(|item| *item)),
        other => panic!("not refused by a condition: {other:?}"),
    }
}

/// Checks that the request itself was refused as invalid.
fn wrong<T>(result: Result<T, TableError>) {
    let result = result.map(drop);
    assert!(matches!(result, Err(TableError::Request(_))), "not refused as invalid: {result:?}");
}

/// The size and the limit in the error of a request that is too large.
fn too_large<T>(result: Result<T, TableError>) -> (usize, usize) {
    match result.map(drop) {
        Err(TableError::TooLarge { bytes, limit, .. }) => (bytes, limit),
        other => panic!("not too large: {other:?}"),
    }
}
