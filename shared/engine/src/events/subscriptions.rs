//! Webhooks as administrators manage them. Only the answer that creates a secret contains it.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tracing::debug_span;
use tracing::field::Empty;
use url::Url;

use super::WEBHOOKS_MAX;
use super::signing::{Signing, new_secret};
use super::webhook::{Deactivated, EVERY_KIND, Webhook, webhooks_in};
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, WebhookId};
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::events::EventKind;
use crate::ports::table::{Read, TableError};
use crate::storage::keys;

/// The longest URL, in bytes.
const URL_MAX_BYTES: usize = 2048;
/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 500;
/// The most problems that an error lists.
const PROBLEMS_MAX: usize = 20;

/// A webhook to create.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// The URL that receives deliveries: https, at most 2,048 bytes, without user and fragment.
    #[schemars(with = "String")]
    pub url: Url,
    /// The kinds of events to deliver, such as `task.failed`, or `*` for every kind.
    #[schemars(length(min = 1))]
    pub events: Vec<String>,
    /// What it is for: at most 500 characters.
    #[schemars(length(max = DESCRIPTION_MAX))]
    pub description: Option<String>,
}

/// Changes of a webhook. What is left out stays.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeWebhook {
    /// The URL that receives deliveries, also those that are waiting.
    #[schemars(with = "Option<String>")]
    pub url: Option<Url>,
    /// The kinds of events to deliver. They replace all earlier ones.
    #[schemars(length(min = 1))]
    pub events: Option<Vec<String>>,
    /// Whether it gets deliveries. While it does not, deliveries that come due count as failed.
    pub active: Option<bool>,
    /// What it is for: at most 500 characters; an empty text removes it.
    #[schemars(length(max = DESCRIPTION_MAX))]
    pub description: Option<String>,
}

/// A webhook without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookView {
    /// Its id.
    pub id: WebhookId,
    /// The URL that receives deliveries.
    pub url: Url,
    /// The kinds of events that it gets.
    pub events: Vec<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it gets deliveries.
    pub active: bool,
    /// When and why Overseer deactivated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deactivated: Option<Deactivated>,
    /// Until when a replaced secret signs as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_secret_signs_until: Option<Timestamp>,
    /// Since when every delivery fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// A webhook with its new secret. No later answer contains the secret.
#[derive(Debug)]
pub struct WebhookWithSecret {
    /// `whsec_` and the signing key in base64.
    pub secret: SecretString,
    /// The webhook.
    pub view: WebhookView,
}

impl Webhook {
    fn view(&self, id: &WebhookId, now: Timestamp) -> WebhookView {
        WebhookView {
            id: id.clone(),
            url: self.url.clone(),
            events: self.events.clone(),
            description: self.description.clone(),
            active: self.active,
            deactivated: self.deactivated.clone(),
            old_secret_signs_until: self.signing.old_signs_until(now),
            failing_since: self.failing_since,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

impl Engine {
    /// Subscribes a URL to events, from now on and in every process.
    pub async fn create_webhook(
        self: &Arc<Self>,
        principal: &Principal,
        new: NewWebhook,
    ) -> Result<WebhookWithSecret, Error> {
        let span = debug_span!("create_webhook", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let events = self.check_webhook(Some(&new.url), Some(new.events)).await?.unwrap_or_default();
            let (engine, org) = (Arc::clone(self), principal.org.clone());
            self.run_to_completion(async move {
                let (now, ids) = (engine.ports.clock.now(), engine.ports.ids.as_ref());
                let id = WebhookId::parse(engine.id_at(now)).map_err(Error::internal)?;
                let webhook = Webhook {
                    url: new.url,
                    events,
                    description: new.description,
                    active: true,
                    deactivated: None,
                    signing: Signing::new(ids),
                    failing_since: None,
                    created_at: now,
                    updated_at: now,
                };
                let (secret_id, secret) = (webhook.secret_id(&org, &id), new_secret(ids));
                // The secret first: a record never names one that does not exist.
                engine.ports.vault.put(&secret_id, &webhook.signing.version, &secret).await?;
                let created = engine
                    .change_webhooks(&org, |webhooks| {
                        if webhooks.by_id.len() >= WEBHOOKS_MAX {
                            let message = format!("there are {WEBHOOKS_MAX} webhooks already; delete one first");
                            return Err(Error::Conflict(message));
                        }
                        webhooks.by_id.insert(id.clone(), webhook.clone());
                        Ok((webhook.view(&id, now), None))
                    })
                    .await;
                match created {
                    Ok(view) => Ok(WebhookWithSecret { secret, view }),
                    // The write may have happened: a record without its secret would be worse than a secret too many.
                    Err(error @ Error::Table(TableError::Store(_))) => Err(error),
                    Err(error) => {
                        engine.forget_signing(&org, &id, &webhook).await;
                        Err(error)
                    }
                }
            })
            .await
        })
        .await
    }

    /// The webhooks of the caller's organization, the oldest first.
    pub async fn list_webhooks(&self, principal: &Principal) -> Result<Vec<WebhookView>, Error> {
        let span = debug_span!("list_webhooks", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let item = self.ports.table.get(&keys::webhooks(&principal.org), Read::Consistent).await?;
            let now = self.ports.clock.now();
            Ok(webhooks_in(item.as_ref())?.by_id.iter().map(|(id, webhook)| webhook.view(id, now)).collect())
        })
        .await
    }

    /// One webhook of the caller's organization.
    pub async fn get_webhook(&self, principal: &Principal, id: &str) -> Result<WebhookView, Error> {
        let span = debug_span!("get_webhook", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            let all = self.list_webhooks(principal).await?;
            all.into_iter().find(|webhook| webhook.id.as_str() == id).ok_or(Error::NotFound("webhook"))
        })
        .await
    }

    /// Changes a webhook. Another URL, or another `active`, forgets its failures.
    pub async fn change_webhook(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        change: ChangeWebhook,
    ) -> Result<WebhookView, Error> {
        let span = debug_span!("change_webhook", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let events = self.check_webhook(change.url.as_ref(), change.events.clone()).await?;
            self.with_webhook(principal, id, move |webhook, now| {
                if let Some(url) = change.url.as_ref().filter(|url| **url != webhook.url) {
                    (webhook.url, webhook.failing_since) = (url.clone(), None);
                }
                if let Some(active) = change.active.filter(|active| *active != webhook.active) {
                    (webhook.active, webhook.deactivated, webhook.failing_since) = (active, None, None);
                }
                webhook.events = events.clone().unwrap_or_else(|| webhook.events.clone());
                if let Some(description) = &change.description {
                    webhook.description = Some(description.clone()).filter(|text| !text.is_empty());
                }
                webhook.updated_at = now;
            })
            .await
            .map(|(view, ())| view)
        })
        .await
    }

    /// Replaces a webhook's secret. The replaced one signs as well for another day.
    pub async fn rotate_webhook(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<WebhookWithSecret, Error> {
        let span = debug_span!("rotate_webhook", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let id = WebhookId::parse(id).map_err(|_| Error::NotFound("webhook"))?;
            let item = self.ports.table.get(&keys::webhooks(&principal.org), Read::Consistent).await?;
            let webhook = webhooks_in(item.as_ref())?.by_id.remove(&id).ok_or(Error::NotFound("webhook"))?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            self.run_to_completion(async move {
                let secret_id = webhook.secret_id(&principal.org, &id);
                let (version, secret) = (engine.ports.ids.hex(8), new_secret(engine.ports.ids.as_ref()));
                engine.ports.vault.put(&secret_id, &version, &secret).await?;
                let rotated =
                    engine.with_webhook(&principal, id.as_str(), move |webhook, now| webhook.rotate(&version, now));
                match rotated.await {
                    Ok((view, dropped)) => {
                        for version in dropped {
                            if let Err(error) = engine.ports.vault.delete_version(&secret_id, &version).await {
                                // It signs nothing any more, and is deleted with the webhook.
                                let org = &principal.org;
                                tracing::error!(%org, error = %causes(&error), "failed to delete replaced webhook secret");
                            }
                        }
                        Ok(WebhookWithSecret { secret, view })
                    }
                    Err(error) => {
                        // The webhook was deleted in the meantime: storing the version may have created its secret again.
                        if matches!(error, Error::NotFound(_)) {
                            engine.forget_signing(&principal.org, &id, &webhook).await;
                        }
                        Err(error)
                    }
                }
            })
            .await
        })
        .await
    }

    /// Deletes a webhook. Deliveries that are waiting are not sent.
    pub async fn delete_webhook(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<WebhookView, Error> {
        let span = debug_span!("delete_webhook", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let id = WebhookId::parse(id).map_err(|_| Error::NotFound("webhook"))?;
            let (engine, org) = (Arc::clone(self), principal.org.clone());
            self.run_to_completion(async move {
                let webhook = engine
                    .change_webhooks(&org, |webhooks| {
                        Ok((webhooks.by_id.remove(&id).ok_or(Error::NotFound("webhook"))?, None))
                    })
                    .await?;
                engine.forget_signing(&org, &id, &webhook).await;
                Ok(webhook.view(&id, engine.ports.clock.now()))
            })
            .await
        })
        .await
    }

    /// Changes one webhook by compare-and-set. `change` runs once per try.
    async fn with_webhook<T: Send + 'static>(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        change: impl Fn(&mut Webhook, Timestamp) -> T + Send + Sync + 'static,
    ) -> Result<(WebhookView, T), Error> {
        let id = WebhookId::parse(id).map_err(|_| Error::NotFound("webhook"))?;
        let (engine, org) = (Arc::clone(self), principal.org.clone());
        self.run_to_completion(async move {
            let now = engine.ports.clock.now();
            engine
                .change_webhooks(&org, |webhooks| {
                    let webhook = webhooks.by_id.get_mut(&id).ok_or(Error::NotFound("webhook"))?;
                    let value = change(webhook, now);
                    Ok(((webhook.view(&id, now), value), None))
                })
                .await
        })
        .await
    }

    /// Deletes the secret of a webhook that was deleted. A failure is only logged.
    async fn forget_signing(&self, org: &OrgId, id: &WebhookId, webhook: &Webhook) {
        if let Err(error) = self.ports.vault.delete(&webhook.secret_id(org, id)).await {
            tracing::error!(%org, error = %causes(&error), "failed to delete secret of deleted webhook");
        }
    }

    /// Refuses URLs that must not receive deliveries and unknown events. Gives the events without duplicates.
    async fn check_webhook(
        &self,
        url: Option<&Url>,
        events: Option<Vec<String>>,
    ) -> Result<Option<Vec<String>>, Error> {
        let mut problems = Vec::new();
        if let Some(url) = url {
            problems.extend(self.url_problem(url).await.map(|message| FieldProblem::new("/url", message)));
        }
        let mut kinds: Vec<String> = Vec::new();
        for (index, kind) in events.iter().flatten().enumerate() {
            if kind != EVERY_KIND && !EventKind::ALL.iter().any(|known| known.as_str() == kind) {
                let all: Vec<_> = EventKind::ALL.iter().map(|known| known.as_str()).collect();
                let message = format!("is not an event; there are {} and {EVERY_KIND} for all of them", all.join(", "));
                problems.push(FieldProblem::new(format!("/events/{index}"), message));
            } else if !kinds.contains(kind) {
                kinds.push(kind.clone());
            }
        }
        if !problems.is_empty() {
            problems.truncate(PROBLEMS_MAX);
            return Err(Error::Invalid(problems));
        }
        Ok(events.map(|_| kinds))
    }

    /// Why a URL must not receive deliveries, if so.
    async fn url_problem(&self, url: &Url) -> Option<String> {
        if url.as_str().len() > URL_MAX_BYTES {
            return Some(format!("must have at most {URL_MAX_BYTES} bytes"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Some("must have no user, no password and no fragment; deliveries are signed".to_owned());
        }
        let allowed_http = url.scheme() == "http" && self.outbound.allows(url);
        if url.scheme() != "https" && !allowed_http {
            let message = "must be an https URL; http is only for addresses that the operator allows";
            return Some(message.to_owned());
        }
        let message = "is at an address that Overseer sends nothing to; use a public one, or ask the operator to allow it \
                       (OVERSEER_ALLOW_ADDRESSES)";
        self.outbound.refuses(url).await.then(|| message.to_owned())
    }
}
