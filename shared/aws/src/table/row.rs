//! An item as a row of DynamoDB. Only this file knows a row's attributes.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use overseer_engine::ports::table::{Due, Item, Key, NewItem, TableError, Version};

/// The partition key.
pub(super) const PARTITION: &str = "partition";
/// The sort key.
pub(super) const SORT: &str = "sort";
pub(super) const VERSION: &str = "version";
pub(super) const BODY: &str = "body";
pub(super) const COUNT: &str = "count";
/// In whole seconds; DynamoDB's time to live reads it.
pub(super) const EXPIRES_AT: &str = "expires_at";
/// The partition key of the index [`LIST`].
pub(super) const LIST_PARTITION: &str = "list_partition";
/// The sort key of the index [`LIST`].
pub(super) const LIST_SORT: &str = "list_sort";
/// The partition key of the index [`DUE`]: the queue and the shard.
pub(super) const DUE_SHARD: &str = "due_shard";
/// The sort key of the index [`DUE`], in milliseconds.
pub(super) const DUE_AT: &str = "due_at";

/// The index with the second order of items.
pub(super) const LIST: &str = "list";
/// The index with the queues.
pub(super) const DUE: &str = "due";
/// The shards of each queue. A partition of an index takes a thousand writes a second, and a queue holds the work of all
/// organizations.
pub(super) const SHARDS: u8 = 8;

/// What the SDK calls an item.
pub(super) type Row = HashMap<String, AttributeValue>;

/// A row that Overseer could not have written.
#[derive(Debug, thiserror::Error)]
#[error("a row of the table has no {0}, or an invalid one")]
struct Damaged(&'static str);

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: i64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The attributes of a primary key.
pub(super) fn key(key: &Key) -> Row {
    HashMap::from([(PARTITION.to_owned(), text(key.partition.as_str())), (SORT.to_owned(), text(key.sort.as_str()))])
}

/// All attributes of an item.
pub(super) fn of(item: NewItem, version: &Version) -> Row {
    let due_shard = item.due.as_ref().map(|due| shard(&due.queue, shard_of(&item.key)));
    let mut row = key(&item.key);
    let mut set = |name: &str, value: Option<AttributeValue>| {
        if let Some(value) = value {
            row.insert(name.to_owned(), value);
        }
    };
    set(VERSION, Some(text(version.0.as_str())));
    set(BODY, Some(text(item.body)));
    set(COUNT, item.count.map(number));
    set(EXPIRES_AT, item.expires_at.map(|at| number(at.as_second())));
    set(DUE_SHARD, due_shard.map(text));
    set(DUE_AT, item.due.map(|due| number(due.at.as_millisecond())));
    let (list_partition, list_sort) = item.list.map(|list| (list.partition, list.sort)).unzip();
    set(LIST_PARTITION, list_partition.map(text));
    set(LIST_SORT, list_sort.map(text));
    row
}

/// The item in a row, unless it has expired.
pub(super) fn live(mut row: Row, now_s: i64) -> Result<Option<Item>, TableError> {
    if expired(&row, now_s)? {
        return Ok(None);
    }
    let (count, expires_at) = (optional_number(&row, COUNT)?, optional_number(&row, EXPIRES_AT)?);
    let due = optional_number(&row, DUE_AT)?.map(|at| {
        let (queue, _) = find_text(&row, DUE_SHARD)?.rsplit_once('#').ok_or_else(|| damaged(DUE_SHARD))?;
        Ok(Due { queue: queue.to_owned(), at: Timestamp::from_millisecond(at).map_err(|_| damaged(DUE_AT))? })
    });
    let due = due.transpose()?;
    let list = match row.remove(LIST_PARTITION) {
        Some(partition) => Some(Key {
            partition: into_text(Some(partition), LIST_PARTITION)?,
            sort: into_text(row.remove(LIST_SORT), LIST_SORT)?,
        }),
        None => None,
    };
    let stored = NewItem {
        key: key_in(&row)?,
        body: into_text(row.remove(BODY), BODY)?,
        count,
        expires_at: expires_at.map(Timestamp::from_second).transpose().map_err(|_| damaged(EXPIRES_AT))?,
        due,
        list,
    };
    Ok(Some(Item { stored, version: Version(into_text(row.remove(VERSION), VERSION)?) }))
}

/// Whether a row's item has expired.
pub(super) fn expired(row: &Row, now_s: i64) -> Result<bool, TableError> {
    Ok(optional_number(row, EXPIRES_AT)?.is_some_and(|at| at <= now_s))
}

/// The primary key in a row.
pub(super) fn key_in(row: &Row) -> Result<Key, TableError> {
    Ok(Key { partition: find_text(row, PARTITION)?.to_owned(), sort: find_text(row, SORT)?.to_owned() })
}

pub(super) fn find_text<'a>(row: &'a Row, name: &'static str) -> Result<&'a str, TableError> {
    row.get(name).and_then(|value| value.as_s().ok()).map(String::as_str).ok_or_else(|| damaged(name))
}

pub(super) fn find_number(row: &Row, name: &'static str) -> Result<i64, TableError> {
    optional_number(row, name)?.ok_or_else(|| damaged(name))
}

pub(super) fn optional_number(row: &Row, name: &'static str) -> Result<Option<i64>, TableError> {
    let Some(value) = row.get(name) else { return Ok(None) };
    let number = value.as_n().ok().and_then(|digits| digits.parse().ok());
    number.map(Some).ok_or_else(|| damaged(name))
}

fn into_text(value: Option<AttributeValue>, name: &'static str) -> Result<String, TableError> {
    match value {
        Some(AttributeValue::S(text)) => Ok(text),
        _ => Err(damaged(name)),
    }
}

fn damaged(name: &'static str) -> TableError {
    TableError::Record(Box::new(Damaged(name)))
}

/// The key of one shard of a queue.
pub(super) fn shard(queue: &str, number: u8) -> String {
    format!("{queue}#{number}")
}

/// The shard of an item. It depends on the key alone, so a rewrite of the item does not move its index entry.
fn shard_of(key: &Key) -> u8 {
    // FNV-1a gives the same hash in every process and version; std's hashers do not promise that.
    let mut hash: u32 = 0x811c_9dc5;
    for byte in key.partition.bytes().chain([0xff]).chain(key.sort.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let [low, ..] = (hash >> 8).to_le_bytes();
    low % SHARDS
}

#[cfg(test)]
mod tests {
    use overseer_engine::ports::table::ITEM_MAX_BYTES;

    use super::*;

    /// The size of an item as DynamoDB counts it: the bytes of names and strings, and for a number half its digits and one
    /// byte, or two with a sign.
    fn counted(row: &Row) -> usize {
        row.iter().fold(0, |sum, (name, value)| {
            let bytes = value.as_s().map_or_else(|_| value.as_n().unwrap().len() / 2 + 2, String::len);
            sum + name.len() + bytes
        })
    }

    fn full(sort: &str) -> NewItem {
        NewItem {
            key: Key { partition: "p".to_owned(), sort: sort.to_owned() },
            body: "{}".to_owned(),
            count: Some(i64::MIN),
            expires_at: Some(Timestamp::MIN),
            due: Some(Due { queue: "a#1".to_owned(), at: Timestamp::MIN }),
            list: Some(Key { partition: "l".to_owned(), sort: "s".to_owned() }),
        }
    }

    #[test]
    fn largest_item_fits_into_dynamodb() {
        let mut item = full("s");
        let rest = "ps{}lsa#1".len();
        item.body = "x".repeat(ITEM_MAX_BYTES - rest + item.body.len());
        let bytes = counted(&of(item, &Version("0".repeat(32))));
        assert!(bytes <= 400 * 1024, "{bytes}");
    }

    #[test]
    fn row_holds_the_whole_item() {
        let item = full("s");
        let mut seen = item.clone();
        seen.expires_at = Some(Timestamp::from_second(Timestamp::MIN.as_second()).unwrap());
        seen.due = Some(Due {
            queue: "a#1".to_owned(),
            at: Timestamp::from_millisecond(Timestamp::MIN.as_millisecond()).unwrap(),
        });
        let row = of(item, &Version("v".to_owned()));
        let found = live(row.clone(), i64::MIN).unwrap().unwrap();
        assert_eq!((found.stored, found.version.0.as_str()), (seen, "v"));
        for name in [PARTITION, SORT, VERSION, BODY, DUE_SHARD, LIST_SORT] {
            let mut row = row.clone();
            row.remove(name);
            assert!(matches!(live(row, i64::MIN), Err(TableError::Record(_))), "{name}");
        }
    }

    #[test]
    fn shards_are_used_about_evenly() {
        let mut used = vec![0; usize::from(SHARDS)];
        for number in 0..8_000 {
            used[usize::from(shard_of(&full(&format!("task/{number}")).key))] += 1;
        }
        assert!(used.iter().all(|count| (850..1_150).contains(count)), "{used:?}");
    }
}
