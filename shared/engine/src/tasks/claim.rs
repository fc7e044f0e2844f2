//! A worker claims a task that is due, so that only one worker runs it, and decides what follows when a claim expired.

use jiff::Timestamp;

use super::record::{Task, TaskState};
use super::transition::{AttemptResult, DueState, ExpiredClaim};
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::outcome::{Failure, OutcomeCode};
use crate::engine::Engine;
use crate::invoke::attempt::lease;
use crate::invoke::runs::ExpiredAttempt;
use crate::ports::table::{Condition, Item, Read, TableError};

/// The result of one try to claim a task.
pub(super) enum ClaimResult {
    /// Nothing is due.
    NotDue,
    /// The record changed: read it again.
    Reload,
    /// This worker runs the task.
    Claimed(Box<Task>),
}

impl Engine {
    /// Claims a task that is due. If another worker's claim expired, decides what follows instead.
    pub(super) async fn claim_task(&self, item: &Item, worker: &str) -> Result<ClaimResult, Error> {
        let task: Task = item.record()?;
        let now = self.ports.clock.now();
        match task.due_state(now) {
            DueState::NotDue => Ok(ClaimResult::NotDue),
            DueState::Early => {
                // The alarm fired too early, or a caller has moved the task since it was set.
                self.set_alarm(&task, task.next_at).await;
                Ok(ClaimResult::NotDue)
            }
            DueState::Ready => self.claim_ready_task(task, item, worker, now).await,
            DueState::ClaimExpired => self.settle_expired_claim(task, item, now).await,
        }
    }

    async fn claim_ready_task(
        &self,
        mut task: Task,
        item: &Item,
        worker: &str,
        now: Timestamp,
    ) -> Result<ClaimResult, Error> {
        let unchanged = || Condition::Version(item.version.clone());
        if task.skip_missed_run(now) {
            return match self.ports.table.put(task.item()?, unchanged()).await {
                Ok(_) | Err(TableError::Condition { .. }) => Ok(ClaimResult::Reload),
                Err(error) => Err(error.into()),
            };
        }
        let effect = self.effect_of(&task).await?;
        task.claim(worker.to_owned(), effect, now, lease(self.config.limits.task_budget));
        match self.ports.table.put(task.item()?, unchanged()).await {
            Ok(_) => Ok(ClaimResult::Claimed(Box::new(task))),
            Err(TableError::Condition { .. }) => Ok(ClaimResult::Reload),
            // The store may have written it. The action has not started, so this worker runs it if the claim is stored.
            Err(error) => {
                let stored = self.ports.table.get(&item.stored.key, Read::Consistent).await?;
                let stored: Option<Task> = stored.as_ref().map(Item::record).transpose()?;
                let claimed = stored.filter(|task| task.state == TaskState::Running && task.is_claimed_by(worker));
                claimed.map(|task| ClaimResult::Claimed(Box::new(task))).ok_or(error.into())
            }
        }
    }

    /// Settles the attempt of a worker whose claim expired. If another worker does so first, its decision counts.
    async fn settle_expired_claim(&self, mut task: Task, item: &Item, now: Timestamp) -> Result<ClaimResult, Error> {
        let repeatable = self.is_repeatable(&task).await?;
        let expired = self.judge_expired_claim(&task).await?;
        let notification = task.settle_expired(expired, repeatable, now, self.jitter());
        let event = self.event_of(&task, notification);
        match self.put_with(task.item()?, Condition::Version(item.version.clone()), event.as_ref()).await {
            Ok(()) => {
                tracing::warn!(org = %task.org, task = %task.id, state = ?task.state, "task claim expired; attempt settled");
                self.after_transition(&task, event).await;
                Ok(ClaimResult::Reload)
            }
            Err(TableError::Condition { .. }) => Ok(ClaimResult::Reload),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds out what is known of an attempt whose claim expired. An attempt that has not started the call is fenced: its
    /// worker cannot start it any more.
    async fn judge_expired_claim(&self, task: &Task) -> Result<ExpiredClaim, Error> {
        // The plugin's version may have changed since the claim: the worse effect of the two versions counts.
        let claimed_effect = task.claim.as_ref().map_or(Effect::Unsafe, |claim| claim.effect);
        let effect = self.effect_of(task).await?.max(claimed_effect);
        if effect == Effect::Read {
            // The ledger has no entries of actions that only read.
            return Ok(ExpiredClaim::Retryable);
        }
        let fenced = match &task.claim {
            Some(claim) => self.fence_attempt(task.attempt_ref(claim)?, effect).await?,
            None => ExpiredAttempt::Unknown,
        };
        Ok(match fenced {
            ExpiredAttempt::NeverBegun => ExpiredClaim::Settled(never_started()),
            ExpiredAttempt::Ended { result, duration_ms } => {
                ExpiredClaim::Settled(AttemptResult { result, duration_ms })
            }
            ExpiredAttempt::Unknown => match effect {
                // The service deduplicates a keyed action.
                Effect::Read | Effect::Idempotent | Effect::Keyed => ExpiredClaim::Retryable,
                Effect::Unsafe => ExpiredClaim::Unknown,
            },
        })
    }

    /// The effect of a task's action in the current plugin version. Unsafe if the plugin or the action is gone.
    async fn effect_of(&self, task: &Task) -> Result<Effect, Error> {
        let plugin = match self.plugin_if_any(&task.org, &task.plugin).await {
            // The stored manifest cannot be read any more.
            Err(Error::Unavailable(_)) => None,
            result => result?,
        };
        let effect = plugin.and_then(|plugin| Some(plugin.action(task.action.as_str()).ok()?.action.effect));
        Ok(effect.unwrap_or(Effect::Unsafe))
    }

    /// Whether a second execution of a task's action changes nothing more.
    pub(super) async fn is_repeatable(&self, task: &Task) -> Result<bool, Error> {
        Ok(self.effect_of(task).await?.is_repeatable())
    }
}

/// The result of an attempt that was fenced before its worker started the call: nothing was sent, so a retry is safe.
fn never_started() -> AttemptResult {
    let message = "the worker's claim expired before it started the call; nothing was sent".to_owned();
    AttemptResult { result: Err(Failure::new(OutcomeCode::Unavailable, message, true)), duration_ms: 0 }
}
