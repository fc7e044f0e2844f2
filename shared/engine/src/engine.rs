//! The engine: takes an intent to its outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use quick_cache::sync::Cache;
use secrecy::SecretString;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::access::api_keys;
use crate::access::principal::Principal;
use crate::accounts::PENDING;
use crate::core::error::{Error, causes};
use crate::core::ids::{ChannelName, KeyId, OrgId, PluginName, UserId};
use crate::core::intent::Intent;
use crate::core::outcome::Outcome;
use crate::events::{DELIVERY, OUTGOING};
use crate::invoke::execute::{Doing, Source};
use crate::invoke::mappings::{Flight, ListOf, SeenLists, no_lists};
use crate::invoke::runs::{Answered, Asked, Keyed};
use crate::outbound::client::{ClientError, Outbound};
use crate::outbound::config::Config;
use crate::outbound::credential::Credential;
use crate::plugin::catalog::{Catalog, Plugin};
use crate::ports::events::EventBusError;
use crate::ports::vault::SecretId;
use crate::ports::{Clock, Event, EventBus, Ids, Table, Timer, Vault, Work};
use crate::registry::instances::Installed;
use crate::registry::{Running, TextId, changes_all_the_time};
use crate::tasks::{Report, TASKS};

/// The time for publishing events.
const PUBLISHING_TIME: Duration = Duration::from_secs(2);

/// API keys and tokens that a warm process remembers.
const SEEN_MAX: usize = 1_000;
/// Registered plugins that a warm process keeps read: each may take some megabytes.
const PLUGINS_MAX: usize = 100;

/// What the engine needs from the world outside it.
#[derive(Clone)]
pub struct Ports {
    /// Where every record lives.
    pub table: Arc<dyn Table>,
    /// Where secrets are kept.
    pub vault: Arc<dyn Vault>,
    /// Wakes the engine for work that is due later.
    pub timer: Arc<dyn Timer>,
    /// Where events go.
    pub events: Arc<dyn EventBus>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Random values.
    pub ids: Arc<dyn Ids>,
}

/// The engine.
pub struct Engine {
    /// The world outside.
    pub ports: Ports,
    /// The plugins.
    pub catalog: Catalog,
    /// What the operator set.
    pub config: Config,
    pub(crate) outbound: Outbound,
    /// API keys by their public half, with the time when each was read.
    pub(crate) seen_keys: Cache<KeyId, (Timestamp, api_keys::Record)>,
    /// How many keys this process has revoked, so that a key that was read before is not remembered after.
    pub(crate) revocations: Mutex<u64>,
    /// Versions of secrets never change, so that these are never stale.
    pub(crate) seen_credentials: Cache<(SecretId, String), Arc<Credential>>,
    /// Which version of a registered plugin each organization uses, with the time when that was read.
    pub(crate) seen_installed: Cache<(OrgId, PluginName), (Timestamp, Arc<Installed>)>,
    /// Versions of registered plugins, read. They never change, so that these are never stale.
    pub(crate) seen_plugins: Cache<TextId, Arc<Plugin>>,
    /// Calls of registered plugins that are under way.
    pub(crate) running: Running,
    /// Organizations that have webhooks, with the time when that was seen. That one has none is never remembered.
    pub(crate) seen_webhooks: Cache<OrgId, Timestamp>,
    /// What signs the deliveries of webhooks, by versions, which never change.
    pub(crate) seen_signing: Cache<(SecretId, String), SecretString>,
    /// What services listed when they were asked about names.
    pub(crate) seen_lists: SeenLists,
    /// Lists that somebody is asking for at the moment.
    pub(crate) flights: Mutex<HashMap<ListOf, Flight>>,
    /// What has to run to its end whether or not anybody waits for it.
    effects: TaskTracker,
}

impl Engine {
    /// An engine over these ports. Fails where no client for outbound calls can be made.
    pub fn new(ports: Ports, catalog: Catalog, config: Config) -> Result<Arc<Self>, ClientError> {
        let outbound = Outbound::new(&config.allowed_addresses, config.authorities, config.limits.connect)?;
        Ok(Arc::new(Self {
            ports,
            catalog,
            config,
            outbound,
            seen_keys: Cache::new(SEEN_MAX),
            revocations: Mutex::new(0),
            seen_credentials: Cache::new(SEEN_MAX),
            seen_installed: Cache::new(SEEN_MAX),
            seen_plugins: Cache::new(PLUGINS_MAX),
            running: Running::default(),
            seen_webhooks: Cache::new(SEEN_MAX),
            seen_signing: Cache::new(SEEN_MAX),
            seen_lists: no_lists(),
            flights: Mutex::default(),
            effects: TaskTracker::new(),
        }))
    }

    /// Takes an intent to its outcome, now.
    pub async fn intend(
        self: &Arc<Self>,
        principal: Principal,
        intent: Intent,
        asked: Asked,
    ) -> Result<Answered<Outcome>, Error> {
        let engine = Arc::clone(self);
        self.to_its_end(async move { engine.take(&principal, intent, &asked).await }).await
    }

    /// Runs what has effects. Once begun it runs to its end, even if the returned future is dropped because the client
    /// hung up.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.effects.spawn(work.in_current_span()).await.map_err(Error::Panicked)?
    }

    /// Does the work that an alarm stands for, if it is due: the record decides. `deadline` is when this process has to be
    /// done, if it has to; what might take longer is left.
    pub async fn wake(self: &Arc<Self>, work: Work, deadline: Option<Instant>) -> Result<Report, Error> {
        let engine = Arc::clone(self);
        self.to_its_end(async move {
            match work.kind.as_str() {
                PENDING => engine.drop_if_due(&work.org, &work.id).await.map(|()| Report::default()),
                TASKS => Box::pin(engine.run_due(&work, deadline)).await,
                OUTGOING => engine.fan_out(&work).await.map(|()| Report::default()),
                DELIVERY => Box::pin(engine.deliver(&work, deadline)).await,
                other => {
                    tracing::warn!(kind = other, "an alarm for work of a kind that is not known");
                    Ok(Report::default())
                }
            }
        })
        .await
    }

    /// Waits for everything that was begun.
    pub async fn finish(&self) {
        self.effects.close();
        self.effects.wait().await;
    }

    async fn take(&self, principal: &Principal, intent: Intent, asked: &Asked) -> Result<Answered<Outcome>, Error> {
        let intent = principal.in_its_name(intent)?;
        let channel = principal.channel(asked.channel.as_ref())?;
        let came = self.take_in(principal, &intent, asked, channel).await;
        self.admitted(&principal.org, channel, &intent.tool, came).await
    }

    async fn take_in(
        &self,
        principal: &Principal,
        intent: &Intent,
        asked: &Asked,
        channel: Option<&ChannelName>,
    ) -> Result<Answered<Outcome>, Error> {
        let deadline = self.deadline(asked.until);
        intent.is_for_now()?;
        let user = principal.acting_for(intent.user_id.clone())?;
        let mut plugin = self.plugin_guessed(&principal.org, &intent.tool).await?;
        loop {
            let came = self.take_by(&plugin, principal, (&user, intent, asked), channel, deadline).await;
            match self.plugin_instead(&principal.org, &plugin, &came).await? {
                Some(newer) => plugin = newer,
                None => return came?.ok_or_else(|| changes_all_the_time(&intent.tool)),
            }
        }
    }

    /// When what begins now has to be done: by the budget, or by `until` if that is sooner.
    pub(crate) fn deadline(&self, until: Option<Instant>) -> Instant {
        let budget = Instant::now() + self.config.limits.budget;
        until.map_or(budget, |until| until.min(budget))
    }

    async fn take_by(
        &self,
        plugin: &Plugin,
        principal: &Principal,
        (user, intent, asked): (&UserId, &Intent, &Asked),
        channel: Option<&ChannelName>,
        deadline: Instant,
    ) -> Result<Option<Answered<Outcome>>, Error> {
        let action = plugin.action(&intent.intent)?.action;
        let keyed = Keyed::of(intent, asked, (user, &plugin.manifest.name, &action.name), false)?;
        let source = Source::Intent { principal, request: asked.request.as_ref(), keyed: keyed.as_ref() };
        let doing = Doing {
            org: &principal.org,
            user,
            agent: intent.agent_id.as_ref(),
            channel,
            plugin,
            action: &intent.intent,
            integration: intent.integration.as_ref(),
            parameters: &intent.context,
            source,
            deadline,
        };
        Box::pin(self.perform(doing)).await
    }

    /// Tells whoever listens. What has happened has happened: a bus that does not take it is logged, and no more.
    pub(crate) async fn publish(&self, event: Event) {
        let (org, kind) = (event.org.clone(), event.kind);
        tracing::info!(%org, detail = %event.detail, "event {kind}");
        // Nobody waits for a bus that is slow just now.
        let published = timeout(PUBLISHING_TIME, self.ports.events.publish(vec![event])).await;
        let published = published.unwrap_or_else(|late| Err(EventBusError(Box::new(late))));
        if let Err(error) = published {
            tracing::error!(%org, error = %causes(&error), "the event {kind} was not published");
        }
    }
}
