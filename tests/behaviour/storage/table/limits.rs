//! Limits on sizes, exact to the byte.

#![expect(clippy::unwrap_used, reason = "these are tests, called by a macro")]

use overseer_engine::ports::table::{
    Condition, Due, ITEM_MAX_BYTES, Key, NewItem, PARTITION_MAX_BYTES, Query, Range, Read, SORT_MAX_BYTES, Write,
};

use super::{Store, body, item, key, query, too_large, wrong};

pub(super) async fn keys_have_limits(store: Store) {
    let table = &store.table;
    // Bytes count, not characters.
    let longest = key(&"ö".repeat(PARTITION_MAX_BYTES / 2), &"ö".repeat(SORT_MAX_BYTES / 2));
    let new = |place: &Key| NewItem { key: place.clone(), ..item("p", "a") };
    table.put(new(&longest), Condition::Any).await.unwrap();
    assert!(table.get(&longest, Read::Consistent).await.unwrap().is_some());
    let found = store.sorts(Query::partition(longest.partition.clone(), 1)).await;
    assert_eq!(found, std::slice::from_ref(&longest.sort));
    let long_partition = Key { partition: format!("{}a", longest.partition), ..longest.clone() };
    let long_sort = Key { sort: format!("{}a", longest.sort), ..longest.clone() };
    for (place, limit) in [(long_partition, PARTITION_MAX_BYTES), (long_sort, SORT_MAX_BYTES)] {
        let expected = (limit + 1, limit);
        assert_eq!(too_large(table.put(new(&place), Condition::Any).await), expected);
        assert_eq!(too_large(table.get(&place, Read::Consistent).await), expected);
        assert_eq!(too_large(table.batch_get(std::slice::from_ref(&place), Read::Consistent).await), expected);
        assert_eq!(too_large(table.delete(&place, Condition::Any).await), expected);
        assert_eq!(too_large(table.add(&place, 1, None).await), expected);
        assert_eq!(too_large(table.transact(vec![Write::Check(place, Condition::Any)]).await), expected);
    }
    for place in [key("", "a"), key("a", "")] {
        wrong(table.put(new(&place), Condition::Any).await);
        wrong(table.get(&place, Read::Consistent).await);
        wrong(table.batch_get(std::slice::from_ref(&place), Read::Consistent).await);
        wrong(table.delete(&place, Condition::Any).await);
        wrong(table.add(&place, 1, None).await);
        wrong(table.transact(vec![Write::Put(new(&place), Condition::Any)]).await);
    }
}

pub(super) async fn item_has_a_limit(store: Store) {
    let exactly = body("p", "a", &"x".repeat(ITEM_MAX_BYTES - 2));
    store.table.put(exactly.clone(), Condition::Any).await.unwrap();
    let found = store.table.get(&exactly.key, Read::Consistent).await.unwrap().unwrap();
    assert_eq!(found.stored, exactly);
    let expected = (ITEM_MAX_BYTES + 1, ITEM_MAX_BYTES);
    let more = NewItem { key: key("p", "ab"), ..exactly.clone() };
    assert_eq!(too_large(store.table.put(more.clone(), Condition::Any).await), expected);
    let writes = vec![Write::Put(item("p", "b"), Condition::Any), Write::Put(more, Condition::Any)];
    assert_eq!(too_large(store.table.transact(writes).await), expected);
    assert_eq!(store.sorts(query(Range::All)).await, ["a"]);
    // The keys in the indexes count too.
    let indexed = NewItem { list: Some(key("l", "1")), ..exactly };
    assert_eq!(too_large(store.table.put(indexed, Condition::Any).await), (ITEM_MAX_BYTES + 2, ITEM_MAX_BYTES));
    // Adding to a counter does not make an item too large.
    assert_eq!(store.table.add(&key("p", "a"), 1, None).await.unwrap(), 1);
}

pub(super) async fn queue_has_a_limit(store: Store) {
    let due = |queue: &str| {
        let due = Due { queue: queue.to_owned(), at: store.clock.after_seconds(0) };
        NewItem { due: Some(due), ..item("p", "a") }
    };
    let now = store.clock.after_seconds(0);
    let longest = "q".repeat(255);
    store.table.put(due(&longest), Condition::Any).await.unwrap();
    assert_eq!(store.due(&longest, now, 1).await, ["a"]);
    let longer = "q".repeat(256);
    assert_eq!(too_large(store.table.put(due(&longer), Condition::Any).await), (256, 255));
    assert_eq!(too_large(store.table.query_due(&longer, now, 1, None).await), (256, 255));
    wrong(store.table.put(due(""), Condition::Any).await);
    wrong(store.table.query_due("", now, 1, None).await);
}

pub(super) async fn lists_have_limits(store: Store) {
    let listed = |place: Key| NewItem { list: Some(place), ..item("p", "a") };
    let longest = key(&"l".repeat(PARTITION_MAX_BYTES), &"s".repeat(SORT_MAX_BYTES));
    store.table.put(listed(longest.clone()), Condition::Any).await.unwrap();
    assert_eq!(store.listed(Query::partition(longest.partition.clone(), 1)).await, [key("p", "a")]);
    let longer = Key { sort: format!("{}s", longest.sort), ..longest };
    too_large(store.table.put(listed(longer), Condition::Any).await);
    wrong(store.table.put(listed(key("", "s")), Condition::Any).await);
    wrong(store.table.put(listed(key("l", "")), Condition::Any).await);
}
