//! The engine: takes an intent to its outcome.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use quick_cache::sync::Cache;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::api_keys;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::error::{Error, FieldProblem};
use crate::host::Host;
use crate::ids::{AgentId, Alias, KeyId, OrgId, UserId};
use crate::integrations::{Credential, Held, PENDING};
use crate::intent::Intent;
use crate::manifest::{Auth, Runtime};
use crate::mappings::{SeenLists, no_lists};
use crate::outbound::{ClientError, Outbound};
use crate::outcome::{Failure, Metadata, Outcome, Success};
use crate::ports::vault::SecretId;
use crate::ports::{Clock, Event, EventBus, Ids, Table, Timer, Vault, Work};
use crate::principal::Principal;
use crate::runtime::{self, Call, Returned, Stopped};
use crate::secrets::Striker;
use crate::tasks::{Report, TASKS};

/// API keys and tokens that a warm process remembers.
const SEEN_MAX: usize = 1_000;

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

/// One action that is to be done.
pub(crate) struct Doing<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    pub plugin: &'a str,
    pub action: &'a str,
    pub integration: Option<&'a Alias>,
    pub parameters: Map<String, Value>,
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
    /// What services listed when they were asked about names.
    pub(crate) seen_lists: SeenLists,
    /// What has to run to its end whether or not anybody waits for it.
    effects: TaskTracker,
}

impl Engine {
    /// An engine over these ports. Fails where no client for outbound calls can be made.
    pub fn new(ports: Ports, catalog: Catalog, config: Config) -> Result<Arc<Self>, ClientError> {
        let outbound = Outbound::new(&config.allowed_addresses, config.limits.connect)?;
        Ok(Arc::new(Self {
            ports,
            catalog,
            config,
            outbound,
            seen_keys: Cache::new(SEEN_MAX),
            revocations: Mutex::new(0),
            seen_credentials: Cache::new(SEEN_MAX),
            seen_lists: no_lists(),
            effects: TaskTracker::new(),
        }))
    }

    /// Takes an intent to its outcome, now.
    pub async fn intend(self: &Arc<Self>, principal: Principal, intent: Intent) -> Result<Outcome, Error> {
        let engine = Arc::clone(self);
        self.to_its_end(async move { engine.take(&principal, intent).await }).await
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
                TASKS => engine.run_due(&work, deadline).await,
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

    async fn take(&self, principal: &Principal, intent: Intent) -> Result<Outcome, Error> {
        let deadline = Instant::now() + self.config.limits.budget;
        let only_later = intent.max_attempts.map(|_| {
            FieldProblem::new(
                "/maxAttempts",
                "is for what runs as a task; leave it out, or say scheduledTime or schedule",
            )
        });
        let problems: Vec<_> = intent.refused().into_iter().chain(only_later).collect();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let user = principal.acting_for(intent.user_id)?;
        let doing = Doing {
            org: &principal.org,
            user: &user,
            agent: intent.agent_id.as_ref(),
            plugin: &intent.tool,
            action: &intent.intent,
            integration: intent.integration.as_ref(),
            parameters: intent.context,
        };
        self.perform(doing, deadline).await
    }

    /// Does one action, and says what came of it.
    pub(crate) async fn perform(&self, mut doing: Doing<'_>, deadline: Instant) -> Result<Outcome, Error> {
        let started = Instant::now();
        let Doing { org, user, agent, integration: alias, .. } = doing;
        let plugin = self.catalog.plugin(doing.plugin)?;
        let found = plugin.action(doing.action)?;
        let parameters = found.check(std::mem::take(&mut doing.parameters))?;
        let (manifest, action) = (&plugin.manifest, found.action);

        let account = match manifest.auth {
            Auth::None => Ok(None),
            Auth::Oauth2(_) | Auth::ClientCredentials(_) | Auth::ApiKey(_) | Auth::Basic(_) => {
                self.account(org, user, manifest, alias, None, deadline).await?.map(Some)
            }
        };
        let (returned, attempts) = match account {
            Err(failure) => (Err(failure.into()), 0),
            Ok(held) => match self.without_names(&doing, (plugin, found), parameters, held.as_ref(), deadline).await? {
                Err(failure) => (Err(failure.into()), 0),
                Ok(parameters) => {
                    let call = Call { manifest, action, parameters: &parameters, user, now: self.ports.clock.now() };
                    self.call_with(org, &call, held, alias, deadline).await?
                }
            },
        };
        let result = match returned {
            Ok(success) => Ok(success),
            Err(Stopped::Failed(failure)) => Err(failure),
            Err(Stopped::Parameter(problem)) => return Err(Error::Invalid(vec![problem])),
        };
        let metadata = Metadata {
            plugin: manifest.name.clone(),
            version: manifest.version.to_string(),
            action: action.name.clone(),
            duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            attempts,
        };
        let code = result.as_ref().err().map(|failure: &Failure| tracing::field::debug(failure.code));
        tracing::info!(
            %org, %user, agent = agent.map(tracing::field::display),
            plugin = %metadata.plugin, action = %metadata.action, code, duration_ms = metadata.duration_ms,
            "intent {}.{} {}", metadata.plugin, metadata.action, if result.is_ok() { "succeeded" } else { "failed" },
        );
        Ok(Outcome { result, metadata })
    }

    /// Runs one call with an account, and once more with a newer credential where the service refused the first. Says also
    /// how often the service was called.
    pub(crate) async fn call_with(
        &self,
        org: &OrgId,
        call: &Call<'_>,
        held: Option<Held>,
        alias: Option<&Alias>,
        deadline: Instant,
    ) -> Result<(Returned, u32), Error> {
        let Some(mut held) = held else {
            let (returned, called) = self.call(call, None, deadline).await;
            return Ok((returned, u32::from(called)));
        };
        let (mut returned, called) = self.call(call, Some(&held.credential), deadline).await;
        let mut attempts = u32::from(called);
        let refused = |returned: &Returned| match returned {
            // Whoever refuses the credential has done nothing.
            Err(Stopped::Failed(failure)) => failure.credential_refused && !failure.may_have_happened,
            Err(Stopped::Parameter(_)) | Ok(_) => false,
        };
        if refused(&returned) {
            let renewable = held.can_be_renewed(self.ports.clock.now());
            match self.account(org, call.user, call.manifest, alias, Some(&held), deadline).await? {
                Ok(newer) if newer.differs_from(&held) => {
                    held = newer;
                    let (again, called) = self.call(call, Some(&held.credential), deadline).await;
                    returned = again;
                    attempts += u32::from(called);
                }
                Err(failure) if renewable => return Ok((Err(failure.into()), attempts)),
                // What the service said is all there is to say.
                Ok(_) | Err(_) => {}
            }
        }
        match &returned {
            Ok(_) => self.note_use(org, &held, None).await,
            Err(Stopped::Failed(failure)) => self.note_use(org, &held, Some(failure)).await,
            Err(Stopped::Parameter(_)) => {}
        }
        Ok((returned, attempts))
    }

    /// Runs one call through its runtime, and takes the credential out of whatever comes back. Says also whether the service
    /// was called.
    pub(crate) async fn call(
        &self,
        call: &Call<'_>,
        credential: Option<&Credential>,
        deadline: Instant,
    ) -> (Returned, bool) {
        let secrets = credential.map(Credential::secrets).unwrap_or_default();
        let striker = Striker::new(&secrets);
        let base = self.config.stand_ins.get(&call.manifest.name).map(|stand_in| &stand_in.base_url);
        let limit = self.config.limits.answer_max_bytes;
        let host = Host::new(&self.outbound, call.manifest, base, credential, &striker, deadline, limit);
        let Runtime::Http { .. } = call.manifest.runtime;
        // The host keeps to the deadline itself; this is for whatever else a runtime may be busy with.
        let returned = timeout_at(deadline, runtime::http::run(call, &host)).await;
        let returned = returned.unwrap_or_else(|_| Err(runtime::out_of_time(call)));
        let clean = match returned {
            Ok(Success { message, data, external_id }) => Ok(Success {
                message: striker.text(message),
                data: striker.value(data),
                external_id: external_id.map(|id| striker.text(id)),
            }),
            Err(Stopped::Failed(failure)) => Err(Failure { message: striker.text(failure.message), ..failure }.into()),
            Err(parameter @ Stopped::Parameter(_)) => Err(parameter),
        };
        (clean, host.called())
    }

    /// Tells whoever listens. What has happened has happened: a bus that does not take it is logged, and no more.
    pub(crate) async fn publish(&self, org: &OrgId, kind: &'static str, detail: &impl Serialize) {
        let detail = serde_json::to_value(detail).unwrap_or_default();
        tracing::info!(%org, %detail, "event {kind}");
        let event = Event { org: org.clone(), kind, time: self.ports.clock.now(), detail };
        if let Err(error) = self.ports.events.publish(vec![event]).await {
            tracing::error!(%org, cause = %error.0, "the event {kind} was not published");
        }
    }
}
