//! One attempt at an action: prepare the call, record the start, call the service, ask the hooks after it, and record the
//! result.

use std::time::Duration;

use futures_util::future::join;
use jiff::SignedDuration;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::permit::NotCalled;
use super::prepare::{PreparedCall, Unprepared};
use super::record::{EndedRun, redact_result, service_key, with_prior_attempt};
use super::request::{Invocation, Origin};
use super::snapshot::Snapshot;
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::RunId;
use crate::core::outcome::{Failure, Outcome, OutcomeCode, Success};
use crate::engine::Engine;
use crate::invoke::call::{CallReport, RETRIES_MAX, RetryLimits};
use crate::invoke::hooks::Hooks;
use crate::invoke::mappings::Naming;
use crate::invoke::runs::{IdempotencyRequest, StartedRun};
use crate::outbound::runtime::{Call, CallError};
use crate::plugin::breaker::HealthSignal;
use crate::ports::table::Condition;

/// The time that a service must have had before a missing answer counts as its failure.
const MIN_SERVICE_TIME: Duration = Duration::from_secs(5);

/// How much longer a lease lasts than the work that it covers may take: a task's claim, and a run's place in the ledger.
const LEASE_MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// How long a lease on work that may take `budget` lasts.
pub(crate) fn lease(budget: Duration) -> SignedDuration {
    SignedDuration::try_from(budget).unwrap_or(SignedDuration::from_mins(15)) + LEASE_MARGIN
}

/// The result of an attempt.
pub(super) enum Attempt {
    /// It has an outcome.
    Done(Outcome),
    /// Another request with the same key was faster: read the key again.
    LostRace,
}

/// What an attempt starts from.
pub(super) struct AttemptInput<'a> {
    pub parameters: &'a Map<String, Value>,
    pub naming: Naming,
    pub snapshot: Snapshot,
    pub hooks: Hooks,
    /// The idempotency key that the attempt runs under.
    pub reservation: Option<KeyReservation<'a>>,
}

/// An idempotency key that an attempt is to reserve.
pub(super) struct KeyReservation<'a> {
    pub idempotency: &'a IdempotencyRequest,
    /// The state of the idempotency record on which the reservation depends.
    pub condition: Condition,
    /// The run with an unknown outcome that this attempt retries.
    pub replaces: Option<RunId>,
}

/// How the start of an attempt went.
enum Start {
    /// It goes on, without an entry in the ledger.
    Unrecorded,
    /// It goes on, and is recorded.
    Recorded(Box<StartedRun>),
    /// There is not enough time left for a call with an effect.
    NoTime,
    /// Another request with the same key, or the sweep that settled this worker's expired claim, was faster.
    LostRace,
}

/// The reply of the service.
struct Reply {
    result: Result<Success, Failure>,
    /// How often the service was called.
    attempts: u32,
    /// The error that answers the request in place of the result.
    error: Option<Error>,
}

impl Engine {
    /// Attempts the action once, unless something prevents the call.
    #[tracing::instrument(level = "debug", skip_all)]
    pub(super) async fn attempt(
        &self,
        invocation: &Invocation<'_>,
        mut input: AttemptInput<'_>,
    ) -> Result<Attempt, Error> {
        let reservation = input.reservation.take();
        let prior = reservation.as_ref().is_some_and(|reservation| reservation.replaces.is_some());
        let mut call = match Box::pin(self.prepare(invocation, input)).await {
            Ok(call) => call,
            Err(unprepared) => return self.end_unprepared(invocation, unprepared, prior).await.map(Attempt::Done),
        };
        let run = match self.record_attempt(invocation, &call, reservation).await {
            Ok(Start::Unrecorded) => None,
            Ok(Start::Recorded(run)) => Some(*run),
            not_started => {
                let PreparedCall { permit, stored_parameters, .. } = call;
                permit.finish(HealthSignal::Nothing).await;
                return self.end_unstarted(invocation, &stored_parameters, not_started?).await;
            }
        };
        let called_at = Instant::now();
        let mut reply = self.call_service(invocation, &mut call, run.as_ref()).await;
        let had_time = reply.attempts > 0 && self.had_time(invocation.request.deadline, called_at);
        let signal = HealthSignal::of(reply.result.as_ref().err(), had_time);
        reply.result = match reply.result {
            Ok(success) => {
                Ok(Box::pin(self.after_call(invocation, &call.hooks, &call.stored_parameters, success)).await)
            }
            Err(failure) if prior => Err(with_prior_attempt(failure, invocation)),
            Err(failure) => Err(failure),
        };
        Box::pin(self.end(invocation, call, run, reply, signal)).await.map(Attempt::Done)
    }

    /// Ends an attempt whose call could not be prepared. Nothing was sent.
    async fn end_unprepared(
        &self,
        invocation: &Invocation<'_>,
        unprepared: Unprepared,
        prior: bool,
    ) -> Result<Outcome, Error> {
        let Unprepared { reason, parameters } = unprepared;
        match reason {
            NotCalled::Failed(failure) => {
                let failure = if prior { with_prior_attempt(failure, invocation) } else { failure };
                Ok(self.record_outcome(invocation, &parameters, Err(failure), 0, None).await)
            }
            NotCalled::Error(error) => self.answer_invalid_request(invocation, &parameters, error).await,
        }
    }

    /// Ends an attempt that was prepared and did not start. Nothing was sent.
    async fn end_unstarted(
        &self,
        invocation: &Invocation<'_>,
        parameters: &Map<String, Value>,
        start: Start,
    ) -> Result<Attempt, Error> {
        match (start, &invocation.request.origin) {
            (Start::NoTime, _) => {
                let name = &invocation.manifest.display_name;
                let message = format!("there was no time left to call {name}; nothing was sent");
                let failure = Failure::new(OutcomeCode::Timeout, message, true);
                Ok(Attempt::Done(self.record_outcome(invocation, parameters, Err(failure), 0, None).await))
            }
            // The sweep has recorded that this worker's run never started.
            (Start::LostRace, Origin::Task { .. }) => Ok(Attempt::Done(invocation.failed(lease_expired()))),
            (Start::Unrecorded | Start::Recorded(_) | Start::LostRace, _) => Ok(Attempt::LostRace),
        }
    }

    /// Records the start of an attempt in the ledger and under its key, before the call can have an effect.
    async fn record_attempt(
        &self,
        invocation: &Invocation<'_>,
        call: &PreparedCall<'_>,
        reservation: Option<KeyReservation<'_>>,
    ) -> Result<Start, Error> {
        let reads = invocation.action.effect == Effect::Read;
        if !reads && !self.has_time_for_call(Instant::now(), invocation.request.deadline) {
            return Ok(Start::NoTime);
        }
        if reads && reservation.is_none() && !call.permit.instance().instance.records_reads() {
            return Ok(Start::Unrecorded);
        }
        Ok(match self.record_start(invocation, call, reservation).await? {
            Some(run) => Start::Recorded(Box::new(run)),
            None => Start::LostRace,
        })
    }

    /// Calls the service, and notes the use of the account.
    async fn call_service(
        &self,
        invocation: &Invocation<'_>,
        prepared: &mut PreparedCall<'_>,
        run: Option<&StartedRun>,
    ) -> Reply {
        let lease_until = run.map(StartedRun::until);
        // A worker that was suspended must not start what the sweep may have settled by now.
        if lease_until.is_some_and(|until| until <= self.ports.clock.now()) {
            return Reply { result: Err(lease_expired()), attempts: 0, error: None };
        }
        let request = invocation.request;
        let call = Call {
            manifest: invocation.manifest,
            action: invocation.action,
            parameters: &prepared.parameters,
            config: &prepared.permit.instance().instance.effective_config(invocation.manifest),
            user: request.user,
            now: prepared.now,
            key: service_key(invocation, run),
            until: lease_until,
        };
        let retries = match request.origin {
            Origin::Intent { .. } => RETRIES_MAX,
            // The task's own rules say when it is tried again.
            Origin::Task { .. } => 0,
        };
        let limits = RetryLimits { deadline: request.deadline, retries };
        let account = &mut prepared.account;
        let CallReport { result, attempts } =
            match self.call_with_retry(request.org, &call, account, request.alias, limits).await {
                Ok(report) => report,
                // Only a credential could not be refreshed: the service refused every call so far.
                Err(error) => {
                    let failure = Failure::new(OutcomeCode::Unavailable, error.to_string(), true);
                    return Reply { result: Err(failure), attempts: 0, error: Some(error) };
                }
            };
        if let Some(account) = account {
            match &result {
                Ok(_) => self.note_use(request.org, account, None).await,
                Err(CallError::Failed(failure)) => self.note_use(request.org, account, Some(failure)).await,
                Err(CallError::Parameter(_)) => {}
            }
        }
        match result {
            Ok(success) => Reply { result: Ok(success), attempts, error: None },
            Err(CallError::Failed(failure)) => Reply { result: Err(failure), attempts, error: None },
            // Nothing was sent. The key is free again for a request with other parameters.
            Err(CallError::Parameter(problem)) => {
                let failure = Failure::new(OutcomeCode::Unavailable, problem.message.clone(), false);
                Reply { result: Err(failure), attempts, error: Some(Error::Invalid(vec![problem])) }
            }
        }
    }

    /// Ends an attempt: finishes the breaker's permit, and records the result.
    async fn end(
        &self,
        invocation: &Invocation<'_>,
        call: PreparedCall<'_>,
        run: Option<StartedRun>,
        reply: Reply,
        signal: HealthSignal,
    ) -> Result<Outcome, Error> {
        let PreparedCall { parameters, stored_parameters, permit, .. } = call;
        let Reply { mut result, attempts, error } = reply;
        // Of a task everything is stored; of an intent, what the ledger has.
        let is_task = matches!(invocation.request.origin, Origin::Task { .. });
        let stored = (run.is_some() || is_task).then(|| redact_result(invocation, &parameters, &result));
        if let Some(stored) = stored.as_ref().filter(|_| is_task) {
            result = stored.clone();
        }
        let ended = run.zip(stored).map(|(run, result)| EndedRun { run, result });
        let finished = permit.finish(signal);
        let Some(error) = error else {
            let recorded = self.record_outcome(invocation, &stored_parameters, result, attempts, ended);
            let (outcome, ()) = join(recorded, finished).await;
            return Ok(outcome);
        };
        let metadata = invocation.metadata(attempts, ended.as_ref().map(EndedRun::id));
        join(self.record_end(ended, &metadata), finished).await;
        self.answer_invalid_request(invocation, &stored_parameters, error).await
    }

    /// Whether a service that is called at `called_at` has the time to answer.
    pub(super) fn had_time(&self, deadline: Instant, called_at: Instant) -> bool {
        deadline.saturating_duration_since(called_at) >= MIN_SERVICE_TIME.min(self.config.limits.budget / 2)
    }
}

fn lease_expired() -> Failure {
    let message = "it started too late, after its claim had expired; nothing was sent".to_owned();
    Failure::new(OutcomeCode::Unavailable, message, true)
}
