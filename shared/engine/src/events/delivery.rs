//! The stored record of a delivery, and the rules of its retries. Nothing here reads or writes.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DELIVERIES_KEPT, TRIED_FOR};
use crate::core::ids::{DeliveryId, NameError, OrgId, WebhookId};
use crate::ports::table::{Item, NewItem, TableError};
use crate::ports::timer::{Queue, Work, WorkKind};
use crate::storage::keys;
use crate::storage::outbox::OutboxEvent;

/// The pauses between the attempts of a day. Each is up to a tenth longer, to spread deliveries that failed together. The
/// last attempt is at the end of the day, if it would be later.
const PAUSES: [SignedDuration; 7] = [
    SignedDuration::from_secs(5),
    SignedDuration::from_mins(5),
    SignedDuration::from_mins(30),
    SignedDuration::from_hours(2),
    SignedDuration::from_hours(5),
    SignedDuration::from_hours(6),
    SignedDuration::from_hours(10),
];
/// How much longer a pause may be, at random: a fraction of it.
const JITTER: f64 = 0.1;
/// How many attempts the record keeps.
const ATTEMPTS_KEPT: usize = 20;

/// The states of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waits for its first attempt, or a retry.
    Waiting,
    /// The receiver accepted it.
    Succeeded,
    /// It did not arrive, and is not retried unless an administrator asks for it.
    Failed,
}

/// The work that is due for an item in the queue of webhooks: an event or a delivery.
pub(crate) fn webhook_work(item: &Item) -> Result<Work, TableError> {
    if keys::is_outgoing(&item.stored.key) {
        return Ok(item.record::<OutboxEvent>()?.work());
    }
    Ok(item.record::<Delivery>()?.work())
}

/// One attempt to send a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendAttempt {
    /// When it began.
    pub at: Timestamp,
    /// The HTTP status of the receiver's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, if there is no status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How long it took, in milliseconds; absent if nothing was sent, or the worker did not report a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// A worker's claim: the right to send a delivery once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sending {
    pub worker: String,
    pub since: Timestamp,
    /// When the claim expires.
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
    /// Until when it is retried.
    pub until: Timestamp,
    /// The attempts since it was created, or an administrator retried it.
    pub tries: usize,
    pub sending: Option<Sending>,
    /// The last attempts, the latest last.
    pub attempts: Vec<SendAttempt>,
    /// Grows when an administrator retries it.
    pub revision: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Delivery {
    /// The delivery of an event to a webhook. Its id follows from both, so an event is delivered to a webhook once.
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

    /// Its item: in the queue until it has ended, and deleted [`DELIVERIES_KEPT`] later.
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

    /// The work that sends it.
    pub(super) fn work(&self) -> Work {
        let id = format!("{} {}", self.webhook, self.id);
        Work { org: self.org.clone(), kind: WorkKind::Delivery, id, revision: self.revision }
    }

    /// Whether a worker has it now.
    pub(super) fn is_claimed(&self, now: Timestamp) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.until > now)
    }

    /// Starts it over for another day. The worker of an expired claim can no longer settle it.
    pub(super) fn restart(&mut self, now: Timestamp) {
        (self.state, self.next_at, self.until) = (DeliveryState::Waiting, now, now + TRIED_FOR);
        (self.tries, self.updated_at) = (0, now);
        self.revision += 1;
    }

    /// Claims it for `worker`. If an earlier claim expired, its attempt is recorded without a result.
    pub(super) fn claim(&mut self, worker: String, now: Timestamp, lease: SignedDuration) {
        if let Some(expired) = self.sending.replace(Sending { worker, since: now, until: now + lease }) {
            let problem = Some("the worker that sent it reported no result; it may have arrived".to_owned());
            self.remember(SendAttempt { at: expired.since, status: None, problem, duration_ms: None });
        }
        self.updated_at = now;
    }

    /// Records that it arrived.
    pub(super) fn succeed(&mut self, attempt: SendAttempt, now: Timestamp) {
        self.remember(attempt);
        self.end(DeliveryState::Succeeded, now);
    }

    /// Records that it did not arrive, and schedules a retry if its day has not ended. `retry_after` is how long the receiver
    /// asked to wait, at most until the end of the day; `jitter` is a random number below 1.
    pub(super) fn fail(
        &mut self,
        attempt: SendAttempt,
        retry_after: Option<SignedDuration>,
        now: Timestamp,
        jitter: f64,
    ) {
        self.remember(attempt);
        self.sending = None;
        let pause = PAUSES.get(self.tries.saturating_sub(1)).copied();
        let Some(pause) = pause.filter(|_| now < self.until) else {
            self.end(DeliveryState::Failed, now);
            return;
        };
        let longer = SignedDuration::try_from_secs_f64(pause.as_secs_f64() * JITTER * jitter).unwrap_or_default();
        let pause = (pause + longer).max(retry_after.unwrap_or_default());
        self.next_at = now.checked_add(pause).unwrap_or(self.until).min(self.until);
        self.updated_at = now;
    }

    /// Records that it did not arrive, without retries.
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
        let excess = self.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.attempts.drain(..excess);
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
    fn delivery_is_retried_for_a_day() {
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
    fn retry_after_of_the_receiver_counts_until_the_day_ends() {
        let (mut delivery, now) = (delivery(), Timestamp::UNIX_EPOCH);
        delivery.fail(attempt(now), Some(SignedDuration::from_secs(1)), now, 0.0);
        assert_eq!(delivery.next_at, now + PAUSES[0], "it asks for a shorter pause");
        delivery.fail(attempt(now), Some(SignedDuration::from_hours(3)), now, 0.0);
        assert_eq!(delivery.next_at, now + SignedDuration::from_hours(3));
        delivery.fail(attempt(now), Some(SignedDuration::MAX), now, 0.0);
        assert_eq!((delivery.next_at, delivery.state), (delivery.until, DeliveryState::Waiting));
        let end = delivery.until;
        delivery.fail(attempt(end), Some(SignedDuration::from_hours(3)), end, 0.0);
        assert_eq!(delivery.state, DeliveryState::Failed);
    }

    #[test]
    fn attempt_of_an_expired_claim_is_recorded() {
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
