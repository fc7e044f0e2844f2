//! A task as it is stored, and the rules by which it goes from state to state. Nothing here reads or writes: what happens to
//! a record is decided by plain functions, and applied by conditional writes elsewhere.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, Alias, ChannelName, NameError, OrgId, PluginName, RunId, TaskId, UserId};
use crate::core::outcome::{Failure, MESSAGE_MAX, OutcomeCode, Success, can_be_kept, cut};
use crate::core::schedule::{CatchUp, Schedule};
use crate::invoke::runs::AttemptRef;
use crate::ports::table::{Due, NewItem, TableError};
use crate::ports::timer::Work;
use crate::storage::keys;
use crate::storage::keys::ListedKind;

/// The kind of work that a task is, and the queue that tasks are due in.
pub(crate) const TASKS: &str = "task";
/// How often a run is tried where neither task nor plugin says.
pub const ATTEMPTS_DEFAULT: u32 = 3;
/// How many attempts are remembered.
pub const ATTEMPTS_KEPT: usize = 20;
/// Failed runs in a row after which a recurring task is paused.
pub const FAILURES_MAX: u32 = 10;
/// How long an ended task is listed.
pub const ENDED_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How late a run may be and still count as on time.
const ON_TIME: SignedDuration = SignedDuration::from_secs(60);
/// The longest time to wait that a service may ask for before a run counts as failed.
pub const RETRY_AFTER_MAX: SignedDuration = SignedDuration::from_hours(24);
/// The shortest and the longest pause between two attempts.
const BACK_OFF: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(1), SignedDuration::from_mins(15));

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum TaskState {
    /// Waits for its time.
    Scheduled,
    /// Waits to be resumed.
    Paused,
    /// Is being done.
    Running,
    /// Failed, and waits to be tried again.
    Retrying,
    /// Done.
    Succeeded,
    /// Not done, and not tried again by itself.
    Failed,
    /// Not to be done.
    Cancelled,
    /// Whether it was done is not known; it is not tried again by itself.
    OutcomeUnknown,
}

impl TaskState {
    /// Whether nothing more happens by itself.
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::OutcomeUnknown => true,
            Self::Scheduled | Self::Paused | Self::Running | Self::Retrying => false,
        }
    }
}

/// One attempt, as it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskAttempt {
    /// Of which run, from 1.
    pub run: u32,
    /// Which attempt of that run, from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds; absent where nobody saw its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How it went.
    pub outcome: TaskAttemptOutcome,
    /// What the failure was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<OutcomeCode>,
    /// For a person to read.
    pub message: String,
}

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskAttemptOutcome {
    /// It did what it is for.
    Succeeded,
    /// It did not.
    Failed,
    /// It may have.
    Unknown,
}

/// What the last run that succeeded returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskResult {
    /// For a person or a model to read.
    pub message: String,
    /// What the action returned; absent where it was larger than 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The service's id of what was made or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// The right to run a task once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub worker: String,
    pub since: Timestamp,
    /// When whoever claimed it must have ended: longer than any call takes.
    pub until: Timestamp,
    /// What doing the action twice would mean, as it was known then.
    #[serde(default = "worst")]
    pub effect: Effect,
}

fn worst() -> Effect {
    Effect::Unsafe
}

impl Claim {
    /// The entry in the ledger of the attempt that it is for: whoever finds the claim can tell which that is.
    pub(crate) fn run_id(&self) -> Result<RunId, NameError> {
        RunId::parse(format!("{:012x}{}", self.since.as_millisecond().max(0), self.worker))
    }
}

/// The stored record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub id: TaskId,
    pub org: OrgId,
    pub user: UserId,
    pub agent: Option<AgentId>,
    /// The channel of the agent that made it, in which the plugin has to be enabled still when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    pub plugin: PluginName,
    pub action: ActionName,
    pub integration: Option<Alias>,
    pub parameters: Map<String, Value>,
    pub schedule: Option<Schedule>,
    /// What rates count from.
    pub anchor: Timestamp,
    /// The time that the run which is next, or under way, is for.
    pub occurrence: Timestamp,
    /// When the next attempt is due.
    pub next_at: Timestamp,
    /// Somebody asked for the next run, whatever the schedule says.
    #[serde(default)]
    pub by_hand: bool,
    pub attempts_max: u32,
    pub state: TaskState,
    pub since: Timestamp,
    pub cancel_requested: bool,
    /// Grows with every change of time or parameters, so that a stale alarm is known.
    pub revision: u64,
    /// Attempts of the current run.
    pub attempt: u32,
    /// Runs that have begun.
    pub runs: u32,
    pub claim: Option<Claim>,
    /// The last attempts, the latest last.
    pub attempts: Vec<TaskAttempt>,
    pub failures_in_row: u32,
    pub result: Option<TaskResult>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// How an attempt ended, with how long it took in milliseconds.
pub(crate) struct AttemptResult {
    pub result: Result<Success, Failure>,
    pub duration_ms: u64,
}

/// What a settled attempt means for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notification {
    /// Nothing that anybody has to know.
    Nothing,
    /// The task, or a run of it, failed for good.
    Failed,
    /// Whether a run happened is not known.
    Unknown,
    /// The task was paused after too many failures.
    Paused,
}

impl Task {
    /// The attempt that a claim is for, as the ledger knows it.
    pub(super) fn attempt<'a>(&'a self, claim: &Claim) -> Result<AttemptRef<'a>, Error> {
        Ok(AttemptRef {
            run: claim.run_id().map_err(Error::internal)?,
            task: &self.id,
            org: &self.org,
            user: &self.user,
            agent: self.agent.as_ref(),
            plugin: &self.plugin,
            action: &self.action,
            integration: self.integration.as_ref(),
            since: claim.since,
            until: claim.until,
        })
    }

    /// The item that holds it: in the list of its organization, in the queue while something is due, and gone some time
    /// after its end.
    pub(super) fn item(&self) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::task(&self.org, &self.user, &self.id), self)?;
        item.list = Some(keys::in_list(&self.org, ListedKind::Tasks, self.id.as_str()));
        let at = match self.state {
            TaskState::Scheduled | TaskState::Retrying => Some(self.next_at),
            TaskState::Running => self.claim.as_ref().map(|claim| claim.until),
            TaskState::Paused
            | TaskState::Succeeded
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::OutcomeUnknown => None,
        };
        item.due = at.map(|at| Due { queue: TASKS.to_owned(), at });
        item.expires_at = self.state.is_final().then(|| self.since + ENDED_KEPT);
        Ok(item)
    }

    /// What an alarm for it carries.
    pub(super) fn work(&self) -> Work {
        let id = format!("{} {}", self.id, self.user);
        Work { org: self.org.clone(), kind: TASKS.to_owned(), id, revision: self.revision }
    }

    /// Moves to another state.
    pub(super) fn set_state(&mut self, state: TaskState, now: Timestamp) {
        (self.state, self.since, self.updated_at) = (state, now, now);
    }

    /// What follows from its time having come: a run that is too late may be left out.
    pub(super) fn catch_up(&mut self, now: Timestamp) {
        let skips = self.schedule.as_ref().is_some_and(|schedule| schedule.catch_up == CatchUp::Skip);
        let late = now.duration_since(self.occurrence) > ON_TIME;
        if self.state != TaskState::Scheduled || !late || !skips || self.by_hand {
            return;
        }
        match self.next_after(now) {
            Some(next) => (self.occurrence, self.next_at) = (next, next),
            // Its last time was missed, and is not made up for.
            None if self.result.is_some() => self.set_state(TaskState::Succeeded, now),
            None => self.set_state(TaskState::Cancelled, now),
        }
    }

    /// Takes it for `worker`.
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

    /// Writes down how an attempt ended, and decides what is next. `harmless` says whether doing it twice is the same as doing
    /// it once; `jitter` is a random number below 1.
    pub(super) fn settle(&mut self, ended: AttemptResult, harmless: bool, now: Timestamp, jitter: f64) -> Notification {
        let since = self.claim.take().map_or(now, |claim| claim.since);
        let (outcome, code, message) = match &ended.result {
            Ok(success) => (TaskAttemptOutcome::Succeeded, None, success.message.clone()),
            Err(failure) if failure.may_have_happened => {
                (TaskAttemptOutcome::Unknown, Some(failure.code), failure.message.clone())
            }
            Err(failure) => (TaskAttemptOutcome::Failed, Some(failure.code), failure.message.clone()),
        };
        self.remember(TaskAttempt {
            run: self.runs,
            number: self.attempt,
            started_at: since,
            duration_ms: Some(ended.duration_ms),
            outcome,
            code,
            message: cut(&message, MESSAGE_MAX),
        });
        match ended.result {
            Ok(Success { message, data, external_id }) => {
                let fits = can_be_kept(&data);
                let (message, external_id) = (cut(&message, MESSAGE_MAX), external_id.map(|id| cut(&id, MESSAGE_MAX)));
                self.result = Some(TaskResult { message, data: fits.then_some(data), external_id });
                self.failures_in_row = 0;
                self.run_ended(TaskState::Succeeded, now)
            }
            Err(failure) if failure.try_again && self.attempt < self.attempts_max && !asks_too_much(&failure) => {
                self.try_again(failure.retry_after_s, now, jitter)
            }
            Err(failure) if failure.may_have_happened || self.may_have_happened(harmless) => {
                self.run_failed(TaskState::OutcomeUnknown, now)
            }
            Err(_) => self.run_failed(TaskState::Failed, now),
        }
    }

    /// Whether an attempt of this run may have had its effect, and that matters.
    fn may_have_happened(&self, harmless: bool) -> bool {
        let unknown =
            |attempt: &TaskAttempt| attempt.run == self.runs && attempt.outcome == TaskAttemptOutcome::Unknown;
        !harmless && self.attempts.iter().any(unknown)
    }

    /// Nobody saw the end of an attempt: whoever claimed it is gone. `repeatable` says whether it may be tried again, and
    /// `harmless` whether doing it twice is the same as doing it once.
    pub(super) fn lapsed(&mut self, repeatable: bool, harmless: bool, now: Timestamp, jitter: f64) -> Notification {
        // Of an action that is not repeated the claim stays: should its worker come back after all, it can say how it went.
        let again = repeatable && self.attempt < self.attempts_max;
        let claim = if again || harmless { self.claim.take() } else { self.claim.clone() };
        self.remember(TaskAttempt {
            run: self.runs,
            number: self.attempt,
            started_at: claim.map_or(now, |claim| claim.since),
            duration_ms: None,
            outcome: TaskAttemptOutcome::Unknown,
            code: Some(OutcomeCode::OutcomeUnknown),
            message: "whoever was doing it was not heard of again".to_owned(),
        });
        if again {
            return self.try_again(None, now, jitter);
        }
        self.run_failed(if harmless { TaskState::Failed } else { TaskState::OutcomeUnknown }, now)
    }

    fn remember(&mut self, attempt: TaskAttempt) {
        self.attempts.push(attempt);
        let forgotten = self.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.attempts.drain(..forgotten);
    }

    fn try_again(&mut self, retry_after_s: Option<u64>, now: Timestamp, jitter: f64) -> Notification {
        if self.cancel_requested {
            self.set_state(TaskState::Cancelled, now);
            return Notification::Nothing;
        }
        // Exponential, with full jitter, so that many that failed together do not come back together.
        let longest = (BACK_OFF.0 * 2_i32.saturating_pow(self.attempt.min(20))).min(BACK_OFF.1);
        let drawn = SignedDuration::try_from_secs_f64(longest.as_secs_f64() * jitter).unwrap_or(longest);
        let asked =
            retry_after_s.and_then(|s| i64::try_from(s).ok()).map_or(SignedDuration::ZERO, SignedDuration::from_secs);
        let pause = drawn.max(BACK_OFF.0).max(asked);
        self.next_at = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        self.set_state(TaskState::Retrying, now);
        Notification::Nothing
    }

    fn run_failed(&mut self, state: TaskState, now: Timestamp) -> Notification {
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        let goes_on = !self.cancel_requested && self.next_occurrence(now).is_some();
        if goes_on && self.failures_in_row >= FAILURES_MAX {
            self.claim = None;
            self.set_state(TaskState::Paused, now);
            return Notification::Paused;
        }
        self.run_ended(state, now);
        if state == TaskState::OutcomeUnknown { Notification::Unknown } else { Notification::Failed }
    }

    /// A run has ended as `state`: a recurring task goes on.
    fn run_ended(&mut self, state: TaskState, now: Timestamp) -> Notification {
        match self.next_occurrence(now) {
            // What is not known stays to be looked at.
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
        Notification::Nothing
    }

    /// When the run after this one is for.
    fn next_occurrence(&self, now: Timestamp) -> Option<Timestamp> {
        let after = match self.schedule.as_ref()?.catch_up {
            CatchUp::All => self.occurrence,
            CatchUp::One | CatchUp::Skip => now.max(self.occurrence),
        };
        self.next_run(after)
    }

    /// When the next run after `after` is for, if it recurs and has a run left.
    pub(super) fn next_run(&self, after: Timestamp) -> Option<Timestamp> {
        let most = self.schedule.as_ref()?.max_runs;
        if most.is_some_and(|most| self.runs >= most.get()) { None } else { self.next_after(after) }
    }

    /// The first time of its schedule after `after`, if it recurs.
    fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.as_ref()?.check(self.anchor).ok()?.next_after(after)
    }
}

/// Whether a service asks to wait longer than anybody should.
fn asks_too_much(failure: &Failure) -> bool {
    let asked = failure
        .retry_after_s
        .map(|seconds| i64::try_from(seconds).map_or(SignedDuration::MAX, SignedDuration::from_secs));
    asked.is_some_and(|asked| asked > RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::outcome::KEPT_MAX_BYTES;

    fn now() -> Timestamp {
        "2026-11-21T09:00:00Z".parse().unwrap()
    }

    fn running() -> Task {
        let mut task = Task {
            id: TaskId::parse("0").unwrap(),
            org: OrgId::parse("acme").unwrap(),
            user: UserId::parse("ann").unwrap(),
            agent: None,
            channel: None,
            plugin: PluginName::parse("p").unwrap(),
            action: ActionName::parse("a").unwrap(),
            integration: None,
            parameters: Map::new(),
            schedule: None,
            anchor: now(),
            occurrence: now(),
            next_at: now(),
            by_hand: false,
            attempts_max: 3,
            state: TaskState::Scheduled,
            since: now(),
            cancel_requested: false,
            revision: 1,
            attempt: 0,
            runs: 0,
            claim: None,
            attempts: Vec::new(),
            failures_in_row: 0,
            result: None,
            created_at: now(),
            updated_at: now(),
        };
        task.claim("w".to_owned(), Effect::Unsafe, now(), SignedDuration::from_secs(150));
        task
    }

    fn failed(retry_after_s: Option<u64>) -> AttemptResult {
        let failure = Failure::new(OutcomeCode::RateLimited, "later".to_owned(), true);
        AttemptResult { result: Err(Failure { retry_after_s, ..failure }), duration_ms: 1 }
    }

    fn succeeded(data: Value) -> AttemptResult {
        // As JSON has it, each character takes six bytes.
        let (message, external_id) = ("\u{1}".repeat(MESSAGE_MAX + 1), Some("\u{1}".repeat(MESSAGE_MAX)));
        AttemptResult { result: Ok(Success { message, data, external_id }), duration_ms: 1 }
    }

    #[test]
    fn pauses_are_drawn_between_a_second_and_fifteen_minutes() {
        for (attempt, jitter, seconds) in [
            (1, 0.0, 1.0),
            (1, 0.75, 1.5),
            (2, 0.75, 3.0),
            (9, 0.5, 256.0),
            (10, 0.999_999, 899.9991),
            (30, 0.5, 450.0),
        ] {
            let mut task = running();
            (task.attempt, task.attempts_max) = (attempt, 100);
            task.settle(failed(None), true, now(), jitter);
            let pause = task.next_at.duration_since(now()).as_secs_f64();
            assert!((pause - seconds).abs() < 0.001, "{attempt} {jitter}: {pause}");
        }
    }

    #[test]
    fn a_service_may_ask_for_a_day_and_no_more() {
        for (asked, state) in
            [(86_400, TaskState::Retrying), (86_401, TaskState::Failed), (u64::MAX, TaskState::Failed)]
        {
            let mut task = running();
            task.settle(failed(Some(asked)), true, now(), 0.5);
            assert_eq!(task.state, state, "{asked}");
        }
    }

    #[test]
    fn a_worker_that_is_gone_means_again_or_unknown() {
        for (repeatable, harmless, attempt, state) in [
            (true, true, 1, TaskState::Retrying),
            (true, true, 2, TaskState::Retrying),
            (true, true, 3, TaskState::Failed),
            (true, false, 2, TaskState::Retrying),
            (true, false, 3, TaskState::OutcomeUnknown),
            (false, false, 1, TaskState::OutcomeUnknown),
        ] {
            let mut task = running();
            task.attempt = attempt;
            task.lapsed(repeatable, harmless, now(), 0.5);
            let stays = state == TaskState::OutcomeUnknown;
            assert_eq!((task.state, task.claim.is_some()), (state, stays), "{repeatable} {attempt}");
            assert_eq!(task.attempts.last().unwrap().outcome, TaskAttemptOutcome::Unknown);
        }
    }

    #[test]
    fn what_was_asked_for_by_hand_is_not_skipped_also_at_a_time_of_its_schedule() {
        for (by_hand, skipped) in [(false, true), (true, false)] {
            let mut task = running();
            task.schedule = serde_json::from_value(json!({ "cron": "0/15 * * * ? *", "catchUp": "skip" })).unwrap();
            // It is a quarter of an hour.
            (task.occurrence, task.next_at, task.by_hand) = (now(), now(), by_hand);
            task.set_state(TaskState::Scheduled, now());
            task.catch_up(now() + SignedDuration::from_mins(5));
            assert_eq!(task.occurrence != now(), skipped);
        }
    }

    #[test]
    fn a_result_is_kept_as_far_as_it_fits_and_reads_back() {
        let text = |bytes: usize| json!("x".repeat(bytes - 2));
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        for (data, kept) in
            [(text(KEPT_MAX_BYTES), true), (text(KEPT_MAX_BYTES + 1), false), (nested(64), true), (nested(65), false)]
        {
            let mut task = running();
            task.settle(succeeded(data), true, now(), 0.5);
            let item = task.item().unwrap();
            let read: Task = serde_json::from_str(&item.body).unwrap();
            let result = read.result.unwrap();
            assert_eq!(result.data.is_some(), kept);
            assert_eq!(result.message.chars().count(), MESSAGE_MAX + 1);
            assert_eq!(result.external_id.unwrap().len(), MESSAGE_MAX);
        }
    }

    #[test]
    fn the_largest_task_fits_into_an_item() {
        let mut task = running();
        let most = crate::tasks::PARAMETERS_MAX_BYTES;
        task.parameters = Map::from_iter([("a".to_owned(), json!("\"".repeat((most - 8) / 2)))]);
        assert_eq!(serde_json::to_string(&task.parameters).unwrap().len(), most);
        for _ in 0..ATTEMPTS_KEPT {
            task.settle(succeeded(json!("\"".repeat(KEPT_MAX_BYTES / 2 - 1))), true, now(), 0.5);
            task.claim("w".to_owned(), Effect::Unsafe, now(), SignedDuration::from_secs(150));
        }
        assert!(task.result.as_ref().unwrap().data.is_some());
        crate::ports::table::check_item(&task.item().unwrap()).unwrap();
    }
}
