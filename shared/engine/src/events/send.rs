//! Sending deliveries that are due. A worker claims a delivery before it sends it, so it is sent by one worker at a time, and
//! records the result afterwards. If a worker reports no result, its claim expires and another worker sends the delivery
//! again.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use super::delivery::{Delivery, DeliveryState, SendAttempt};
use super::webhook::{Webhook, webhooks_in};
use super::{FAILING_MAX, TRIED_FOR};
use crate::core::error::{Error, causes};
use crate::core::ids::{DeliveryId, OrgId, WebhookId};
use crate::core::retry_after::seconds_of;
use crate::core::work_report::WorkReport;
use crate::engine::Engine;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Item, Read, TableError, Version};
use crate::ports::timer::Work;
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// The time limit of one attempt.
const SENDING_TIME: Duration = Duration::from_secs(15);
/// How long a claim lasts: longer than an attempt with its reads and writes.
const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// How often recording a result is tried while the store fails.
const SETTLE_TRIES: usize = 3;

/// A delivery that this worker has claimed.
struct ClaimedDelivery {
    delivery: Delivery,
    webhook: Webhook,
    version: Version,
}

/// The result of one attempt.
enum SendResult {
    /// The receiver accepted it.
    Arrived(SendAttempt),
    /// It did not arrive.
    Failed {
        attempt: SendAttempt,
        /// How long the receiver asked to wait.
        retry_after: Option<SignedDuration>,
    },
    /// The receiver does not exist any more (410 Gone).
    Gone(SendAttempt),
}

impl Engine {
    /// Sends a delivery if it is due and no other worker has claimed it. `deadline` is when this process must be done; an
    /// attempt that may take longer is left.
    pub(crate) async fn deliver(&self, work: &Work, deadline: Option<Instant>) -> Result<WorkReport, Error> {
        let left = WorkReport { due: 1, left: 1, ..WorkReport::default() };
        let Some((webhook, id)) = delivery_of(work) else { return Ok(WorkReport::default()) };
        if deadline.is_some_and(|deadline| Instant::now() + 2 * SENDING_TIME > deadline) {
            return Ok(left);
        }
        let Some(claimed) = self.claim_delivery(&work.org, &webhook, &id).await? else {
            return Ok(WorkReport::default());
        };
        let ClaimedDelivery { mut delivery, webhook, version } = claimed;
        // This worker may have been suspended until its claim expired.
        if !delivery.is_claimed(self.ports.clock.now()) {
            return Ok(left);
        }
        let sent = self.send(&delivery, &webhook).await;
        let (now, jitter) = (self.ports.clock.now(), self.jitter());
        let gone = matches!(sent, SendResult::Gone(_));
        match sent {
            SendResult::Arrived(attempt) => delivery.succeed(attempt, now),
            SendResult::Failed { attempt, retry_after } => delivery.fail(attempt, retry_after, now, jitter),
            SendResult::Gone(attempt) => delivery.give_up(attempt, now),
        }
        if self.settle_delivery(&delivery, version).await? {
            if delivery.state == DeliveryState::Waiting {
                self.set_webhook_alarm(delivery.work(), delivery.next_at).await;
            }
            self.update_health(&delivery, &webhook, gone, now).await?;
        }
        let arrived = usize::from(delivery.state == DeliveryState::Succeeded);
        Ok(WorkReport { due: 1, claimed: 1, succeeded: arrived, failed: 1 - arrived, ..WorkReport::default() })
    }

    /// Claims a delivery that is due. Ends one whose webhook was deleted or is not active.
    async fn claim_delivery(
        &self,
        org: &OrgId,
        webhook: &WebhookId,
        id: &DeliveryId,
    ) -> Result<Option<ClaimedDelivery>, Error> {
        let keys = [keys::delivery(org, webhook, id), keys::webhooks(org)];
        let mut race = CompareAndSet::default();
        loop {
            let mut items = self.ports.table.batch_get(&keys, Read::Consistent).await?;
            let webhooks = webhooks_in(items.pop().flatten().as_ref())?;
            let Some(item) = items.pop().flatten() else { return Ok(None) };
            let (delivery, now): (Delivery, _) = (item.record()?, self.ports.clock.now());
            if delivery.state != DeliveryState::Waiting || delivery.is_claimed(now) {
                return Ok(None);
            }
            if delivery.sending.is_none() && delivery.next_at > now {
                // The timer fired early, or was set before the delivery was rescheduled.
                self.set_webhook_alarm(delivery.work(), delivery.next_at).await;
                return Ok(None);
            }
            match self.write_claim(delivery, item, webhooks.by_id.get(webhook), now).await {
                Ok(claimed) => return Ok(claimed),
                // If the store failed but wrote the claim, the claim expires; nothing was sent.
                Err(error) => race.after_lost_race(error, format_args!("the delivery {id}"))?,
            };
        }
    }

    /// Claims a delivery, as stored in `item`, or ends it if its webhook cannot get it.
    async fn write_claim(
        &self,
        mut delivery: Delivery,
        item: Item,
        webhook: Option<&Webhook>,
        now: Timestamp,
    ) -> Result<Option<ClaimedDelivery>, TableError> {
        let condition = Condition::Version(item.version);
        let Some(webhook) = webhook else {
            // Without its webhook no route lists it.
            self.ports.table.delete(&item.stored.key, condition).await?;
            return Ok(None);
        };
        if !webhook.active {
            delivery.give_up(not_sent(now, "the webhook is not active"), now);
            self.ports.table.put(delivery.item()?, condition).await?;
            return Ok(None);
        }
        delivery.claim(self.ports.ids.hex(8), now, LEASE);
        let version = self.ports.table.put(delivery.item()?, condition).await?;
        Ok(Some(ClaimedDelivery { delivery, webhook: webhook.clone(), version }))
    }

    /// Sends a delivery, once.
    async fn send(&self, delivery: &Delivery, webhook: &Webhook) -> SendResult {
        let Delivery { org, webhook: webhook_id, .. } = delivery;
        let at = self.ports.clock.now();
        let body = json!({ "type": delivery.kind, "timestamp": delivery.time, "data": delivery.detail }).to_string();
        let secret_id = webhook.secret_id(org, webhook_id);
        let (url, id) = (&webhook.url, delivery.id.as_str());
        let request = match self.signed_post(url, id, at, body, &secret_id, &webhook.signing).await {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%org, webhook = %webhook_id, error = %causes(&error), "delivery not sent");
                return SendResult::Failed { attempt: not_sent(at, &error.to_string()), retry_after: None };
            }
        };
        let started = Instant::now();
        let answer = self.outbound.send_for_status(request, started + SENDING_TIME).await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).ok();
        match answer {
            Ok((status, headers)) => {
                let attempt = SendAttempt { at, status: Some(status.as_u16()), problem: None, duration_ms };
                match status {
                    status if status.is_success() => SendResult::Arrived(attempt),
                    StatusCode::GONE => SendResult::Gone(attempt),
                    _ => SendResult::Failed { attempt, retry_after: retry_after(&headers, at) },
                }
            }
            Err(error) => {
                tracing::info!(%org, webhook = %webhook_id, error = %causes(&error), "delivery did not arrive");
                let attempt = SendAttempt { at, status: None, problem: Some(error.to_string()), duration_ms };
                SendResult::Failed { attempt, retry_after: None }
            }
        }
    }

    /// Records the result of an attempt, if the claim is still this worker's; gives whether it is. Retried while the store
    /// fails, because a delivery without a result is sent again.
    async fn settle_delivery(&self, delivery: &Delivery, version: Version) -> Result<bool, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let written = self.ports.table.put(delivery.item()?, Condition::Version(version.clone())).await;
            match written {
                Ok(_) => return Ok(true),
                Err(TableError::Condition { current, .. }) => {
                    // A try that the store reported as failed may have been written.
                    let stored = current.as_ref().map(|item| item.record::<Delivery>()).transpose()?;
                    let is_ours = stored.as_ref() == Some(delivery);
                    if !is_ours {
                        let (org, id) = (&delivery.org, &delivery.id);
                        tracing::warn!(%org, delivery = %id, "claim expired before the delivery was settled");
                    }
                    return Ok(is_ours);
                }
                Err(error @ TableError::Store(_)) if tries < SETTLE_TRIES => {
                    let (org, id) = (&delivery.org, &delivery.id);
                    tracing::error!(%org, delivery = %id, error = %causes(&error), "failed to settle delivery; retrying");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Updates the health of a webhook after a delivery ended. A webhook whose receiver is gone, or whose deliveries have all
    /// failed for days, is deactivated.
    async fn update_health(
        &self,
        delivery: &Delivery,
        seen: &Webhook,
        gone: bool,
        now: Timestamp,
    ) -> Result<(), Error> {
        let recovered = delivery.state == DeliveryState::Succeeded && seen.failing_since.is_some();
        let failed = delivery.state == DeliveryState::Failed;
        if !recovered && !failed {
            return Ok(());
        }
        self.change_webhooks(&delivery.org, |webhooks| {
            let webhook = webhooks.by_id.get_mut(&delivery.webhook);
            // A result at another URL says nothing about the present one.
            let Some(webhook) = webhook.filter(|webhook| webhook.active && webhook.url == seen.url) else {
                return Ok(((), None));
            };
            if recovered {
                webhook.failing_since = None;
                return Ok(((), None));
            }
            let since = *webhook.failing_since.get_or_insert(delivery.until - TRIED_FOR);
            let reason = if gone {
                "its receiver answered 410 Gone"
            } else if now.duration_since(since) >= FAILING_MAX {
                "every delivery failed for five days"
            } else {
                return Ok(((), None));
            };
            webhook.deactivate(reason, now);
            Ok(((), Some(self.deactivation_event(delivery, reason))))
        })
        .await
    }

    fn deactivation_event(&self, delivery: &Delivery, reason: &str) -> Event {
        let detail = json!({ "webhook": delivery.webhook, "reason": reason });
        self.event(&delivery.org, EventKind::WebhookDeactivated, &detail)
    }
}

/// An attempt in which nothing was sent.
fn not_sent(at: Timestamp, problem: &str) -> SendAttempt {
    SendAttempt { at, status: None, problem: Some(problem.to_owned()), duration_ms: None }
}

/// The webhook and the delivery that work names.
fn delivery_of(work: &Work) -> Option<(WebhookId, DeliveryId)> {
    let (webhook, id) = work.id.split_once(' ')?;
    Some((WebhookId::parse(webhook).ok()?, DeliveryId::parse(id).ok()?))
}

/// How long the receiver asks to wait.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let seconds = seconds_of(headers.get(RETRY_AFTER)?.to_str().ok()?, now)?;
    Some(i64::try_from(seconds).map_or(SignedDuration::MAX, SignedDuration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_in_seconds_or_a_date() {
        let now: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
        let parsed = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]), now);
        assert_eq!(parsed(" 120 "), Some(SignedDuration::from_secs(120)));
        assert_eq!(parsed("Sat, 21 Nov 2026 10:00:00 GMT"), Some(SignedDuration::from_hours(1)));
        assert_eq!(parsed(&u64::MAX.to_string()), Some(SignedDuration::MAX));
        assert_eq!((parsed("soon"), parsed("-1"), retry_after(&HeaderMap::new(), now)), (None, None, None));
    }
}
