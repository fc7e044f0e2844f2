//! A table with a test's hooks around each operation: they may observe, wait and fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use overseer_engine::ports::table::{
    Condition, Cursor, DueEntry, Item, Key, NewItem, Page, Query, Read, Table, TableError, Version, Write,
};
use tokio::sync::Notify;

/// An operation of the table.
pub enum Operation<'a> {
    Get(&'a Key),
    BatchGet(&'a [Key]),
    /// A page of items, of a list or of a queue.
    List,
    Put(&'a NewItem),
    Delete(&'a Key),
    Transact(&'a [Write]),
    Add(&'a Key),
}

impl Operation<'_> {
    /// The keys of the items that the operation names.
    pub fn keys(&self) -> Vec<&Key> {
        match self {
            Self::Get(key) | Self::Delete(key) | Self::Add(key) => vec![key],
            Self::BatchGet(keys) => keys.iter().collect(),
            Self::List => Vec::new(),
            Self::Put(item) => vec![&item.key],
            Self::Transact(writes) => writes.iter().map(Write::key).collect(),
        }
    }

    /// Whether this puts one item whose sort key begins with `prefix`.
    pub fn puts(&self, prefix: &str) -> bool {
        matches!(self, Self::Put(item) if item.key.sort.starts_with(prefix))
    }
}

/// Hooks around each operation.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// Runs before the operation. An error is returned instead of doing it.
    async fn before(&self, _operation: &Operation<'_>) -> Result<(), TableError> {
        Ok(())
    }

    /// Runs after a successful operation. An error is returned although it succeeded.
    async fn after(&self, _operation: &Operation<'_>) -> Result<(), TableError> {
        Ok(())
    }
}

/// A table with hooks.
pub struct Hooked<H> {
    pub inner: Arc<dyn Table>,
    pub hooks: Arc<H>,
}

impl<H: Hooks> Hooked<H> {
    pub fn new(inner: Arc<dyn Table>, hooks: Arc<H>) -> Self {
        Self { inner, hooks }
    }

    async fn around<T: Send>(
        &self,
        operation: Operation<'_>,
        run: impl Future<Output = Result<T, TableError>> + Send,
    ) -> Result<T, TableError> {
        self.hooks.before(&operation).await?;
        let result = run.await?;
        self.hooks.after(&operation).await?;
        Ok(result)
    }
}

#[async_trait]
impl<H: Hooks> Table for Hooked<H> {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, TableError> {
        self.around(Operation::Get(key), self.inner.get(key, read)).await
    }

    async fn batch_get(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Item>>, TableError> {
        self.around(Operation::BatchGet(keys), self.inner.batch_get(keys, read)).await
    }

    async fn put(&self, item: NewItem, condition: Condition) -> Result<Version, TableError> {
        self.around(Operation::Put(&item), self.inner.put(item.clone(), condition)).await
    }

    async fn delete(&self, key: &Key, condition: Condition) -> Result<(), TableError> {
        self.around(Operation::Delete(key), self.inner.delete(key, condition)).await
    }

    async fn query(&self, query: Query) -> Result<Page<Item>, TableError> {
        self.around(Operation::List, self.inner.query(query)).await
    }

    async fn query_list(&self, query: Query) -> Result<Page<Key>, TableError> {
        self.around(Operation::List, self.inner.query_list(query)).await
    }

    async fn query_due(
        &self,
        queue: &str,
        until: Timestamp,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<DueEntry>, TableError> {
        self.around(Operation::List, self.inner.query_due(queue, until, limit, cursor)).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Version>, TableError> {
        self.around(Operation::Transact(&writes), self.inner.transact(writes.clone())).await
    }

    async fn add(&self, key: &Key, amount: i64, expires_at: Option<Timestamp>) -> Result<i64, TableError> {
        self.around(Operation::Add(key), self.inner.add(key, amount, expires_at)).await
    }
}

/// Holds the first caller until the test opens it. Later callers pass at once.
#[derive(Default)]
pub struct Gate {
    passed: AtomicBool,
    reached: Notify,
    opened: Notify,
}

impl Gate {
    /// Passes the gate. Returns whether this caller was held.
    pub async fn pass(&self) -> bool {
        let first = !self.passed.swap(true, Ordering::SeqCst);
        if first {
            self.reached.notify_one();
            self.opened.notified().await;
        }
        first
    }

    /// Waits until a caller is held.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Releases the held caller.
    pub fn open(&self) {
        self.opened.notify_one();
    }
}
