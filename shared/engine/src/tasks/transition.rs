//! The state machine of a task: which state follows a due time, a result or an expired claim. These functions only change
//! the record in memory; `claim` and `settle` store it with conditional writes.

use jiff::{SignedDuration, Timestamp};

use super::record::{Claim, Task, TaskAttempt, TaskAttemptOutcome, TaskResult, TaskState};
use crate::core::effect::Effect;
use crate::core::outcome::{Failure, MESSAGE_MAX, OutcomeCode, Success, can_be_kept, cut};
use crate::core::schedule::CatchUp;

/// How many of its last attempts a task stores.
const ATTEMPTS_KEPT: usize = 20;
/// Failed runs in a row after which a recurring task is paused.
pub const FAILURES_MAX: u32 = 10;
/// How late a run may start and still be on time.
const ON_TIME: SignedDuration = SignedDuration::from_secs(60);
/// The longest wait that a service may request before a retry. A longer one makes the run fail.
const RETRY_AFTER_MAX: SignedDuration = SignedDuration::from_hours(24);
/// The shortest pause between two attempts.
const BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(1);
/// The longest pause between two attempts, unless the service requests a longer one.
const BACKOFF_MAX: SignedDuration = SignedDuration::from_mins(15);

/// What a worker can do with a task at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DueState {
    /// Nothing: the task waits for a caller, has ended, or another worker's claim is valid.
    NotDue,
    /// Nothing yet: its next attempt is due later.
    Early,
    /// Claim it: its next attempt is due.
    Ready,
    /// Decide what follows: its worker did not report a result before the claim expired.
    ClaimExpired,
}

/// The result of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct AttemptResult {
    pub result: Result<Success, Failure>,
    pub duration_ms: u64,
}

/// What subscribers are notified of after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notification {
    /// Nothing.
    None,
    /// The task, or one run of it, failed and is not retried.
    Failed,
    /// It is unknown whether a run had its effect.
    OutcomeUnknown,
    /// The task was paused after too many failed runs in a row.
    Paused,
}

/// What Overseer knows of an attempt whose claim expired.
#[derive(Debug)]
pub(super) enum ExpiredClaim {
    /// Its result: the worker stored it in the ledger, or never started the call.
    Settled(AttemptResult),
    /// Nothing, but a retry is safe.
    Retryable,
    /// Nothing, and a retry could repeat the effect.
    Unknown,
}

impl Task {
    /// What a worker can do with the task at `now`.
    pub(super) fn due_state(&self, now: Timestamp) -> DueState {
        match self.state {
            TaskState::Scheduled | TaskState::Retrying if self.next_at > now => DueState::Early,
            TaskState::Scheduled | TaskState::Retrying => DueState::Ready,
            TaskState::Running if self.claim.as_ref().is_some_and(|claim| claim.until <= now) => DueState::ClaimExpired,
            TaskState::Running
            | TaskState::Paused
            | TaskState::Succeeded
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::OutcomeUnknown => DueState::NotDue,
        }
    }

    /// Moves to another state.
    pub(super) fn set_state(&mut self, state: TaskState, now: Timestamp) {
        (self.state, self.since, self.updated_at) = (state, now, now);
    }

    /// Skips a scheduled run that is too late, if the schedule says so. Returns whether it skipped one.
    pub(super) fn skip_missed_run(&mut self, now: Timestamp) -> bool {
        let skips = self.schedule.as_ref().is_some_and(|schedule| schedule.catch_up == CatchUp::Skip);
        let late = now.duration_since(self.occurrence) > ON_TIME;
        if self.state != TaskState::Scheduled || !late || !skips || self.by_hand {
            return false;
        }
        match self.next_after(now) {
            Some(next) => (self.occurrence, self.next_at) = (next, next),
            // The last run was missed: an earlier result decides how the task ends.
            None if self.result.is_some() => self.set_state(TaskState::Succeeded, now),
            None => self.set_state(TaskState::Cancelled, now),
        }
        true
    }

    /// Claims the task for `worker` until `lease` has passed.
    pub(super) fn claim(&mut self, worker: String, effect: Effect, now: Timestamp, lease: SignedDuration) {
        if self.state == TaskState::Scheduled {
            self.runs = self.runs.saturating_add(1);
            self.attempt = 0;
        }
        self.by_hand = false;
        self.attempt = self.attempt.saturating_add(1);
        self.claim = Some(Claim { worker, since: now, until: now + lease, effect });
        self.set_state(TaskState::Running, now);
    }

    /// Removes the attempt that was recorded as unknown when the claim expired: its worker has reported the result now.
    pub(super) fn reopen_unknown_attempt(&mut self) {
        self.attempts.pop();
        self.failures_in_row = self.failures_in_row.saturating_sub(1);
    }

    /// Records the result of the claimed attempt and moves to the next state. `repeatable` says whether a second execution
    /// of the action changes nothing more; `jitter` is a random number in `0.0..1.0`.
    pub(super) fn settle(
        &mut self,
        attempt: AttemptResult,
        repeatable: bool,
        now: Timestamp,
        jitter: f64,
    ) -> Notification {
        let started_at = self.claim.take().map_or(now, |claim| claim.since);
        let AttemptResult { result, duration_ms } = attempt;
        self.record_result(&result, started_at, duration_ms);
        match result {
            Ok(success) => {
                self.store_result(success);
                self.failures_in_row = 0;
                self.finish_run(TaskState::Succeeded, now);
                Notification::None
            }
            Err(failure) if failure.try_again && self.has_attempt_left() && !is_wait_too_long(&failure) => {
                self.schedule_retry(failure.retry_after_s, now, jitter);
                Notification::None
            }
            Err(failure) if failure.may_have_happened || (!repeatable && self.run_has_unknown_attempt()) => {
                self.fail_run(TaskState::OutcomeUnknown, now)
            }
            Err(_) => self.fail_run(TaskState::Failed, now),
        }
    }

    /// Moves to the next state after the claim expired. `repeatable` and `jitter` are those of [`Self::settle`].
    pub(super) fn settle_expired(
        &mut self,
        expired: ExpiredClaim,
        repeatable: bool,
        now: Timestamp,
        jitter: f64,
    ) -> Notification {
        match expired {
            ExpiredClaim::Settled(attempt) => self.settle(attempt, repeatable, now, jitter),
            ExpiredClaim::Retryable => self.expire_claim(true, repeatable, now, jitter),
            ExpiredClaim::Unknown => self.expire_claim(false, repeatable, now, jitter),
        }
    }

    /// Records an attempt whose worker reported no result. Retries it if that is safe (`retryable`) and an attempt is left.
    fn expire_claim(&mut self, retryable: bool, repeatable: bool, now: Timestamp, jitter: f64) -> Notification {
        let retries = retryable && self.has_attempt_left();
        // Without a retry the claim of an unsafe action stays, so that a late worker can still report its result.
        let claim = if retries || repeatable { self.claim.take() } else { self.claim.clone() };
        self.record_attempt(TaskAttempt {
            run: self.runs,
            number: self.attempt,
            started_at: claim.map_or(now, |claim| claim.since),
            duration_ms: None,
            outcome: TaskAttemptOutcome::Unknown,
            code: Some(OutcomeCode::OutcomeUnknown),
            message: "the worker's claim expired before it reported a result".to_owned(),
        });
        if retries {
            self.schedule_retry(None, now, jitter);
            return Notification::None;
        }
        self.fail_run(if repeatable { TaskState::Failed } else { TaskState::OutcomeUnknown }, now)
    }

    fn record_result(&mut self, result: &Result<Success, Failure>, started_at: Timestamp, duration_ms: u64) {
        let (outcome, code, message) = match result {
            Ok(success) => (TaskAttemptOutcome::Succeeded, None, &success.message),
            Err(failure) if failure.may_have_happened => {
                (TaskAttemptOutcome::Unknown, Some(failure.code), &failure.message)
            }
            Err(failure) => (TaskAttemptOutcome::Failed, Some(failure.code), &failure.message),
        };
        self.record_attempt(TaskAttempt {
            run: self.runs,
            number: self.attempt,
            started_at,
            duration_ms: Some(duration_ms),
            outcome,
            code,
            message: cut(message, MESSAGE_MAX),
        });
    }

    fn record_attempt(&mut self, attempt: TaskAttempt) {
        self.attempts.push(attempt);
        let excess = self.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.attempts.drain(..excess);
    }

    fn store_result(&mut self, success: Success) {
        let Success { message, data, external_id } = success;
        let fits = can_be_kept(&data);
        self.result = Some(TaskResult {
            message: cut(&message, MESSAGE_MAX),
            data: fits.then_some(data),
            external_id: external_id.map(|id| cut(&id, MESSAGE_MAX)),
        });
    }

    fn has_attempt_left(&self) -> bool {
        self.attempt < self.attempts_max
    }

    /// Whether an earlier attempt of this run may have had its effect.
    fn run_has_unknown_attempt(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.run == self.runs && attempt.outcome == TaskAttemptOutcome::Unknown)
    }

    /// Plans the next attempt, or ends the task if a caller cancelled it.
    fn schedule_retry(&mut self, retry_after_s: Option<u64>, now: Timestamp, jitter: f64) {
        if self.cancel_requested {
            self.set_state(TaskState::Cancelled, now);
            return;
        }
        // Exponential backoff with full jitter: tasks that failed together are retried at different times.
        let longest = (BACKOFF_MIN * 2_i32.saturating_pow(self.attempt.min(20))).min(BACKOFF_MAX);
        let backoff = SignedDuration::try_from_secs_f64(longest.as_secs_f64() * jitter).unwrap_or(longest);
        let requested =
            retry_after_s.and_then(|s| i64::try_from(s).ok()).map_or(SignedDuration::ZERO, SignedDuration::from_secs);
        let pause = backoff.max(BACKOFF_MIN).max(requested);
        self.next_at = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        self.set_state(TaskState::Retrying, now);
    }

    /// Ends a run without success. Pauses a recurring task after too many of them in a row.
    fn fail_run(&mut self, state: TaskState, now: Timestamp) -> Notification {
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        let continues = !self.cancel_requested && self.next_occurrence(now).is_some();
        if continues && self.failures_in_row >= FAILURES_MAX {
            self.claim = None;
            self.set_state(TaskState::Paused, now);
            return Notification::Paused;
        }
        self.finish_run(state, now);
        if state == TaskState::OutcomeUnknown { Notification::OutcomeUnknown } else { Notification::Failed }
    }

    /// Ends a run in `state`. A recurring task waits for its next occurrence.
    fn finish_run(&mut self, state: TaskState, now: Timestamp) {
        match self.next_occurrence(now) {
            // An unknown outcome stays visible, so that a person can check it.
            Some(_) if self.cancel_requested && state != TaskState::OutcomeUnknown => {
                self.set_state(TaskState::Cancelled, now);
            }
            Some(_) if self.cancel_requested => self.set_state(state, now),
            Some(next) => {
                (self.occurrence, self.next_at, self.claim) = (next, next, None);
                self.set_state(TaskState::Scheduled, now);
            }
            None => self.set_state(state, now),
        }
    }

    /// The scheduled time of the run after this one.
    fn next_occurrence(&self, now: Timestamp) -> Option<Timestamp> {
        let after = match self.schedule.as_ref()?.catch_up {
            CatchUp::All => self.occurrence,
            CatchUp::One | CatchUp::Skip => now.max(self.occurrence),
        };
        self.next_run(after)
    }

    /// The scheduled time of the next run after `after`, if the task recurs and has a run left.
    pub(super) fn next_run(&self, after: Timestamp) -> Option<Timestamp> {
        let max_runs = self.schedule.as_ref()?.max_runs;
        if max_runs.is_some_and(|max_runs| self.runs >= max_runs.get()) { None } else { self.next_after(after) }
    }

    /// The first time of its schedule after `after`, if the task recurs.
    fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.as_ref()?.check(self.anchor).ok()?.next_after(after)
    }
}

/// Whether the service requests a longer wait than a task accepts.
fn is_wait_too_long(failure: &Failure) -> bool {
    let requested = failure
        .retry_after_s
        .map(|seconds| i64::try_from(seconds).map_or(SignedDuration::MAX, SignedDuration::from_secs));
    requested.is_some_and(|requested| requested > RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests;
