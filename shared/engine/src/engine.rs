//! The engine: takes an intent to its outcome.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use quick_cache::sync::Cache;
use secrecy::SecretString;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::api_keys;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::error::{Error, FieldProblem};
use crate::host::Host;
use crate::ids::{Alias, KeyId, OrgId, UserId};
use crate::integrations::Account;
use crate::intent::Intent;
use crate::manifest::{Auth, Manifest, Runtime};
use crate::outbound::{ClientError, Outbound};
use crate::outcome::{Failure, Metadata, Outcome, OutcomeCode, Success};
use crate::ports::table::TableError;
use crate::ports::vault::SecretId;
use crate::ports::{Clock, Event, EventBus, Ids, Table, Timer, Vault};
use crate::principal::Principal;
use crate::runtime::{self, Call, Returned, Stopped};
use crate::secrets::Striker;

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

/// The engine.
pub struct Engine {
    /// The world outside.
    pub ports: Ports,
    /// The plugins.
    pub catalog: Catalog,
    /// What the operator set.
    pub config: Config,
    outbound: Outbound,
    /// API keys by their public half, with the time when each was read.
    pub(crate) seen_keys: Cache<KeyId, (Timestamp, api_keys::Record)>,
    /// How many keys this process has revoked, so that a key that was read before is not remembered after.
    pub(crate) revocations: Mutex<u64>,
    /// Versions of secrets never change, so that these are never stale.
    pub(crate) seen_tokens: Cache<(SecretId, String), SecretString>,
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
            seen_tokens: Cache::new(SEEN_MAX),
            effects: TaskTracker::new(),
        }))
    }

    /// Takes an intent to its outcome.
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

    /// Waits for everything that was begun.
    pub async fn finish(&self) {
        self.effects.close();
        self.effects.wait().await;
    }

    async fn take(&self, principal: &Principal, intent: Intent) -> Result<Outcome, Error> {
        let started = Instant::now();
        let deadline = started + self.config.limits.budget;
        refuse_what_is_not_there_yet(&intent)?;
        let plugin = self.catalog.plugin(&intent.tool)?;
        let found = plugin.action(&intent.intent)?;
        let user = principal.acting_for(intent.user_id)?;
        let parameters = found.check(intent.context)?;
        let alias = intent.integration.unwrap_or_default();
        let (manifest, action) = (&plugin.manifest, found.action);

        let account = match manifest.auth {
            Auth::None => Ok(None),
            Auth::Oauth2 { .. } | Auth::ApiKey { .. } => {
                let account = timeout_at(deadline, self.account(&principal.org, &user, manifest, &alias)).await;
                match account.map_err(TableError::store).map_err(Error::from)?? {
                    Account::Token(token) => Ok(Some(token)),
                    Account::Missing => Err(not_connected(manifest, &user, &alias)),
                    Account::Sealed => Err(connect_again(manifest, "was sealed with another key than this server has")),
                    Account::Moved => Err(connect_again(manifest, "was handed over for another address or sign-in")),
                }
            }
        };
        let (returned, called) = match account {
            Err(failure) => (Err(failure.into()), false),
            Ok(token) => {
                let call = Call { manifest, action, parameters: &parameters, user: &user, now: self.ports.clock.now() };
                self.call(&call, token.as_ref(), deadline).await
            }
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
            attempts: u32::from(called),
        };
        let code = result.as_ref().err().map(|failure: &Failure| tracing::field::debug(failure.code));
        tracing::info!(
            org = %principal.org, user = %user, agent = intent.agent_id.as_ref().map(tracing::field::display),
            plugin = %metadata.plugin, action = %metadata.action, code, duration_ms = metadata.duration_ms,
            "intent {}.{} {}", metadata.plugin, metadata.action, if result.is_ok() { "succeeded" } else { "failed" },
        );
        Ok(Outcome { result, metadata })
    }

    /// Runs one call through its runtime, and takes the token out of whatever comes back. Says also whether the service
    /// was called.
    async fn call(&self, call: &Call<'_>, token: Option<&SecretString>, deadline: Instant) -> (Returned, bool) {
        let striker = Striker::new(token);
        let base = self.config.stand_ins.get(&call.manifest.name);
        let limit = self.config.limits.answer_max_bytes;
        let host = Host::new(&self.outbound, call.manifest, base, token, &striker, deadline, limit);
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

fn refuse_what_is_not_there_yet(intent: &Intent) -> Result<(), Error> {
    // Taking these and not keeping what they promise would be worse than refusing them.
    let at_once = intent
        .scheduled_time
        .as_ref()
        .map(|_| FieldProblem::new("/scheduledTime", "this version runs intents at once only; leave it out"));
    let no_keys = intent
        .idempotency_key
        .as_ref()
        .map(|_| FieldProblem::new("/idempotencyKey", "this version keeps no idempotency keys; leave it out"));
    let problems: Vec<_> = at_once.into_iter().chain(no_keys).collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
}

fn not_connected(manifest: &Manifest, user: &UserId, alias: &Alias) -> Failure {
    let scopes = match &manifest.auth {
        Auth::Oauth2 { scopes } if !scopes.is_empty() => format!(" with the scopes {}", scopes.join(", ")),
        Auth::Oauth2 { .. } | Auth::ApiKey { .. } | Auth::None => String::new(),
    };
    let Manifest { name, display_name, .. } = manifest;
    let message = format!(
        "{user} has no account \"{alias}\" at {display_name}; connect one: POST \
         /api/plugin-engine/integrations/{name}/connect with its token{scopes}"
    );
    Failure::new(OutcomeCode::NotConnected, message, false)
}

fn connect_again(manifest: &Manifest, reason: &str) -> Failure {
    let message = format!("the stored credential for {} {reason}; connect the account again", manifest.display_name);
    Failure::new(OutcomeCode::ReconnectRequired, message, false)
}
