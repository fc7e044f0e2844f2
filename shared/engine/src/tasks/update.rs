//! A caller changes a task: edits, cancels, retries, pauses or resumes it.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::debug_span;
use tracing::field::Empty;

use super::list::{StateFilter, TaskFilter};
use super::record::{Task, TaskState};
use super::validate::{attempts_problem, storable_parameters, time_problem};
use super::view::TaskView;
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::TaskId;
use crate::core::problem::FieldProblem;
use crate::core::schedule::Schedule;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::ports::table::{BATCH_MAX, Condition, Cursor, Item, Read};
use crate::storage::compare_and_set::CompareAndSet;

/// About how many tasks one request cancels.
const CANCEL_MAX: usize = 1_000;

/// Changes of a task that waits. Fields that are left out stay as they are.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeTask {
    /// The new time, for a task that does not recur.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    #[schemars(with = "Option<String>")]
    pub scheduled_time: Option<Timestamp>,
    /// The new schedule, for a task that recurs.
    #[serde(default)]
    #[schemars(with = "Schedule")]
    pub schedule: Option<Schedule>,
    /// The new parameters. They replace all of the old ones.
    pub context: Option<Map<String, Value>>,
    /// The most attempts of one run.
    pub max_attempts: Option<u32>,
}

/// The result of cancelling many tasks.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelReport {
    /// Whether this was a dry run, which cancels nothing.
    pub dry_run: bool,
    /// The tasks that were cancelled, or would be.
    pub cancelled: Vec<TaskId>,
    /// The tasks in flight: they do not continue after the current run.
    pub asked: Vec<TaskId>,
    /// Present if there may be more tasks: repeat the request with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<Cursor>,
}

impl Engine {
    /// Changes a task with a compare-and-set. `change` may be called several times.
    async fn change_task(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        change: impl Fn(&Self, &mut Task, Option<&Plugin>) -> Result<(), Error> + Send + 'static,
    ) -> Result<TaskView, Error> {
        let (engine, principal, id) = (Arc::clone(self), principal.clone(), id.to_owned());
        self.run_to_completion(async move {
            let mut race = CompareAndSet::default();
            loop {
                let (before, item) = engine.task(&principal, &id).await?;
                let mut task = before.clone();
                let plugin = engine.plugin_if_any(&task.org, &task.plugin).await?;
                change(&engine, &mut task, plugin.as_deref())?;
                if task == before {
                    return Ok(task.detail());
                }
                match engine.ports.table.put(task.item()?, Condition::Version(item.version)).await {
                    Ok(_) => {
                        engine.cancel_alarm(&before).await;
                        engine.after_transition(&task, None).await;
                        return Ok(task.detail());
                    }
                    // The next try reads the task again, because the caller may no longer see it.
                    Err(error) => drop(race.after_lost_race(error, "the task")?),
                }
            }
        })
        .await
    }

    /// Cancels a task. A task in flight does not continue after the current run; the answer has its state.
    pub async fn cancel_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        let span = debug_span!("cancel_task", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            self.change_task(principal, id, |engine, task, _| {
                cancel(task, engine.ports.clock.now());
                Ok(())
            })
            .await
        })
        .await
    }

    /// Runs a task again, now, after a final state other than success; or retries a failed attempt now.
    pub async fn retry_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        let span = debug_span!("retry_task", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            self.change_task(principal, id, |engine, task, _| {
                let now = engine.ports.clock.now();
                match task.state {
                    TaskState::Failed | TaskState::OutcomeUnknown | TaskState::Cancelled => {
                        // A cancelled recurring task runs once and does not recur again.
                        task.cancel_requested = task.state == TaskState::Cancelled && task.schedule.is_some();
                        (task.occurrence, task.next_at, task.by_hand, task.claim) = (now, now, true, None);
                        task.revision += 1;
                        task.set_state(TaskState::Scheduled, now);
                        Ok(())
                    }
                    TaskState::Retrying => {
                        task.next_at = now;
                        task.revision += 1;
                        Ok(())
                    }
                    TaskState::Scheduled | TaskState::Paused | TaskState::Running | TaskState::Succeeded => {
                        Err(wrong_state(task, "retried", "failed, cancelled, retrying or outcome_unknown"))
                    }
                }
            })
            .await
        })
        .await
    }

    /// Pauses a recurring task until a caller resumes it.
    pub async fn pause_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        let span = debug_span!("pause_task", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            self.change_task(principal, id, |engine, task, _| {
                if !task.is_waiting() || task.schedule.is_none() {
                    return Err(wrong_state(task, "paused", "scheduled or retrying, and recurring"));
                }
                task.revision += 1;
                task.set_state(TaskState::Paused, engine.ports.clock.now());
                Ok(())
            })
            .await
        })
        .await
    }

    /// Resumes a paused task at the next time of its schedule from now.
    pub async fn resume_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        let span = debug_span!("resume_task", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            self.change_task(principal, id, |engine, task, _| {
                let now = engine.ports.clock.now();
                if task.state != TaskState::Paused {
                    return Err(wrong_state(task, "resumed", "paused"));
                }
                let next = task.next_run(now);
                let next =
                    next.ok_or_else(|| Error::field("", "the schedule has no run left; change the schedule first"))?;
                (task.occurrence, task.next_at, task.by_hand, task.failures_in_row) = (next, next, false, 0);
                task.revision += 1;
                task.set_state(TaskState::Scheduled, now);
                Ok(())
            })
            .await
        })
        .await
    }

    /// Changes the time, the parameters or the attempts of a task that is scheduled or paused.
    pub async fn edit_task(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        change: ChangeTask,
    ) -> Result<TaskView, Error> {
        let span = debug_span!("edit_task", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            self.change_task(principal, id, move |engine, task, plugin| {
                if !matches!(task.state, TaskState::Scheduled | TaskState::Paused) {
                    return Err(wrong_state(task, "changed", "scheduled or paused"));
                }
                engine.edit(task, plugin, change.clone())
            })
            .await
        })
        .await
    }

    fn edit(&self, task: &mut Task, plugin: Option<&Plugin>, change: ChangeTask) -> Result<(), Error> {
        let now = self.ports.clock.now();
        let mut problems: Vec<FieldProblem> = attempts_problem(change.max_attempts).into_iter().collect();
        if let Some(parameters) = change.context {
            let plugin = plugin.ok_or_else(|| Error::unknown_plugin(task.plugin.as_str()))?;
            let checked = plugin.action(task.action.as_str())?.check(parameters);
            if let Some(parameters) = storable_parameters(checked, &mut problems)? {
                task.parameters = parameters;
            }
        }
        problems.extend(move_task(task, change.scheduled_time, change.schedule, now));
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        task.attempts_max = change.max_attempts.unwrap_or(task.attempts_max);
        task.revision += 1;
        task.updated_at = now;
        Ok(())
    }

    /// Cancels the open tasks that match a filter, about 1,000 in one request; a dry run only reports them.
    pub async fn cancel_tasks(
        self: &Arc<Self>,
        principal: &Principal,
        filter: TaskFilter,
        dry_run: bool,
        cursor: Option<Cursor>,
    ) -> Result<CancelReport, Error> {
        let span = debug_span!("cancel_tasks", org = %principal.org, outcome = Empty);
        traced(span, async {
            let user = principal.visible_user(filter.user_id.as_ref())?;
            let (engine, org) = (Arc::clone(self), principal.org.clone());
            self.run_to_completion(async move {
                let mut report =
                    CancelReport { dry_run, cancelled: Vec::new(), asked: Vec::new(), next_cursor: cursor };
                for _ in 0..CANCEL_MAX / BATCH_MAX {
                    let cursor = report.next_cursor.take();
                    let page = engine.tasks(&org, user.as_ref(), &filter, StateFilter::Open, BATCH_MAX, cursor).await?;
                    for (mut task, item) in page.entries {
                        if dry_run {
                            cancel(&mut task, engine.ports.clock.now());
                        } else {
                            task = engine.cancel_listed(task, item).await?;
                        }
                        match task.state {
                            TaskState::Cancelled => report.cancelled.push(task.id),
                            TaskState::Running => report.asked.push(task.id),
                            TaskState::Scheduled
                            | TaskState::Paused
                            | TaskState::Retrying
                            | TaskState::Succeeded
                            | TaskState::Failed
                            | TaskState::OutcomeUnknown => {}
                        }
                    }
                    report.next_cursor = page.next;
                    if report.next_cursor.is_none() {
                        break;
                    }
                }
                Ok(report)
            })
            .await
        })
        .await
    }

    /// Cancels one task of a list with a compare-and-set, and returns it in its new state.
    async fn cancel_listed(&self, mut task: Task, mut item: Item) -> Result<Task, Error> {
        let mut race = CompareAndSet::default();
        loop {
            let before = task.clone();
            cancel(&mut task, self.ports.clock.now());
            if task == before {
                return Ok(task);
            }
            match self.ports.table.put(task.item()?, Condition::Version(item.version)).await {
                Ok(_) => {
                    self.cancel_alarm(&before).await;
                    return Ok(task);
                }
                Err(error) => drop(race.after_lost_race(error, "the task")?),
            }
            let Some(current) = self.ports.table.get(&item.stored.key, Read::Consistent).await? else {
                return Ok(task);
            };
            (task, item) = (current.record()?, current);
        }
    }

    /// Cancels the alarm of a task's earlier revision. A task that was not waiting had no alarm.
    async fn cancel_alarm(&self, before: &Task) {
        if !before.is_waiting() {
            return;
        }
        if let Err(error) = self.ports.timer.cancel(&before.work()).await {
            tracing::warn!(org = %before.org, task = %before.id, error = %causes(&error), "failed to cancel stale alarm");
        }
    }
}

/// Moves a task to another time or schedule. Returns what is wrong with the change.
fn move_task(
    task: &mut Task,
    scheduled_time: Option<Timestamp>,
    schedule: Option<Schedule>,
    now: Timestamp,
) -> Vec<FieldProblem> {
    let problem = |pointer: &str, message: String| vec![FieldProblem::new(pointer, message)];
    match (scheduled_time, schedule, &task.schedule) {
        (None, None, _) => Vec::new(),
        (Some(_), _, Some(_)) => {
            problem("/scheduledTime", "does not apply to a recurring task; change its schedule".to_owned())
        }
        (_, Some(_), None) => {
            problem("/schedule", "does not apply to a task that does not recur; create a new task".to_owned())
        }
        (Some(time), None, None) => {
            (task.occurrence, task.next_at) = (time, time.max(now));
            time_problem(time, now).into_iter().collect()
        }
        (None, Some(schedule), Some(_)) => match schedule.check(now) {
            Err(problems) => problems,
            Ok(_) if schedule.max_runs.is_some_and(|max_runs| task.runs >= max_runs.get()) => {
                problem("/schedule/maxRuns", format!("must be more than {}, the number of runs so far", task.runs))
            }
            Ok(timetable) => match timetable.next_after(now) {
                None => problem("/schedule", "has no time left; choose a later end".to_owned()),
                Some(next) => {
                    (task.occurrence, task.next_at, task.anchor) = (next, next, now);
                    task.by_hand = false;
                    task.schedule = Some(schedule);
                    Vec::new()
                }
            },
        },
    }
}

/// Cancels a waiting or paused task. A task in flight does not continue after its run; a final state stays.
fn cancel(task: &mut Task, now: Timestamp) {
    match task.state {
        TaskState::Scheduled | TaskState::Retrying | TaskState::Paused => {
            task.revision += 1;
            task.set_state(TaskState::Cancelled, now);
        }
        TaskState::Running => task.cancel_requested = true,
        TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::OutcomeUnknown => {}
    }
}

fn wrong_state(task: &Task, change: &str, states: &str) -> Error {
    let state = serde_json::to_value(task.state).unwrap_or_default();
    let state = state.as_str().unwrap_or_default();
    Error::Conflict(format!("a task that is {state} cannot be {change}; only a task that is {states}"))
}
