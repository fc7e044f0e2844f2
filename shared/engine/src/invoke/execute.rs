//! Executing an action: admit the request, wait for or replay an earlier request with the same idempotency key, or run an
//! attempt.

use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt::{Attempt, AttemptInput, KeyReservation};
use super::request::{ActionRequest, CheckedParameters, Invocation, Origin};
use crate::access::principal::Principal;
use crate::core::backoff::PollBackoff;
use crate::core::error::Error;
use crate::core::ids::RunId;
use crate::core::outcome::{Failure, Outcome, OutcomeCode};
use crate::engine::Engine;
use crate::invoke::runs::{IdempotencyRequest, IdempotencyState, Replayable, Resolve, in_progress, unknown_result};
use crate::ports::table::{Condition, Item, Version};

/// What follows from the state of the idempotency key.
enum KeyDecision<'a> {
    /// Run an attempt; with a key, under this reservation.
    Run(Option<KeyReservation<'a>>),
    /// Another request with the key is in flight: wait, and read again.
    Wait,
    /// Answer with the outcome of an earlier request.
    Replay(Outcome),
    /// The caller gives up a run whose outcome is unknown.
    Abandon(AbandonRequest<'a>),
}

/// A caller's decision to give up a run whose outcome is unknown.
struct AbandonRequest<'a> {
    principal: &'a Principal,
    idempotency: &'a IdempotencyRequest,
    run: RunId,
    /// The version of the idempotency record that the decision is about.
    version: Version,
}

/// What a request has seen under its key so far. A caller decides (`?resolve`) about the run that they know of, and not
/// about one that began later.
enum KeyObservation {
    Nothing,
    /// Another request in flight.
    InFlight,
    /// This run, about which the request has decided.
    Decided(RunId),
}

impl KeyObservation {
    fn permits_decision(&self, run: &RunId) -> bool {
        match self {
            Self::Nothing => true,
            Self::InFlight => false,
            Self::Decided(decided) => decided == run,
        }
    }
}

/// The pauses between two reads of a key whose request is in flight.
struct KeyPoll {
    backoff: PollBackoff,
    until: Instant,
}

impl KeyPoll {
    fn new(invocation: &Invocation<'_>) -> Self {
        let started = invocation.started();
        let wait_until = invocation.idempotency().map_or(started, |idempotency| started + idempotency.wait);
        Self { backoff: PollBackoff::default(), until: wait_until.min(invocation.request.deadline) }
    }

    /// Waits before the next read; fails with `InProgress` where the caller does not wait that long.
    async fn wait(&mut self) -> Result<(), Error> {
        let pause = self.backoff.next_pause();
        if Instant::now() + pause > self.until {
            return Err(in_progress());
        }
        sleep(pause).await;
        Ok(())
    }
}

impl Engine {
    /// Executes one action and gives its outcome. `None`: nothing was done, because the organization uses another version
    /// of the plugin by now.
    pub(crate) async fn execute_action(
        &self,
        request: ActionRequest<'_>,
    ) -> Result<Option<Replayable<Outcome>>, Error> {
        let _in_flight = self.track_in_flight(request.org, request.plugin);
        let invocation = Invocation::of(&request)?;
        let CheckedParameters { parameters, naming } = match invocation.check_request() {
            Ok(checked) => checked,
            Err(error) => {
                let outcome = self.answer_invalid_request(&invocation, request.parameters, error).await?;
                return Ok(Some(Replayable::first(outcome)));
            }
        };
        let mut poll = KeyPoll::new(&invocation);
        let mut observation = KeyObservation::Nothing;
        loop {
            let Ok(snapshot) = timeout_at(request.deadline, self.load_snapshot(&invocation, &naming)).await else {
                let message = "there was no time left to read the account; try again".to_owned();
                let failure = Failure::new(OutcomeCode::Timeout, message, true);
                return Ok(Some(Replayable::first(invocation.failed(failure))));
            };
            let Some(mut snapshot) = snapshot? else { return Ok(None) };
            let key_state = std::mem::replace(&mut snapshot.key_state, IdempotencyState::Free);
            let reservation = match decide(&invocation, key_state, &mut observation)? {
                KeyDecision::Run(reservation) => reservation,
                KeyDecision::Wait => {
                    poll.wait().await?;
                    continue;
                }
                KeyDecision::Replay(outcome) => {
                    let answer = self.replayed(&invocation, snapshot.hooks, outcome).await?;
                    return Ok(Some(Replayable { answer, replayed: true }));
                }
                KeyDecision::Abandon(abandon) => match self.abandon_run(&invocation, abandon).await? {
                    Some(outcome) => {
                        let answer = self.replayed(&invocation, snapshot.hooks, outcome).await?;
                        return Ok(Some(Replayable::first(answer)));
                    }
                    // Another request changed the key first.
                    None => continue,
                },
            };
            snapshot.instance.instance.must_be_granted(request.plugin)?;
            let hooks = self.load_hooks(request.org, snapshot.hooks.take().as_ref()).await?;
            let input = AttemptInput {
                parameters: &parameters,
                naming: naming.clone(),
                snapshot,
                hooks: hooks.clone(),
                reservation,
            };
            match Box::pin(self.attempt(&invocation, input)).await? {
                Attempt::Done(outcome) => {
                    let outcome = Box::pin(self.after_failure(&invocation, &hooks, outcome)).await;
                    return Ok(Some(Replayable::first(outcome)));
                }
                Attempt::LostRace => {}
            }
        }
    }

    /// The outcome of an earlier request with the same key. What hooks made of a success is stored with it; what they make
    /// of a failure is not, so they are called again.
    async fn replayed(
        &self,
        invocation: &Invocation<'_>,
        hooks: Option<Item>,
        mut outcome: Outcome,
    ) -> Result<Outcome, Error> {
        if let Err(failure) = &mut outcome.result {
            let (org, agent) = (invocation.request.org, invocation.request.agent);
            failure.fallback = Some(self.fallback(org, agent, invocation.manifest, failure).await);
            let hooks = self.load_hooks(org, hooks.as_ref()).await?;
            outcome = Box::pin(self.after_failure(invocation, &hooks, outcome)).await;
        }
        Ok(outcome)
    }

    /// Gives up the run; `None` where another request changed the key first.
    async fn abandon_run(
        &self,
        invocation: &Invocation<'_>,
        abandon: AbandonRequest<'_>,
    ) -> Result<Option<Outcome>, Error> {
        let AbandonRequest { principal, idempotency, run, version } = abandon;
        let metadata = invocation.metadata(0, Some(run.clone()));
        self.abandon_key(principal, invocation.request.user, idempotency, &run, version, metadata).await
    }

    /// Answers a request that is wrong: an intent's caller gets the error; a task, which was made some time ago, gets a
    /// failure in its place.
    pub(super) async fn answer_invalid_request(
        &self,
        invocation: &Invocation<'_>,
        parameters: &Map<String, Value>,
        error: Error,
    ) -> Result<Outcome, Error> {
        match (&invocation.request.origin, &error) {
            (Origin::Task { .. }, Error::Invalid(_)) => {
                let failure = Failure::new(OutcomeCode::Rejected, error.to_string(), false);
                Ok(self.record_outcome(invocation, parameters, Err(failure), 0, None).await)
            }
            (Origin::Intent { .. } | Origin::Task { .. }, _) => Err(error),
        }
    }
}

/// What follows from the state of the caller's idempotency key.
fn decide<'a>(
    invocation: &Invocation<'a>,
    state: IdempotencyState,
    observation: &mut KeyObservation,
) -> Result<KeyDecision<'a>, Error> {
    let Origin::Intent { principal, idempotency: Some(idempotency), .. } = invocation.request.origin else {
        return Ok(KeyDecision::Run(None));
    };
    let may_decide = |run: &RunId, run_version: &str, observation: &KeyObservation| {
        let wanted = idempotency.resolve.is_some() || invocation.service_deduplicates(run_version);
        wanted && observation.permits_decision(run)
    };
    let (run, version) = match state {
        IdempotencyState::Free if idempotency.resolve == Some(Resolve::Abandon) => {
            let message = "there is no request with this idempotency key to abandon; nothing was done";
            return Err(Error::Conflict(message.to_owned()));
        }
        IdempotencyState::Free => {
            let reservation = KeyReservation { idempotency, condition: Condition::Absent, replaces: None };
            return Ok(KeyDecision::Run(Some(reservation)));
        }
        IdempotencyState::Busy => {
            *observation = KeyObservation::InFlight;
            return Ok(KeyDecision::Wait);
        }
        // The request that made a task has another payload than one for now.
        IdempotencyState::Task(..) => return Err(Error::KeyReused),
        IdempotencyState::Ended(run, answer, version) => {
            if !answer.is_open() || !may_decide(&run, &answer.metadata.version, observation) {
                return Ok(KeyDecision::Replay(answer.outcome()));
            }
            (run, version)
        }
        IdempotencyState::Lost(run, (began, run_version), version) => {
            if !may_decide(&run, &run_version, observation) {
                let result = Err(unknown_result(&run, began));
                return Ok(KeyDecision::Replay(Outcome { result, metadata: invocation.metadata(0, Some(run)) }));
            }
            (run, version)
        }
    };
    *observation = KeyObservation::Decided(run.clone());
    Ok(match idempotency.resolve {
        // Without `?resolve` only a run that the service deduplicates gets here.
        Some(Resolve::Retry) | None => {
            let condition = Condition::Version(version);
            KeyDecision::Run(Some(KeyReservation { idempotency, condition, replaces: Some(run) }))
        }
        Some(Resolve::Abandon) => KeyDecision::Abandon(AbandonRequest { principal, idempotency, run, version }),
    })
}
