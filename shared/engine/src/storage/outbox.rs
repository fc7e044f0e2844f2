//! The write half of the outbox: an event for webhooks is written in one transaction with the change that it reports. The
//! `events` module turns it into deliveries later. Without webhooks in the organization, only the change is written.
//!
//! Whether there are webhooks is read when an event is about to be written. "Some" is cached for a minute; "none" is never
//! cached, because a process that cached it would lose the events of the first minute of a webhook that another process
//! created. A stale "some" costs an outbox item without deliveries.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::error::causes;
use crate::core::ids::{OrgId, WebhookId};
use crate::engine::Engine;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Item, NewItem, Read, TableError, Version, Write};
use crate::ports::timer::{Queue, Work, WorkKind};
use crate::storage::keys;

/// The most organizations that a process caches.
const CACHED_MAX: usize = 1_000;
/// How long a process takes an organization to have webhooks without reading.
const CACHED_FOR: SignedDuration = SignedDuration::from_secs(60);
/// How long a held event waits for its release. Much longer than what it reports can take.
const HELD_FOR: SignedDuration = SignedDuration::from_secs(60);

/// An event in the outbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OutboxEvent {
    pub id: String,
    pub org: OrgId,
    pub kind: String,
    pub time: Timestamp,
    pub detail: Value,
}

impl OutboxEvent {
    /// The work that fans it out.
    pub(crate) fn work(&self) -> Work {
        Work { org: self.org.clone(), kind: WorkKind::Event, id: self.id.clone(), revision: 0 }
    }

    fn item(&self, due_at: Timestamp) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::outgoing(&self.org, &self.id), self)?;
        item.due = Some(Queue::Webhooks.due(due_at));
        Ok(item)
    }
}

/// What the outbox needs of the stored list of webhooks, which `events` owns.
#[derive(Deserialize)]
struct Subscribers {
    webhooks: BTreeMap<WebhookId, Subscriber>,
}

#[derive(Deserialize)]
struct Subscriber {
    active: bool,
}

/// Organizations that have active webhooks, with the time when that was read.
pub(crate) struct OutboxState {
    subscribed: Cache<OrgId, Timestamp>,
}

impl Default for OutboxState {
    fn default() -> Self {
        Self { subscribed: Cache::new(CACHED_MAX) }
    }
}

impl Engine {
    /// An event with the present time. Write it with its change, then publish it.
    pub(crate) fn event(&self, org: &OrgId, kind: EventKind, detail: &impl Serialize) -> Event {
        let detail = serde_json::to_value(detail).unwrap_or_default();
        Event { org: org.clone(), kind: kind.as_str(), time: self.ports.clock.now(), detail }
    }

    /// Writes a change and its event, if any. With webhooks in the organization both are one transaction, under the rules of
    /// [`crate::ports::Table::transact`]; the event comes after all changes. `changes` may be empty.
    pub(crate) async fn transact_with(
        &self,
        changes: Vec<Write>,
        event: Option<&Event>,
    ) -> Result<Vec<Version>, TableError> {
        self.transact_holding(changes, event, None).await
    }

    /// As [`Self::transact_with`]. With `held`, an id, the event's detail is not complete yet: the event waits for
    /// [`Self::release_held`]. If that does not come within a minute, it is delivered as it is.
    pub(crate) async fn transact_holding(
        &self,
        mut changes: Vec<Write>,
        event: Option<&Event>,
        held: Option<&str>,
    ) -> Result<Vec<Version>, TableError> {
        let mut outgoing = None;
        if let Some(event) = event
            && self.has_webhooks(&event.org).await?
        {
            let noted = OutboxEvent {
                id: held.map_or_else(|| self.id_at(event.time), str::to_owned),
                org: event.org.clone(),
                kind: event.kind.to_owned(),
                time: event.time,
                detail: event.detail.clone(),
            };
            let due_at = held.map_or(event.time, |_| event.time + HELD_FOR);
            changes.push(Write::Put(noted.item(due_at)?, Condition::Absent));
            outgoing = Some(noted);
        }
        let versions = self.write_all(changes).await?;
        if let Some(noted) = outgoing.filter(|_| held.is_none()) {
            self.set_webhook_alarm(noted.work(), noted.time).await;
        }
        Ok(versions)
    }

    /// As [`Self::transact_with`], for one item.
    pub(crate) async fn put_with(
        &self,
        item: NewItem,
        condition: Condition,
        event: Option<&Event>,
    ) -> Result<(), TableError> {
        self.transact_with(vec![Write::Put(item, condition)], event).await.map(|_| ())
    }

    /// Delivers and publishes an event that was held under this id, now with its complete detail. The change has been
    /// written already, so a failure here is only logged.
    pub(crate) async fn release_held(&self, id: &str, event: Event) {
        // Without webhooks nothing is held.
        if self.outbox_state.subscribed.get(&event.org).is_some()
            && let Err(error) = self.release(id, &event).await
        {
            let (org, kind) = (&event.org, event.kind);
            tracing::error!(%org, kind, error = %causes(&error), "failed to complete held event; delivered as it is");
        }
        self.publish(event).await;
    }

    async fn release(&self, id: &str, event: &Event) -> Result<(), TableError> {
        let item = self.ports.table.get(&keys::outgoing(&event.org, id), Read::Consistent).await?;
        let Some(item) = item else { return Ok(()) };
        let outgoing = OutboxEvent { detail: event.detail.clone(), ..item.record()? };
        let now = self.ports.clock.now();
        self.ports.table.put(outgoing.item(now)?, Condition::Version(item.version)).await?;
        self.set_webhook_alarm(outgoing.work(), now).await;
        Ok(())
    }

    /// Writes everything or nothing. One write needs no transaction.
    async fn write_all(&self, mut writes: Vec<Write>) -> Result<Vec<Version>, TableError> {
        let Some(last) = writes.pop() else { return Ok(Vec::new()) };
        match last {
            Write::Put(item, condition) if writes.is_empty() => Ok(vec![self.ports.table.put(item, condition).await?]),
            Write::Delete(key, condition) if writes.is_empty() => {
                self.ports.table.delete(&key, condition).await?;
                Ok(Vec::new())
            }
            last @ (Write::Put(..) | Write::Delete(..) | Write::Check(..) | Write::Add(..)) => {
                writes.push(last);
                self.ports.table.transact(writes).await
            }
        }
    }

    /// Whether an organization has active webhooks.
    async fn has_webhooks(&self, org: &OrgId) -> Result<bool, TableError> {
        let now = self.ports.clock.now();
        let cached = self.outbox_state.subscribed.get(org);
        if cached.is_some_and(|read_at| (read_at..read_at + CACHED_FOR).contains(&now)) {
            return Ok(true);
        }
        let item = self.ports.table.get(&keys::webhooks(org), Read::Consistent).await?;
        let any_active = match item.as_ref().map(Item::record::<Subscribers>).transpose() {
            Ok(subscribers) => subscribers.is_some_and(|all| all.webhooks.values().any(|webhook| webhook.active)),
            Err(error) => {
                // No reason to fail the change: its event waits until the record can be read again.
                tracing::error!(%org, error = %causes(&error), "list of webhooks is unreadable");
                true
            }
        };
        if any_active {
            self.outbox_state.subscribed.insert(org.clone(), now);
        }
        Ok(any_active)
    }

    /// Schedules an event or a delivery. A failure is only logged, because the sweep finds what is due.
    pub(crate) async fn set_webhook_alarm(&self, work: Work, at: Timestamp) {
        let (org, kind, id) = (work.org.clone(), work.kind.clone(), work.id.clone());
        if let Err(error) = self.ports.timer.set(work, at).await {
            tracing::error!(%org, kind = kind.as_str(), id, error = %causes(&error), "failed to schedule alarm; the sweep retries it");
        }
    }
}
