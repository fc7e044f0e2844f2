//! Preparing a call: the account, the breaker's permit, ids in place of names, and the hooks before the call.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::attempt::{AttemptInput, lease};
use super::permit::{CallPermit, NotCalled};
use super::record::redact_token;
use super::request::{Invocation, Origin};
use super::snapshot::Snapshot;
use crate::accounts::{AccountLookup, AccountRequest, AccountResolution, AuthorizedAccount};
use crate::core::error::Error;
use crate::core::redactor::Redactor;
use crate::engine::Engine;
use crate::invoke::hooks::Hooks;
use crate::invoke::mappings::{LookupContext, LookupError, Naming};
use crate::plugin::breaker::{ActionClass, HealthSignal};
use crate::plugin::manifest::Auth;

/// Everything that a call needs.
pub(super) struct PreparedCall<'a> {
    /// The parameters to send.
    pub parameters: Map<String, Value>,
    /// The same without the account's token: these may be stored, and shown to hooks.
    pub stored_parameters: Map<String, Value>,
    pub account: Option<AuthorizedAccount>,
    pub permit: CallPermit<'a>,
    pub hooks: Hooks,
    /// When the attempt began.
    pub now: Timestamp,
    /// When the attempt's lease on its run ends.
    pub lease_until: Timestamp,
}

/// A call that could not be prepared.
pub(super) struct Unprepared {
    pub reason: NotCalled,
    /// The request's parameters without the account's token, for the error log.
    pub parameters: Map<String, Value>,
}

/// Why the parameters of a call could not be prepared.
struct UnpreparedParameters {
    reason: NotCalled,
    /// What the attempt showed of the plugin's health.
    signal: HealthSignal,
}

impl<E: Into<NotCalled>> From<E> for UnpreparedParameters {
    fn from(reason: E) -> Self {
        Self { reason: reason.into(), signal: HealthSignal::Nothing }
    }
}

/// The permit under which the service is asked what names mean.
enum LookupPermit<'a> {
    /// The call's own: it is a read, and the breaker's trial.
    OfCall,
    /// One for the lookups alone.
    OfLookup(Box<CallPermit<'a>>),
}

impl Engine {
    /// Prepares a call, or says why it is not made. A permit that was taken for a call that is not made is finished here.
    pub(super) async fn prepare<'a>(
        &'a self,
        invocation: &'a Invocation<'a>,
        input: AttemptInput<'_>,
    ) -> Result<PreparedCall<'a>, Unprepared> {
        let AttemptInput { parameters, mut naming, snapshot, hooks, .. } = input;
        let unredacted = |reason| Unprepared { reason, parameters: parameters.clone() };
        let now = self.ports.clock.now();
        let in_use = snapshot.instance.instance.in_use(invocation.manifest, invocation.class(), now);
        let obstacle = snapshot.obstacle(invocation, now);
        let Snapshot { account, instance, names, .. } = snapshot;
        if let Some(failure) = obstacle {
            return Err(unredacted(failure.into()));
        }
        let account = self.authorize_account(invocation, account).await.map_err(unredacted)?;
        let identity = account.as_ref().map(AuthorizedAccount::identity);
        let cache_scope = instance.instance.name_cache_scope(invocation.request.plugin, identity);
        naming.read(names, cache_scope.as_deref()).map_err(|error| unredacted(Error::from(error).into()))?;
        // A caller may have put the account's token among the parameters: it is not stored.
        let secrets = account.as_ref().map(|account| account.credential.secrets()).unwrap_or_default();
        let redactor = Redactor::new(&secrets);
        let unprepared = |reason| Unprepared { reason, parameters: redact_token(&redactor, parameters) };
        let lease_until = match &invocation.request.origin {
            Origin::Intent { .. } => now + lease(self.config.limits.budget),
            Origin::Task { until, .. } => *until,
        };
        let permit = self.acquire_permit(invocation, instance, invocation.class(), in_use, lease_until).await;
        let permit = permit.map_err(unprepared)?;
        let lookup = NameLookup { naming, account: account.as_ref(), permit: &permit, lease_until };
        match self.prepare_parameters(invocation, &hooks, &redactor, parameters, lookup).await {
            Ok(parameters) => {
                let stored_parameters = redact_token(&redactor, &parameters);
                Ok(PreparedCall { parameters, stored_parameters, account, permit, hooks, now, lease_until })
            }
            Err(UnpreparedParameters { reason, signal }) => {
                permit.finish(signal).await;
                Err(unprepared(reason))
            }
        }
    }

    /// The account with a credential that is good now; none where the plugin needs none.
    async fn authorize_account(
        &self,
        invocation: &Invocation<'_>,
        account: Option<AccountLookup>,
    ) -> Result<Option<AuthorizedAccount>, NotCalled> {
        if matches!(invocation.manifest.auth, Auth::None) {
            return Ok(None);
        }
        let request = invocation.request;
        let wanted = AccountRequest {
            org: request.org,
            user: request.user,
            manifest: invocation.manifest,
            alias: request.alias,
            refused: None,
            deadline: request.deadline,
        };
        match self.resolve_account(&wanted, account).await? {
            AccountResolution::Ready(account) => Ok(Some(*account)),
            AccountResolution::Unusable(failure) => Err(failure.into()),
        }
    }

    /// The parameters to send: ids in place of names, and as the hooks before the call leave them.
    async fn prepare_parameters(
        &self,
        invocation: &Invocation<'_>,
        hooks: &Hooks,
        redactor: &Redactor,
        parameters: &Map<String, Value>,
        lookup: NameLookup<'_>,
    ) -> Result<Map<String, Value>, UnpreparedParameters> {
        self.before_look_ups(invocation, hooks, &lookup.naming).await?;
        let parameters = self.resolve_names(invocation, parameters, lookup).await?;
        Ok(Box::pin(self.before_call(invocation, hooks, redactor, parameters)).await?)
    }

    /// The parameters with ids in place of names. A plugin that the breaker has taken out of use is not asked for them.
    async fn resolve_names(
        &self,
        invocation: &Invocation<'_>,
        parameters: &Map<String, Value>,
        mut lookup: NameLookup<'_>,
    ) -> Result<Map<String, Value>, UnpreparedParameters> {
        if lookup.naming.has_unresolved() {
            self.look_up_names(invocation, &mut lookup).await?;
        }
        let naming = lookup.naming;
        let resolved = naming.apply(parameters.clone());
        if naming.replaces() { Ok(invocation.check(resolved)?) } else { Ok(resolved) }
    }

    /// Asks the service about the names that are open, and tells the breaker what that showed.
    async fn look_up_names(
        &self,
        invocation: &Invocation<'_>,
        lookup: &mut NameLookup<'_>,
    ) -> Result<(), UnpreparedParameters> {
        let (request, manifest) = (invocation.request, invocation.manifest);
        let NameLookup { naming, account, permit: call_permit, lease_until } = lookup;
        let instance = call_permit.instance();
        let in_use = instance.instance.in_use(manifest, ActionClass::Read, self.ports.clock.now());
        let permit = match invocation.class() {
            ActionClass::Read if call_permit.is_trial() => LookupPermit::OfCall,
            ActionClass::Read | ActionClass::Write => {
                let class = ActionClass::Read;
                let permit = self.acquire_permit(invocation, instance.clone(), class, in_use, *lease_until).await?;
                LookupPermit::OfLookup(Box::new(permit))
            }
        };
        let had_time = self.had_time(request.deadline, Instant::now());
        let called = AtomicBool::new(false);
        let context = LookupContext {
            org: request.org,
            user: request.user,
            agent: request.agent,
            plugin: request.plugin,
            config: &instance.instance.effective_config(manifest),
            cache_scope: instance.instance.name_cache_scope(request.plugin, account.map(AuthorizedAccount::identity)),
            action: invocation.action,
            account: *account,
            alias: request.alias,
            called: &called,
        };
        let found: Result<(), NotCalled> = match self.look_up(&context, naming, request.deadline).await {
            Ok(()) => Ok(()),
            Err(LookupError::Failed(failure)) => Err(NotCalled::Failed(failure)),
            Err(LookupError::Other(error)) => Err(NotCalled::Error(error)),
        };
        let signal =
            if called.load(Ordering::Relaxed) { lookup_signal(&found, had_time) } else { HealthSignal::Nothing };
        let call_signal = match permit {
            LookupPermit::OfLookup(permit) => {
                permit.finish(signal).await;
                HealthSignal::Nothing
            }
            // A lookup that works leaves the trial to the call.
            LookupPermit::OfCall if signal == HealthSignal::Fails => signal,
            LookupPermit::OfCall => HealthSignal::Nothing,
        };
        found.map_err(|reason| UnpreparedParameters { reason, signal: call_signal })
    }
}

/// What resolving the names of a call needs.
struct NameLookup<'a> {
    naming: Naming,
    account: Option<&'a AuthorizedAccount>,
    /// The permit of the call.
    permit: &'a CallPermit<'a>,
    lease_until: Timestamp,
}

/// What looking up names showed of the plugin's health. A name that does not exist is not the plugin's fault.
fn lookup_signal(found: &Result<(), NotCalled>, had_time: bool) -> HealthSignal {
    match found {
        Ok(()) | Err(NotCalled::Error(Error::Invalid(_))) => HealthSignal::Works,
        Err(NotCalled::Failed(failure)) => HealthSignal::of(Some(failure), had_time),
        Err(NotCalled::Error(_)) => HealthSignal::Nothing,
    }
}
