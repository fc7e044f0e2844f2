//! The engine: takes an intent to its outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::access::api_keys::KeyCache;
use crate::access::principal::Principal;
use crate::accounts::{CredentialCache, PENDING};
use crate::core::error::{Error, causes};
use crate::core::ids::{ChannelName, UserId};
use crate::core::intent::Intent;
use crate::core::outcome::Outcome;
use crate::core::work_report::WorkReport;
use crate::events::{DELIVERY, EventState, OUTGOING};
use crate::invoke::execute::{ActionRequest, Origin};
use crate::invoke::mappings::LookupState;
use crate::invoke::runs::{IdempotencyRequest, Replayable, RequestOptions};
use crate::outbound::client::{ClientError, Outbound};
use crate::outbound::config::Config;
use crate::plugin::catalog::{Catalog, Plugin};
use crate::ports::events::EventBusError;
use crate::ports::{Clock, Event, EventBus, Ids, Table, Timer, Vault, Work};
use crate::registry::{PluginCache, contention};
use crate::tasks::TASKS;

/// The time for publishing events.
const PUBLISHING_TIME: Duration = Duration::from_secs(2);

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
    pub(crate) key_cache: KeyCache,
    pub(crate) plugin_cache: PluginCache,
    pub(crate) credential_cache: CredentialCache,
    pub(crate) event_state: EventState,
    pub(crate) lookup_state: LookupState,
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
            key_cache: KeyCache::default(),
            plugin_cache: PluginCache::default(),
            credential_cache: CredentialCache::default(),
            event_state: EventState::default(),
            lookup_state: LookupState::default(),
            effects: TaskTracker::new(),
        }))
    }

    /// Takes an intent to its outcome, now.
    pub async fn execute(
        self: &Arc<Self>,
        principal: Principal,
        intent: Intent,
        asked: RequestOptions,
    ) -> Result<Replayable<Outcome>, Error> {
        let engine = Arc::clone(self);
        self.run_to_completion(async move { engine.execute_authorized(&principal, intent, &asked).await }).await
    }

    /// Runs what has effects. Once begun it runs to its end, even if the returned future is dropped because the client
    /// hung up.
    pub(crate) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.effects.spawn(work.in_current_span()).await.map_err(Error::Panicked)?
    }

    /// Does the work that an alarm stands for, if it is due: the record decides. `deadline` is when this process has to be
    /// done, if it has to; what might take longer is left.
    pub async fn dispatch(self: &Arc<Self>, work: Work, deadline: Option<Instant>) -> Result<WorkReport, Error> {
        let engine = Arc::clone(self);
        self.run_to_completion(async move {
            match work.kind.as_str() {
                PENDING => engine.drop_if_due(&work.org, &work.id).await.map(|()| WorkReport::default()),
                TASKS => Box::pin(engine.run_due(&work, deadline)).await,
                OUTGOING => engine.fan_out(&work).await.map(|()| WorkReport::default()),
                DELIVERY => Box::pin(engine.deliver(&work, deadline)).await,
                other => {
                    tracing::warn!(kind = other, "an alarm for work of a kind that is not known");
                    Ok(WorkReport::default())
                }
            }
        })
        .await
    }

    /// Waits for everything that was begun.
    pub async fn drain(&self) {
        self.effects.close();
        self.effects.wait().await;
    }

    async fn execute_authorized(
        &self,
        principal: &Principal,
        intent: Intent,
        asked: &RequestOptions,
    ) -> Result<Replayable<Outcome>, Error> {
        let intent = principal.with_agent(intent)?;
        let channel = principal.channel(asked.channel.as_ref())?;
        let came = self.execute_with_current_plugin(principal, &intent, asked, channel).await;
        self.admitted(&principal.org, channel, &intent.tool, came).await
    }

    async fn execute_with_current_plugin(
        &self,
        principal: &Principal,
        intent: &Intent,
        asked: &RequestOptions,
        channel: Option<&ChannelName>,
    ) -> Result<Replayable<Outcome>, Error> {
        let deadline = self.deadline(asked.until);
        intent.is_for_now()?;
        let user = principal.resolve_user(intent.user_id.clone())?;
        let mut plugin = self.plugin_cached(&principal.org, &intent.tool).await?;
        loop {
            let came = self.execute_with(&plugin, principal, (&user, intent, asked), channel, deadline).await;
            match self.refreshed_if_stale(&principal.org, &plugin, &came).await? {
                Some(newer) => plugin = newer,
                None => return came?.ok_or_else(|| contention(&intent.tool)),
            }
        }
    }

    /// When what begins now has to be done: by the budget, or by `until` if that is sooner.
    pub(crate) fn deadline(&self, until: Option<Instant>) -> Instant {
        let budget = Instant::now() + self.config.limits.budget;
        until.map_or(budget, |until| until.min(budget))
    }

    async fn execute_with(
        &self,
        plugin: &Plugin,
        principal: &Principal,
        (user, intent, asked): (&UserId, &Intent, &RequestOptions),
        channel: Option<&ChannelName>,
        deadline: Instant,
    ) -> Result<Option<Replayable<Outcome>>, Error> {
        let action = plugin.action(&intent.intent)?.action;
        let keyed = IdempotencyRequest::of(intent, asked, user, &plugin.manifest.name, &action.name, false)?;
        let source = Origin::Intent { principal, request: asked.request.as_ref(), keyed: keyed.as_ref() };
        let doing = ActionRequest {
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
