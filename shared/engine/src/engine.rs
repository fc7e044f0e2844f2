//! The engine: takes an intent to its outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::access::api_keys::KeyCache;
use crate::access::principal::Principal;
use crate::accounts::{AccountSelector, CredentialCache, Disconnected};
use crate::core::error::{Error, causes};
use crate::core::ids::{ChannelName, UserId};
use crate::core::intent::Intent;
use crate::core::outcome::Outcome;
use crate::core::work_report::WorkReport;
use crate::events::EventState;
use crate::invoke::execute::{ActionRequest, Origin};
use crate::invoke::mappings::LookupState;
use crate::invoke::runs::{IdempotencyRequest, Replayable, RequestOptions};
use crate::outbound::client::{ClientError, Outbound};
use crate::outbound::config::Config;
use crate::plugin::catalog::{Catalog, Plugin};
use crate::ports::events::EventBusError;
use crate::ports::traced::Traced;
use crate::ports::{Clock, Event, EventBus, Ids, Table, Timer, Vault, Work, WorkKind};
use crate::registry::{PluginCache, contention};
use crate::storage::outbox::OutboxState;

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

impl Ports {
    /// The same ports with a span around each call that leaves the process.
    fn traced(self) -> Self {
        Self {
            table: Arc::new(Traced(self.table)),
            vault: Arc::new(Traced(self.vault)),
            timer: Arc::new(Traced(self.timer)),
            events: Arc::new(Traced(self.events)),
            ..self
        }
    }
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
    pub(crate) outbox_state: OutboxState,
    pub(crate) lookup_state: LookupState,
    /// What has to run to its end whether or not anybody waits for it.
    effects: TaskTracker,
}

impl Engine {
    /// An engine over these ports. Fails where no client for outbound calls can be made.
    pub fn new(ports: Ports, catalog: Catalog, config: Config) -> Result<Arc<Self>, ClientError> {
        let ports = ports.traced();
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
            outbox_state: OutboxState::default(),
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

    /// Does the work that an alarm is for, if its record says that it is due. `deadline` is when this process must have
    /// ended, if there is such a time: work that may take longer is left.
    pub async fn dispatch(self: &Arc<Self>, work: Work, deadline: Option<Instant>) -> Result<WorkReport, Error> {
        let engine = Arc::clone(self);
        self.run_to_completion(async move {
            match &work.kind {
                WorkKind::Task => Box::pin(engine.run_due(&work, deadline)).await,
                WorkKind::PendingAccount => {
                    engine.drop_if_due(&work.org, &work.id).await.map(|()| WorkReport::default())
                }
                WorkKind::Event => engine.fan_out(&work).await.map(|()| WorkReport::default()),
                WorkKind::Delivery => Box::pin(engine.deliver(&work, deadline)).await,
                WorkKind::Unknown(kind) => {
                    tracing::warn!(kind, "alarm of an unknown kind of work ignored");
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

    /// Disconnects an account: deletes its credential at once, revokes its tokens where the provider can, and lists the tasks
    /// that need it.
    pub async fn disconnect(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        selector: AccountSelector,
    ) -> Result<Disconnected, Error> {
        let selected = self.select_account(principal, plugin, selector).await?;
        let engine = Arc::clone(self);
        self.run_to_completion(async move {
            let removed = engine.remove_account(selected).await?;
            let revoked = engine.revoke_removed(&removed).await;
            let (org, user, is_default) = (&removed.org, removed.user(), removed.was_default());
            let tasks = engine.tasks_that_need(org, user, &removed.plugin, &removed.alias, is_default).await;
            let tasks = tasks.unwrap_or_else(|error| {
                tracing::error!(%org, error = %causes(&error), "failed to list tasks that need the account");
                Vec::new()
            });
            Ok(engine.report_disconnected(removed, revoked, tasks).await)
        })
        .await
    }

    /// When what begins now has to be done: by the budget, or by `until` if that is sooner.
    pub(crate) fn deadline(&self, until: Option<Instant>) -> Instant {
        let budget = Instant::now() + self.config.limits.budget;
        until.map_or(budget, |until| until.min(budget))
    }

    /// A random number in `0.0..1.0`.
    pub(crate) fn jitter(&self) -> f64 {
        let mut random = [0; 4];
        self.ports.ids.fill(&mut random);
        f64::from(u32::from_le_bytes(random)) / (f64::from(u32::MAX) + 1.0)
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
