//! Calling a service with retries: again with a refreshed credential where the service refused the first, and again after a
//! pause where a retry is safe.
//!
//! This file decides when and how often. Whether a retry is safe (`Failure::try_again`) is decided where the answer is read,
//! in `outbound/runtime/response.rs`, by the action's declared effect. Whether the caller may send the intent again
//! (`Failure::retryable`) is decided there, too. A task's own retries are in `tasks/transition.rs`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::accounts::{AccountRequest, AccountResolution, AuthorizedAccount};
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId};
use crate::core::outcome::Failure;
use crate::engine::Engine;
use crate::outbound::call::CallOnce;
use crate::outbound::runtime::{Call, CallError, CallResult};

/// How often a call is retried while a caller waits.
pub(crate) const RETRIES_MAX: u32 = 2;
/// With less time than this, or than a tenth of the budget where that is shorter, no call with an effect starts, and no call
/// is retried.
const MIN_REMAINING: Duration = Duration::from_secs(1);
/// The longest pause before the first retry, in milliseconds; each further retry doubles it.
const PAUSE_MS: f64 = 400.0;

/// How long and how often a call may be retried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryLimits {
    /// When the result must be there.
    pub deadline: Instant,
    /// The most retries; a call that is repeated with a refreshed credential does not count.
    pub retries: u32,
}

/// The result of a call with its retries.
pub(crate) struct CallReport {
    pub result: CallResult,
    /// How often the service was called.
    pub attempts: u32,
}

/// The state of one call between its tries.
struct RetryState {
    limits: RetryLimits,
    /// How often the service was called.
    attempts: u32,
    retries: u32,
    /// Whether the credential was refreshed; that is done once.
    refreshed: bool,
    /// The last failure after which the action may have happened. A later try that surely did nothing does not undo it.
    prior: Option<Failure>,
    last: Option<Failure>,
}

/// The decision after a failed try.
enum NextStep {
    /// Try again after this pause.
    Retry(Duration),
    /// Refresh the credential, and try again with the new one.
    Refresh,
    /// The call ends with the failure.
    Stop,
}

impl RetryState {
    fn new(limits: RetryLimits) -> Self {
        Self { limits, attempts: 0, retries: 0, refreshed: false, prior: None, last: None }
    }

    /// Notes the failure of a try, and gives it together with what an earlier try may have done.
    fn note(&mut self, failure: Failure, call: &Call<'_>) -> Failure {
        let failure = merge_prior_failure(failure, self.prior.as_ref(), call);
        if failure.unclear {
            self.prior = Some(failure.clone());
        }
        self.last = Some(failure.clone());
        failure
    }
}

impl Engine {
    /// Runs one call with an account, and retries it within the limits. `account` gets the refreshed credential, if the call
    /// refreshes it. The account's use is not noted.
    pub(crate) async fn call_with_retry(
        &self,
        org: &OrgId,
        call: &Call<'_>,
        account: &mut Option<AuthorizedAccount>,
        alias: Option<&Alias>,
        limits: RetryLimits,
    ) -> Result<CallReport, Error> {
        let mut state = RetryState::new(limits);
        let result = loop {
            // A worker that was suspended must not send what the sweep may have settled by now.
            let lease_expired = call.until.is_some_and(|until| until <= self.ports.clock.now());
            if let Some(last) = state.last.take_if(|_| lease_expired) {
                break Err(last.into());
            }
            let credential = account.as_ref().map(|account| account.credential.as_ref());
            let CallOnce { result, called } = self.call_once(call, credential, limits.deadline).await;
            state.attempts += u32::from(called);
            let failure = match result {
                Err(CallError::Failed(failure)) => state.note(failure, call),
                Ok(_) | Err(CallError::Parameter(_)) => break result,
            };
            match self.next_step(&state, &failure, account.is_some()) {
                NextStep::Stop => break Err(failure.into()),
                NextStep::Retry(pause) => {
                    sleep(pause).await;
                    state.retries += 1;
                }
                NextStep::Refresh => {
                    state.refreshed = true;
                    if let Some(failure) = self.replace_refused(org, call, account, alias, &state, failure).await? {
                        break Err(failure.into());
                    }
                }
            }
        };
        Ok(CallReport { result, attempts: state.attempts })
    }

    /// What follows a failed try.
    fn next_step(&self, state: &RetryState, failure: &Failure, has_account: bool) -> NextStep {
        // A service that refuses the credential has done nothing.
        if failure.credential_refused && !state.refreshed && has_account {
            return NextStep::Refresh;
        }
        match self.pause(failure, state.retries, state.limits.deadline) {
            Some(pause) if state.retries < state.limits.retries => NextStep::Retry(pause),
            Some(_) | None => NextStep::Stop,
        }
    }

    /// Replaces a credential that the service refused. `None`: `account` has another credential now; else the failure that
    /// the call ends with.
    async fn replace_refused(
        &self,
        org: &OrgId,
        call: &Call<'_>,
        account: &mut Option<AuthorizedAccount>,
        alias: Option<&Alias>,
        state: &RetryState,
        failure: Failure,
    ) -> Result<Option<Failure>, Error> {
        let Some(refused) = account.as_ref() else { return Ok(Some(failure)) };
        let renewable = refused.can_be_renewed(self.ports.clock.now());
        let wanted = AccountRequest {
            org,
            user: call.user,
            manifest: call.manifest,
            alias,
            refused: Some(refused),
            deadline: state.limits.deadline,
        };
        match self.resolve_account(&wanted, None).await {
            Ok(AccountResolution::Ready(newer)) if newer.differs_from(refused) => {
                *account = Some(*newer);
                Ok(None)
            }
            Ok(AccountResolution::Unusable(failure)) if renewable => {
                Ok(Some(merge_prior_failure(failure, state.prior.as_ref(), call)))
            }
            // The service's own failure says more.
            Ok(_) => Ok(Some(failure)),
            Err(error) if state.prior.is_some() => {
                tracing::error!(%org, error = %causes(&error), "account lookup failed after a refused credential");
                Ok(Some(failure))
            }
            Err(error) => Err(error),
        }
    }

    /// The pause before a retry, if one is safe and there is time for it: as long as the service asks for, but at least a random
    /// one, because a service that asks for 0 s is still busy.
    fn pause(&self, failure: &Failure, retries: u32, deadline: Instant) -> Option<Duration> {
        if !failure.try_again {
            return None;
        }
        let random = Duration::from_secs_f64(PAUSE_MS / 1_000.0 * f64::from(1 << retries.min(8)) * self.jitter());
        let pause = failure.retry_after_s.map_or(random, |seconds| random.max(Duration::from_secs(seconds)));
        let starts_at = Instant::now().checked_add(pause)?;
        self.has_time_for_call(starts_at, deadline).then_some(pause)
    }

    /// Whether there is time for a call that starts at `starts_at`.
    pub(crate) fn has_time_for_call(&self, starts_at: Instant, deadline: Instant) -> bool {
        deadline.saturating_duration_since(starts_at) >= MIN_REMAINING.min(self.config.limits.budget / 10)
    }
}

/// The failure of a try, with what an earlier try may have done.
fn merge_prior_failure(failure: Failure, prior: Option<&Failure>, call: &Call<'_>) -> Failure {
    let Some(prior) = prior.filter(|_| !failure.unclear) else { return failure };
    if !prior.may_have_happened {
        return Failure { unclear: true, ..failure };
    }
    let key_of_caller = call.key.as_ref().is_some_and(|key| key.of_caller);
    let message = format!("{}; before that: {}", failure.message, prior.message);
    let retryable = key_of_caller && (failure.retryable || failure.try_again);
    Failure { message, may_have_happened: true, unclear: true, retryable, ..failure }
}
