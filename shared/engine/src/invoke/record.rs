//! What is recorded about an attempt: the start of its run, its result, and its failure in the error log.

use futures_util::future::join;
use serde_json::{Map, Value};

use super::attempt::KeyReservation;
use super::prepare::PreparedCall;
use super::request::{ActionRequest, Invocation, Origin};
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::RunId;
use crate::core::outcome::{Failure, Metadata, Outcome, Success};
use crate::core::redactor::Redactor;
use crate::engine::Engine;
use crate::invoke::failures::{Failed, SchemaRedactor, redacted};
use crate::invoke::runs::{KeyClaim, Run, RunState, StartedRun, Verdict};
use crate::outbound::runtime::ServiceKey;

/// A run that has ended, and the result to store for it.
pub(super) struct EndedRun {
    pub run: StartedRun,
    /// Redacted: see [`redact_result`].
    pub result: Result<Success, Failure>,
}

impl EndedRun {
    pub(super) fn id(&self) -> RunId {
        self.run.id().clone()
    }
}

impl Engine {
    /// Records the start of a run in the ledger, and reserves its idempotency key. `None` where another request was faster.
    pub(super) async fn record_start(
        &self,
        invocation: &Invocation<'_>,
        call: &PreparedCall<'_>,
        reservation: Option<KeyReservation<'_>>,
    ) -> Result<Option<StartedRun>, Error> {
        let (claim, replaces) = match reservation {
            Some(KeyReservation { idempotency, condition, replaces }) => {
                let (key, payload) = (idempotency.key.clone(), idempotency.payload.clone());
                (Some(KeyClaim { key, payload, condition }), replaces)
            }
            None => (None, None),
        };
        let run = self.new_run(invocation, call, claim.as_ref())?;
        let started = self.begin_run(run, claim).await?;
        if let (Some(_), Some(replaced), Origin::Intent { principal, .. }) =
            (&started, replaces, &invocation.request.origin)
        {
            self.note_decision(principal, invocation.request.user, &replaced, Verdict::Retried, call.now).await;
        }
        Ok(started)
    }

    /// The ledger's entry for an attempt that starts.
    fn new_run(
        &self,
        invocation: &Invocation<'_>,
        call: &PreparedCall<'_>,
        claim: Option<&KeyClaim>,
    ) -> Result<Run, Error> {
        let ActionRequest { org, user, agent, alias, origin, .. } = invocation.request;
        let id = match origin {
            Origin::Intent { .. } => RunId::parse(self.id_at(call.now)).map_err(Error::internal)?,
            Origin::Task { run, .. } => (*run).clone(),
        };
        Ok(Run {
            id,
            org: (*org).clone(),
            user: (*user).clone(),
            agent: agent.cloned(),
            plugin: invocation.manifest.name.clone(),
            version: invocation.manifest.version.to_string(),
            action: invocation.action.name.clone(),
            effect: invocation.action.effect,
            integration: alias.cloned(),
            parameters: redacted(&invocation.action.parameters, &call.stored_parameters),
            key: claim.map(|claim| claim.key.clone()),
            task: origin.task_id().cloned(),
            request: origin.request_id().cloned(),
            state: RunState::Started,
            started_at: call.now,
            until: call.lease_until,
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

    /// Turns a result into the outcome: records the end of the run, and a failure in the error log, and logs both.
    /// `parameters` are without the account's token; `attempts` says how often the service was called.
    pub(super) async fn record_outcome(
        &self,
        invocation: &Invocation<'_>,
        parameters: &Map<String, Value>,
        mut result: Result<Success, Failure>,
        attempts: u32,
        ended: Option<EndedRun>,
    ) -> Outcome {
        let ActionRequest { org, user, agent, origin, .. } = invocation.request;
        let metadata = invocation.metadata(attempts, ended.as_ref().map(EndedRun::id));
        let noted = async {
            let failed = Failed {
                org,
                user,
                agent: *agent,
                manifest: invocation.manifest,
                action: invocation.action,
                parameters,
                failure: result.as_ref().err()?,
                attempts,
                request: origin.request_id(),
                task: origin.task_id(),
                run: metadata.run.as_ref(),
            };
            Some(self.note_failure(&failed).await)
        };
        let ((), fallback) = join(self.record_end(ended, &metadata), noted).await;
        if let Err(failure) = &mut result {
            failure.fallback = fallback;
        }
        let code = result.as_ref().err().map(|failure: &Failure| tracing::field::debug(failure.code));
        tracing::info!(
            %org, %user, agent = agent.map(tracing::field::display),
            plugin = %metadata.plugin, action = %metadata.action, code, duration_ms = metadata.duration_ms,
            "intent {}", if result.is_ok() { "succeeded" } else { "failed" },
        );
        Outcome { result, metadata }
    }

    /// Records the end of a run, if the attempt has one.
    pub(super) async fn record_end(&self, ended: Option<EndedRun>, metadata: &Metadata) {
        if let Some(EndedRun { run, result }) = ended {
            self.end_run(run, &result, metadata).await;
        }
    }
}

/// Parameters without the account's own token.
pub(super) fn redact_token(redactor: &Redactor, parameters: &Map<String, Value>) -> Map<String, Value> {
    let fields = parameters.iter().map(|(name, value)| (redactor.text(name.clone()), redactor.value(value.clone())));
    fields.collect()
}

/// The result as it may be stored. A service may repeat what it was sent, so values that look secret are taken out of its
/// message. Data is the service's own: only values that the schema marks as secret are taken out of it.
pub(super) fn redact_result(
    invocation: &Invocation<'_>,
    sent: &Map<String, Value>,
    result: &Result<Success, Failure>,
) -> Result<Success, Failure> {
    let schema = &invocation.action.parameters;
    let secrets = SchemaRedactor::among(schema, sent, false);
    match result.clone() {
        Ok(Success { message, data, external_id }) => {
            let data = SchemaRedactor::among(schema, sent, true).value(data);
            Ok(Success { message: secrets.text(message), data, external_id })
        }
        Err(failure) => Err(Failure { message: secrets.text(failure.message), ..failure }),
    }
}

/// The key by which the service recognises a retry: made of the caller's key, else of the task's run, else of this run.
pub(super) fn service_key(invocation: &Invocation<'_>, run: Option<&StartedRun>) -> Option<ServiceKey> {
    if invocation.action.effect != Effect::Keyed {
        return None;
    }
    let (org, user) = (invocation.request.org, invocation.request.user);
    match &invocation.request.origin {
        Origin::Intent { idempotency: Some(idempotency), .. } => {
            Some(ServiceKey::of_caller(org, user, &idempotency.key, &idempotency.payload))
        }
        Origin::Task { id, number, .. } => {
            Some(ServiceKey::of(&["task", org.as_str(), user.as_str(), id.as_str(), &number.to_string()], true))
        }
        Origin::Intent { idempotency: None, .. } => {
            run.map(|run| ServiceKey::of(&["run", org.as_str(), run.id().as_str()], false))
        }
    }
}

/// A failure of an attempt that retries a run with an unknown outcome: that run may still have happened.
pub(super) fn with_prior_attempt(failure: Failure, invocation: &Invocation<'_>) -> Failure {
    if failure.may_have_happened {
        return failure;
    }
    let message = format!("{}; the earlier request with this key may have happened", failure.message);
    let retryable = failure.retryable && invocation.action.effect == Effect::Keyed;
    Failure { message, may_have_happened: true, unclear: true, retryable, ..failure }
}
