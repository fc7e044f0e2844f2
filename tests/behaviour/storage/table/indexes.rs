//! The second order, and queues of due work.

#![expect(clippy::unwrap_used, reason = "these are tests, called by a macro")]

use jiff::SignedDuration;
use overseer_engine::ports::table::{Condition, Due, DueEntry, NewItem, Query, Range};

use super::{Store, item, key, query, wrong};

fn listed(sort: &str, list_sort: &str) -> NewItem {
    NewItem { list: Some(key("l", list_sort)), ..item("p", sort) }
}

fn all() -> Query {
    Query::partition("l", 10)
}

impl Store {
    async fn put(&self, item: NewItem) {
        self.table.put(item, Condition::Any).await.unwrap();
    }

    fn due_item(&self, sort: &str, queue: &str, after_ms: i64) -> NewItem {
        let at = self.clock.now_plus(SignedDuration::from_millis(after_ms));
        NewItem { due: Some(Due { queue: queue.to_owned(), at }), ..item("p", sort) }
    }
}

pub(super) async fn list_is_paged_in_order(store: Store) {
    for (sort, list_sort) in [("1", "c"), ("2", "b"), ("3", "b"), ("4", "b"), ("5", "a"), ("6", "d")] {
        store.put(listed(sort, list_sort)).await;
    }
    store.put(item("p", "7")).await;
    store.put(NewItem { list: Some(key("other", "b")), ..item("p", "8") }).await;
    let whole = store.listed(all()).await;
    // Entries with the same position may have any stable order.
    let mut middle: Vec<_> = whole.iter().skip(1).take(3).cloned().collect();
    middle.sort();
    assert_eq!(middle, [key("p", "2"), key("p", "3"), key("p", "4")]);
    assert_eq!(whole.first(), Some(&key("p", "5")));
    assert_eq!(whole.iter().skip(4).collect::<Vec<_>>(), [&key("p", "1"), &key("p", "6")]);
    let reversed: Vec<_> = whole.iter().rev().cloned().collect();
    for limit in 1..=7 {
        assert_eq!(store.listed(Query { limit, ..all() }).await, whole, "limit {limit}");
        assert_eq!(store.listed(Query { limit, backwards: true, ..all() }).await, reversed, "limit {limit}");
    }
}

pub(super) async fn list_has_ranges(store: Store) {
    for sort in ["a", "a/1", "a/2", "b", "b\0", "c"] {
        store.put(listed(sort, sort)).await;
    }
    let cases: [(Range, &[&str]); 3] = [
        (Range::Prefix("a/".to_owned()), &["a/1", "a/2"]),
        (Range::Between("a/2".to_owned(), "b".to_owned()), &["a/2", "b"]),
        (Range::Between("c".to_owned(), "b".to_owned()), &[]),
    ];
    for (range, sorts) in cases {
        let expected: Vec<_> = sorts.iter().map(|sort| key("p", sort)).collect();
        assert_eq!(store.listed(Query { range: range.clone(), limit: 1, ..all() }).await, expected, "{range:?}");
    }
}

pub(super) async fn item_leaves_its_list(store: Store) {
    store.put(listed("1", "a")).await;
    store.put(listed("2", "b")).await;
    store.put(listed("1", "c")).await;
    assert_eq!(store.listed(all()).await, [key("p", "2"), key("p", "1")]);
    store.table.add(&key("p", "1"), 1, None).await.unwrap();
    assert_eq!(store.listed(all()).await, [key("p", "2"), key("p", "1")]);
    store.put(item("p", "2")).await;
    assert_eq!(store.listed(all()).await, [key("p", "1")]);
    store.table.delete(&key("p", "1"), Condition::Any).await.unwrap();
    assert!(store.listed(all()).await.is_empty());
}

pub(super) async fn due_items_are_listed_from_their_time_on(store: Store) {
    for (sort, after_ms) in [("c", 2_000), ("a", 1_000), ("b", 1_999), ("d", 2_001), ("past", -86_400_000)] {
        store.put(store.due_item(sort, "q", after_ms)).await;
    }
    store.put(store.due_item("elsewhere", "r", 0)).await;
    store.put(item("p", "never")).await;
    assert_eq!(store.due("q", store.clock.after_seconds(2), 10).await, ["a", "b", "c", "past"]);
    let just_before = store.clock.now_plus(SignedDuration::from_micros(1_999_999));
    assert_eq!(store.due("q", just_before, 10).await, ["a", "b", "past"]);
    assert!(store.due("unknown", just_before, 10).await.is_empty());
    let page = store.table.query_due("r", just_before, 10, None).await.unwrap();
    assert_eq!(page.entries, [DueEntry { key: key("p", "elsewhere"), at: store.clock.after_seconds(0) }]);
}

pub(super) async fn due_items_are_paged(store: Store) {
    let sorts: Vec<_> = (0..12).map(|number| format!("{number:02}")).collect();
    for (sort, after_ms) in sorts.iter().zip([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]) {
        store.put(store.due_item(sort, "q", after_ms)).await;
    }
    store.put(store.due_item("later", "q", 60_000)).await;
    for limit in 1..=13 {
        assert_eq!(store.due("q", store.clock.after_seconds(1), limit).await, sorts, "limit {limit}");
    }
}

pub(super) async fn item_leaves_its_queue(store: Store) {
    let until = store.clock.after_seconds(10);
    store.put(store.due_item("a", "q", 1)).await;
    store.put(store.due_item("b", "q", 2)).await;
    store.put(store.due_item("a", "q", 3)).await;
    assert_eq!(store.due("q", until, 10).await, ["a", "b"]);
    store.put(store.due_item("b", "r", 2)).await;
    assert_eq!(store.due("q", until, 10).await, ["a"]);
    assert_eq!(store.due("r", until, 10).await, ["b"]);
    store.put(item("p", "b")).await;
    store.table.delete(&key("p", "a"), Condition::Any).await.unwrap();
    assert!(store.due("q", until, 10).await.is_empty());
    assert!(store.due("r", until, 10).await.is_empty());
}

pub(super) async fn cursors_of_other_orders_are_refused(store: Store) {
    for sort in ["a", "b", "c"] {
        let list = Some(key("p", sort));
        store.put(NewItem { list, ..store.due_item(sort, "p", 0) }).await;
        store.put(NewItem { key: key("r", sort), ..store.due_item(sort, "r", 0) }).await;
    }
    let (table, until) = (&store.table, store.clock.after_seconds(1));
    let two = Query { limit: 2, ..query(Range::All) };
    let of_items = table.query(two.clone()).await.unwrap().next.unwrap();
    let of_list = table.query_list(two.clone()).await.unwrap().next.unwrap();
    let of_queue = table.query_due("p", until, 2, None).await.unwrap().next.unwrap();
    for cursor in [&of_list, &of_queue] {
        wrong(table.query(Query { cursor: Some(cursor.clone()), ..two.clone() }).await);
    }
    for cursor in [&of_items, &of_queue] {
        wrong(table.query_list(Query { cursor: Some(cursor.clone()), ..two.clone() }).await);
    }
    for cursor in [of_items, of_list] {
        wrong(table.query_due("p", until, 2, Some(cursor)).await);
    }
    wrong(table.query_due("r", until, 2, Some(of_queue.clone())).await);
    table.query_due("p", until, 2, Some(of_queue)).await.unwrap();
}

pub(super) async fn index_keys_are_not_confused_by_separators(store: Store) {
    for (partition, sort) in [("a", "b\0c"), ("a\0b", "c"), ("a/b", "c"), ("a", "b/c")] {
        let due = Some(Due { queue: partition.to_owned(), at: store.clock.after_seconds(0) });
        store.put(NewItem { list: Some(key(partition, sort)), due, ..item(partition, sort) }).await;
    }
    assert_eq!(store.listed(Query::partition("a", 1)).await, [key("a", "b\0c"), key("a", "b/c")]);
    assert_eq!(store.listed(Query::partition("a\0b", 1)).await, [key("a\0b", "c")]);
    assert_eq!(store.listed(Query::partition("a/b", 1)).await, [key("a/b", "c")]);
    let now = store.clock.after_seconds(0);
    assert_eq!(store.due("a", now, 1).await.len(), 2);
    assert_eq!(store.due("a\0b", now, 1).await, ["c"]);
    assert_eq!(store.due("a/b", now, 1).await, ["c"]);
}
