//! The single-table store of all records. It knows nothing of plugins or tasks; each module owns its records. The rules here
//! are those that DynamoDB can keep. One conformance suite (`tests/behaviour/storage/table/`) tests every implementation.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The most items that one [`Table::batch_get`] or [`Table::transact`] may name.
pub const BATCH_MAX: usize = 100;
/// The largest item, in bytes of its keys, body and index keys together: DynamoDB's 400 KB less 1 KB for what DynamoDB also
/// counts (names of attributes, the version, the times).
pub const ITEM_MAX_BYTES: usize = 399 * 1024;
/// The longest partition key, in bytes.
pub const PARTITION_MAX_BYTES: usize = 2048;
/// The longest sort key, in bytes.
pub const SORT_MAX_BYTES: usize = 1024;

/// The key of an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// A query lists the items of one partition, ordered by their sort keys. 1 to 2,048 bytes.
    pub partition: String,
    /// Unique within the partition, ordered by its bytes. 1 to 1,024 bytes.
    pub sort: String,
}

/// An item to store. Writing replaces the whole item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewItem {
    /// Its key.
    pub key: Key,
    /// The record, as JSON text.
    pub body: String,
    /// A counter, which [`Table::add`] changes without the rest.
    pub count: Option<i64>,
    /// The time from which the item counts as absent, whether or not the store has removed it. Whole seconds; a fraction is
    /// dropped. (The list and due indexes may still contain its key.)
    pub expires_at: Option<Timestamp>,
    /// Its entry in a queue of due work, if any.
    pub due: Option<Due>,
    /// Its key in the list index, if any. The same limits as for [`Key`].
    pub list: Option<Key>,
}

impl NewItem {
    /// An item with `record` as JSON, in no index.
    pub fn new(key: Key, record: &impl Serialize) -> Result<Self, TableError> {
        let body = serde_json::to_string(record).map_err(|error| TableError::Record(Box::new(error)))?;
        Ok(Self { key, body, count: None, expires_at: None, due: None, list: None })
    }
}

/// A stored item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The stored content.
    pub stored: NewItem,
    /// A random value, new with every put, which also distinguishes an item from a deleted one with the same key. A
    /// [`Table::add`] to an existing item does not change it.
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

/// An entry in a queue of due work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The name of the queue. 1 to 255 bytes.
    pub queue: String,
    /// When the work is due, to the millisecond.
    pub at: Timestamp,
}

/// The consistency of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// May miss the latest writes; half the price.
    Eventual,
    /// Sees every write that was acknowledged before.
    Consistent,
}

/// The condition of a write. An expired item counts as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// None.
    Any,
    /// No item has the key.
    Absent,
    /// The item has this version.
    Version(Version),
}

/// One part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores an item.
    Put(NewItem, Condition),
    /// Removes an item. An absent item is no error if the condition allows it.
    Delete(Key, Condition),
    /// Changes nothing. The transaction fails if the condition does not hold.
    Check(Key, Condition),
    /// Adds to a counter, as [`Table::add`] does.
    Add(Key, i64, Option<Timestamp>),
}

impl Write {
    /// The key of the item that this part concerns.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(item, _) => &item.key,
            Self::Delete(key, _) | Self::Check(key, _) | Self::Add(key, _, _) => key,
        }
    }
}

/// A range of sort keys. Its bounds have the limits of a sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// All of them.
    All,
    /// Those with this prefix.
    Prefix(String),
    /// From the first to the second, both included.
    Between(String, String),
}

/// A query for items of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The partition.
    pub partition: String,
    /// The sort keys.
    pub range: Range,
    /// Whether to go from the largest sort key to the smallest.
    pub backwards: bool,
    /// The most items of a page, at least 1. A page may have fewer items and still have a cursor.
    pub limit: usize,
    /// The cursor of the previous page.
    pub cursor: Option<Cursor>,
    /// The consistency. Queries of the list and due indexes are always eventual.
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

/// The position at which a page ended: opaque, and valid only for the query that it came from. Safe in a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in order.
    pub entries: Vec<T>,
    /// The cursor of the next page, if there may be one.
    pub next: Option<Cursor>,
}

/// An entry of a due queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEntry {
    /// The key of the item.
    pub key: Key,
    /// When it is due.
    pub at: Timestamp,
}

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A condition did not hold; nothing was written.
    #[error("the condition of part {index} did not hold")]
    Condition {
        /// The index of the part in the transaction; 0 for a single write.
        index: usize,
        /// The current item, if any.
        current: Option<Box<Item>>,
    },
    /// Larger than the store accepts; nothing was written.
    #[error("{what} has {bytes} bytes, more than the {limit} allowed")]
    TooLarge {
        /// The thing that is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The request is invalid: an empty key, two parts for one item, a cursor of another query, a counter beyond 64 bits.
    #[error("invalid request to the store: {0}")]
    Request(&'static str),
    /// The body is not a record of the expected type.
    #[error("a stored record cannot be read")]
    Record(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store failed. It is unknown whether a write happened.
    #[error("the store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TableError {
    /// A failure of the store itself.
    pub fn store(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Store(error.into())
    }
}

/// The store.
#[async_trait]
pub trait Table: Send + Sync {
    /// The item at `key`, unless it is absent or expired.
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, TableError>;

    /// The items at `keys`, in their order, in one round trip; at most [`BATCH_MAX`] keys, each once. Each item is read at some
    /// time during the call; together they are not a snapshot.
    async fn batch_get(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Item>>, TableError>;

    /// Stores an item and returns its new version.
    async fn put(&self, item: NewItem, condition: Condition) -> Result<Version, TableError>;

    /// Removes an item. An absent item is no error if the condition allows it.
    async fn delete(&self, key: &Key, condition: Condition) -> Result<(), TableError>;

    /// The items of one partition, ordered by sort key.
    async fn query(&self, query: Query) -> Result<Page<Item>, TableError>;

    /// The keys of items whose [`NewItem::list`] is in that partition, ordered by its sort key. `query.partition` and
    /// `query.range` refer to the list index. The item of a key may have expired or been removed since: read it.
    async fn query_list(&self, query: Query) -> Result<Page<Key>, TableError>;

    /// The entries of a queue that are due at `until` or before, roughly the earliest first (exactly within a shard; an
    /// implementation may have several). At most `limit`, which is at least 1.
    async fn query_due(
        &self,
        queue: &str,
        until: Timestamp,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<DueEntry>, TableError>;

    /// All of the writes or none; at most [`BATCH_MAX`], at most one for each item. Returns the new versions of the puts, in
    /// their order. If several conditions do not hold, the error is about any of them.
    async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Version>, TableError>;

    /// Adds to the counter of an item and returns the sum. An absent or expired item is created with an empty body and the
    /// given expiry; an existing item keeps its expiry.
    async fn add(&self, key: &Key, amount: i64, expires_at: Option<Timestamp>) -> Result<i64, TableError>;

    /// Why the last write of this process failed, for operators; `None` if it succeeded, or if each write may go to another
    /// machine, so that one says nothing about the next.
    fn write_failure(&self) -> Option<String> {
        None
    }
}

/// Refuses items that no implementation may accept: empty or overlong keys, items that are too large.
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

/// Refuses queries that no implementation may accept.
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
            Err(TableError::TooLarge { what: "a bound of a range", bytes, limit: SORT_MAX_BYTES })
        }
        _ => Ok(()),
    }
}

/// Refuses a page limit of 0.
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
