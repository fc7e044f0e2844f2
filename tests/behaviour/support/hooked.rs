//! A store around which a test does what it wants: before and after each operation it may watch, wait and fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use overseer_engine::ports::table::{
    Condition, Cursor, DueEntry, Item, Key, NewItem, Page, Query, Read, Table, TableError, Version, Write,
};
use tokio::sync::Notify;

/// What the store is asked.
pub enum Operation<'a> {
    Get(&'a Key),
    BatchGet(&'a [Key]),
    /// A page of items, of a list or of what is due.
    List,
    Put(&'a NewItem),
    Delete(&'a Key),
    Transact(&'a [Write]),
    Add(&'a Key),
}

impl Operation<'_> {
    /// The items that are named.
    pub fn keys(&self) -> Vec<&Key> {
        match self {
            Self::Get(key) | Self::Delete(key) | Self::Add(key) => vec![key],
            Self::BatchGet(keys) => keys.iter().collect(),
            Self::List => Vec::new(),
            Self::Put(item) => vec![&item.key],
            Self::Transact(writes) => writes.iter().map(Write::key).collect(),
        }
    }

    /// Whether one item is put whose sort key begins so.
    pub fn puts(&self, prefix: &str) -> bool {
        matches!(self, Self::Put(item) if item.key.sort.starts_with(prefix))
    }
}

/// What happens around each operation.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// An error is the answer in the place of the operation.
    async fn before(&self, _asked: &Operation<'_>) -> Result<(), TableError> {
        Ok(())
    }

    /// After an operation that went well. An error is the answer although it did.
    async fn after(&self, _asked: &Operation<'_>) -> Result<(), TableError> {
        Ok(())
    }
}

/// A store with hooks around it.
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
        asked: Operation<'_>,
        doing: impl Future<Output = Result<T, TableError>> + Send,
    ) -> Result<T, TableError> {
        self.hooks.before(&asked).await?;
        let done = doing.await?;
        self.hooks.after(&asked).await?;
        Ok(done)
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

/// Holds whoever comes first until the test lets them go. Everybody after that just goes on.
#[derive(Default)]
pub struct Gate {
    passed: AtomicBool,
    reached: Notify,
    opened: Notify,
}

impl Gate {
    /// Goes through, and says whether that was the one who was held.
    pub async fn pass(&self) -> bool {
        let first = !self.passed.swap(true, Ordering::SeqCst);
        if first {
            self.reached.notify_one();
            self.opened.notified().await;
        }
        first
    }

    /// Waits until somebody is held.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets them go.
    pub fn open(&self) {
        self.opened.notify_one();
    }
}
