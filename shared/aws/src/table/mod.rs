//! The table on DynamoDB: one table and its two indexes, `list` and `due`.
//!
//! Requests for each operation: `get`, `batch_get`, `put`, `delete`, `transact` and `query_list` one; `add` one, and one
//! more where the item has expired, or never expires and the addition would; `query` one, and more where many items of the
//! range have expired; `query_due` one for each shard. Keys that DynamoDB leaves unprocessed are requested again.

mod addition;
mod create;
mod expression;
mod failure;
mod query;
mod row;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::KeysAndAttributes;
pub use create::{CreateError, create_table};
use failure::{failure, in_conflict};
use jiff::Timestamp;
use overseer_engine::ports::table::{
    Condition, Cursor, DueEntry, Item, Key, NewItem, Page, Query, Read, TableError, Version, Write, check_batch,
    check_item, check_key, check_limit, check_query, check_queue,
};
use overseer_engine::ports::{Clock, Ids, Table};
use row::Row;

use crate::backoff::Backoff;

/// The table on DynamoDB.
pub struct DynamoTable {
    client: Client,
    name: String,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
}

impl fmt::Debug for DynamoTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DynamoTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DynamoTable {
    /// The table of that name, which has the keys and indexes that [`create_table`] gives it.
    pub fn new(client: Client, name: impl Into<String>, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self { client, name: name.into(), clock, ids }
    }

    fn now_s(&self) -> i64 {
        self.clock.now().as_second()
    }

    fn version(&self) -> Version {
        Version(self.ids.hex(16))
    }

    /// The rows at `keys`, in any order, including expired ones.
    async fn rows(&self, keys: Vec<Row>, read: Read) -> Result<Vec<Row>, TableError> {
        let consistent = read == Read::Consistent;
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(consistent).build();
        let mut unprocessed = HashMap::from([(self.name.clone(), keys.map_err(TableError::store)?)]);
        let (mut rows, mut backoff) = (Vec::new(), Backoff::default());
        loop {
            let response = self.client.batch_get_item().set_request_items(Some(unprocessed)).send().await;
            let mut response = response.map_err(|error| failure("BatchGetItem", error))?;
            let page = response.responses.as_mut().and_then(|responses| responses.remove(&self.name));
            rows.extend(page.unwrap_or_default());
            unprocessed = response.unprocessed_keys.unwrap_or_default();
            if unprocessed.is_empty() {
                return Ok(rows);
            }
            // Throttling leaves keys unprocessed, and so does the limit of 16 MB for a response.
            if !backoff.wait(&*self.ids).await {
                return Err(TableError::store("DynamoDB left a part of a batch unprocessed"));
            }
        }
    }
}

#[async_trait]
impl Table for DynamoTable {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, TableError> {
        check_key(key)?;
        let now_s = self.now_s();
        let request = self.client.get_item().table_name(&self.name).set_key(Some(row::key(key)));
        let response = request.consistent_read(read == Read::Consistent).send().await;
        let row = response.map_err(|error| failure("GetItem", error))?.item;
        row.map_or(Ok(None), |row| row::live(row, now_s))
    }

    async fn batch_get(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Item>>, TableError> {
        check_batch(keys.iter())?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let now_s = self.now_s();
        let mut items = HashMap::new();
        for row in self.rows(keys.iter().map(row::key).collect(), read).await? {
            items.insert(row::key_in(&row)?, row::live(row, now_s)?);
        }
        Ok(keys.iter().map(|key| items.remove(key).flatten()).collect())
    }

    async fn put(&self, item: NewItem, condition: Condition) -> Result<Version, TableError> {
        check_item(&item)?;
        self.put_one(item, &condition).await
    }

    async fn delete(&self, key: &Key, condition: Condition) -> Result<(), TableError> {
        check_key(key)?;
        match condition {
            // The SDK retries a request without a response. A transaction's token then shows that it was done. A plain
            // delete would find no item, as if it had lost the compare-and-set.
            Condition::Version(_) => self.transaction(vec![Write::Delete(key.clone(), condition)]).await.map(drop),
            Condition::Any | Condition::Absent => self.delete_one(key, &condition).await,
        }
    }

    async fn query(&self, query: Query) -> Result<Page<Item>, TableError> {
        check_query(&query)?;
        self.page_of_items(&query).await
    }

    async fn query_list(&self, query: Query) -> Result<Page<Key>, TableError> {
        check_query(&query)?;
        self.page_of_list(&query).await
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
        self.page_of_queue(queue, until.as_millisecond(), limit, cursor.as_ref()).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Version>, TableError> {
        check_batch(writes.iter().map(Write::key).collect::<Vec<_>>().into_iter())?;
        for write in &writes {
            if let Write::Put(item, _) = write {
                check_item(item)?;
            }
        }
        self.transaction(writes).await
    }

    async fn add(&self, key: &Key, amount: i64, expires_at: Option<Timestamp>) -> Result<i64, TableError> {
        check_key(key)?;
        self.add_one(key, amount, expires_at.map(Timestamp::as_second)).await
    }
}
