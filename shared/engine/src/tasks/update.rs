//! Tasks changed by people: moved, cancelled, paused, resumed, tried once more.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::list::{TaskFilter, Wanted};
use super::record::{Task, TaskState};
use super::{CANCEL_MAX, TaskView, too_large, wrong_attempts, wrong_time};
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::TaskId;
use crate::core::problem::FieldProblem;
use crate::core::schedule::Schedule;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::ports::table::{BATCH_MAX, Cursor, Read};

/// What to change of a task that waits. What is left out stays.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeTask {
    /// When to do it, for a task that does not recur.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    #[schemars(with = "Option<String>")]
    pub scheduled_time: Option<Timestamp>,
    /// When it recurs, for one that does.
    #[serde(default)]
    #[schemars(with = "Schedule")]
    pub schedule: Option<Schedule>,
    /// The parameters, in the place of all of them.
    pub context: Option<Map<String, Value>>,
    /// How often a run is tried.
    pub max_attempts: Option<u32>,
}

/// What was cancelled, or would be.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The tasks that are cancelled, or would be.
    pub cancelled: Vec<TaskId>,
    /// Those under way, which are asked to end.
    pub asked: Vec<TaskId>,
    /// Present if there may be more: ask again with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<Cursor>,
}

impl Engine {
    /// Changes a task as often as it takes until nobody interferes. `change` may be called several times.
    async fn change_task(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        change: impl Fn(&Self, &mut Task, Option<&Plugin>) -> Result<(), Error> + Send + 'static,
    ) -> Result<TaskView, Error> {
        let (engine, principal, id) = (Arc::clone(self), principal.clone(), id.to_owned());
        self.run_to_completion(async move {
            loop {
                let (before, item) = engine.task(&principal, &id).await?;
                let mut task = before.clone();
                let plugin = engine.plugin_if_any(&task.org, &task.plugin).await?;
                change(&engine, &mut task, plugin.as_deref())?;
                if task == before {
                    return Ok(task.whole());
                }
                if engine.put_task(&task, item.version).await?.is_some() {
                    engine.forget_alarm(&before).await;
                    engine.after_transition(&task, None).await;
                    return Ok(task.whole());
                }
            }
        })
        .await
    }

    /// Cancels a task. One that is under way is asked to end; the answer says how it stands.
    pub async fn cancel_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        self.change_task(principal, id, |engine, task, _| {
            cancel(task, engine.ports.clock.now());
            Ok(())
        })
        .await
    }

    /// Runs a task that has ended without success once more, now.
    pub async fn retry_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        self.change_task(principal, id, |engine, task, _| {
            let now = engine.ports.clock.now();
            match task.state {
                TaskState::Failed | TaskState::OutcomeUnknown | TaskState::Cancelled => {
                    // One that was cancelled runs once, and does not recur again.
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
                    Err(not_now(task, "run once more", "failed, cancelled, retrying or outcome_unknown"))
                }
            }
        })
        .await
    }

    /// Stops a recurring task until it is resumed.
    pub async fn pause_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        self.change_task(principal, id, |engine, task, _| {
            let waits = matches!(task.state, TaskState::Scheduled | TaskState::Retrying);
            if !waits || task.schedule.is_none() {
                return Err(not_now(task, "paused", "scheduled or retrying, and recurring"));
            }
            task.revision += 1;
            task.set_state(TaskState::Paused, engine.ports.clock.now());
            Ok(())
        })
        .await
    }

    /// Lets a paused task go on, with its next time from now.
    pub async fn resume_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        self.change_task(principal, id, |engine, task, _| {
            let now = engine.ports.clock.now();
            if task.state != TaskState::Paused {
                return Err(not_now(task, "resumed", "paused"));
            }
            let next = task.next_run(now);
            let next = next.ok_or_else(|| Error::field("", "its schedule has no run left; change it first"))?;
            (task.occurrence, task.next_at, task.by_hand, task.failures_in_row) = (next, next, false, 0);
            task.revision += 1;
            task.set_state(TaskState::Scheduled, now);
            Ok(())
        })
        .await
    }

    /// Changes the time or the parameters of a task that waits.
    pub async fn edit_task(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        change: ChangeTask,
    ) -> Result<TaskView, Error> {
        self.change_task(principal, id, move |engine, task, plugin| {
            if !matches!(task.state, TaskState::Scheduled | TaskState::Paused) {
                return Err(not_now(task, "changed", "scheduled or paused"));
            }
            engine.edit(task, plugin, change.clone())
        })
        .await
    }

    fn edit(&self, task: &mut Task, plugin: Option<&Plugin>, change: ChangeTask) -> Result<(), Error> {
        let now = self.ports.clock.now();
        let mut problems: Vec<FieldProblem> = wrong_attempts(change.max_attempts).into_iter().collect();
        if let Some(parameters) = change.context {
            let gone = || Error::unknown_plugin(task.plugin.as_str());
            let plugin = plugin.ok_or_else(gone)?;
            match plugin.action(task.action.as_str())?.check(parameters) {
                Ok(parameters) => {
                    problems.extend(too_large(&parameters));
                    task.parameters = parameters;
                }
                Err(Error::Invalid(wrong)) => problems.extend(wrong),
                Err(error) => return Err(error),
            }
        }
        match (change.scheduled_time, change.schedule, &task.schedule) {
            (None, None, _) => {}
            (Some(_), _, Some(_)) => {
                problems.push(FieldProblem::new(
                    "/scheduledTime",
                    "is of no use for a task that recurs; change its schedule",
                ));
            }
            (_, Some(_), None) => {
                problems.push(FieldProblem::new(
                    "/schedule",
                    "is of no use for a task that does not recur; make a new one",
                ));
            }
            (Some(time), None, None) => {
                problems.extend(wrong_time(time, now));
                (task.occurrence, task.next_at) = (time, time.max(now));
            }
            (None, Some(schedule), Some(_)) => match schedule.check(now) {
                Err(wrong) => problems.extend(wrong),
                Ok(_) if schedule.max_runs.is_some_and(|most| task.runs >= most.get()) => {
                    let message = format!("must be more than the {} runs that there were", task.runs);
                    problems.push(FieldProblem::new("/schedule/maxRuns", message));
                }
                Ok(timetable) => match timetable.next_after(now) {
                    None => problems.push(FieldProblem::new("/schedule", "has no time left")),
                    Some(next) => {
                        (task.occurrence, task.next_at, task.anchor) = (next, next, now);
                        task.by_hand = false;
                        task.schedule = Some(schedule);
                    }
                },
            },
        }
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        task.attempts_max = change.max_attempts.unwrap_or(task.attempts_max);
        task.revision += 1;
        task.updated_at = now;
        Ok(())
    }

    /// Cancels the tasks that a filter holds for and that have not ended, about 1,000 at once; or says which they would be.
    pub async fn cancel_tasks(
        self: &Arc<Self>,
        principal: &Principal,
        filter: TaskFilter,
        dry_run: bool,
        cursor: Option<Cursor>,
    ) -> Result<Cancelled, Error> {
        let user = principal.visible_user(filter.user_id.as_ref())?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let mut done = Cancelled { dry_run, cancelled: Vec::new(), asked: Vec::new(), next_cursor: cursor };
            for _ in 0..CANCEL_MAX / BATCH_MAX {
                let (org, filter) = (&principal.org, (&filter, Wanted::Open));
                let page = engine.tasks(org, user.as_ref(), filter, BATCH_MAX, done.next_cursor.take()).await?;
                for (mut task, mut item) in page.entries {
                    loop {
                        let before = task.clone();
                        cancel(&mut task, engine.ports.clock.now());
                        if dry_run || task == before {
                            break;
                        }
                        if engine.put_task(&task, item.version).await?.is_some() {
                            engine.forget_alarm(&before).await;
                            break;
                        }
                        // It changed at this moment: once more, as it is now.
                        let Some(found) = engine.ports.table.get(&item.stored.key, Read::Consistent).await? else {
                            break;
                        };
                        (task, item) = (found.record()?, found);
                    }
                    match task.state {
                        TaskState::Cancelled => done.cancelled.push(task.id),
                        TaskState::Running => done.asked.push(task.id),
                        TaskState::Scheduled
                        | TaskState::Paused
                        | TaskState::Retrying
                        | TaskState::Succeeded
                        | TaskState::Failed
                        | TaskState::OutcomeUnknown => {}
                    }
                }
                done.next_cursor = page.next;
                if done.next_cursor.is_none() {
                    break;
                }
            }
            Ok(done)
        })
        .await
    }

    /// Forgets the alarm of a task as it was. One that was not waiting had none.
    async fn forget_alarm(&self, before: &Task) {
        if !matches!(before.state, TaskState::Scheduled | TaskState::Retrying) {
            return;
        }
        if let Err(error) = self.ports.timer.cancel(&before.work()).await {
            tracing::warn!(org = %before.org, task = %before.id, error = %causes(&error), "an alarm that is not needed stays");
        }
    }
}

/// Cancels a task that waits; asks one that is under way to end. What has ended stays as it is.
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

fn not_now(task: &Task, what: &str, states: &str) -> Error {
    let state = serde_json::to_value(task.state).unwrap_or_default();
    let state = state.as_str().unwrap_or_default();
    Error::Conflict(format!("a task that is {state} cannot be {what}; only one that is {states}"))
}
