//! One attempt at an action: whether it may go, its names, its place in the ledger, the call, and what came of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::execute::{ActionRequest, Attempt, Invocation, Origin, Snapshot, lease, unavailable_reason};
use crate::accounts::{AccountRequest, AccountResolution, AuthorizedAccount, not_connected};
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::RunId;
use crate::core::outcome::{Failure, Outcome, OutcomeCode, Success};
use crate::core::redactor::Redactor;
use crate::engine::Engine;
use crate::invoke::call::RETRIES_MAX;
use crate::invoke::failures::{Failed, SchemaRedactor, redacted};
use crate::invoke::hooks::Hooks;
use crate::invoke::mappings::{LookupContext, LookupError, Naming};
use crate::invoke::runs::{IdempotencyRequest, KeyClaim, Run, RunState, StartedRun, Verdict};
use crate::outbound::runtime::{Call, CallError, CallResult, ServiceKey};
use crate::plugin::breaker::{ActionClass, HealthSignal};
use crate::plugin::manifest::Auth;
use crate::ports::table::Condition;
use crate::registry::instances::{InUse, SeenInstance, Trial, TrialStart};

/// The time that a service must have had before it counts as failing that it did not answer.
const MIN_SERVICE_TIME: Duration = Duration::from_secs(5);

/// Everything that a call needs.
struct PreparedCall {
    parameters: Map<String, Value>,
    /// The same, as far as it may be kept.
    to_keep: Map<String, Value>,
    held: Option<AuthorizedAccount>,
    instance: SeenInstance,
    trial: Option<Trial>,
    now: Timestamp,
    until: Timestamp,
    hooks: Hooks,
}

impl Engine {
    /// Does it once, unless something stands in the way. `claim` is the key to do it under, what has to stand there, and the
    /// run that this one is in the place of.
    pub(super) async fn attempt(
        &self,
        what: &Invocation<'_>,
        (parameters, mut naming): (&Map<String, Value>, Naming),
        (seen, hooks): (Snapshot, Hooks),
        claim: Option<(&IdempotencyRequest, Condition, Option<RunId>)>,
    ) -> Result<Attempt, Error> {
        let ActionRequest { org, user, integration: alias, deadline, .. } = *what.doing;
        let Snapshot { account, instance, names, .. } = seen;
        let now = self.ports.clock.now();
        let in_use = instance.instance.in_use(what.manifest, what.class(), now);
        let held = match (unavailable_reason(what.manifest, &in_use, now), &what.manifest.auth, account) {
            (Some(failure), _, _) => Err(failure),
            (None, Auth::None, _) => Ok(None),
            (None, _, None) => Err(not_connected(what.manifest, user, alias)),
            (None, _, found) => {
                let request = AccountRequest { org, user, manifest: what.manifest, alias, refused: None, deadline };
                match self.resolve_account(&request, found).await? {
                    AccountResolution::Ready(account) => Ok(Some(*account)),
                    AccountResolution::Unusable(failure) => Err(failure),
                }
            }
        };
        // What is done in the place of another that may have happened does not undo that by failing.
        let instead = claim.as_ref().is_some_and(|(_, _, before)| before.is_some());
        let standing = |failure| if instead { with_prior_attempt(failure, what) } else { failure };
        let held = match held {
            Ok(held) => held,
            Err(failure) => {
                return Ok(Attempt::To(self.finalize(what, parameters, Err(standing(failure)), 0, None).await));
            }
        };
        let seen_by = instance.instance.names_seen_by(what.plugin, held.as_ref().map(AuthorizedAccount::identity));
        naming.read(names, seen_by.as_deref())?;
        // What is kept of the parameters never has the account's token in it, should the caller have put it there.
        let secrets = held.as_ref().map(|held| held.credential.secrets()).unwrap_or_default();
        let striker = Redactor::new(&secrets);
        let given = || redact_token(&striker, parameters);
        let until = match &what.doing.source {
            Origin::Intent { .. } => now + lease(self.config.limits.budget),
            Origin::Task { until, .. } => *until,
        };
        let trial = match self.acquire_trial(what, in_use, &instance, what.class(), until).await? {
            Ok(trial) => trial,
            Err(failure) => {
                return Ok(Attempt::To(self.finalize(what, &given(), Err(standing(failure)), 0, None).await));
            }
        };
        let named = match self.before_look_ups(what, &hooks, &naming).await {
            Ok(()) => self.resolve_names(what, parameters, naming, held.as_ref(), (&instance, trial, until)).await,
            Err(failure) => Ok(Err(failure)),
        };
        let let_through = match named {
            Ok(Ok(parameters)) => Ok(Box::pin(self.before_call(what, &hooks, &striker, parameters)).await),
            other => other,
        };
        let failed = match let_through {
            Ok(Ok(parameters)) => {
                let to_keep = redact_token(&striker, &parameters);
                let ready = PreparedCall { parameters, to_keep, held, instance, trial, now, until, hooks };
                return Box::pin(self.execute_attempt(what, ready, claim)).await;
            }
            Ok(Err(failure)) => Ok(failure),
            Err(error) => Err(error),
        };
        self.record_health(org, what.manifest, instance, what.class(), trial, HealthSignal::Nothing).await;
        match failed {
            Ok(failure) => Ok(Attempt::To(self.finalize(what, &given(), Err(standing(failure)), 0, None).await)),
            Err(error) => self.refused(what, &given(), error).await.map(Attempt::To),
        }
    }

    /// The right to go: nothing, a trial, or why not.
    async fn acquire_trial(
        &self,
        what: &Invocation<'_>,
        in_use: InUse,
        instance: &SeenInstance,
        class: ActionClass,
        until: Timestamp,
    ) -> Result<Result<Option<Trial>, Failure>, Error> {
        if in_use != InUse::OnTrial {
            return Ok(unavailable_reason(what.manifest, &in_use, self.ports.clock.now()).map_or(Ok(None), Err));
        }
        match self.begin_trial(what.doing.org, what.manifest, instance.clone(), class, until).await? {
            TrialStart::Acquired(trial) => Ok(Ok(Some(trial))),
            // Where nothing stands in the way any more, it was brought back in the meantime.
            TrialStart::Unavailable(in_use) => {
                Ok(unavailable_reason(what.manifest, &in_use, self.ports.clock.now()).map_or(Ok(None), Err))
            }
        }
    }

    /// Puts it on record, does it, and writes down what came of it.
    async fn execute_attempt(
        &self,
        what: &Invocation<'_>,
        ready: PreparedCall,
        claim: Option<(&IdempotencyRequest, Condition, Option<RunId>)>,
    ) -> Result<Attempt, Error> {
        let PreparedCall { parameters, to_keep, held, instance, trial, now, until, hooks } = ready;
        let (org, manifest) = (what.doing.org, what.manifest);
        let instead = claim.as_ref().is_some_and(|(_, _, before)| before.is_some());
        let recorded = what.action.effect != Effect::Read || claim.is_some() || instance.instance.records_reads();
        let mut begun = None;
        let time_enough = self.is_time_enough(Instant::now(), what.doing.deadline);
        if what.action.effect != Effect::Read && !time_enough {
            self.record_health(org, manifest, instance, what.class(), trial, HealthSignal::Nothing).await;
            let message = format!("there was no time left to call {}; nothing was sent", manifest.display_name);
            let failure = Failure::new(OutcomeCode::Timeout, message, true);
            return Ok(Attempt::To(self.finalize(what, &to_keep, Err(failure), 0, None).await));
        }
        if recorded {
            let put = self.record_start(what, &to_keep, claim, (now, until)).await;
            if !matches!(put, Ok(Some(_))) {
                self.record_health(org, manifest, instance.clone(), what.class(), trial, HealthSignal::Nothing).await;
            }
            begun = put?;
            if begun.is_none() {
                return match what.doing.source {
                    Origin::Intent { .. } => Ok(Attempt::Late),
                    // Whoever looked for this worker has declared the run as never begun.
                    Origin::Task { .. } => Ok(Attempt::To(what.failed(too_late()))),
                };
            }
        }
        // A worker that was frozen must not begin what another may have judged already.
        let late = begun.as_ref().is_some_and(|begun| begun.until() <= self.ports.clock.now());
        let called_at = Instant::now();
        let came = if late {
            Ok((Err(too_late().into()), 0))
        } else {
            let config = instance.instance.effective_config(manifest);
            self.call_service(what, (&parameters, &config), held, begun.as_ref(), now).await
        };
        let (result, attempts, error) = match came {
            Ok((Ok(success), attempts)) => (Ok(success), attempts, None),
            Ok((Err(CallError::Failed(failure)), attempts)) => (Err(failure), attempts, None),
            // Nothing was sent, and the key is free for what is right.
            Ok((Err(CallError::Parameter(problem)), attempts)) => {
                let failure = Failure::new(OutcomeCode::Unavailable, problem.message.clone(), false);
                (Err(failure), attempts, Some(Error::Invalid(vec![problem])))
            }
            // Nothing more was sent, and what was sent was refused.
            Err(error) => (Err(Failure::new(OutcomeCode::Unavailable, error.to_string(), true)), 0, Some(error)),
        };
        let shown =
            HealthSignal::of(result.as_ref().err(), attempts > 0 && self.had_time(what.doing.deadline, called_at));
        let result = match result {
            Ok(success) => Ok(Box::pin(self.after_call(what, &hooks, &to_keep, success)).await),
            failed => failed,
        };
        let result = if instead { result.map_err(|failure| with_prior_attempt(failure, what)) } else { result };
        // All that comes of a task is kept; of an intent, what is in the ledger.
        let of_a_task = matches!(what.doing.source, Origin::Task { .. });
        let kept = (begun.is_some() || of_a_task).then(|| redact_result(what, &parameters, &result));
        let result = if let Some(kept) = kept.as_ref().filter(|_| of_a_task) { kept.clone() } else { result };
        let noted = self.record_health(org, manifest, instance, what.class(), trial, shown);
        let Some(error) = error else {
            let (outcome, ()) = join(self.finalize(what, &to_keep, result, attempts, begun.zip(kept)), noted).await;
            return Ok(Attempt::To(outcome));
        };
        let metadata = what.metadata(attempts, begun.as_ref().map(|begun| begun.id().clone()));
        let ended = async {
            if let Some((begun, kept)) = begun.zip(kept) {
                self.end_run(begun, &kept, &metadata).await;
            }
        };
        join(ended, noted).await;
        self.refused(what, &to_keep, error).await.map(Attempt::To)
    }

    /// Whether a service that was called then had the time to answer.
    fn had_time(&self, deadline: Instant, called_at: Instant) -> bool {
        deadline.saturating_duration_since(called_at) >= MIN_SERVICE_TIME.min(self.config.limits.budget / 2)
    }

    /// The entry in the ledger, if nobody was faster.
    async fn record_start(
        &self,
        what: &Invocation<'_>,
        to_keep: &Map<String, Value>,
        claim: Option<(&IdempotencyRequest, Condition, Option<RunId>)>,
        (now, until): (Timestamp, Timestamp),
    ) -> Result<Option<StartedRun>, Error> {
        let (claim, before) = match claim {
            Some((keyed, condition, before)) => {
                let claim = KeyClaim { key: keyed.key.clone(), payload: keyed.payload.clone(), condition };
                (Some(claim), before)
            }
            None => (None, None),
        };
        let run = self.run_of(what, to_keep, claim.as_ref(), now, until)?;
        let begun = self.begin_run(run, claim).await?;
        if let (Some(_), Some(before), Origin::Intent { principal, .. }) = (&begun, before, &what.doing.source) {
            self.note_decision(principal, what.doing.user, &before, Verdict::Retried, now).await;
        }
        Ok(begun)
    }

    /// The call itself.
    async fn call_service(
        &self,
        what: &Invocation<'_>,
        (parameters, config): (&Map<String, Value>, &Map<String, Value>),
        held: Option<AuthorizedAccount>,
        begun: Option<&StartedRun>,
        now: Timestamp,
    ) -> Result<(CallResult, u32), Error> {
        let ActionRequest { org, user, integration: alias, deadline, .. } = *what.doing;
        let (key, until) = (service_key(what, begun), begun.map(StartedRun::until));
        let call = Call { manifest: what.manifest, action: what.action, parameters, config, user, now, key, until };
        let retries = match what.doing.source {
            Origin::Intent { .. } => RETRIES_MAX,
            // A task is tried again by its own rules.
            Origin::Task { .. } => 0,
        };
        self.call_recording_use(org, &call, held, alias, (deadline, retries)).await
    }

    /// The parameters with ids in the place of names. A service that is left alone is not asked what they stand for; what
    /// asking showed of it is counted.
    async fn resolve_names(
        &self,
        what: &Invocation<'_>,
        parameters: &Map<String, Value>,
        mut naming: Naming,
        held: Option<&AuthorizedAccount>,
        (instance, trial, until): (&SeenInstance, Option<Trial>, Timestamp),
    ) -> Result<Result<Map<String, Value>, Failure>, Error> {
        if naming.has_unresolved() {
            let ActionRequest { org, user, agent, integration: alias, deadline, .. } = *what.doing;
            let in_use = instance.instance.in_use(what.manifest, ActionClass::Read, self.ports.clock.now());
            // What reads is on trial already, and goes on with it.
            let own = match (what.class(), trial) {
                (ActionClass::Read, Some(trial)) => Some(trial),
                (ActionClass::Read | ActionClass::Write, _) => {
                    match self.acquire_trial(what, in_use, instance, ActionClass::Read, until).await? {
                        Ok(trial) => trial,
                        Err(failure) => return Ok(Err(failure)),
                    }
                }
            };
            let had_time = self.had_time(deadline, Instant::now());
            let called = AtomicBool::new(false);
            let (plugin, config) = (what.plugin, &instance.instance.effective_config(what.manifest));
            let (called, seen_by) =
                (&called, instance.instance.names_seen_by(plugin, held.map(AuthorizedAccount::identity)));
            let asking = LookupContext {
                org,
                user,
                agent,
                plugin,
                config,
                seen_by,
                action: what.action,
                account: held,
                alias,
                called,
            };
            let asked = self.look_up(&asking, &mut naming, deadline).await;
            let shown = match &asked {
                _ if !called.load(Ordering::Relaxed) => HealthSignal::Nothing,
                Ok(()) | Err(LookupError::Other(Error::Invalid(_))) => HealthSignal::Works,
                Err(LookupError::Failed(failure)) => HealthSignal::of(Some(failure), had_time),
                Err(LookupError::Other(_)) => HealthSignal::Nothing,
            };
            let goes_on = what.class() == ActionClass::Read && shown != HealthSignal::Fails;
            if !goes_on {
                self.record_health(org, what.manifest, instance.clone(), ActionClass::Read, own, shown).await;
            }
            match asked {
                Ok(()) => {}
                Err(LookupError::Failed(failure)) => return Ok(Err(failure)),
                Err(LookupError::Other(error)) => return Err(error),
            }
        }
        let replaced = naming.replaces();
        let parameters = naming.apply(parameters.clone());
        if replaced { what.found.check(parameters).map(Ok) } else { Ok(Ok(parameters)) }
    }

    /// Writes down what came of it. With a run comes what is to be kept of that.
    pub(super) async fn finalize(
        &self,
        what: &Invocation<'_>,
        parameters: &Map<String, Value>,
        mut result: Result<Success, Failure>,
        attempts: u32,
        begun: Option<(StartedRun, Result<Success, Failure>)>,
    ) -> Outcome {
        let metadata = what.metadata(attempts, begun.as_ref().map(|(begun, _)| begun.id().clone()));
        let ended = async {
            if let Some((begun, kept)) = begun {
                self.end_run(begun, &kept, &metadata).await;
            }
        };
        let noted = async {
            let failure = result.as_ref().err()?;
            let (request, task) = match &what.doing.source {
                Origin::Intent { request, .. } => (*request, None),
                Origin::Task { id, .. } => (None, Some(*id)),
            };
            let ActionRequest { org, user, agent, .. } = *what.doing;
            let (manifest, action, run) = (what.manifest, what.action, metadata.run.as_ref());
            let failed =
                Failed { org, user, agent, manifest, action, parameters, failure, attempts, request, task, run };
            Some(self.note_failure(&failed).await)
        };
        let ((), fallback) = join(ended, noted).await;
        if let Err(failure) = &mut result {
            failure.fallback = fallback;
        }
        let code = result.as_ref().err().map(|failure: &Failure| tracing::field::debug(failure.code));
        tracing::info!(
            org = %what.doing.org, user = %what.doing.user, agent = what.doing.agent.map(tracing::field::display),
            plugin = %metadata.plugin, action = %metadata.action, code, duration_ms = metadata.duration_ms,
            "intent {}.{} {}", metadata.plugin, metadata.action, if result.is_ok() { "succeeded" } else { "failed" },
        );
        Outcome { result, metadata }
    }

    /// The entry in the ledger.
    fn run_of(
        &self,
        what: &Invocation<'_>,
        parameters: &Map<String, Value>,
        claim: Option<&KeyClaim>,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Run, Error> {
        let ActionRequest { org, user, agent, integration, .. } = what.doing;
        let (id, task, request) = match &what.doing.source {
            Origin::Intent { request, .. } => (RunId::parse(self.id_at(now)).map_err(Error::internal)?, None, *request),
            Origin::Task { id, run, .. } => ((*run).clone(), Some(*id), None),
        };
        Ok(Run {
            id,
            org: (*org).clone(),
            user: (*user).clone(),
            agent: agent.cloned(),
            plugin: what.manifest.name.clone(),
            version: what.manifest.version.to_string(),
            action: what.action.name.clone(),
            effect: what.action.effect,
            integration: integration.cloned(),
            parameters: redacted(&what.action.parameters, parameters),
            key: claim.map(|claim| claim.key.clone()),
            task: task.cloned(),
            request: request.cloned(),
            state: RunState::Started,
            started_at: now,
            until,
            ended_at: None,
            attempts: 0,
            code: None,
            message: None,
            external_id: None,
            try_again: false,
            retry_after_s: None,
            resolved: None,
        })
    }
}

/// Parameters without the account's own token.
pub(super) fn redact_token(striker: &Redactor, parameters: &Map<String, Value>) -> Map<String, Value> {
    let each = parameters.iter().map(|(name, value)| (striker.text(name.clone()), striker.value(value.clone())));
    each.collect()
}

/// What may be kept of what came of it: a service may say what it was sent. Data is what the service has, so that only what
/// the schema marks is taken out of it.
fn redact_result(
    what: &Invocation<'_>,
    sent: &Map<String, Value>,
    result: &Result<Success, Failure>,
) -> Result<Success, Failure> {
    let schema = &what.action.parameters;
    let secrets = SchemaRedactor::among(schema, sent, false);
    match result.clone() {
        Ok(Success { message, data, external_id }) => {
            let data = SchemaRedactor::among(schema, sent, true).value(data);
            Ok(Success { message: secrets.text(message), data, external_id })
        }
        Err(failure) => Err(Failure { message: secrets.text(failure.message), ..failure }),
    }
}

/// By what the service is to know a repetition: of the caller's key, else of what would be repeated.
fn service_key(what: &Invocation<'_>, begun: Option<&StartedRun>) -> Option<ServiceKey> {
    if what.action.effect != Effect::Keyed {
        return None;
    }
    let (org, user) = (what.doing.org.as_str(), what.doing.user.as_str());
    match (&what.doing.source, what.keyed()) {
        (_, Some(keyed)) => Some(ServiceKey::of_caller(what.doing.org, what.doing.user, &keyed.key, &keyed.payload)),
        (Origin::Task { id, number, .. }, None) => {
            Some(ServiceKey::of(&["task", org, user, id.as_str(), &number.to_string()], true))
        }
        (Origin::Intent { .. }, None) => begun.map(|begun| ServiceKey::of(&["run", org, begun.id().as_str()], false)),
    }
}

/// A failure of what was done in the place of another that may have happened: that is not undone.
fn with_prior_attempt(failure: Failure, what: &Invocation<'_>) -> Failure {
    if failure.may_have_happened {
        return failure;
    }
    let message = format!("{}; what was begun before it with this key may have happened", failure.message);
    let retryable = failure.retryable && what.action.effect == Effect::Keyed;
    Failure { message, may_have_happened: true, unclear: true, retryable, ..failure }
}

fn too_late() -> Failure {
    let message = "it was begun too late, so that it was not done".to_owned();
    Failure::new(OutcomeCode::Unavailable, message, true)
}
