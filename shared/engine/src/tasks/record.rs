//! A task as it is stored.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, Alias, ChannelName, NameError, OrgId, PluginName, RunId, TaskId, UserId};
use crate::core::outcome::OutcomeCode;
use crate::core::schedule::Schedule;
use crate::invoke::runs::AttemptRef;
use crate::ports::table::{NewItem, TableError};
use crate::ports::timer::{Queue, Work, WorkKind};
use crate::storage::keys;
use crate::storage::keys::ListedKind;

/// How long a task stays stored after its final state.
const ENDED_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum TaskState {
    /// Waits for its scheduled time.
    Scheduled,
    /// Waits for a caller to resume it.
    Paused,
    /// A worker has claimed it.
    Running,
    /// The last attempt failed, and the next waits for its time.
    Retrying,
    /// The last run succeeded.
    Succeeded,
    /// The last run failed and is not retried.
    Failed,
    /// A caller cancelled it, or its last run was missed and skipped.
    Cancelled,
    /// It is unknown whether the last run had its effect; it is not retried.
    OutcomeUnknown,
}

impl TaskState {
    /// Whether the task stays in this state until a caller retries it.
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::OutcomeUnknown => true,
            Self::Scheduled | Self::Paused | Self::Running | Self::Retrying => false,
        }
    }
}

/// One attempt of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskAttempt {
    /// The number of the run, from 1.
    pub run: u32,
    /// The number of the attempt within its run, from 1.
    pub number: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds; absent if its worker never reported a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Its outcome.
    pub outcome: TaskAttemptOutcome,
    /// The code of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<OutcomeCode>,
    /// The result or failure in words for a person.
    pub message: String,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskAttemptOutcome {
    /// The action had its effect.
    Succeeded,
    /// The action had no effect.
    Failed,
    /// The action may have had its effect.
    Unknown,
}

/// The result of the last run that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskResult {
    /// In words for a person or a model.
    pub message: String,
    /// The data that the action returned; absent if larger than 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The service's id of what the action created or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// A worker's lease on one attempt of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub worker: String,
    pub since: Timestamp,
    /// When the claim expires: later than any call of the worker ends.
    pub until: Timestamp,
    /// The action's effect in the plugin version of that time. Records without it count as unsafe.
    #[serde(default = "unsafe_effect")]
    pub effect: Effect,
}

fn unsafe_effect() -> Effect {
    Effect::Unsafe
}

impl Claim {
    /// The id of the attempt's entry in the ledger. It is derived from the claim, so another worker that reads the claim
    /// finds the entry.
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
    /// The channel of the agent that created it. The plugin must still be enabled there when the task runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    pub plugin: PluginName,
    pub action: ActionName,
    pub integration: Option<Alias>,
    pub parameters: Map<String, Value>,
    pub schedule: Option<Schedule>,
    /// The time from which a `rate` counts.
    pub anchor: Timestamp,
    /// The scheduled time of the run that is next or in flight.
    pub occurrence: Timestamp,
    /// When the next attempt is due.
    pub next_at: Timestamp,
    /// A caller requested the next run outside the schedule.
    #[serde(default)]
    pub by_hand: bool,
    pub attempts_max: u32,
    pub state: TaskState,
    pub since: Timestamp,
    pub cancel_requested: bool,
    /// Grows with every change of the time or the parameters. An alarm of an earlier revision is stale.
    pub revision: u64,
    /// Attempts of the current run.
    pub attempt: u32,
    /// Runs that have started.
    pub runs: u32,
    pub claim: Option<Claim>,
    /// The last attempts, oldest first.
    pub attempts: Vec<TaskAttempt>,
    pub failures_in_row: u32,
    pub result: Option<TaskResult>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Task {
    /// The attempt of a claim, as the ledger identifies it.
    pub(super) fn attempt_ref<'a>(&'a self, claim: &Claim) -> Result<AttemptRef<'a>, Error> {
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

    /// The item that stores the task: in its organization's list, in the queue while an attempt or an expired claim is
    /// due, and with an expiry once its state is final.
    pub(super) fn item(&self) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::task(&self.org, &self.user, &self.id), self)?;
        item.list = Some(keys::in_list(&self.org, ListedKind::Tasks, self.id.as_str()));
        let due_at = match self.state {
            TaskState::Scheduled | TaskState::Retrying => Some(self.next_at),
            TaskState::Running => self.claim.as_ref().map(|claim| claim.until),
            TaskState::Paused
            | TaskState::Succeeded
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::OutcomeUnknown => None,
        };
        item.due = due_at.map(|at| Queue::Tasks.due(at));
        item.expires_at = self.state.is_final().then(|| self.since + ENDED_KEPT);
        Ok(item)
    }

    /// The work that an alarm of the task carries; [`task_key_of`] reads it back.
    pub(super) fn work(&self) -> Work {
        let id = format!("{} {}", self.id, self.user);
        Work { org: self.org.clone(), kind: WorkKind::Task, id, revision: self.revision }
    }

    /// Whether the task waits for the time of its next attempt, and so has an alarm.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, TaskState::Scheduled | TaskState::Retrying)
    }

    /// Whether `worker` holds the task's claim.
    pub(super) fn is_claimed_by(&self, worker: &str) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.worker == worker)
    }
}

/// The id and the user of the task that an alarm is for, if the alarm's id names a task.
pub(super) fn task_key_of(work: &Work) -> Option<(TaskId, UserId)> {
    let (id, user) = work.id.split_once(' ')?;
    Some((TaskId::parse(id).ok()?, UserId::parse(user).ok()?))
}
