//! Turning an event in the outbox into deliveries.

use super::delivery::Delivery;
use super::webhook::webhooks_in;
use crate::core::error::Error;
use crate::engine::Engine;
use crate::ports::table::{Condition, Read, TableError, Write};
use crate::ports::timer::Work;
use crate::storage::keys;
use crate::storage::outbox::OutboxEvent;

impl Engine {
    /// Replaces an event in the outbox with a delivery for each webhook that wants it, in one transaction. Does nothing if
    /// the event is not in the outbox any more.
    pub(crate) async fn fan_out(&self, work: &Work) -> Result<(), Error> {
        let keys = [keys::outgoing(&work.org, &work.id), keys::webhooks(&work.org)];
        let mut items = self.ports.table.batch_get(&keys, Read::Consistent).await?;
        let (webhooks, item) = (items.pop().flatten(), items.pop().flatten());
        let Some(item) = item else { return Ok(()) };
        let event: OutboxEvent = item.record()?;
        let now = self.ports.clock.now();
        let webhooks = webhooks_in(webhooks.as_ref())?;
        let subscribed = webhooks.by_id.iter().filter(|(_, webhook)| webhook.wants(&event.kind));
        let deliveries: Vec<_> = subscribed.map(|(id, _)| Delivery::of(&event, id, now)).collect::<Result<_, _>>()?;
        let mut writes = vec![Write::Delete(item.stored.key, Condition::Version(item.version))];
        for delivery in &deliveries {
            writes.push(Write::Put(delivery.item()?, Condition::Absent));
        }
        match self.ports.table.transact(writes).await {
            Ok(_) => {}
            // Another worker fanned it out.
            Err(TableError::Condition { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for delivery in &deliveries {
            self.set_webhook_alarm(delivery.work(), now).await;
        }
        Ok(())
    }
}
