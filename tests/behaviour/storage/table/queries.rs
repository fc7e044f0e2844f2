//! Pages of a partition.

#![expect(clippy::unwrap_used, reason = "these are tests, called by a macro")]

use overseer_engine::ports::table::{Condition, Cursor, NewItem, Page, Query, Range, Read, SORT_MAX_BYTES};

use super::{Store, body, forged, item, key, query, too_large, wrong};

const LAST: &str = "\u{10ffff}";

fn prefix(text: &str) -> Range {
    Range::Prefix(text.to_owned())
}

fn between(low: &str, high: &str) -> Range {
    Range::Between(low.to_owned(), high.to_owned())
}

pub(super) async fn ranges_include_their_bounds(store: Store) {
    let last_twice = LAST.repeat(2);
    let after_last = format!("{LAST}a");
    let sorts = ["a", "a\0", "a/b", "ab", "a\u{d7ff}x", "a\u{e000}", "b", LAST, &after_last, &last_twice];
    store.fill(&sorts).await;
    for neighbour in ["o", "p\0", "p/", "pa", "q"] {
        store.table.put(item(neighbour, "a"), Condition::Any).await.unwrap();
    }
    let cases: &[(Range, &[&str])] = &[
        (Range::All, &sorts),
        (prefix("a"), &["a", "a\0", "a/b", "ab", "a\u{d7ff}x", "a\u{e000}"]),
        (prefix("a/"), &["a/b"]),
        (prefix("a\u{d7ff}"), &["a\u{d7ff}x"]),
        (prefix(LAST), &[LAST, &after_last, &last_twice]),
        (prefix(&last_twice), &[&last_twice]),
        (prefix("c"), &[]),
        (between("a", "b"), &["a", "a\0", "a/b", "ab", "a\u{d7ff}x", "a\u{e000}", "b"]),
        (between("a", "a"), &["a"]),
        (between("a\0", "ab"), &["a\0", "a/b", "ab"]),
        (between("aa", "aa"), &[]),
        (between("0", "a"), &["a"]),
        (between("b", &last_twice), &["b", LAST, &after_last, &last_twice]),
        (between("b", "a"), &[]),
    ];
    for (range, expected) in cases {
        for limit in [1, 2, 10, 1_000] {
            for backwards in [false, true] {
                let mut expected = expected.to_vec();
                if backwards {
                    expected.reverse();
                }
                let found = store.sorts(Query { limit, backwards, ..query(range.clone()) }).await;
                assert_eq!(found, expected, "{range:?}, backwards: {backwards}, limit {limit}");
            }
        }
    }
    assert!(store.sorts(Query::partition("unknown", 10)).await.is_empty());
}

pub(super) async fn keys_are_ordered_by_their_bytes(store: Store) {
    // In the order of UTF-16, which some stores use, the last two would be swapped.
    let sorts = ["1", "10", "2", "A", "B", "a", "á", "\u{ffff}", "\u{10000}"];
    store.fill(&["a", "\u{10000}", "2", "B", "\u{ffff}", "10", "á", "1", "A"]).await;
    assert_eq!(store.sorts(query(Range::All)).await, sorts);
}

pub(super) async fn pages_of_any_size_give_the_same_list(store: Store) {
    let sorts: Vec<String> = (0..23).map(|number| format!("s/{number:02}")).collect();
    store.fill(&sorts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    store.fill(&["r", "t"]).await;
    let reversed: Vec<String> = sorts.iter().rev().cloned().collect();
    for limit in 1..=24 {
        let forwards = Query { limit, ..query(prefix("s/")) };
        assert_eq!(store.sorts(forwards.clone()).await, sorts, "limit {limit}");
        assert_eq!(store.sorts(Query { backwards: true, ..forwards }).await, reversed, "limit {limit}");
    }
}

/// The first page of two, which has a cursor.
async fn first_page(store: &Store, query: &Query) -> Cursor {
    let page = store.table.query(Query { limit: 2, ..query.clone() }).await.unwrap();
    page.next.unwrap()
}

pub(super) async fn cursor_of_another_query_is_refused(store: Store) {
    store.fill(&["a1", "a2", "a3", "b1", "b2", "b3"]).await;
    for sort in ["a1", "a2", "a3"] {
        store.table.put(item("other", sort), Condition::Any).await.unwrap();
    }
    let queries = [
        query(Range::All),
        Query { backwards: true, ..query(Range::All) },
        query(prefix("a")),
        query(prefix("b")),
        query(between("a1", "a3")),
        query(between("a1", "b1")),
        Query::partition("other", 10),
    ];
    for (index, of) in queries.iter().enumerate() {
        let cursor = first_page(&store, of).await;
        for (other, to) in queries.iter().enumerate() {
            let result = store.table.query(Query { cursor: Some(cursor.clone()), ..to.clone() }).await;
            if index == other {
                result.unwrap();
            } else {
                wrong(result);
            }
        }
        // A cursor is not bound to the limit.
        store.table.query(Query { cursor: Some(cursor), limit: 1, ..of.clone() }).await.unwrap();
    }
}

pub(super) async fn garbled_cursor_is_refused(store: Store) {
    store.fill(&["a", "b", "c"]).await;
    let good = first_page(&store, &query(Range::All)).await.0;
    assert!(good.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)), "{good} in a URL");
    let half: String = good.chars().take(good.len() / 2).collect();
    let long = "A".repeat(100_000);
    let texts = ["", "!", "a", "null", "W10", "e30", "ä", "\0", &half, &long, &format!("{good}A"), &format!("A{good}")];
    for text in texts {
        let cursor = || Some(Cursor(text.to_owned()));
        wrong(store.table.query(Query { cursor: cursor(), ..query(Range::All) }).await);
        wrong(store.table.query_list(Query { cursor: cursor(), ..query(Range::All) }).await);
        wrong(store.table.query_due("q", store.clock.after_seconds(0), 10, cursor()).await);
    }
}

pub(super) async fn forged_cursor_stays_within_its_query(store: Store) {
    for sort in ["a", "b1", "b2", "b3", "c"] {
        let list = Some(key("l", sort));
        store.table.put(NewItem { list, ..item("p", sort) }, Condition::Any).await.unwrap();
    }
    for range in [prefix("b"), between("b1", "b3")] {
        let items = Query { limit: 1, ..query(range) };
        let list = Query { partition: "l".to_owned(), ..items.clone() };
        let of_items = store.table.query(items.clone()).await.unwrap().next.unwrap();
        let of_list = store.table.query_list(list.clone()).await.unwrap().next.unwrap();
        for to in ["a", "c"] {
            let cursor = Some(forged(&of_items, "b1", to));
            wrong(store.table.query(Query { cursor, ..items.clone() }).await);
            let cursor = Some(forged(&of_list, "b1", to));
            wrong(store.table.query_list(Query { cursor, ..list.clone() }).await);
        }
        let cursor = Some(forged(&of_items, "b1", "b2"));
        assert_eq!(store.sorts(Query { cursor, ..items }).await, ["b3"]);
    }
}

pub(super) async fn cursor_outlives_its_item(store: Store) {
    store.fill(&["a", "b", "c", "d"]).await;
    for backwards in [false, true] {
        let query = Query { backwards, limit: 2, ..query(Range::All) };
        let page = store.table.query(query.clone()).await.unwrap();
        let mut sorts: Vec<_> = page.entries.iter().map(|item| item.stored.key.sort.clone()).collect();
        let gone = sorts.last().unwrap().clone();
        store.table.delete(&key("p", &gone), Condition::Any).await.unwrap();
        sorts.extend(store.sorts(Query { cursor: page.next, ..query }).await);
        assert_eq!(sorts, if backwards { ["d", "c", "b", "a"] } else { ["a", "b", "c", "d"] });
        store.fill(&[&gone]).await;
    }
}

pub(super) async fn large_items_come_in_short_pages(store: Store) {
    let large = "x".repeat(300 * 1024);
    let sorts = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for sort in sorts {
        store.table.put(body("p", sort, &large), Condition::Any).await.unwrap();
    }
    assert_eq!(store.sorts(query(Range::All)).await, sorts);
}

pub(super) async fn keys_are_not_confused_by_separators(store: Store) {
    let pairs = [
        ("a", "b/c"),
        ("a/b", "c"),
        ("a", "b\0c"),
        ("a\0b", "c"),
        ("a", "\0"),
        ("a\0", "a"),
        ("a", "bc"),
        ("ab", "c"),
        ("a", "b#c"),
        ("a#b", "c"),
        ("a\u{1f}b", "c"),
        ("a", "b\u{1f}c"),
    ];
    for (partition, sort) in pairs {
        store.table.put(body(partition, sort, &format!("{partition}|{sort}")), Condition::Absent).await.unwrap();
    }
    for (partition, sort) in pairs {
        let mut expected: Vec<_> = pairs.iter().filter(|pair| pair.0 == partition).map(|pair| pair.1).collect();
        expected.sort_unstable();
        assert_eq!(store.sorts(Query::partition(partition, 2)).await, expected, "{partition:?}");
        let found = store.table.get(&key(partition, sort), Read::Consistent).await.unwrap().unwrap();
        assert_eq!(found.stored.body, format!("{partition}|{sort}"));
    }
}

pub(super) async fn invalid_queries_are_refused(store: Store) {
    wrong(store.table.query(Query { limit: 0, ..query(Range::All) }).await);
    wrong(store.table.query_list(Query { limit: 0, ..query(Range::All) }).await);
    wrong(store.table.query_due("q", store.clock.after_seconds(0), 0, None).await);
    wrong(store.table.query(Query::partition("", 1)).await);
    wrong(store.table.query_list(Query::partition("", 1)).await);
    too_large(store.table.query(Query::partition("p".repeat(2049), 1)).await);
    let long = "a".repeat(SORT_MAX_BYTES + 1);
    for range in [prefix(&long), between("a", &long), between(&long, "a")] {
        too_large(store.table.query(query(range.clone())).await);
        too_large(store.table.query_list(query(range)).await);
    }
    let nothing = store.table.query(query(prefix(&"a".repeat(SORT_MAX_BYTES)))).await.unwrap();
    assert_eq!(nothing, Page { entries: Vec::new(), next: None });
}
