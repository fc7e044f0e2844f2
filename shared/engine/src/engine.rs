//! The engine: the facade that routes, workers and the local server use.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::field::{Empty, display};
use tracing::level_filters::LevelFilter;
use tracing::{Instrument as _, Level, Span, debug_span, instrument};

use crate::access::api_keys::KeyCache;
use crate::access::principal::Principal;
use crate::accounts::{AccountSelector, CredentialCache, Disconnected};
use crate::core::error::{Error, causes};
use crate::core::intent::Intent;
use crate::core::outcome::Outcome;
use crate::core::trace::traced;
use crate::core::work_report::WorkReport;
use crate::events::EventState;
use crate::invoke::mappings::LookupState;
use crate::invoke::runs::{Replayable, RequestOptions};
use crate::outbound::client::{ClientError, Outbound};
use crate::outbound::config::Config;
use crate::plugin::catalog::Catalog;
use crate::ports::events::EventBusError;
use crate::ports::traced::Traced;
use crate::ports::{Clock, Event, EventBus, Ids, Table, Timer, Vault, Work, WorkKind};
use crate::registry::PluginCache;
use crate::storage::keys;
use crate::storage::outbox::OutboxState;

/// How long publishing an event may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the item of a check of the store is kept.
const WRITE_CHECK_KEPT: SignedDuration = SignedDuration::from_mins(1);

/// The services that the engine runs on.
#[derive(Clone)]
pub struct Ports {
    /// Stores every record.
    pub table: Arc<dyn Table>,
    /// Stores secrets.
    pub vault: Arc<dyn Vault>,
    /// Wakes the engine when work is due.
    pub timer: Arc<dyn Timer>,
    /// Receives events.
    pub events: Arc<dyn EventBus>,
    /// Gives the time.
    pub clock: Arc<dyn Clock>,
    /// Gives random values.
    pub ids: Arc<dyn Ids>,
}

impl Ports {
    /// The same ports with a span around each call that leaves the process; as they are, if the log has no such spans.
    fn traced(self) -> Self {
        if LevelFilter::current() < Level::DEBUG {
            return self;
        }
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
    /// The services that it runs on.
    pub ports: Ports,
    /// The built-in plugins, and those of the operator's folders.
    pub catalog: Catalog,
    /// The operator's configuration.
    pub config: Config,
    pub(crate) outbound: Outbound,
    pub(crate) key_cache: KeyCache,
    pub(crate) plugin_cache: PluginCache,
    pub(crate) credential_cache: CredentialCache,
    pub(crate) event_state: EventState,
    pub(crate) outbox_state: OutboxState,
    pub(crate) lookup_state: LookupState,
    /// Work that runs to completion, whether or not a client still waits for it.
    effects: TaskTracker,
}

impl Engine {
    /// An engine over these ports. Fails if the outbound HTTP client cannot be built.
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

    /// Executes an intent now, and gives its outcome.
    #[instrument(
        level = "debug",
        skip_all,
        fields(org = %principal.org, plugin = intent.tool, action = intent.intent, outcome = Empty)
    )]
    pub async fn execute(
        self: &Arc<Self>,
        principal: Principal,
        intent: Intent,
        options: RequestOptions,
    ) -> Result<Replayable<Outcome>, Error> {
        let engine = Arc::clone(self);
        let result =
            self.run_to_completion(async move { engine.execute_intent(&principal, intent, &options).await }).await;
        let span = Span::current();
        match &result {
            Ok(Replayable { answer: Outcome { result: Ok(_), .. }, .. }) => span.record("outcome", "ok"),
            Ok(Replayable { answer: Outcome { result: Err(failure), .. }, .. }) => {
                span.record("outcome", display(failure.code))
            }
            Err(error) => span.record("outcome", display(error.code())),
        };
        result
    }

    /// Runs work that has effects. It continues even if the returned future is dropped because the client hung up.
    pub(crate) async fn run_to_completion<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        self.effects.spawn(work.in_current_span()).await.map_err(Error::Panicked)?
    }

    /// Does the work that an alarm is for, if its record says that it is due. `deadline` is when this process must have
    /// ended, if there is such a time: work that may take longer is left.
    pub async fn dispatch(self: &Arc<Self>, work: Work, deadline: Option<Instant>) -> Result<WorkReport, Error> {
        let span = debug_span!("dispatch", org = %work.org, kind = work.kind.as_str(), outcome = Empty);
        traced(span, async {
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
        })
        .await
    }

    /// Fails with the reason if the last write of this process failed and another one fails as well.
    pub async fn check_writing(&self) -> Result<(), Error> {
        if self.ports.table.write_failure().is_none() {
            return Ok(());
        }
        let expires_at = self.ports.clock.now() + WRITE_CHECK_KEPT;
        self.ports.table.add(&keys::write_check(), 1, Some(expires_at)).await.map(drop).map_err(|error| {
            let reason = self.ports.table.write_failure().unwrap_or_else(|| causes(&error));
            Error::Unavailable(format!("the store cannot be written: {reason}"))
        })
    }

    /// Whether [`drain`](Self::drain) has begun.
    pub fn is_draining(&self) -> bool {
        self.effects.is_closed()
    }

    /// Waits for all work that has started.
    pub async fn drain(&self) {
        self.effects.close();
        self.effects.wait().await;
    }

    /// Disconnects an account: deletes its credential at once, revokes its tokens where the provider can, and lists the tasks
    /// that need it.
    pub async fn disconnect(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        selector: AccountSelector,
    ) -> Result<Disconnected, Error> {
        let span = debug_span!("disconnect", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
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
        })
        .await
    }

    /// The deadline of work that starts now: the end of the budget, or `until` if that is sooner.
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

    /// Publishes an event, and logs it. What it reports has already happened, so a bus that fails is only logged.
    pub(crate) async fn publish(&self, event: Event) {
        let (org, kind) = (event.org.clone(), event.kind);
        tracing::info!(%org, detail = %event.detail, "event {kind}");
        // A slow bus does not hold up the request.
        let published = timeout(PUBLISH_TIMEOUT, self.ports.events.publish(vec![event])).await;
        let published = published.unwrap_or_else(|late| Err(EventBusError(Box::new(late))));
        if let Err(error) = published {
            tracing::error!(%org, error = %causes(&error), "failed to publish event {kind}");
        }
    }
}
