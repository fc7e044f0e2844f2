//! The tables in the file: the items and three indexes. Only this file writes the indexes.
//!
//! redb compares the parts of a tuple key one by one and stores their lengths, so no character within a key can act as a
//! separator, and strings are ordered by their bytes.

use jiff::Timestamp;
use overseer_engine::ports::table::{Due, Item, Key, NewItem, TableError, Version};
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

/// Partition, sort.
pub(super) type ItemKey = (&'static str, &'static str);
/// The [`Header`] as JSON, and the body unchanged.
pub(super) type ItemRow = (&'static str, &'static str);
/// List partition, list sort, partition, sort.
pub(super) type ListKey = (&'static str, &'static str, &'static str, &'static str);
/// Queue, due millisecond, partition, sort.
pub(super) type DueKey = (&'static str, i64, &'static str, &'static str);
/// Expiry second, partition, sort.
pub(super) type ExpiryKey = (i64, &'static str, &'static str);

pub(super) const ITEMS: TableDefinition<ItemKey, ItemRow> = TableDefinition::new("items");
/// The value is the second at which the item expires, or [`NEVER`].
pub(super) const LIST: TableDefinition<ListKey, i64> = TableDefinition::new("list");
/// The value is the second at which the item expires, or [`NEVER`].
pub(super) const DUE: TableDefinition<DueKey, i64> = TableDefinition::new("due");
pub(super) const EXPIRY: TableDefinition<ExpiryKey, ()> = TableDefinition::new("expiry");

/// The expiry second in an index row of an item that does not expire.
const NEVER: i64 = i64::MAX;

/// An item without its key and body.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_s: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due: Option<DueRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list: Option<Key>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct DueRecord {
    queue: String,
    at_ms: i64,
}

impl Header {
    /// The header of an item to store.
    pub(super) fn of(item: &NewItem, version: Version) -> Self {
        let due = item.due.as_ref();
        Self {
            version,
            count: item.count,
            expires_at_s: item.expires_at.map(Timestamp::as_second),
            due: due.map(|due| DueRecord { queue: due.queue.clone(), at_ms: due.at.as_millisecond() }),
            list: item.list.clone(),
        }
    }

    /// The header of an item that is only a counter.
    pub(super) fn of_counter(version: Version, count: i64, expires_at: Option<Timestamp>) -> Self {
        Self { version, count: Some(count), expires_at_s: expires_at.map(Timestamp::as_second), due: None, list: None }
    }

    /// This header with another count.
    pub(super) fn with_count(self, count: i64) -> Self {
        Self { count: Some(count), ..self }
    }

    /// Whether the item has expired at that second.
    pub(super) fn expired(&self, now_s: i64) -> bool {
        expired(self.index_row(), now_s)
    }

    /// The item with this header.
    pub(super) fn into_item(self, key: Key, body: String) -> Result<Item, TableError> {
        let due = self.due.map(|due| {
            let at = Timestamp::from_millisecond(due.at_ms).map_err(damaged)?;
            Ok(Due { queue: due.queue, at })
        });
        let stored = NewItem {
            key,
            body,
            count: self.count,
            expires_at: self.expires_at_s.map(Timestamp::from_second).transpose().map_err(damaged)?,
            due: due.transpose()?,
            list: self.list,
        };
        Ok(Item { stored, version: self.version })
    }

    fn index_row(&self) -> i64 {
        self.expires_at_s.unwrap_or(NEVER)
    }
}

/// Whether an item with this value in its index rows has expired.
pub(super) fn expired(index_row: i64, now_s: i64) -> bool {
    index_row <= now_s
}

/// A failure of redb.
pub(super) fn store_error(error: impl Into<redb::Error>) -> TableError {
    TableError::store(error.into())
}

/// A row that Overseer could not have written.
pub(super) fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> TableError {
    TableError::Record(Box::new(error))
}

/// Reads an item's header.
pub(super) fn parse_header(text: &str) -> Result<Header, TableError> {
    serde_json::from_str(text).map_err(damaged)
}

/// The result of `read` for the item at `key`, expired or not.
pub(super) fn find<R>(
    items: &impl ReadableTable<ItemKey, ItemRow>,
    key: &Key,
    read: impl FnOnce(Header, &str) -> R,
) -> Result<Option<R>, TableError> {
    let Some(row) = items.get((key.partition.as_str(), key.sort.as_str())).map_err(store_error)? else {
        return Ok(None);
    };
    let (header, body) = row.value();
    Ok(Some(read(parse_header(header)?, body)))
}

/// All tables, within one write transaction.
pub(super) struct Tables<'txn> {
    items: Table<'txn, ItemKey, ItemRow>,
    list: Table<'txn, ListKey, i64>,
    due: Table<'txn, DueKey, i64>,
    expiry: Table<'txn, ExpiryKey, ()>,
}

impl<'txn> Tables<'txn> {
    /// Opens the tables, and creates missing ones.
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            items: transaction.open_table(ITEMS)?,
            list: transaction.open_table(LIST)?,
            due: transaction.open_table(DUE)?,
            expiry: transaction.open_table(EXPIRY)?,
        })
    }

    /// The result of `read` for the item at `key`, expired or not.
    pub(super) fn find<R>(&self, key: &Key, read: impl FnOnce(Header, &str) -> R) -> Result<Option<R>, TableError> {
        find(&self.items, key, read)
    }

    /// Stores an item, and replaces the one whose header is `old`.
    pub(super) fn replace(
        &mut self,
        key: &Key,
        old: Option<&Header>,
        header: &Header,
        body: &str,
    ) -> Result<(), TableError> {
        if let Some(old) = old {
            self.unlink(key, old).map_err(store_error)?;
        }
        let text = serde_json::to_string(header).map_err(TableError::store)?;
        self.items.insert((key.partition.as_str(), key.sort.as_str()), (text.as_str(), body)).map_err(store_error)?;
        self.link(key, header).map_err(store_error)
    }

    /// Removes the item whose header is `old`.
    pub(super) fn remove(&mut self, key: &Key, old: &Header) -> Result<(), TableError> {
        self.unlink(key, old).map_err(store_error)?;
        self.items.remove((key.partition.as_str(), key.sort.as_str())).map_err(store_error)?;
        Ok(())
    }

    /// Removes up to `limit` expired items, those that expired first.
    pub(super) fn sweep(&mut self, now_s: i64, limit: usize) -> Result<(), TableError> {
        let mut keys = Vec::new();
        for row in self.expiry.range(..(now_s.saturating_add(1), "", "")).map_err(store_error)?.take(limit) {
            let (key_row, ()) = row.map(|(key_row, row)| (key_row, row.value())).map_err(store_error)?;
            let (second, partition, sort) = key_row.value();
            keys.push((second, Key { partition: partition.to_owned(), sort: sort.to_owned() }));
        }
        for (second, key) in keys {
            match self.find(&key, |header, _| header) {
                Ok(Some(old)) => self.remove(&key, &old)?,
                // A damaged item stays, but its expiry row goes: else every commit would try again.
                Ok(None) | Err(TableError::Record(_)) => {
                    let expiry_key = (second, key.partition.as_str(), key.sort.as_str());
                    self.expiry.remove(expiry_key).map_err(store_error)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn link(&mut self, key: &Key, header: &Header) -> Result<(), redb::StorageError> {
        let (partition, sort) = (key.partition.as_str(), key.sort.as_str());
        let row = header.index_row();
        if let Some(list) = &header.list {
            self.list.insert((list.partition.as_str(), list.sort.as_str(), partition, sort), row)?;
        }
        if let Some(due) = &header.due {
            self.due.insert((due.queue.as_str(), due.at_ms, partition, sort), row)?;
        }
        if let Some(second) = header.expires_at_s {
            self.expiry.insert((second, partition, sort), ())?;
        }
        Ok(())
    }

    fn unlink(&mut self, key: &Key, header: &Header) -> Result<(), redb::StorageError> {
        let (partition, sort) = (key.partition.as_str(), key.sort.as_str());
        if let Some(list) = &header.list {
            self.list.remove((list.partition.as_str(), list.sort.as_str(), partition, sort))?;
        }
        if let Some(due) = &header.due {
            self.due.remove((due.queue.as_str(), due.at_ms, partition, sort))?;
        }
        if let Some(second) = header.expires_at_s {
            self.expiry.remove((second, partition, sort))?;
        }
        Ok(())
    }
}
