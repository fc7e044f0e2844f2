//! A delivery as it is stored, the rules by which it goes on, and how administrators see it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::webhooks_in;
use super::{DELIVERIES_KEPT, TRIED_FOR};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{DeliveryId, NameError, OrgId, WebhookId};
use crate::engine::Engine;
use crate::events::record::OutboxEvent;
use crate::ports::table::{Condition, Cursor, Item, NewItem, Page, Query, Read, TableError};
use crate::ports::timer::{Queue, Work, WorkKind};
use crate::storage::keys;

/// The pauses between the attempts of a day. Each is up to a tenth longer, so that many that failed together do not come
/// back together; the last attempt is at the end of the day, if it would be later.
const PAUSES: [SignedDuration; 7] = [
    SignedDuration::from_secs(5),
    SignedDuration::from_mins(5),
    SignedDuration::from_mins(30),
    SignedDuration::from_hours(2),
    SignedDuration::from_hours(5),
    SignedDuration::from_hours(6),
    SignedDuration::from_hours(10),
];
/// How much longer a pause may be, by chance.
const JITTER: f64 = 0.1;
/// How many attempts are remembered.
const ATTEMPTS_KEPT: usize = 20;

/// Where a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waits for its first attempt, or its next.
    Waiting,
    /// Arrived.
    Succeeded,
    /// Did not arrive, and is not tried again by itself.
    Failed,
}

/// One attempt, as it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendAttempt {
    /// When it began.
    pub at: Timestamp,
    /// What the receiver answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, where there is no status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How long it took, in milliseconds; absent where nothing was sent, or nobody saw its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// The right to send a delivery once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sending {
    pub worker: String,
    pub since: Timestamp,
    /// When whoever sends it must have ended.
    pub until: Timestamp,
}

/// The stored record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Delivery {
    pub id: DeliveryId,
    pub org: OrgId,
    pub webhook: WebhookId,
    pub kind: String,
    /// The time of the event.
    pub time: Timestamp,
    pub detail: Value,
    pub state: DeliveryState,
    pub next_at: Timestamp,
    /// Until when it is tried.
    pub until: Timestamp,
    /// The attempts since it was begun, or begun again by hand.
    pub tries: usize,
    pub sending: Option<Sending>,
    /// The last attempts, the latest last.
    pub attempts: Vec<SendAttempt>,
    /// Grows when it is moved by hand.
    pub revision: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Delivery {
    /// An event on its way to a webhook: the same of both is the same delivery.
    pub(super) fn of(event: &OutboxEvent, webhook: &WebhookId, now: Timestamp) -> Result<Self, TableError> {
        let id = DeliveryId::parse(format!("{}{webhook}", event.id));
        Ok(Self {
            id: id.map_err(|error: NameError| TableError::Record(Box::new(error)))?,
            org: event.org.clone(),
            webhook: webhook.clone(),
            kind: event.kind.clone(),
            time: event.time,
            detail: event.detail.clone(),
            state: DeliveryState::Waiting,
            next_at: now,
            until: now + TRIED_FOR,
            tries: 0,
            sending: None,
            attempts: Vec::new(),
            revision: 0,
            created_at: now,
            updated_at: now,
        })
    }

    /// The item that holds it: in the queue until it has ended, and gone some time after.
    pub(super) fn item(&self) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::delivery(&self.org, &self.webhook, &self.id), self)?;
        if self.state == DeliveryState::Waiting {
            let at = self.sending.as_ref().map_or(self.next_at, |sending| sending.until);
            item.due = Some(Queue::Webhooks.due(at));
        } else {
            item.expires_at = Some(self.updated_at + DELIVERIES_KEPT);
        }
        Ok(item)
    }

    /// What an alarm for it carries.
    pub(super) fn work(&self) -> Work {
        let id = format!("{} {}", self.webhook, self.id);
        Work { org: self.org.clone(), kind: WorkKind::Delivery, id, revision: self.revision }
    }

    /// Takes it for `worker`. Nobody saw the end of the attempt of whoever had it before.
    pub(super) fn claim(&mut self, worker: String, now: Timestamp, lease: SignedDuration) {
        if let Some(lapsed) = self.sending.replace(Sending { worker, since: now, until: now + lease }) {
            let problem = Some("whoever sent it was not heard of again; it may have arrived".to_owned());
            self.remember(SendAttempt { at: lapsed.since, status: None, problem, duration_ms: None });
        }
        self.updated_at = now;
    }

    /// It arrived.
    pub(super) fn succeed(&mut self, attempt: SendAttempt, now: Timestamp) {
        self.remember(attempt);
        self.end(DeliveryState::Succeeded, now);
    }

    /// It did not arrive, and is tried again while its day lasts. `asked` is how long the receiver wants to be left alone,
    /// which counts up to the end of the day; `jitter` is a random number below 1.
    pub(super) fn fail(&mut self, attempt: SendAttempt, asked: Option<SignedDuration>, now: Timestamp, jitter: f64) {
        self.remember(attempt);
        self.sending = None;
        let pause = PAUSES.get(self.tries.saturating_sub(1)).copied();
        let Some(pause) = pause.filter(|_| now < self.until) else {
            self.end(DeliveryState::Failed, now);
            return;
        };
        let more = SignedDuration::try_from_secs_f64(pause.as_secs_f64() * JITTER * jitter).unwrap_or_default();
        let pause = (pause + more).max(asked.unwrap_or_default());
        self.next_at = now.checked_add(pause).unwrap_or(self.until).min(self.until);
        self.updated_at = now;
    }

    /// It did not arrive, and never will by itself.
    pub(super) fn give_up(&mut self, attempt: SendAttempt, now: Timestamp) {
        self.remember(attempt);
        self.end(DeliveryState::Failed, now);
    }

    fn end(&mut self, state: DeliveryState, now: Timestamp) {
        (self.state, self.sending, self.updated_at) = (state, None, now);
    }

    fn remember(&mut self, attempt: SendAttempt) {
        self.tries += 1;
        self.attempts.push(attempt);
        let forgotten = self.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.attempts.drain(..forgotten);
    }

    fn shown(&self) -> DeliveryView {
        let waits = self.state == DeliveryState::Waiting;
        DeliveryView {
            id: self.id.clone(),
            r#type: self.kind.clone(),
            timestamp: self.time,
            status: self.state,
            sending: self.sending.is_some(),
            attempts: self.attempts.clone(),
            next_attempt_at: (waits && self.sending.is_none()).then_some(self.next_at),
            tried_until: waits.then_some(self.until),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// A delivery as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryView {
    /// Its id, which the receiver sees as `webhook-id`.
    pub id: DeliveryId,
    /// The kind of the event.
    pub r#type: String,
    /// When that happened.
    pub timestamp: Timestamp,
    /// Where it is.
    pub status: DeliveryState,
    /// Whether it is under way at this moment.
    pub sending: bool,
    /// The last 20 attempts, the latest last.
    pub attempts: Vec<SendAttempt>,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// Until when it is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tried_until: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

impl Engine {
    /// The deliveries of a webhook, those of the latest events first.
    pub async fn list_deliveries(
        &self,
        principal: &Principal,
        webhook: &str,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<DeliveryView>, Error> {
        principal.must_administer()?;
        let webhook = WebhookId::parse(webhook).map_err(|_| Error::NotFound("webhook"))?;
        let known = self.ports.table.get(&keys::webhooks(&principal.org), Read::Eventual).await?;
        if !webhooks_in(known.as_ref())?.by_id.contains_key(&webhook) {
            return Err(Error::NotFound("webhook"));
        }
        let partition = keys::deliveries_of(&principal.org, &webhook);
        let query = Query { cursor, backwards: true, ..Query::partition(partition, limit) };
        let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
        let shown = page.entries.iter().map(|item| Ok(item.record::<Delivery>()?.shown()));
        Ok(Page { entries: shown.collect::<Result<_, TableError>>()?, next: page.next })
    }

    /// Sends a delivery once more, now, and tries it for another day. One that is under way is left.
    pub async fn retry_delivery(
        self: &Arc<Self>,
        principal: &Principal,
        webhook: &str,
        id: &str,
    ) -> Result<DeliveryView, Error> {
        principal.must_administer()?;
        let webhook = WebhookId::parse(webhook).map_err(|_| Error::NotFound("webhook"))?;
        let id = DeliveryId::parse(id).map_err(|_| Error::NotFound("delivery"))?;
        let (engine, org) = (Arc::clone(self), principal.org.clone());
        self.run_to_completion(async move {
            loop {
                let places = [keys::delivery(&org, &webhook, &id), keys::webhooks(&org)];
                let mut found = engine.ports.table.batch_get(&places, Read::Consistent).await?;
                let webhooks = webhooks_in(found.pop().flatten().as_ref())?;
                let known = webhooks.by_id.get(&webhook).ok_or(Error::NotFound("webhook"))?;
                let item: Item = found.pop().flatten().ok_or(Error::NotFound("delivery"))?;
                if !known.active {
                    let message = "the webhook is not active; send PATCH with {\"active\": true} first";
                    return Err(Error::Conflict(message.to_owned()));
                }
                let (mut delivery, now): (Delivery, _) = (item.record()?, engine.ports.clock.now());
                if delivery.sending.as_ref().is_some_and(|sending| sending.until > now) {
                    let message = "the delivery is under way at this moment; ask again in a minute";
                    return Err(Error::Conflict(message.to_owned()));
                }
                (delivery.state, delivery.next_at, delivery.until) = (DeliveryState::Waiting, now, now + TRIED_FOR);
                (delivery.tries, delivery.updated_at) = (0, now);
                delivery.revision += 1;
                match engine.ports.table.put(delivery.item()?, Condition::Version(item.version)).await {
                    Ok(_) => {}
                    Err(TableError::Condition { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
                engine.set_webhook_alarm(delivery.work(), now).await;
                return Ok(delivery.shown());
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Delivery {
        let event = OutboxEvent {
            id: "e1".to_owned(),
            org: OrgId::parse("acme").unwrap(),
            kind: "task.failed".to_owned(),
            time: Timestamp::UNIX_EPOCH,
            detail: Value::Null,
        };
        Delivery::of(&event, &WebhookId::parse("w1").unwrap(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn attempt(at: Timestamp) -> SendAttempt {
        SendAttempt { at, status: Some(500), problem: None, duration_ms: Some(1) }
    }

    #[test]
    fn a_delivery_is_tried_for_a_day() {
        for jitter in [0.0, 0.5, 0.999] {
            let (mut delivery, mut pauses, mut now) = (delivery(), Vec::new(), Timestamp::UNIX_EPOCH);
            while delivery.state == DeliveryState::Waiting {
                delivery.claim("me".to_owned(), now, SignedDuration::from_secs(60));
                delivery.fail(attempt(now), None, now, jitter);
                pauses.push(delivery.next_at.duration_since(now).as_secs());
                now = delivery.next_at;
            }
            let expected = PAUSES.map(|pause| pause.as_secs());
            assert_eq!((pauses.len(), delivery.attempts.len()), (8, 8), "the last has none after it");
            for (pause, expected) in pauses.iter().zip(expected) {
                let longest = expected + expected / 10;
                assert!((expected..=longest).contains(pause) || now == delivery.until, "{pause} {expected}");
            }
            assert!(now <= delivery.until && delivery.item().unwrap().due.is_none());
            assert!(now.duration_since(Timestamp::UNIX_EPOCH) > SignedDuration::from_hours(23));
        }
    }

    #[test]
    fn a_receiver_that_wants_to_be_left_alone_is_until_the_day_ends() {
        let (mut delivery, now) = (delivery(), Timestamp::UNIX_EPOCH);
        delivery.fail(attempt(now), Some(SignedDuration::from_secs(1)), now, 0.0);
        assert_eq!(delivery.next_at, now + PAUSES[0], "it asks for less");
        delivery.fail(attempt(now), Some(SignedDuration::from_hours(3)), now, 0.0);
        assert_eq!(delivery.next_at, now + SignedDuration::from_hours(3));
        delivery.fail(attempt(now), Some(SignedDuration::MAX), now, 0.0);
        assert_eq!((delivery.next_at, delivery.state), (delivery.until, DeliveryState::Waiting));
        let end = delivery.until;
        delivery.fail(attempt(end), Some(SignedDuration::from_hours(3)), end, 0.0);
        assert_eq!(delivery.state, DeliveryState::Failed);
    }

    #[test]
    fn an_attempt_whose_end_nobody_saw_is_remembered() {
        let (mut delivery, now) = (delivery(), Timestamp::UNIX_EPOCH);
        delivery.claim("me".to_owned(), now, SignedDuration::from_secs(60));
        assert_eq!(delivery.item().unwrap().due.unwrap().at, now + SignedDuration::from_secs(60));
        let later = now + SignedDuration::from_secs(60);
        delivery.claim("you".to_owned(), later, SignedDuration::from_secs(60));
        assert_eq!((delivery.attempts.len(), delivery.attempts[0].at, delivery.attempts[0].status), (1, now, None));
        for _ in 0..30 {
            delivery.fail(attempt(later), None, now, 0.0);
        }
        assert_eq!(delivery.attempts.len(), ATTEMPTS_KEPT);
    }
}
