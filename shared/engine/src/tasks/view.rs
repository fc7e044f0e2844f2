//! A task as callers see it.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::record::{Task, TaskAttempt, TaskResult, TaskState};
use crate::core::ids::{ActionName, AgentId, Alias, PluginName, TaskId, UserId};
use crate::core::schedule::Schedule;

/// A task in an answer. Lists leave out `context`, `attempts` and `result`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    /// The task's id.
    pub id: TaskId,
    /// Its current state.
    pub status: TaskState,
    /// When it entered that state.
    pub since: Timestamp,
    /// The user whose account is used.
    pub user_id: UserId,
    /// The agent that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The plugin.
    pub tool: PluginName,
    /// The action's own name, not an alias.
    pub intent: ActionName,
    /// The alias of the account, if the caller named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration: Option<Alias>,
    /// The scheduled time of the run that is next or in flight, or else of the last run.
    pub scheduled_time: Timestamp,
    /// When the next attempt is due, in the states `scheduled` and `retrying`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// The schedule of a recurring task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The most attempts of one run.
    pub max_attempts: u32,
    /// Runs that have started.
    pub runs: u32,
    /// Runs that failed since the last success.
    pub failures_in_row: u32,
    /// A caller cancelled it during a run: it does not continue after that run.
    pub cancel_requested: bool,
    /// Its parameters; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
    /// Its last attempts; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<TaskAttempt>>,
    /// The result of the last run that succeeded; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// When the caller created it.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Task {
    /// The view in a list.
    pub(super) fn summary(&self) -> TaskView {
        TaskView {
            id: self.id.clone(),
            status: self.state,
            since: self.since,
            user_id: self.user.clone(),
            agent_id: self.agent.clone(),
            tool: self.plugin.clone(),
            intent: self.action.clone(),
            integration: self.integration.clone(),
            scheduled_time: self.occurrence,
            next_attempt_at: self.is_waiting().then_some(self.next_at),
            schedule: self.schedule.clone(),
            max_attempts: self.attempts_max,
            runs: self.runs,
            failures_in_row: self.failures_in_row,
            cancel_requested: self.cancel_requested,
            context: None,
            attempts: None,
            result: None,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }

    /// The view of one task, with its parameters, attempts and result.
    pub(super) fn detail(&self) -> TaskView {
        TaskView {
            context: Some(self.parameters.clone()),
            attempts: Some(self.attempts.clone()),
            result: self.result.clone(),
            ..self.summary()
        }
    }
}
