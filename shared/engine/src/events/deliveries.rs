//! Deliveries as administrators list and retry them.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tracing::debug_span;
use tracing::field::Empty;

use super::delivery::{Delivery, DeliveryState, SendAttempt};
use super::webhook::webhooks_in;
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{DeliveryId, WebhookId};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{Condition, Cursor, Item, Page, Query, Read, TableError};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// A delivery of an event to a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryView {
    /// Its id, which the receiver gets as `webhook-id`.
    pub id: DeliveryId,
    /// The kind of the event.
    pub r#type: String,
    /// The time of the event.
    pub timestamp: Timestamp,
    /// Its state.
    pub status: DeliveryState,
    /// Whether a worker is sending it.
    pub sending: bool,
    /// The last 20 attempts, the latest last.
    pub attempts: Vec<SendAttempt>,
    /// When it is sent next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// Until when it is retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tried_until: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

impl Delivery {
    fn view(&self) -> DeliveryView {
        let is_waiting = self.state == DeliveryState::Waiting;
        DeliveryView {
            id: self.id.clone(),
            r#type: self.kind.clone(),
            timestamp: self.time,
            status: self.state,
            sending: self.sending.is_some(),
            attempts: self.attempts.clone(),
            next_attempt_at: (is_waiting && self.sending.is_none()).then_some(self.next_at),
            tried_until: is_waiting.then_some(self.until),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

impl Engine {
    /// The deliveries of a webhook, the latest first.
    pub async fn list_deliveries(
        &self,
        principal: &Principal,
        webhook: &str,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<DeliveryView>, Error> {
        let span = debug_span!("list_deliveries", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let webhook = WebhookId::parse(webhook).map_err(|_| Error::NotFound("webhook"))?;
            let known = self.ports.table.get(&keys::webhooks(&principal.org), Read::Eventual).await?;
            if !webhooks_in(known.as_ref())?.by_id.contains_key(&webhook) {
                return Err(Error::NotFound("webhook"));
            }
            let partition = keys::deliveries_of(&principal.org, &webhook);
            let query = Query { cursor, backwards: true, ..Query::partition(partition, limit) };
            let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
            let views = page.entries.iter().map(|item| Ok(item.record::<Delivery>()?.view()));
            Ok(Page { entries: views.collect::<Result<_, TableError>>()?, next: page.next })
        })
        .await
    }

    /// Sends a delivery again now, and retries it for another day. One that a worker is sending is a conflict.
    pub async fn retry_delivery(
        self: &Arc<Self>,
        principal: &Principal,
        webhook: &str,
        id: &str,
    ) -> Result<DeliveryView, Error> {
        let span = debug_span!("retry_delivery", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let webhook = WebhookId::parse(webhook).map_err(|_| Error::NotFound("webhook"))?;
            let id = DeliveryId::parse(id).map_err(|_| Error::NotFound("delivery"))?;
            let (engine, org) = (Arc::clone(self), principal.org.clone());
            self.run_to_completion(async move {
                let keys = [keys::delivery(&org, &webhook, &id), keys::webhooks(&org)];
                let mut race = CompareAndSet::default();
                loop {
                    let mut items = engine.ports.table.batch_get(&keys, Read::Consistent).await?;
                    let webhooks = webhooks_in(items.pop().flatten().as_ref())?;
                    let webhook = webhooks.by_id.get(&webhook).ok_or(Error::NotFound("webhook"))?;
                    let item: Item = items.pop().flatten().ok_or(Error::NotFound("delivery"))?;
                    if !webhook.active {
                        let message = "the webhook is not active; send PATCH with {\"active\": true} first";
                        return Err(Error::Conflict(message.to_owned()));
                    }
                    let (mut delivery, now): (Delivery, _) = (item.record()?, engine.ports.clock.now());
                    if delivery.is_claimed(now) {
                        let message = "the delivery is being sent; try again in a minute";
                        return Err(Error::Conflict(message.to_owned()));
                    }
                    delivery.restart(now);
                    match engine.ports.table.put(delivery.item()?, Condition::Version(item.version)).await {
                        Ok(_) => {
                            engine.set_webhook_alarm(delivery.work(), now).await;
                            return Ok(delivery.view());
                        }
                        Err(error) => race.after_lost_race(error, format_args!("the delivery {id}"))?,
                    };
                }
            })
            .await
        })
        .await
    }
}
