//! The engine: the facade that routes, workers and the local server use.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::access::api_keys::KeyCache;
use crate::access::principal::Principal;
use crate::accounts::{CredentialCache, PENDING};
use crate::core::error::{Error, causes};
use crate::core::intent::Intent;
use crate::core::outcome::Outcome;
use crate::core::work_report::WorkReport;
use crate::events::{DELIVERY, EventState, OUTGOING};
use crate::invoke::mappings::LookupState;
use crate::invoke::runs::{Replayable, RequestOptions};
use crate::outbound::client::{ClientError, Outbound};
use crate::outbound::config::Config;
use crate::plugin::catalog::Catalog;
use crate::ports::events::EventBusError;
use crate::ports::{Clock, Event, EventBus, Ids, Table, Timer, Vault, Work};
use crate::registry::PluginCache;
use crate::tasks::TASKS;

/// How long publishing an event may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

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
    pub(crate) lookup_state: LookupState,
    /// Work that runs to completion, whether or not a client still waits for it.
    effects: TaskTracker,
}

impl Engine {
    /// An engine over these ports. Fails if the outbound HTTP client cannot be built.
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

    /// Executes an intent now, and gives its outcome.
    pub async fn execute(
        self: &Arc<Self>,
        principal: Principal,
        intent: Intent,
        options: RequestOptions,
    ) -> Result<Replayable<Outcome>, Error> {
        let engine = Arc::clone(self);
        self.run_to_completion(async move { engine.execute_intent(&principal, intent, &options).await }).await
    }

    /// Runs work that has effects. It continues even if the returned future is dropped because the client hung up.
    pub(crate) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.effects.spawn(work.in_current_span()).await.map_err(Error::Panicked)?
    }

    /// Runs the work that a timer fired for, if its record says that it is due. `deadline` is when this process must be
    /// done, if it must; work that might take longer is left.
    pub async fn dispatch(self: &Arc<Self>, work: Work, deadline: Option<Instant>) -> Result<WorkReport, Error> {
        let engine = Arc::clone(self);
        self.run_to_completion(async move {
            match work.kind.as_str() {
                PENDING => engine.drop_if_due(&work.org, &work.id).await.map(|()| WorkReport::default()),
                TASKS => Box::pin(engine.run_due(&work, deadline)).await,
                OUTGOING => engine.fan_out(&work).await.map(|()| WorkReport::default()),
                DELIVERY => Box::pin(engine.deliver(&work, deadline)).await,
                other => {
                    tracing::warn!(kind = other, "timer fired for an unknown kind of work");
                    Ok(WorkReport::default())
                }
            }
        })
        .await
    }

    /// Waits for all work that has started.
    pub async fn drain(&self) {
        self.effects.close();
        self.effects.wait().await;
    }

    /// The deadline of work that starts now: the end of the budget, or `until` if that is sooner.
    pub(crate) fn deadline(&self, until: Option<Instant>) -> Instant {
        let budget = Instant::now() + self.config.limits.budget;
        until.map_or(budget, |until| until.min(budget))
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
