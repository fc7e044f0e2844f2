//! Explaining an intent: everything up to the call, without any effect. Nothing is written, no service is called, and no
//! credential is opened.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::debug_span;
use tracing::field::Empty;

use super::preview::RequestPreview;
use crate::access::principal::Principal;
use crate::accounts::{AccountLookup, Integration};
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, PluginName, UserId};
use crate::core::intent::Intent;
use crate::core::outcome::Failure;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::invoke::intent::IntentRequest;
use crate::invoke::mappings::{NameResolution, Naming};
use crate::invoke::request::Invocation;
use crate::invoke::runs::{IdempotencyState, RequestOptions, Resolve, unknown_result};
use crate::invoke::snapshot::Snapshot;
use crate::plugin::breaker::{ActionClass, BreakerLimits};
use crate::plugin::catalog::Plugin;
use crate::registry::instances::BreakerView;

/// What would happen if an intent were sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether the service would be called now; if not, `error`, `idempotency` or `scheduledTime` says why.
    pub would_call: bool,
    /// The plugin.
    pub tool: PluginName,
    /// The plugin's version.
    pub version: String,
    /// The action, by its own name.
    pub intent: ActionName,
    /// What a second call of the action would do.
    pub effect: Effect,
    /// The user whose account would be used.
    pub user_id: UserId,
    /// The agent that sends the intent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// When the task would first run, if the intent is for later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<Timestamp>,
    /// The organization's settings for the plugin.
    pub config: InstanceConfig,
    /// The breaker of this class of actions.
    pub breaker: BreakerView,
    /// The account; absent if there is none, or the plugin needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Integration>,
    /// Scopes that the plugin requests and the account was not granted, as far as that is known.
    pub missing_scopes: Vec<String>,
    /// The ids that the names among the parameters stand for.
    pub mappings: Vec<NameResolution>,
    /// The hooks that would be asked, each as `<plugin>.<hook>`. Their replies are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<String>,
    /// The first request that would be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestPreview>,
    /// The state of the idempotency key, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<KeyStatus>,
    /// The error that the intent would get in place of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// What would prevent a task from succeeding if it ran now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// An organization's settings for a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceConfig {
    /// When the breaker opens.
    pub breaker: BreakerLimits,
    /// Whether the ledger records reads too.
    pub record_reads: bool,
}

/// The state of an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    /// Free: the intent would be the first.
    New,
    /// The first request is in flight.
    InProgress,
    /// The first request has an answer, which would be replayed.
    Answered,
    /// The outcome of the first request is unknown, and the answer would say so.
    Unknown,
    /// The outcome of the first request is unknown, and the action would be called again.
    Again,
}

/// How an idempotency key would answer an intent.
#[derive(Default)]
struct KeyAnswer {
    status: Option<KeyStatus>,
    failure: Option<Failure>,
}

impl KeyAnswer {
    fn status(status: KeyStatus) -> Self {
        Self { status: Some(status), failure: None }
    }

    /// Whether the key answers the intent, so that no call is made.
    fn is_final(&self) -> bool {
        match self.status {
            None | Some(KeyStatus::New | KeyStatus::Again) => false,
            Some(KeyStatus::InProgress | KeyStatus::Answered | KeyStatus::Unknown) => true,
        }
    }
}

/// The call that an intent asks for.
struct PlannedCall {
    parameters: Map<String, Value>,
    /// When a task would first run.
    scheduled_time: Option<Timestamp>,
}

impl Engine {
    /// Explains an intent: everything up to its call, without effects. One read, and one more if the call would fail.
    /// `later` says whether a task would be made of the intent.
    pub async fn explain(
        &self,
        principal: &Principal,
        intent: Intent,
        options: &RequestOptions,
        later: bool,
    ) -> Result<Explanation, Error> {
        let span = debug_span!("explain", org = %principal.org, outcome = Empty);
        traced(span, async {
            let request = &IntentRequest::of(principal, intent, options)?;
            let (org, tool) = (&principal.org, &request.intent.tool);
            let explain = |plugin: Arc<Plugin>| async move { self.explain_with(&plugin, request, later).await };
            let result = self.with_current_plugin(org, tool, explain).await;
            self.hide_errors_unless_admitted(org, request.channel, tool, result).await
        })
        .await
    }

    /// `None` where the organization uses another version of the plugin by now.
    async fn explain_with(
        &self,
        plugin: &Plugin,
        request: &IntentRequest<'_>,
        later: bool,
    ) -> Result<Option<Explanation>, Error> {
        plugin.action(&request.intent.intent)?;
        let user = request.user()?;
        let idempotency = request.idempotency(plugin, &user, later)?;
        let action_request = request.action_request(plugin, &user, idempotency.as_ref(), self.deadline(None));
        let invocation = Invocation::of(&action_request)?;
        let (manifest, action, now) = (invocation.manifest, invocation.action, self.ports.clock.now());
        let planned = self.planned_call(&invocation, request, later, now);
        let named = planned.and_then(|call| Ok((Naming::of(manifest, action, &call.parameters)?, call)));
        let (mut naming, planned) = match named {
            Ok((naming, call)) => (naming, Ok(call)),
            // The key may answer with the task that it made before, even if the intent is invalid by now.
            Err(error) if later && idempotency.is_some() => (Naming::none(manifest), Err(error)),
            Err(error) => return Err(error),
        };
        let Some(mut snapshot) = self.load_snapshot(&invocation, &naming).await? else { return Ok(None) };
        let key_state = std::mem::replace(&mut snapshot.key_state, IdempotencyState::Free);
        let key = key_answer(&invocation, key_state);
        let repeats = key.is_final();
        if !repeats {
            snapshot.instance.instance.must_be_granted(plugin)?;
        }
        let identity = snapshot.account.as_ref().map(AccountLookup::identity);
        let cache_scope = snapshot.instance.instance.name_cache_scope(plugin, identity);
        naming.read(std::mem::take(&mut snapshot.names), cache_scope.as_deref())?;
        let failure = if repeats { key.failure } else { self.obstacle_to(&invocation, &snapshot, &naming, now) };
        let (mut warnings, mut error) = (Vec::new(), None);
        match failure {
            None => {}
            Some(failure) if later && !repeats => warnings.push(failure.message),
            Some(mut failure) => {
                let (org, agent) = (action_request.org, action_request.agent);
                failure.fallback = Some(self.fallback(org, agent, manifest, &failure).await);
                error = Some(failure.shown());
            }
        }
        let instance = &snapshot.instance.instance;
        let (mut preview, mut scheduled_time) = (None, None);
        if !repeats {
            let call = planned?;
            scheduled_time = call.scheduled_time;
            let resolved = naming.apply(call.parameters);
            // A call that fails before does not check the resolved parameters either.
            if error.is_none() {
                let resolved = if naming.replaces() { invocation.check(resolved)? } else { resolved };
                let config = instance.effective_config(manifest);
                preview = self.preview_request(&invocation, &resolved, &config, later)?;
            }
        }
        let asked_hooks = snapshot.hooks.as_ref().filter(|_| !repeats && error.is_none());
        let hooks = self.load_hooks(action_request.org, asked_hooks).await?.around_call(invocation.tool());
        let account = snapshot.account.as_ref();
        Ok(Some(Explanation {
            would_call: error.is_none() && !repeats && !later,
            tool: manifest.name.clone(),
            version: manifest.version.to_string(),
            intent: action.name.clone(),
            effect: action.effect,
            agent_id: action_request.agent.cloned(),
            scheduled_time,
            config: InstanceConfig { breaker: instance.limits(manifest), record_reads: instance.records_reads() },
            breaker: instance.breaker(invocation.class(), manifest, now),
            account: account.map(|account| self.account_view(manifest, account)),
            missing_scopes: account.map(|account| account.missing_scopes(manifest)).unwrap_or_default(),
            mappings: naming.resolutions(),
            hooks,
            request: preview,
            idempotency: key.status,
            error,
            warnings,
            user_id: user.clone(),
        }))
    }

    /// The call that an intent asks for, with checked parameters.
    fn planned_call(
        &self,
        invocation: &Invocation<'_>,
        request: &IntentRequest<'_>,
        later: bool,
        now: Timestamp,
    ) -> Result<PlannedCall, Error> {
        let (principal, intent) = (request.principal, &request.intent);
        if later {
            let task = self.plan(invocation.request.plugin, principal, intent, now)?;
            return Ok(PlannedCall { parameters: task.parameters, scheduled_time: Some(task.next_at) });
        }
        intent.is_for_now()?;
        Ok(PlannedCall { parameters: invocation.check(intent.context.clone())?, scheduled_time: None })
    }

    /// Why the call would fail before the service is called, as far as that is known without effects.
    fn obstacle_to(
        &self,
        invocation: &Invocation<'_>,
        snapshot: &Snapshot,
        naming: &Naming,
        now: Timestamp,
    ) -> Option<Failure> {
        let manifest = invocation.manifest;
        let unusable = || snapshot.account.as_ref().and_then(|account| self.unusable_failure(manifest, account, now));
        // Names that are open are looked up by a read of the service.
        let no_lookup =
            || naming.has_unresolved().then(|| snapshot.unavailable(invocation, ActionClass::Read, now)).flatten();
        snapshot.obstacle(invocation, now).or_else(unusable).or_else(no_lookup)
    }
}

/// How the caller's idempotency key would answer.
fn key_answer(invocation: &Invocation<'_>, state: IdempotencyState) -> KeyAnswer {
    let Some(idempotency) = invocation.idempotency() else { return KeyAnswer::default() };
    let again = |run_version: &str| match idempotency.resolve {
        Some(Resolve::Retry) => true,
        Some(Resolve::Abandon) => false,
        None => invocation.service_deduplicates(run_version),
    };
    match state {
        IdempotencyState::Free => KeyAnswer::status(KeyStatus::New),
        IdempotencyState::Busy => KeyAnswer::status(KeyStatus::InProgress),
        IdempotencyState::Task(..) => KeyAnswer::status(KeyStatus::Answered),
        IdempotencyState::Ended(_, answer, _) => {
            if answer.is_open() && again(&answer.metadata.version) {
                return KeyAnswer::status(KeyStatus::Again);
            }
            let status = if answer.is_open() { KeyStatus::Unknown } else { KeyStatus::Answered };
            KeyAnswer { status: Some(status), failure: answer.outcome().result.err() }
        }
        IdempotencyState::Lost(run, (began, run_version), _) => {
            if again(&run_version) {
                return KeyAnswer::status(KeyStatus::Again);
            }
            KeyAnswer { status: Some(KeyStatus::Unknown), failure: Some(unknown_result(&run, began)) }
        }
    }
}
