//! The stored list of webhooks: one item for each organization, so an event finds the webhooks that want it with one read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use super::signing::Signing;
use crate::core::error::Error;
use crate::core::ids::{OrgId, WebhookId};
use crate::engine::Engine;
use crate::ports::Event;
use crate::ports::table::{Condition, Item, NewItem, Read, TableError, Write};
use crate::ports::vault::{Purpose, SecretId};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// Subscribes to every kind of event.
pub(super) const EVERY_KIND: &str = "*";

/// Every webhook of an organization.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Webhooks {
    #[serde(rename = "webhooks")]
    pub by_id: BTreeMap<WebhookId, Webhook>,
}

/// One webhook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Webhook {
    pub url: Url,
    /// The kinds of events that it is subscribed to, or [`EVERY_KIND`].
    pub events: Vec<String>,
    pub description: Option<String>,
    pub active: bool,
    pub deactivated: Option<Deactivated>,
    #[serde(flatten)]
    pub signing: Signing,
    /// When the first delivery was created that failed for good, if none has arrived since.
    pub failing_since: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Overseer deactivated a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deactivated {
    /// When.
    pub at: Timestamp,
    /// Why, in a sentence for administrators.
    pub reason: String,
}

impl Webhook {
    /// Whether it is active and subscribed to this kind of event.
    pub(super) fn wants(&self, kind: &str) -> bool {
        self.active && self.events.iter().any(|wanted| wanted == EVERY_KIND || wanted == kind)
    }

    /// Signs with a new version of the secret. Gives the versions that no longer sign.
    pub(super) fn rotate(&mut self, version: &str, now: Timestamp) -> Vec<String> {
        self.updated_at = now;
        self.signing.rotate(version, now)
    }

    /// Stops deliveries to it.
    pub(super) fn deactivate(&mut self, reason: &str, now: Timestamp) {
        self.active = false;
        self.deactivated = Some(Deactivated { at: now, reason: reason.to_owned() });
        self.updated_at = now;
    }

    /// The vault's id of its secret.
    pub(super) fn secret_id(&self, org: &OrgId, id: &WebhookId) -> SecretId {
        SecretId {
            org: org.clone(),
            purpose: Purpose::Webhook { webhook: id.clone() },
            id: self.signing.secret.clone(),
        }
    }
}

/// The webhooks in an item; none if there is no item.
pub(super) fn webhooks_in(item: Option<&Item>) -> Result<Webhooks, TableError> {
    item.map_or_else(|| Ok(Webhooks::default()), Item::record)
}

impl Engine {
    /// Changes an organization's webhooks by compare-and-set. `change` runs once per try; if it changes nothing, nothing is
    /// written. The event that it gives is written with the change, and published.
    pub(super) async fn change_webhooks<T>(
        &self,
        org: &OrgId,
        mut change: impl FnMut(&mut Webhooks) -> Result<(T, Option<Event>), Error> + Send,
    ) -> Result<T, Error> {
        let key = keys::webhooks(org);
        let mut current = self.ports.table.get(&key, Read::Consistent).await?;
        let mut race = CompareAndSet::default();
        loop {
            let before = webhooks_in(current.as_ref())?;
            let mut webhooks = before.clone();
            let (value, event) = change(&mut webhooks)?;
            if webhooks == before {
                return Ok(value);
            }
            let condition = current.map_or(Condition::Absent, |item| Condition::Version(item.version));
            let write = if webhooks.by_id.is_empty() {
                Write::Delete(key.clone(), condition)
            } else {
                Write::Put(NewItem::new(key.clone(), &webhooks)?, condition)
            };
            match self.transact_with(vec![write], event.as_ref()).await {
                Ok(_) => {
                    if let Some(event) = event {
                        self.publish(event).await;
                    }
                    return Ok(value);
                }
                Err(error) => current = race.after_lost_race(error, "the list of webhooks")?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::OLD_SECRET_SIGNS;

    fn webhook() -> Webhook {
        Webhook {
            url: "https://example.com/".parse().unwrap(),
            events: vec!["task.failed".to_owned()],
            description: None,
            active: true,
            deactivated: None,
            signing: Signing { secret: "s1".to_owned(), version: "1".to_owned(), old: Vec::new() },
            failing_since: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn old_secret_signs_for_a_day() {
        let (start, mut webhook) = (Timestamp::UNIX_EPOCH, webhook());
        assert_eq!(webhook.signing.versions(start), ["1"]);
        assert!(webhook.rotate("2", start).is_empty());
        assert_eq!(
            webhook.signing.versions(start + OLD_SECRET_SIGNS - jiff::SignedDuration::from_nanos(1)),
            ["2", "1"]
        );
        assert_eq!(webhook.signing.versions(start + OLD_SECRET_SIGNS), ["2"]);
    }

    #[test]
    fn three_old_secrets_sign_at_most() {
        let (start, mut webhook) = (Timestamp::UNIX_EPOCH, webhook());
        assert!(webhook.rotate("2", start).is_empty());
        assert!(webhook.rotate("3", start).is_empty() && webhook.rotate("4", start).is_empty());
        assert_eq!(webhook.signing.versions(start), ["4", "3", "2", "1"]);
        assert_eq!(webhook.rotate("5", start), ["1"], "the version that was replaced first is dropped");
        assert_eq!(webhook.signing.versions(start), ["5", "4", "3", "2"]);
        assert_eq!(webhook.rotate("6", start + OLD_SECRET_SIGNS), ["2", "3", "4"]);
        assert_eq!(webhook.signing.versions(start + OLD_SECRET_SIGNS), ["6", "5"]);
    }

    #[test]
    fn inactive_webhook_wants_nothing() {
        let mut webhook = webhook();
        assert!(webhook.wants("task.failed") && !webhook.wants("task.paused"));
        webhook.events = vec![EVERY_KIND.to_owned()];
        assert!(webhook.wants("task.paused"));
        webhook.deactivate("why", Timestamp::UNIX_EPOCH);
        assert!(!webhook.wants("task.paused"));
    }
}
