//! Sending what is due: claimed before it is sent, so that whoever fires how often, it is sent once at a time; and written
//! down after. What was sent by somebody who was not heard of again is sent again.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use super::deliveries::{Delivery, DeliveryState, SendAttempt};
use super::record::{Webhook, webhooks_in};
use super::{FAILING_MAX, TRIED_FOR};
use crate::core::error::{Error, causes};
use crate::core::ids::{DeliveryId, OrgId, WebhookId};
use crate::core::work_report::WorkReport;
use crate::engine::Engine;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Read, TableError, Version};
use crate::ports::timer::Work;
use crate::storage::keys;

/// The time for one attempt.
const SENDING_TIME: Duration = Duration::from_secs(15);
/// How long a delivery is somebody's: longer than an attempt takes, with what is read and written for it.
const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// How often it is tried to write down how an attempt ended.
const SETTLE_TRIES: usize = 3;

/// A delivery that this worker is to send.
struct Claimed {
    delivery: Delivery,
    webhook: Webhook,
    version: Version,
}

/// How an attempt ended.
enum SendResult {
    /// The receiver took it.
    Arrived(SendAttempt),
    /// It did not; how long the receiver wants to be left alone.
    Failed(SendAttempt, Option<SignedDuration>),
    /// The receiver is gone for good.
    Gone(SendAttempt),
}

impl Engine {
    /// Sends the delivery that an alarm stands for, if it is due and nobody else has it. `deadline` is when this process has
    /// to be done; what might take longer is left.
    pub(crate) async fn deliver(&self, work: &Work, deadline: Option<Instant>) -> Result<WorkReport, Error> {
        let Some((webhook, id)) = delivery_of(work) else { return Ok(WorkReport::default()) };
        if deadline.is_some_and(|deadline| Instant::now() + 2 * SENDING_TIME > deadline) {
            return Ok(WorkReport { due: 1, left: 1, ..WorkReport::default() });
        }
        let Some(Claimed { mut delivery, webhook, version }) = self.take_delivery(&work.org, &webhook, &id).await?
        else {
            return Ok(WorkReport::default());
        };
        // A worker that was frozen since it claimed the delivery leaves it to the next.
        let now = self.ports.clock.now();
        if delivery.sending.as_ref().is_none_or(|sending| sending.until <= now) {
            return Ok(WorkReport { due: 1, left: 1, ..WorkReport::default() });
        }
        let sent = self.send(&delivery, &webhook).await;
        let (now, jitter) = (self.ports.clock.now(), self.jitter());
        match &sent {
            SendResult::Arrived(attempt) => delivery.succeed(attempt.clone(), now),
            SendResult::Failed(attempt, asked) => delivery.fail(attempt.clone(), *asked, now, jitter),
            SendResult::Gone(attempt) => delivery.give_up(attempt.clone(), now),
        }
        if self.settle_delivery(&delivery, version).await? {
            if delivery.state == DeliveryState::Waiting {
                self.set_webhook_alarm(delivery.work(), delivery.next_at).await;
            }
            self.update_health(&delivery, &webhook, matches!(sent, SendResult::Gone(_)), now).await?;
        }
        let arrived = usize::from(delivery.state == DeliveryState::Succeeded);
        Ok(WorkReport { due: 1, claimed: 1, succeeded: arrived, failed: 1 - arrived, ..WorkReport::default() })
    }

    /// Claims a delivery that is due, or does away with one that nobody is to get.
    async fn take_delivery(&self, org: &OrgId, webhook: &WebhookId, id: &DeliveryId) -> Result<Option<Claimed>, Error> {
        loop {
            let places = [keys::delivery(org, webhook, id), keys::webhooks(org)];
            let mut found = self.ports.table.batch_get(&places, Read::Consistent).await?;
            let webhooks = webhooks_in(found.pop().flatten().as_ref())?;
            let Some(item) = found.pop().flatten() else { return Ok(None) };
            let (mut delivery, now): (Delivery, _) = (item.record()?, self.ports.clock.now());
            let had = delivery.sending.as_ref().is_some_and(|sending| sending.until > now);
            if delivery.state != DeliveryState::Waiting || had {
                return Ok(None);
            }
            if delivery.sending.is_none() && delivery.next_at > now {
                // The alarm was early, or is one of before a change.
                self.set_webhook_alarm(delivery.work(), delivery.next_at).await;
                return Ok(None);
            }
            let condition = Condition::Version(item.version);
            let written = match webhooks.by_id.get(webhook) {
                // Nobody can see it any more.
                None => self.ports.table.delete(&item.stored.key, condition).await.map(|()| None),
                Some(known) if !known.active => {
                    delivery.give_up(not_sent(now, "the webhook is not active"), now);
                    self.ports.table.put(delivery.item()?, condition).await.map(|_| None)
                }
                Some(known) => {
                    delivery.claim(self.ports.ids.hex(8), now, LEASE);
                    let written = self.ports.table.put(delivery.item()?, condition).await;
                    written.map(|version| Some(Claimed { delivery, webhook: known.clone(), version }))
                }
            };
            match written {
                Ok(claimed) => return Ok(claimed),
                Err(TableError::Condition { .. }) => {}
                // If it was claimed all the same, the claim runs out; nothing has been sent.
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a delivery, once.
    async fn send(&self, delivery: &Delivery, webhook: &Webhook) -> SendResult {
        let at = self.ports.clock.now();
        let body = json!({ "type": delivery.kind, "timestamp": delivery.time, "data": delivery.detail }).to_string();
        let signing = (&webhook.secret_id(&delivery.org, &delivery.webhook), &webhook.signing);
        let request = match self.signed_post(&webhook.url, (delivery.id.as_str(), at), body, signing).await {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(org = %delivery.org, webhook = %delivery.webhook, error = %causes(&error), "a delivery was not sent");
                return SendResult::Failed(not_sent(at, &error.to_string()), None);
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
                    _ => SendResult::Failed(attempt, retry_after(&headers, at)),
                }
            }
            Err(error) => {
                tracing::info!(org = %delivery.org, webhook = %delivery.webhook, error = %causes(&error), "a delivery did not arrive");
                let problem = Some(error.to_string());
                SendResult::Failed(SendAttempt { at, status: None, problem, duration_ms }, None)
            }
        }
    }

    /// Writes down how an attempt ended, if the claim is still this worker's; says whether it was. Tried more than once,
    /// since it would otherwise be sent again.
    async fn settle_delivery(&self, delivery: &Delivery, version: Version) -> Result<bool, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let written = self.ports.table.put(delivery.item()?, Condition::Version(version.clone())).await;
            match written {
                Ok(_) => return Ok(true),
                Err(TableError::Condition { standing, .. }) => {
                    let standing = standing.as_ref().map(|item| item.record::<Delivery>()).transpose()?;
                    let mine = standing.as_ref() == Some(delivery);
                    if !mine {
                        tracing::warn!(org = %delivery.org, delivery = %delivery.id, "the claim of a delivery ran out before it ended");
                    }
                    return Ok(mine);
                }
                Err(error @ TableError::Store(_)) if tries < SETTLE_TRIES => {
                    tracing::error!(org = %delivery.org, delivery = %delivery.id, error = %causes(&error), "an end was not written down; trying again");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Draws from how a delivery ended what is to become of its webhook: one that is gone, or at which nothing arrived for
    /// days, is sent nothing more.
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
            let Some(webhook) = webhooks.by_id.get_mut(&delivery.webhook) else { return Ok(((), None)) };
            // What went wrong at another address says nothing about this one.
            if !webhook.active || webhook.url != seen.url {
                return Ok(((), None));
            }
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
            let detail = json!({ "webhook": delivery.webhook, "reason": reason });
            Ok(((), Some(self.event(&delivery.org, EventKind::WebhookDeactivated, &detail))))
        })
        .await
    }
}

/// An attempt in which nothing was sent.
fn not_sent(at: Timestamp, problem: &str) -> SendAttempt {
    SendAttempt { at, status: None, problem: Some(problem.to_owned()), duration_ms: None }
}

/// The delivery that an alarm is for.
fn delivery_of(work: &Work) -> Option<(WebhookId, DeliveryId)> {
    let (webhook, id) = work.id.split_once(' ')?;
    Some((WebhookId::parse(webhook).ok()?, DeliveryId::parse(id).ok()?))
}

/// How long to wait (RFC 9110, 10.2.3): a number of seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(i64::try_from(seconds).map_or(SignedDuration::MAX, SignedDuration::from_secs));
    }
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().duration_since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_says_how_long_to_wait_in_seconds_or_by_a_date() {
        let now: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
        let asked = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]), now);
        assert_eq!(asked(" 120 "), Some(SignedDuration::from_secs(120)));
        assert_eq!(asked("Sat, 21 Nov 2026 10:00:00 GMT"), Some(SignedDuration::from_hours(1)));
        assert_eq!(asked(&u64::MAX.to_string()), Some(SignedDuration::MAX));
        assert_eq!((asked("soon"), asked("-1"), retry_after(&HeaderMap::new(), now)), (None, None, None));
    }
}
