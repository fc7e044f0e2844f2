//! Spans around calls of the ports: one per call, at debug, with the organization and the outcome. A disabled span costs one
//! comparison.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;
use tracing::field::Empty;
use tracing::{Span, debug_span};

use crate::core::trace::{SpanOutcome, traced};
use crate::ports::events::EventBusError;
use crate::ports::table::{
    Condition, Cursor, DueEntry, Item, Key, NewItem, Page, Query, Read, TableError, Version, Write,
};
use crate::ports::timer::TimerError;
use crate::ports::vault::{SecretId, VaultError};
use crate::ports::{Event, EventBus, Table, Timer, Vault, Work};

/// A port whose calls are spans.
pub(crate) struct Traced<P: ?Sized>(pub Arc<P>);

/// The organization that a partition belongs to; empty for the few partitions that belong to none.
fn org_of(partition: &str) -> &str {
    partition.strip_prefix("org#").and_then(|rest| rest.split('#').next()).unwrap_or_default()
}

fn table_outcome(error: &TableError) -> &'static str {
    match error {
        TableError::Condition { .. } => "condition_failed",
        TableError::TooLarge { .. } => "too_large",
        TableError::Request(_) => "invalid_request",
        TableError::Record(_) => "unreadable_record",
        TableError::Store(_) => "store_failed",
    }
}

impl SpanOutcome for TableError {
    fn record_in(&self, span: &Span) {
        span.record("outcome", table_outcome(self));
    }
}

#[async_trait]
impl Table for Traced<dyn Table> {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, TableError> {
        let span = debug_span!("table.get", org = org_of(&key.partition), outcome = Empty);
        traced(span, self.0.get(key, read)).await
    }

    async fn batch_get(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Item>>, TableError> {
        let first = || keys.first().map(|key| org_of(&key.partition));
        let span = debug_span!("table.batch_get", org = first(), keys = keys.len(), outcome = Empty);
        traced(span, self.0.batch_get(keys, read)).await
    }

    async fn put(&self, item: NewItem, condition: Condition) -> Result<Version, TableError> {
        let span = debug_span!("table.put", org = org_of(&item.key.partition), outcome = Empty);
        traced(span, self.0.put(item, condition)).await
    }

    async fn delete(&self, key: &Key, condition: Condition) -> Result<(), TableError> {
        let span = debug_span!("table.delete", org = org_of(&key.partition), outcome = Empty);
        traced(span, self.0.delete(key, condition)).await
    }

    async fn query(&self, query: Query) -> Result<Page<Item>, TableError> {
        let span = debug_span!("table.query", org = org_of(&query.partition), outcome = Empty);
        traced(span, self.0.query(query)).await
    }

    async fn query_list(&self, query: Query) -> Result<Page<Key>, TableError> {
        let span = debug_span!("table.query_list", org = org_of(&query.partition), outcome = Empty);
        traced(span, self.0.query_list(query)).await
    }

    async fn query_due(
        &self,
        queue: &str,
        until: Timestamp,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<DueEntry>, TableError> {
        let span = debug_span!("table.query_due", queue, outcome = Empty);
        traced(span, self.0.query_due(queue, until, limit, cursor)).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Version>, TableError> {
        let first = || writes.first().map(|write| org_of(&write.key().partition));
        let span = debug_span!("table.transact", org = first(), writes = writes.len(), outcome = Empty);
        traced(span, self.0.transact(writes)).await
    }

    async fn add(&self, key: &Key, amount: i64, expires_at: Option<Timestamp>) -> Result<i64, TableError> {
        let span = debug_span!("table.add", org = org_of(&key.partition), outcome = Empty);
        traced(span, self.0.add(key, amount, expires_at)).await
    }

    fn write_failure(&self) -> Option<String> {
        self.0.write_failure()
    }
}

impl SpanOutcome for VaultError {
    fn record_in(&self, span: &Span) {
        let outcome = match self {
            VaultError::Table(error) => table_outcome(error),
            VaultError::Service(_) => "service_failed",
            VaultError::TooLarge { .. } => "too_large",
            VaultError::VersionExists => "version_exists",
            VaultError::DoesNotOpen => "does_not_open",
        };
        span.record("outcome", outcome);
    }
}

#[async_trait]
impl Vault for Traced<dyn Vault> {
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError> {
        let span = debug_span!("vault.put", org = %id.org, outcome = Empty);
        traced(span, self.0.put(id, version, secret)).await
    }

    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError> {
        let span = debug_span!("vault.get", org = %id.org, outcome = Empty);
        traced(span, self.0.get(id, version)).await
    }

    async fn delete_version(&self, id: &SecretId, version: &str) -> Result<(), VaultError> {
        let span = debug_span!("vault.delete_version", org = %id.org, outcome = Empty);
        traced(span, self.0.delete_version(id, version)).await
    }

    async fn delete(&self, id: &SecretId) -> Result<(), VaultError> {
        let span = debug_span!("vault.delete", org = %id.org, outcome = Empty);
        traced(span, self.0.delete(id)).await
    }
}

impl SpanOutcome for TimerError {
    fn record_in(&self, span: &Span) {
        span.record("outcome", "failed");
    }
}

#[async_trait]
impl Timer for Traced<dyn Timer> {
    async fn set(&self, work: Work, at: Timestamp) -> Result<(), TimerError> {
        let span = debug_span!("timer.set", org = %work.org, kind = work.kind.as_str(), outcome = Empty);
        traced(span, self.0.set(work, at)).await
    }

    async fn cancel(&self, work: &Work) -> Result<(), TimerError> {
        let span = debug_span!("timer.cancel", org = %work.org, kind = work.kind.as_str(), outcome = Empty);
        traced(span, self.0.cancel(work)).await
    }
}

impl SpanOutcome for EventBusError {
    fn record_in(&self, span: &Span) {
        span.record("outcome", "failed");
    }
}

#[async_trait]
impl EventBus for Traced<dyn EventBus> {
    async fn publish(&self, events: Vec<Event>) -> Result<(), EventBusError> {
        let first = || events.first().map(|event| tracing::field::display(&event.org));
        let span = debug_span!("events.publish", org = first(), events = events.len(), outcome = Empty);
        traced(span, self.0.publish(events)).await
    }
}
