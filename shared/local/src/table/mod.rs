//! The store of the local server: one redb file, in which every write is durable before it is acknowledged.
//!
//! Reads run on tokio's blocking threads, each on one snapshot. Writes go to one thread, which commits all waiting writes
//! together: a commit costs one fsync, however many writes it holds.

mod open;
mod query;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
pub use open::OpenError;
use open::Store;
use overseer_engine::ports::table::{
    Condition, Cursor, DueEntry, Item, Key, NewItem, Page, Query, Read, TableError, Version, Write, check_batch,
    check_item, check_key, check_limit, check_query, check_queue,
};
use overseer_engine::ports::{Clock, Ids, Table};
use query::DueQuery;
use redb::{ReadTransaction, ReadableTableMetadata};
use schema::{ITEMS, find, store_error};
use write::{WriteResult, Writer};

/// The table in a redb file, or in memory.
///
/// A queued write is done even if its caller stops waiting. Dropping the table waits for the queue.
pub struct RedbTable {
    // Declared before the store, so that the writer's thread has ended when the store is closed.
    writer: Writer,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for RedbTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedbTable").finish_non_exhaustive()
    }
}

impl RedbTable {
    /// Opens the file, or creates it, readable by its owner only. One process at a time may have it open.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Result<Self, OpenError> {
        Self::start(open::file(path)?, path, clock, ids)
    }

    /// A table whose items are lost when it is dropped.
    pub fn in_memory(clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Result<Self, OpenError> {
        Self::start(open::memory()?, Path::new(open::IN_MEMORY), clock, ids)
    }

    fn start(store: Store, path: &Path, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Result<Self, OpenError> {
        let store = Arc::new(store);
        let writer = Writer::start(Arc::clone(&store), Arc::clone(&clock), ids)
            .map_err(|source| OpenError::Unusable { path: path.to_owned(), source })?;
        Ok(Self { writer, store, clock })
    }

    /// The number of commits since the table was opened. Writes that wait at the same time share one.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// The number of stored items, including expired ones that are not yet removed.
    pub async fn stored_items(&self) -> Result<u64, TableError> {
        self.read(|transaction, _| transaction.open_table(ITEMS).map_err(store_error)?.len().map_err(store_error)).await
    }

    /// Runs `work` on one snapshot of the store, with the current second.
    async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction, i64) -> Result<R, TableError> + Send + 'static,
    ) -> Result<R, TableError> {
        let (store, now) = (Arc::clone(&self.store), self.clock.now().as_second());
        let read = move || store.read(|transaction| work(transaction, now));
        tokio::task::spawn_blocking(read).await.map_err(TableError::store)?
    }

    /// Does one write and returns its result.
    async fn write(&self, write: Write) -> Result<WriteResult, TableError> {
        Ok(self.writer.submit(vec![write]).await?.pop().unwrap_or(WriteResult::Done))
    }
}

#[async_trait]
impl Table for RedbTable {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, TableError> {
        Ok(self.batch_get(std::slice::from_ref(key), read).await?.pop().flatten())
    }

    async fn batch_get(&self, keys: &[Key], _read: Read) -> Result<Vec<Option<Item>>, TableError> {
        check_batch(keys.iter())?;
        let keys = keys.to_vec();
        self.read(move |transaction, now| {
            let items = transaction.open_table(ITEMS).map_err(store_error)?;
            keys.into_iter()
                .map(|key| {
                    let live = |header: schema::Header, body: &str| {
                        (!header.expired(now)).then(|| header.into_item(key.clone(), body.to_owned()))
                    };
                    find(&items, &key, live)?.flatten().transpose()
                })
                .collect()
        })
        .await
    }

    async fn put(&self, item: NewItem, condition: Condition) -> Result<Version, TableError> {
        check_item(&item)?;
        match self.write(Write::Put(item, condition)).await? {
            WriteResult::Stored(version) => Ok(version),
            WriteResult::Sum(_) | WriteResult::Done => Err(TableError::store("the writer returned no version")),
        }
    }

    async fn delete(&self, key: &Key, condition: Condition) -> Result<(), TableError> {
        check_key(key)?;
        self.write(Write::Delete(key.clone(), condition)).await.map(drop)
    }

    async fn query(&self, query: Query) -> Result<Page<Item>, TableError> {
        check_query(&query)?;
        self.read(move |transaction, now| query::items(transaction, &query, now)).await
    }

    async fn query_list(&self, query: Query) -> Result<Page<Key>, TableError> {
        check_query(&query)?;
        self.read(move |transaction, now| query::list(transaction, &query, now)).await
    }

    async fn query_due(
        &self,
        queue: &str,
        until: Timestamp,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<DueEntry>, TableError> {
        check_queue(queue)?;
        check_limit(limit)?;
        let query = DueQuery { queue: queue.to_owned(), until_ms: until.as_millisecond(), limit, cursor };
        self.read(move |transaction, now| query::due(transaction, &query, now)).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Version>, TableError> {
        check_batch(writes.iter().map(Write::key).collect::<Vec<_>>().into_iter())?;
        for write in &writes {
            if let Write::Put(item, _) = write {
                check_item(item)?;
            }
        }
        let results = self.writer.submit(writes).await?.into_iter();
        Ok(results
            .filter_map(|result| match result {
                WriteResult::Stored(version) => Some(version),
                WriteResult::Sum(_) | WriteResult::Done => None,
            })
            .collect())
    }

    async fn add(&self, key: &Key, amount: i64, expires_at: Option<Timestamp>) -> Result<i64, TableError> {
        check_key(key)?;
        match self.write(Write::Add(key.clone(), amount, expires_at)).await? {
            WriteResult::Sum(sum) => Ok(sum),
            WriteResult::Stored(_) | WriteResult::Done => Err(TableError::store("the writer returned no sum")),
        }
    }

    fn write_failure(&self) -> Option<String> {
        self.writer.failure()
    }
}
