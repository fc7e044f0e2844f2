//! The outbox: an event that webhooks are to be told of is written in one transaction with the change that it reports, and
//! becomes a delivery for each of them later. A change whose organization has no webhook is written as ever.
//!
//! Whether there are any is read when an event is about to be written, and "some" is remembered for a minute. "None" is
//! not: a process that remembered it would leave out the events of the first minute of a webhook that another process
//! made. A stale "some" costs an outbox item of which nothing comes.

use jiff::{SignedDuration, Timestamp};
use quick_cache::sync::Cache;
use secrecy::SecretString;
use serde::Serialize;

use super::deliveries::Delivery;
use super::record::webhooks_in;
use crate::core::error::{Error, causes};
use crate::core::ids::OrgId;
use crate::engine::Engine;
use crate::events::record::OutboxEvent;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Item, NewItem, Read, TableError, Version, Write};
use crate::ports::timer::Work;
use crate::ports::vault::SecretId;
use crate::storage::keys;

/// The most entries of each kind that a process keeps in memory.
const CACHED_MAX: usize = 1_000;
/// How long a process goes on taking an organization for one that has webhooks.
const SEEN_FOR: SignedDuration = SignedDuration::from_secs(60);
/// How long an event waits for what is not known of it yet: much longer than anything takes that it waits for.
const HELD_FOR: SignedDuration = SignedDuration::from_secs(60);

/// What an alarm for an item of the queue carries.
pub(crate) fn webhook_work(item: &Item) -> Result<Work, TableError> {
    if keys::is_outgoing(&item.stored.key) {
        return Ok(item.record::<OutboxEvent>()?.work());
    }
    Ok(item.record::<Delivery>()?.work())
}

/// What this process remembers for the outbox and for signing.
pub(crate) struct EventState {
    /// Organizations that have webhooks, with the time when that was read. That an organization has none is never cached.
    subscribed: Cache<OrgId, Timestamp>,
    /// The keys that sign deliveries, by secret and version. A version never changes, so an entry is never stale.
    pub(super) signing_keys: Cache<(SecretId, String), SecretString>,
}

impl Default for EventState {
    fn default() -> Self {
        Self { subscribed: Cache::new(CACHED_MAX), signing_keys: Cache::new(CACHED_MAX) }
    }
}

impl Engine {
    /// An event of now, which is to be written with the change that it reports, and published after it.
    pub(crate) fn event(&self, org: &OrgId, kind: EventKind, detail: &impl Serialize) -> Event {
        let detail = serde_json::to_value(detail).unwrap_or_default();
        Event { org: org.clone(), kind: kind.as_str(), time: self.ports.clock.now(), detail }
    }

    /// Writes a change with the event that it is, if it is one, in one transaction where webhooks are to be told. The rules
    /// are those of [`crate::ports::Table::transact`]; no change at all is fine.
    pub(crate) async fn transact_with(
        &self,
        changes: Vec<Write>,
        event: Option<&Event>,
    ) -> Result<Vec<Version>, TableError> {
        self.transact_holding(changes, event, None).await
    }

    /// As [`Self::transact_with`]. With `held`, an id, not all is known yet that is to be said of the event: it waits for
    /// [`Self::tell_held`], and is told as it is if that does not come.
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
            let due = held.map_or(event.time, |_| event.time + HELD_FOR);
            changes.push(Write::Put(noted.item(due)?, Condition::Absent));
            outgoing = Some(noted);
        }
        let versions = match (changes.len(), changes.pop()) {
            (_, None) => Vec::new(),
            (1, Some(only)) => self.write(only).await?.into_iter().collect(),
            (_, Some(last)) => {
                changes.push(last);
                self.ports.table.transact(changes).await?
            }
        };
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

    /// Tells an event that was held under this id, with all that is known now, and publishes it. What has happened has
    /// happened: what goes wrong here is logged, and no more.
    pub(crate) async fn release_held(&self, id: &str, event: Event) {
        // Without webhooks nothing is held.
        if self.event_state.subscribed.get(&event.org).is_some()
            && let Err(error) = self.release(id, &event).await
        {
            tracing::error!(org = %event.org, error = %causes(&error), "webhooks are told less of the event {}", event.kind);
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

    /// One write that needs no transaction; gives the new version of what was put.
    async fn write(&self, write: Write) -> Result<Option<Version>, TableError> {
        match write {
            Write::Put(item, condition) => self.ports.table.put(item, condition).await.map(Some),
            Write::Delete(key, condition) => self.ports.table.delete(&key, condition).await.map(|()| None),
            other @ (Write::Check(..) | Write::Add(..)) => {
                self.ports.table.transact(vec![other]).await.map(|mut versions| versions.pop())
            }
        }
    }

    /// Whether an organization has webhooks that are active.
    async fn has_webhooks(&self, org: &OrgId) -> Result<bool, TableError> {
        let now = self.ports.clock.now();
        if self.event_state.subscribed.get(org).is_some_and(|seen| (seen..seen + SEEN_FOR).contains(&now)) {
            return Ok(true);
        }
        let item = self.ports.table.get(&keys::webhooks(org), Read::Consistent).await?;
        let some = webhooks_in(item.as_ref()).map_or_else(
            |error| {
                // No reason to stop what is reported: the event waits until the record reads again.
                tracing::error!(%org, error = %causes(&error), "which webhooks there are does not read");
                true
            },
            |webhooks| webhooks.by_id.values().any(|webhook| webhook.active),
        );
        if some {
            self.event_state.subscribed.insert(org.clone(), now);
        }
        Ok(some)
    }

    /// Sets the alarm of an event or a delivery. One that is not set is found by the sweep.
    pub(super) async fn set_webhook_alarm(&self, work: Work, at: Timestamp) {
        let (org, id) = (work.org.clone(), work.id.clone());
        if let Err(error) = self.ports.timer.set(work, at).await {
            tracing::error!(%org, id, error = %causes(&error), "no alarm was set; the sweep finds it");
        }
    }

    /// Makes an event in the outbox a delivery for each webhook that wants it: all of them and once, in one transaction.
    pub(crate) async fn fan_out(&self, work: &Work) -> Result<(), Error> {
        let places = [keys::outgoing(&work.org, &work.id), keys::webhooks(&work.org)];
        let mut found = self.ports.table.batch_get(&places, Read::Consistent).await?;
        let (webhooks, item) = (found.pop().flatten(), found.pop().flatten());
        let Some(item) = item else { return Ok(()) };
        let (event, now): (OutboxEvent, _) = (item.record()?, self.ports.clock.now());
        let webhooks = webhooks_in(webhooks.as_ref())?;
        let wanted = webhooks.by_id.iter().filter(|(_, webhook)| webhook.wants(&event.kind));
        let deliveries: Vec<_> = wanted.map(|(id, _)| Delivery::of(&event, id, now)).collect::<Result<_, _>>()?;
        let mut writes = vec![Write::Delete(item.stored.key, Condition::Version(item.version))];
        for delivery in &deliveries {
            writes.push(Write::Put(delivery.item()?, Condition::Absent));
        }
        match self.ports.table.transact(writes).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(TableError::Condition { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for delivery in &deliveries {
            self.set_webhook_alarm(delivery.work(), now).await;
        }
        Ok(())
    }
}
