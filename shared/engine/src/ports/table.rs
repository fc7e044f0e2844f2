//! The single-table store that every record lives in. It knows nothing of plugins or tasks: modules own their records
//! and write them once, over this trait. The rules here are those that DynamoDB can keep too; one conformance suite
//! (`tests/behaviour/storage/table/`) holds every implementation to them.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The most items that one [`Table::batch_get`] or [`Table::transact`] may name.
pub const BATCH_MAX: usize = 100;
/// The largest item, in bytes of its keys, body and index keys together: the 400 KB of DynamoDB less 1 KB for what it
/// counts besides (names of attributes, the version, the times).
pub const ITEM_MAX_BYTES: usize = 399 * 1024;
/// The longest partition key, in bytes.
pub const PARTITION_MAX_BYTES: usize = 2048;
/// The longest sort key, in bytes.
pub const SORT_MAX_BYTES: usize = 1024;

/// Where an item stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Items of one partition are listed together, in the order of their sort keys. 1 to 2,048 bytes.
    pub partition: String,
    /// Unique within the partition, ordered by its bytes. 1 to 1,024 bytes.
    pub sort: String,
}

/// What a writer stores. Writing replaces the whole item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewItem {
    /// Where it goes.
    pub key: Key,
    /// The record, as JSON text.
    pub body: String,
    /// A counter, changed by [`Table::add`] without touching the rest.
    pub count: Option<i64>,
    /// From this moment on the item counts as gone, whether or not it has been removed. Whole seconds; the fraction
    /// is dropped. (The list and due orders may still name it.)
    pub expires_at: Option<Timestamp>,
    /// Its place in a queue of due work, if it stands in one.
    pub due: Option<Due>,
    /// Its place in a second order, if it stands in one. The same limits as for [`Key`].
    pub list: Option<Key>,
}

impl NewItem {
    /// An item that holds `record` as JSON and stands in no index.
    pub fn new(key: Key, record: &impl Serialize) -> Result<Self, TableError> {
        let body = serde_json::to_string(record).map_err(|error| TableError::Record(Box::new(error)))?;
        Ok(Self { key, body, count: None, expires_at: None, due: None, list: None })
    }
}

/// A stored item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What was stored.
    pub stored: NewItem,
    /// Random and new with every put, so that a deleted and re-made item is not mistaken for the old one. An
    /// [`Table::add`] to an item that exists leaves it.
    pub version: Version,
}

impl Item {
    /// Reads the record in the body.
    pub fn record<T: DeserializeOwned>(&self) -> Result<T, TableError> {
        serde_json::from_str(&self.stored.body).map_err(|error| TableError::Record(Box::new(error)))
    }
}

/// The version of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version(pub String);

/// A place in a queue of due work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The name of the queue. 1 to 255 bytes.
    pub queue: String,
    /// When the work is due, to the millisecond.
    pub at: Timestamp,
}

/// Which reads may be a moment behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// May miss the writes of the last moment; half the price.
    Eventual,
    /// Sees every write that was acknowledged before.
    Consistent,
}

/// What must hold for a write to happen. An expired item counts as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is asked.
    Any,
    /// No item stands there.
    Absent,
    /// An item of this version stands there.
    Version(Version),
}

/// One part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores an item.
    Put(NewItem, Condition),
    /// Removes an item; removing none is fine where the condition allows it.
    Delete(Key, Condition),
    /// Changes nothing; the transaction fails where the condition does not hold.
    Check(Key, Condition),
    /// Adds to a counter, as [`Table::add`] does.
    Add(Key, i64, Option<Timestamp>),
}

impl Write {
    /// The item that this part is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(item, _) => &item.key,
            Self::Delete(key, _) | Self::Check(key, _) | Self::Add(key, _, _) => key,
        }
    }
}

/// Which sort keys of a partition. What a range begins or ends with is no longer than a sort key may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// All of them.
    All,
    /// Those that begin so.
    Prefix(String),
    /// From the first to the last, both included.
    Between(String, String),
}

/// Which items of a partition, and how many at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The partition.
    pub partition: String,
    /// The sort keys.
    pub range: Range,
    /// From the largest sort key to the smallest.
    pub backwards: bool,
    /// The largest page, at least 1. A page may hold fewer items and still have a cursor.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
    /// Whether the read may be a moment behind. The list and due orders always may.
    pub read: Read,
}

impl Query {
    /// The first page of a whole partition, forwards, consistent.
    pub fn partition(partition: impl Into<String>, limit: usize) -> Self {
        Self {
            partition: partition.into(),
            range: Range::All,
            backwards: false,
            limit,
            cursor: None,
            read: Read::Consistent,
        }
    }
}

/// Where a page ended: opaque, and good only for the query that it came from. Safe in a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found, in order.
    pub entries: Vec<T>,
    /// Present if there may be more.
    pub next: Option<Cursor>,
}

/// An item of a due queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEntry {
    /// Where the item stands.
    pub key: Key,
    /// When it is due.
    pub at: Timestamp,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A condition did not hold; nothing was written.
    #[error("the condition of part {index} did not hold")]
    Condition {
        /// Which part of the transaction; 0 for a single write.
        index: usize,
        /// The item that stands there, if any.
        standing: Option<Box<Item>>,
    },
    /// Larger than the store takes; nothing was written.
    #[error("{what} has {bytes} bytes, more than the {limit} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The request itself is wrong: an empty key, two parts for one item, a cursor of another query, a counter that
    /// would pass the range of 64 bits.
    #[error("the store was asked wrongly: {0}")]
    Request(&'static str),
    /// A body that is not the record it should be.
    #[error("a stored record does not read")]
    Record(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store failed; whether a write happened is not known.
    #[error("the store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TableError {
    /// Any failure of the store itself.
    pub fn store(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Store(error.into())
    }
}

/// The store.
#[async_trait]
pub trait Table: Send + Sync {
    /// The item at `key`, unless it is absent or expired.
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, TableError>;

    /// The items at `keys`, in their order, in one round trip; at most [`BATCH_MAX`], none twice. Each is as it was at some
    /// moment of the call; together they need not be of one moment.
    async fn batch_get(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Item>>, TableError>;

    /// Stores an item and gives its new version.
    async fn put(&self, item: NewItem, condition: Condition) -> Result<Version, TableError>;

    /// Removes an item; removing none is fine where the condition allows it.
    async fn delete(&self, key: &Key, condition: Condition) -> Result<(), TableError>;

    /// Items of one partition, by sort key.
    async fn query(&self, query: Query) -> Result<Page<Item>, TableError>;

    /// Keys of the items whose [`NewItem::list`] stands in that partition, by its sort key. `query.partition` and
    /// `query.range` are about the list's keys. A key may name an item that has expired or gone since: read it.
    async fn query_list(&self, query: Query) -> Result<Page<Key>, TableError>;

    /// Items of a queue that are due at `until` or before, about the earliest first (exactly so within a shard; an
    /// implementation may keep several). At most `limit`, which is at least 1.
    async fn query_due(
        &self,
        queue: &str,
        until: Timestamp,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<DueEntry>, TableError>;

    /// All of the writes or none; at most [`BATCH_MAX`], at most one for an item. Gives the new versions of what was put, in
    /// the order of the puts. Where several conditions do not hold, the error is about any of them.
    async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Version>, TableError>;

    /// Adds to the counter of an item and gives the sum. An absent or expired item is made, with an empty body and the
    /// given expiry; an item that exists keeps its own expiry.
    async fn add(&self, key: &Key, amount: i64, expires_at: Option<Timestamp>) -> Result<i64, TableError>;
}

/// Refuses what no implementation may take: empty and overlong keys, items that are too large.
pub fn check_item(item: &NewItem) -> Result<(), TableError> {
    check_key(&item.key)?;
    let mut bytes = item.key.partition.len() + item.key.sort.len() + item.body.len();
    if let Some(list) = &item.list {
        check_key(list)?;
        bytes += list.partition.len() + list.sort.len();
    }
    if let Some(due) = &item.due {
        check_queue(&due.queue)?;
        bytes += due.queue.len();
    }
    if bytes > ITEM_MAX_BYTES {
        return Err(TableError::TooLarge { what: "an item", bytes, limit: ITEM_MAX_BYTES });
    }
    Ok(())
}

/// Refuses an empty or overlong key.
pub fn check_key(key: &Key) -> Result<(), TableError> {
    for (what, text, limit) in
        [("a partition key", &key.partition, PARTITION_MAX_BYTES), ("a sort key", &key.sort, SORT_MAX_BYTES)]
    {
        if text.is_empty() {
            return Err(TableError::Request("a key is empty"));
        }
        if text.len() > limit {
            return Err(TableError::TooLarge { what, bytes: text.len(), limit });
        }
    }
    Ok(())
}

/// Refuses an empty or overlong queue name.
pub fn check_queue(queue: &str) -> Result<(), TableError> {
    if queue.is_empty() {
        return Err(TableError::Request("a queue's name is empty"));
    }
    if queue.len() > 255 {
        return Err(TableError::TooLarge { what: "a queue's name", bytes: queue.len(), limit: 255 });
    }
    Ok(())
}

/// Refuses a query that no implementation takes.
pub fn check_query(query: &Query) -> Result<(), TableError> {
    check_limit(query.limit)?;
    check_key(&Key { partition: query.partition.clone(), sort: "any".to_owned() })?;
    let bounds = match &query.range {
        Range::All => [None, None],
        Range::Prefix(prefix) => [Some(prefix), None],
        Range::Between(low, high) => [Some(low), Some(high)],
    };
    match bounds.into_iter().flatten().map(String::len).max() {
        Some(bytes) if bytes > SORT_MAX_BYTES => {
            Err(TableError::TooLarge { what: "an end of a range", bytes, limit: SORT_MAX_BYTES })
        }
        _ => Ok(()),
    }
}

/// Refuses a page of nothing.
pub fn check_limit(limit: usize) -> Result<(), TableError> {
    if limit == 0 { Err(TableError::Request("a page has no room for any entry")) } else { Ok(()) }
}

/// Refuses a batch that is too long or names an item twice.
pub fn check_batch<'a>(keys: impl ExactSizeIterator<Item = &'a Key>) -> Result<(), TableError> {
    if keys.len() > BATCH_MAX {
        return Err(TableError::TooLarge { what: "a batch (in items)", bytes: keys.len(), limit: BATCH_MAX });
    }
    let mut seen = std::collections::HashSet::new();
    for key in keys {
        check_key(key)?;
        if !seen.insert(key) {
            return Err(TableError::Request("a batch names an item twice"));
        }
    }
    Ok(())
}
