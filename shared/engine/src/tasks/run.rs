//! Running what is due: claimed before it happens, once, whoever fires how often.

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::record::{AttemptResult, Claim, Notification, TASKS, Task, TaskState};
use crate::accounts::{PENDING, pending_work};
use crate::core::effect::Effect;
use crate::core::error::{Error, causes};
use crate::core::ids::{TaskId, UserId};
use crate::core::outcome::{Failure, Outcome, OutcomeCode};
use crate::core::work_report::WorkReport;
use crate::engine::Engine;
use crate::events::{WEBHOOKS, webhook_work};
use crate::invoke::attempt::lease;
use crate::invoke::request::{ActionRequest, Origin};
use crate::invoke::runs::{Fenced, Replayable};
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{BATCH_MAX, Condition, Item, Read, TableError, Version};
use crate::ports::timer::Work;
use crate::registry::contention;
use crate::storage::keys;

/// How often it is tried to write down how an attempt ended.
const SETTLE_TRIES: usize = 3;
/// The most that one sweep looks at.
const SWEEP_MAX: usize = 10_000;

/// What is known of an attempt whose worker is gone.
enum ExpiredClaim {
    /// How it ended: the worker came so far as to write that to the ledger.
    Settled(AttemptResult),
    /// It may be done again.
    Again,
    /// Nothing.
    Unknown,
}

/// What a look at a task led to.
enum ClaimResult {
    /// There is nothing to do.
    Nothing,
    /// It was changed, and is to be looked at again.
    Again,
    /// This worker is to run it.
    Claimed(Box<Task>),
}

impl Engine {
    /// Runs the task that an alarm stands for, if it is due and nobody else has it. `deadline` is when this process has to
    /// be done; a task that might take longer is left.
    pub(crate) async fn run_due(&self, work: &Work, deadline: Option<Instant>) -> Result<WorkReport, Error> {
        let Some((id, user)) = task_of(work) else { return Ok(WorkReport::default()) };
        if deadline.is_some_and(|deadline| Instant::now() + self.config.limits.task_budget > deadline) {
            return Ok(WorkReport { due: 1, left: 1, ..WorkReport::default() });
        }
        let worker = self.ports.ids.hex(8);
        let task = loop {
            let item = self.ports.table.get(&keys::task(&work.org, &user, &id), Read::Consistent).await?;
            let Some(item) = item else { return Ok(WorkReport::default()) };
            match self.claim_task(&item, &worker).await? {
                ClaimResult::Nothing => return Ok(WorkReport::default()),
                ClaimResult::Again => {}
                ClaimResult::Claimed(task) => break task,
            }
        };
        // A worker that was frozen since it claimed the task must not begin what another may have judged already.
        let claim = task.claim.as_ref().filter(|claim| self.ports.clock.now() < claim.until);
        let Some(claim) = claim else { return Ok(WorkReport { due: 1, left: 1, ..WorkReport::default() }) };
        let ended = self.perform_task(&task, claim).await;
        let succeeded = ended.result.is_ok();
        self.settle_task(&task, &worker, ended).await?;
        let (succeeded, failed) = (usize::from(succeeded), usize::from(!succeeded));
        Ok(WorkReport { due: 1, claimed: 1, succeeded, failed, ..WorkReport::default() })
    }

    /// Claims a task that is due, or says what became of one whose worker is gone.
    async fn claim_task(&self, item: &Item, worker: &str) -> Result<ClaimResult, Error> {
        let mut task: Task = item.record()?;
        let now = self.ports.clock.now();
        match task.state {
            TaskState::Scheduled | TaskState::Retrying if task.next_at > now => {
                // The alarm was early, or is one of before a change.
                self.set_alarm(&task, task.next_at).await;
                Ok(ClaimResult::Nothing)
            }
            TaskState::Scheduled | TaskState::Retrying => {
                let before = (task.occurrence, task.state);
                task.catch_up(now);
                if (task.occurrence, task.state) != before {
                    self.put_task(&task, item.version.clone()).await?;
                    return Ok(ClaimResult::Again);
                }
                let effect = self.effect_of(&task).await?;
                task.claim(worker.to_owned(), effect, now, lease(self.config.limits.task_budget));
                match self.put_task(&task, item.version.clone()).await {
                    Ok(Some(_)) => Ok(ClaimResult::Claimed(Box::new(task))),
                    Ok(None) => Ok(ClaimResult::Again),
                    // Perhaps it was written. Nothing has left yet, so that this worker may go on if it was.
                    Err(error) => {
                        let standing = self.ports.table.get(&item.stored.key, Read::Consistent).await?;
                        let standing: Option<Task> = standing.as_ref().map(Item::record).transpose()?;
                        let mine = standing.filter(|task| {
                            let claimed = task.claim.as_ref().is_some_and(|claim| claim.worker == worker);
                            claimed && task.state == TaskState::Running
                        });
                        mine.map(|task| ClaimResult::Claimed(Box::new(task))).ok_or(error)
                    }
                }
            }
            TaskState::Running if task.claim.as_ref().is_some_and(|claim| claim.until <= now) => {
                let harmless = self.is_harmless(&task).await?;
                let told = match self.judge_expired_claim(&task).await? {
                    ExpiredClaim::Settled(ended) => task.settle(ended, harmless, now, self.jitter()),
                    ExpiredClaim::Again => task.lapsed(true, harmless, now, self.jitter()),
                    ExpiredClaim::Unknown => task.lapsed(false, harmless, now, self.jitter()),
                };
                let event = self.event_of(&task, told);
                match self.put_with(task.item()?, Condition::Version(item.version.clone()), event.as_ref()).await {
                    Ok(()) => {
                        tracing::warn!(org = %task.org, task = %task.id, state = ?task.state, "the worker of a task is gone");
                        self.after_transition(&task, event).await;
                    }
                    Err(TableError::Condition { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                Ok(ClaimResult::Again)
            }
            TaskState::Running
            | TaskState::Paused
            | TaskState::Succeeded
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::OutcomeUnknown => Ok(ClaimResult::Nothing),
        }
    }

    async fn perform_task(&self, task: &Task, claim: &Claim) -> AttemptResult {
        let started = Instant::now();
        let deadline = started + self.config.limits.task_budget;
        let result = match self.perform_task_by(task, claim, deadline).await {
            Ok(answered) => answered.answer.result,
            // The plugin is not as it was when the task was made.
            Err(
                error @ (Error::Invalid(_)
                | Error::Forbidden(_)
                | Error::UnknownPlugin { .. }
                | Error::UnknownAction { .. }),
            ) => Err(Failure::new(OutcomeCode::Rejected, error.to_string(), false)),
            Err(error) => {
                tracing::error!(org = %task.org, task = %task.id, error = %causes(&error), "a task failed inside Overseer");
                Err(Failure::new(OutcomeCode::Unavailable, error.to_string(), true))
            }
        };
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        AttemptResult { result, duration_ms }
    }

    async fn perform_task_by(
        &self,
        task: &Task,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Replayable<Outcome>, Error> {
        let run = claim.run_id().map_err(Error::internal)?;
        let mut plugin = self.plugin_cached(&task.org, task.plugin.as_str()).await?;
        loop {
            let request = ActionRequest {
                org: &task.org,
                user: &task.user,
                agent: task.agent.as_ref(),
                channel: task.channel.as_ref(),
                plugin: &plugin,
                action: task.action.as_str(),
                alias: task.integration.as_ref(),
                parameters: &task.parameters,
                origin: Origin::Task { id: &task.id, run: &run, until: claim.until, number: task.runs },
                deadline,
            };
            let came = self.execute_action(request).await;
            match self.refreshed_if_stale(&task.org, &plugin, &came).await? {
                Some(newer) => plugin = newer,
                None => return came?.ok_or_else(|| contention(task.plugin.as_str())),
            }
        }
    }

    /// Writes down how an attempt ended, if the claim is still this worker's: tried more than once, since what happened
    /// would otherwise not be known.
    async fn settle_task(&self, task: &Task, worker: &str, ended: AttemptResult) -> Result<(), Error> {
        for _ in 1..SETTLE_TRIES {
            let again = AttemptResult { result: ended.result.clone(), duration_ms: ended.duration_ms };
            match self.try_to_settle(task, worker, again).await {
                Err(Error::Table(error @ TableError::Store(_))) => {
                    tracing::error!(org = %task.org, task = %task.id, error = %causes(&error), "an end was not written down; trying again");
                }
                other => return other,
            }
        }
        self.try_to_settle(task, worker, ended).await
    }

    async fn try_to_settle(&self, task: &Task, worker: &str, ended: AttemptResult) -> Result<(), Error> {
        let key = keys::task(&task.org, &task.user, &task.id);
        let mut ended = Some(ended);
        let jitter = self.jitter();
        let mut standing = self.ports.table.get(&key, Read::Consistent).await?;
        loop {
            let Some(item) = standing else { return Ok(()) };
            let mut task: Task = item.record()?;
            let mine = task.claim.as_ref().is_some_and(|claim| claim.worker == worker);
            if !mine || !matches!(task.state, TaskState::Running | TaskState::OutcomeUnknown) {
                tracing::warn!(org = %task.org, task = %task.id, "the claim of a task ran out before it ended");
                return Ok(());
            }
            let Some(result) = ended.take() else { return Ok(()) };
            let again = AttemptResult { result: result.result.clone(), duration_ms: result.duration_ms };
            if task.state == TaskState::OutcomeUnknown {
                // What was put down as unknown is known after all.
                task.attempts.pop();
                task.failures_in_row = task.failures_in_row.saturating_sub(1);
            }
            let harmless = self.is_harmless(&task).await?;
            let told = task.settle(result, harmless, self.ports.clock.now(), jitter);
            let event = self.event_of(&task, told);
            match self.put_with(task.item()?, Condition::Version(item.version), event.as_ref()).await {
                Ok(()) => {
                    self.after_transition(&task, event).await;
                    return Ok(());
                }
                Err(TableError::Condition { standing: found, .. }) => {
                    (standing, ended) = (found.map(|item| *item), Some(again));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What others hear of a task's new state.
    fn event_of(&self, task: &Task, told: Notification) -> Option<Event> {
        let kind = match told {
            Notification::Nothing => return None,
            Notification::Failed => EventKind::TaskFailed,
            Notification::Unknown => EventKind::TaskOutcomeUnknown,
            Notification::Paused => EventKind::TaskPaused,
        };
        let detail = json!({
            "taskId": task.id, "userId": task.user, "agentId": task.agent, "tool": task.plugin, "intent": task.action,
            "status": task.state, "lastAttempt": task.attempts.last(),
        });
        Some(self.event(&task.org, kind, &detail))
    }

    /// What follows when a task has a new state: the next alarm, and what others hear.
    pub(super) async fn after_transition(&self, task: &Task, event: Option<Event>) {
        if matches!(task.state, TaskState::Scheduled | TaskState::Retrying) {
            self.set_alarm(task, task.next_at).await;
        }
        if let Some(event) = event {
            self.publish(event).await;
        }
    }

    /// Sets the alarm of a task. One that is not set is found by the sweep.
    pub(super) async fn set_alarm(&self, task: &Task, at: Timestamp) {
        if let Err(error) = self.ports.timer.set(task.work(), at).await {
            tracing::error!(org = %task.org, task = %task.id, error = %causes(&error), "no alarm was set; the sweep finds it");
        }
    }

    /// Writes a task in the place of the version that was read; `None` if somebody was faster.
    pub(super) async fn put_task(&self, task: &Task, version: Version) -> Result<Option<Version>, Error> {
        match self.ports.table.put(task.item()?, Condition::Version(version)).await {
            Ok(version) => Ok(Some(version)),
            Err(TableError::Condition { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands everything that is due and that nobody has to whoever runs it. It runs nothing itself, and reads in proportion
    /// to what is due.
    pub async fn sweep(&self) -> Result<WorkReport, Error> {
        let now = self.ports.clock.now();
        self.enqueue_due(now, Some(now), SWEEP_MAX).await
    }

    /// Sets every alarm again, for a process whose alarms end with it. What is overdue fires at once.
    pub async fn set_alarms(&self) -> Result<(), Error> {
        self.enqueue_due(Timestamp::MAX, None, usize::MAX).await.map(|_| ())
    }

    /// Sets the alarms of what is due until then, at most about `most`: at `at`, or each at its time.
    async fn enqueue_due(&self, until: Timestamp, at: Option<Timestamp>, most: usize) -> Result<WorkReport, Error> {
        let mut report = WorkReport::default();
        for queue in [TASKS, PENDING, WEBHOOKS] {
            let (mut cursor, before) = (None, report.due);
            while report.due - before < most {
                let page = self.ports.table.query_due(queue, until, BATCH_MAX, cursor).await?;
                let keys: Vec<_> = page.entries.iter().map(|entry| entry.key.clone()).collect();
                let items = if keys.is_empty() {
                    Vec::new()
                } else {
                    self.ports.table.batch_get(&keys, Read::Eventual).await?
                };
                report.due += keys.len();
                for (entry, item) in page.entries.into_iter().zip(items) {
                    // What was done in the meantime is due no more.
                    let Some(item) = item else {
                        report.due -= 1;
                        continue;
                    };
                    let work = match queue {
                        TASKS => item.record().map(|task: Task| task.work()),
                        PENDING => pending_work(&item),
                        _ => webhook_work(&item),
                    };
                    let work = match work {
                        Ok(work) => work,
                        // One that does not read must not keep the others waiting.
                        Err(error) => {
                            tracing::error!(queue, error = %causes(&error), "what is due does not read");
                            continue;
                        }
                    };
                    report.oldest_due = report.oldest_due.into_iter().chain([entry.at]).min();
                    match self.ports.timer.set(work, at.unwrap_or(entry.at)).await {
                        Ok(()) => report.enqueued += 1,
                        Err(error) => {
                            tracing::error!(queue, error = %causes(&error), "no alarm was set for what is due");
                        }
                    }
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        report.left = report.due - report.enqueued;
        Ok(report)
    }

    /// A random number from 0 up to, and without, 1.
    pub(crate) fn jitter(&self) -> f64 {
        let mut random = [0; 4];
        self.ports.ids.fill(&mut random);
        f64::from(u32::from_le_bytes(random)) / (f64::from(u32::MAX) + 1.0)
    }

    /// What doing a task's action twice would mean; what is not known any more is taken for the worst.
    async fn effect_of(&self, task: &Task) -> Result<Effect, Error> {
        let plugin = match self.plugin_if_any(&task.org, &task.plugin).await {
            // One that does not read any more.
            Err(Error::Unavailable(_)) => None,
            found => found?,
        };
        let action = plugin.and_then(|plugin| Some(plugin.action(task.action.as_str()).ok()?.action.effect));
        Ok(action.unwrap_or(Effect::Unsafe))
    }

    async fn is_harmless(&self, task: &Task) -> Result<bool, Error> {
        Ok(self.effect_of(task).await?.is_repeatable())
    }

    /// What is known of an attempt whose worker is gone.
    async fn judge_expired_claim(&self, task: &Task) -> Result<ExpiredClaim, Error> {
        // The plugin may have been changed to another version since: what either says counts, the worse of both.
        let then = task.claim.as_ref().map(|claim| claim.effect);
        let effect = self.effect_of(task).await?.max(then.unwrap_or(Effect::Unsafe));
        let known = match (effect, &task.claim) {
            // What only reads is not in the ledger.
            (Effect::Read, _) => return Ok(ExpiredClaim::Again),
            (Effect::Idempotent | Effect::Keyed | Effect::Unsafe, None) => Fenced::Unknown,
            (Effect::Idempotent | Effect::Keyed | Effect::Unsafe, Some(claim)) => {
                self.fence_attempt(task.attempt(claim)?, effect).await?
            }
        };
        Ok(match (known, effect) {
            // Nothing had been sent, and now nothing will be.
            (Fenced::NeverBegun, _) => {
                let message = "whoever was to do it was not heard of again; it had not begun".to_owned();
                let failure = Failure::new(OutcomeCode::Unavailable, message, true);
                ExpiredClaim::Settled(AttemptResult { result: Err(failure), duration_ms: 0 })
            }
            (Fenced::Ended { result, duration_ms }, _) => ExpiredClaim::Settled(AttemptResult { result, duration_ms }),
            // Of what is keyed the service knows a repetition.
            (Fenced::Unknown, Effect::Read | Effect::Idempotent | Effect::Keyed) => ExpiredClaim::Again,
            (Fenced::Unknown, Effect::Unsafe) => ExpiredClaim::Unknown,
        })
    }
}

/// The task that an alarm is for.
fn task_of(work: &Work) -> Option<(TaskId, UserId)> {
    let (id, user) = work.id.split_once(' ')?;
    Some((TaskId::parse(id).ok()?, UserId::parse(user).ok()?))
}
