//! A worker stores the result of an attempt, sets the next alarm and notifies subscribers.

use jiff::Timestamp;
use serde_json::json;

use super::record::{Task, TaskState};
use super::transition::{AttemptResult, Notification};
use crate::core::error::{Error, causes};
use crate::engine::Engine;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Read, TableError};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// How often a worker tries to store a result.
const SETTLE_TRIES: usize = 3;

impl Engine {
    /// Stores the result of an attempt if the worker still holds the claim. Retries when the store fails: the outcome would
    /// otherwise become unknown.
    pub(super) async fn settle_task(&self, task: &Task, worker: &str, attempt: AttemptResult) -> Result<(), Error> {
        for _ in 1..SETTLE_TRIES {
            match self.try_settle_task(task, worker, &attempt).await {
                Err(Error::Table(error @ TableError::Store(_))) => {
                    tracing::error!(org = %task.org, task = %task.id, error = %causes(&error), "failed to store task result; retrying");
                }
                result => return result,
            }
        }
        self.try_settle_task(task, worker, &attempt).await
    }

    async fn try_settle_task(&self, task: &Task, worker: &str, attempt: &AttemptResult) -> Result<(), Error> {
        let key = keys::task(&task.org, &task.user, &task.id);
        let jitter = self.jitter();
        let mut current = self.ports.table.get(&key, Read::Consistent).await?;
        let mut race = CompareAndSet::default();
        loop {
            let Some(item) = current else { return Ok(()) };
            let mut task: Task = item.record()?;
            if !task.is_claimed_by(worker) || !matches!(task.state, TaskState::Running | TaskState::OutcomeUnknown) {
                tracing::warn!(org = %task.org, task = %task.id, "task claim expired before its worker reported; result dropped");
                return Ok(());
            }
            if task.state == TaskState::OutcomeUnknown {
                task.reopen_unknown_attempt();
            }
            let repeatable = self.is_repeatable(&task).await?;
            let notification = task.settle(attempt.clone(), repeatable, self.ports.clock.now(), jitter);
            let event = self.event_of(&task, notification);
            match self.put_with(task.item()?, Condition::Version(item.version), event.as_ref()).await {
                Ok(()) => {
                    self.after_transition(&task, event).await;
                    return Ok(());
                }
                Err(error) => current = race.after_lost_race(error, "the task")?,
            }
        }
    }

    /// The event that notifies subscribers of a task's new state, if any.
    pub(super) fn event_of(&self, task: &Task, notification: Notification) -> Option<Event> {
        let kind = match notification {
            Notification::None => return None,
            Notification::Failed => EventKind::TaskFailed,
            Notification::OutcomeUnknown => EventKind::TaskOutcomeUnknown,
            Notification::Paused => EventKind::TaskPaused,
        };
        let detail = json!({
            "taskId": task.id, "userId": task.user, "agentId": task.agent, "tool": task.plugin, "intent": task.action,
            "status": task.state, "lastAttempt": task.attempts.last(),
        });
        Some(self.event(&task.org, kind, &detail))
    }

    /// Call this after a task's new state is stored: sets the alarm of its next attempt and publishes the event.
    pub(super) async fn after_transition(&self, task: &Task, event: Option<Event>) {
        if task.is_waiting() {
            self.set_alarm(task, task.next_at).await;
        }
        if let Some(event) = event {
            self.publish(event).await;
        }
    }

    /// Sets the alarm of a task. A failure is only logged, because the sweep finds the task when it is due.
    pub(super) async fn set_alarm(&self, task: &Task, at: Timestamp) {
        if let Err(error) = self.ports.timer.set(task.work(), at).await {
            tracing::error!(org = %task.org, task = %task.id, error = %causes(&error), "failed to schedule alarm; the sweep retries it");
        }
    }
}
