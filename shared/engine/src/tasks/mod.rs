//! Tasks: intents that are run later, again, or while nobody waits. A task is a record; an alarm is only a hint, and the
//! record decides whether anything is due.

mod record;
mod running;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::Engine;
use crate::error::{Error, FieldProblem, causes};
use crate::ids::{ActionName, AgentId, Alias, OrgId, PluginName, TaskId, UserId};
use crate::intent::Intent;
use crate::keys;
use crate::manifest::{Auth, Manifest};
use crate::ports::table::{BATCH_MAX, Condition, Cursor, Item, Page, Query, Range, Read};
use crate::principal::{Principal, Role};
use crate::schedule::Schedule;

pub(crate) use record::TASKS;
pub use record::{
    ATTEMPTS_DEFAULT, ATTEMPTS_KEPT, ATTEMPTS_MAX, Attempt, AttemptOutcome, ENDED_KEPT, FAILURES_MAX, MESSAGE_MAX,
    RESULT_MAX_BYTES, RETRY_AFTER_MAX, TaskResult, TaskState,
};
pub use running::Report;

use record::Task;

/// The largest parameters of a task, in bytes of JSON.
pub const PARAMETERS_MAX_BYTES: usize = 256 * 1024;
/// How far ahead a task may be.
pub const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(10 * 366 * 24);
/// How far in the past a time may be, for clocks that differ.
pub const PAST_MAX: SignedDuration = SignedDuration::from_secs(60);
/// The most tasks that are cancelled at once.
pub const CANCEL_MAX: usize = 1_000;
/// How often the store is asked for one page of a filtered list.
const ASKED_MAX: usize = 10;
/// About how many tasks are named that need an account which is disconnected.
const NEEDING_MAX: usize = 1_000;

/// A task as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    /// Names it.
    pub id: TaskId,
    /// Where it is.
    pub status: TaskState,
    /// Since when.
    pub since: Timestamp,
    /// Whose account is used.
    pub user_id: UserId,
    /// The agent that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The plugin.
    pub tool: PluginName,
    /// The action, by its own name.
    pub intent: ActionName,
    /// Which account, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration: Option<Alias>,
    /// The time that the next run, the one under way, or the last one is for.
    pub scheduled_time: Timestamp,
    /// When the next attempt is due, while one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// When it recurs, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How often a run is tried.
    pub max_attempts: u32,
    /// How many runs have begun.
    pub runs: u32,
    /// How many have failed in a row.
    pub failures_in_row: u32,
    /// Somebody wants it not to go on once what is under way has ended.
    pub cancel_requested: bool,
    /// Its parameters; only where one task is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
    /// Its last attempts; only where one task is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<Attempt>>,
    /// What the last run that succeeded returned; only where one task is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Task {
    /// As it is shown in a list.
    fn summary(&self) -> TaskView {
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
            next_attempt_at: matches!(self.state, TaskState::Scheduled | TaskState::Retrying).then_some(self.next_at),
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

    /// As it is shown by itself.
    fn whole(&self) -> TaskView {
        TaskView {
            context: Some(self.parameters.clone()),
            attempts: Some(self.attempts.clone()),
            result: self.result.clone(),
            ..self.summary()
        }
    }
}

/// A task that was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// The task.
    pub task: TaskView,
    /// What stands in its way already, in words for a person or a model.
    pub warnings: Vec<String>,
}

/// Which tasks.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskFilter {
    /// Of which user; left out, of the user that the API key is bound to, or, for an administrator, of everybody.
    pub user_id: Option<UserId>,
    /// Of which agent.
    pub agent_id: Option<AgentId>,
    /// Of which plugin.
    pub tool: Option<PluginName>,
    /// In which state.
    pub status: Option<TaskState>,
}

impl TaskFilter {
    fn holds(&self, task: &Task, wanted: Wanted) -> bool {
        let open = match wanted {
            Wanted::All => true,
            Wanted::Open => !task.state.is_final(),
        };
        open && self.agent_id.as_ref().is_none_or(|agent| task.agent.as_ref() == Some(agent))
            && self.tool.as_ref().is_none_or(|tool| task.plugin == *tool)
            && self.status.is_none_or(|status| task.state == status)
    }
}

/// Whether tasks that have ended are wanted, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Open,
}

/// What to change of a task that waits. What is left out stays.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeTask {
    /// When to do it, for a task that does not recur.
    #[serde(default, deserialize_with = "crate::intent::time")]
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
    /// Makes a task of an intent that is to be run later, again, or at once while nobody waits.
    pub async fn schedule(self: &Arc<Self>, principal: &Principal, intent: Intent) -> Result<Made, Error> {
        let plugin = Arc::clone(self.catalog.plugin(&intent.tool)?);
        let found = plugin.action(&intent.intent)?;
        let mut problems: Vec<FieldProblem> = intent.refused().into_iter().collect();
        let user = principal.acting_for(intent.user_id)?;
        let parameters = match found.check(intent.context) {
            Ok(parameters) => parameters,
            Err(Error::Invalid(wrong)) => {
                problems.extend(wrong);
                Map::new()
            }
            Err(error) => return Err(error),
        };
        let at = self.ports.clock.now();
        problems.extend(too_large(&parameters));
        let attempts_max = intent.max_attempts.or(plugin.manifest.retry.attempts).unwrap_or(ATTEMPTS_DEFAULT);
        problems.extend(wrong_attempts(intent.max_attempts));
        let first = match (&intent.scheduled_time, &intent.schedule) {
            (Some(_), Some(_)) => {
                problems.push(FieldProblem::new("/schedule", "is there beside scheduledTime; leave one of them out"));
                None
            }
            (Some(time), None) => match wrong_time(*time, at) {
                Some(problem) => {
                    problems.push(problem);
                    None
                }
                None => Some((*time).max(at)),
            },
            (None, Some(schedule)) => match schedule.check(at) {
                Ok(timetable) => timetable.next_after(at),
                Err(wrong) => {
                    problems.extend(wrong);
                    None
                }
            },
            (None, None) => Some(at),
        };
        let Some(first) = first.filter(|_| problems.is_empty()) else { return Err(Error::Invalid(problems)) };
        let id = format!("{:012x}{}", at.as_millisecond().max(0), self.ports.ids.hex(8));
        let task = Task {
            id: TaskId::parse(id).map_err(|error| Error::field("", error.to_string()))?,
            org: principal.org.clone(),
            user,
            agent: intent.agent_id,
            plugin: plugin.manifest.name.clone(),
            action: found.action.name.clone(),
            integration: intent.integration,
            parameters,
            schedule: intent.schedule,
            anchor: at,
            occurrence: first,
            next_at: first,
            attempts_max,
            state: TaskState::Scheduled,
            since: at,
            cancel_requested: false,
            revision: 1,
            attempt: 0,
            runs: 0,
            claim: None,
            attempts: Vec::new(),
            failures_in_row: 0,
            result: None,
            created_at: at,
            updated_at: at,
        };
        let engine = Arc::clone(self);
        self.to_its_end(async move {
            let warnings = engine.warnings(&task, &plugin.manifest).await?;
            engine.ports.table.put(task.item()?, Condition::Absent).await?;
            engine.set_alarm(&task, task.next_at).await;
            Ok(Made { task: task.whole(), warnings })
        })
        .await
    }

    /// What stands in a task's way already.
    async fn warnings(&self, task: &Task, manifest: &Manifest) -> Result<Vec<String>, Error> {
        if matches!(manifest.auth, Auth::None) {
            return Ok(Vec::new());
        }
        let found = self.find(&task.org, &task.user, manifest, task.integration.as_ref()).await?;
        let name = &manifest.display_name;
        Ok(match found {
            None => vec![format!("{} is not connected at {name} yet; connect the account before then", task.user)],
            Some(found) => self.will_be_unfit(manifest, &found, task.next_at).map_or_else(Vec::new, |reason| {
                vec![format!("the account \"{}\" at {name} {}; {}", found.alias, reason.what(), reason.remedy())]
            }),
        })
    }

    /// A task that the caller may see.
    async fn task(&self, principal: &Principal, id: &str) -> Result<(Task, Item), Error> {
        let unknown = || Error::NotFound("task");
        let id = TaskId::parse(id).map_err(|_| unknown())?;
        if let Some(user) = &principal.user
            && let Some(item) = self.ports.table.get(&keys::task(&principal.org, user, &id), Read::Consistent).await?
        {
            return Ok((item.record()?, item));
        }
        if !sees_all(principal) {
            return Err(unknown());
        }
        let listed = keys::task_in_list(&principal.org, &id);
        let range = Range::Between(listed.sort.clone(), listed.sort);
        let query = Query { range, ..Query::partition(listed.partition, 1) };
        let key = self.ports.table.query_list(query).await?.entries.pop().ok_or_else(unknown)?;
        let item = self.ports.table.get(&key, Read::Consistent).await?.ok_or_else(unknown)?;
        Ok((item.record()?, item))
    }

    /// One task, with its attempts.
    pub async fn get_task(&self, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        Ok(self.task(principal, id).await?.0.whole())
    }

    /// Tasks, the newest first.
    pub async fn list_tasks(
        &self,
        principal: &Principal,
        filter: &TaskFilter,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<TaskView>, Error> {
        let user = whose(principal, filter)?;
        let page = self.tasks(&principal.org, user.as_ref(), (filter, Wanted::All), limit, cursor).await?;
        Ok(Page { entries: page.entries.iter().map(|(task, _)| task.summary()).collect(), next: page.next })
    }

    /// Tasks with their items. A page may have fewer than `limit` and still not be the last.
    async fn tasks(
        &self,
        org: &OrgId,
        user: Option<&UserId>,
        (filter, wanted): (&TaskFilter, Wanted),
        limit: usize,
        mut cursor: Option<Cursor>,
    ) -> Result<Page<(Task, Item)>, Error> {
        let mut entries = Vec::new();
        let mut asked = 0;
        loop {
            let page = limit - entries.len();
            let (items, next) = if let Some(user) = user {
                let (partition, prefix) = keys::tasks_of_user(org, user);
                let range = Range::Prefix(prefix.to_owned());
                let query = Query { range, cursor, backwards: true, ..Query::partition(partition, page) };
                let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
                (page.entries, page.next)
            } else {
                let query = Query { cursor, backwards: true, ..Query::partition(keys::tasks_of(org), page) };
                let page = self.ports.table.query_list(query).await.map_err(Error::of_cursor)?;
                let mut items = Vec::with_capacity(page.entries.len());
                for keys in page.entries.chunks(BATCH_MAX) {
                    items.extend(self.ports.table.batch_get(keys, Read::Eventual).await?.into_iter().flatten());
                }
                (items, page.next)
            };
            asked += 1;
            for item in items {
                match item.record::<Task>() {
                    Ok(task) if filter.holds(&task, wanted) => entries.push((task, item)),
                    Ok(_) => {}
                    // One that does not read must not hide the others.
                    Err(error) => tracing::error!(%org, error = %causes(&error), "a task does not read"),
                }
            }
            cursor = next;
            if cursor.is_none() || entries.len() >= limit || asked >= ASKED_MAX {
                return Ok(Page { entries, next: cursor });
            }
        }
    }

    /// Changes a task as often as it takes until nobody interferes. `change` may be called several times.
    async fn change_task(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        change: impl Fn(&Self, &mut Task) -> Result<(), Error> + Send + 'static,
    ) -> Result<TaskView, Error> {
        let (engine, principal, id) = (Arc::clone(self), principal.clone(), id.to_owned());
        self.to_its_end(async move {
            loop {
                let (before, item) = engine.task(&principal, &id).await?;
                let mut task = before.clone();
                change(&engine, &mut task)?;
                if task == before {
                    return Ok(task.whole());
                }
                if engine.put_task(&task, item.version).await?.is_some() {
                    engine.forget_alarm(&before).await;
                    engine.after(&task, record::Told::Nothing).await;
                    return Ok(task.whole());
                }
            }
        })
        .await
    }

    /// Cancels a task. One that is under way is asked to end; the answer says how it stands.
    pub async fn cancel_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        self.change_task(principal, id, |engine, task| {
            cancel(task, engine.ports.clock.now());
            Ok(())
        })
        .await
    }

    /// Runs a task that has ended without success once more, now.
    pub async fn retry_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        self.change_task(principal, id, |engine, task| {
            let now = engine.ports.clock.now();
            match task.state {
                TaskState::Failed | TaskState::OutcomeUnknown | TaskState::Cancelled => {
                    // One that was cancelled runs once, and does not recur again.
                    task.cancel_requested = task.state == TaskState::Cancelled && task.schedule.is_some();
                    (task.occurrence, task.next_at, task.claim) = (now, now, None);
                    task.revision += 1;
                    task.becomes(TaskState::Scheduled, now);
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
        self.change_task(principal, id, |engine, task| {
            let waits = matches!(task.state, TaskState::Scheduled | TaskState::Retrying);
            if !waits || task.schedule.is_none() {
                return Err(not_now(task, "paused", "scheduled or retrying, and recurring"));
            }
            task.revision += 1;
            task.becomes(TaskState::Paused, engine.ports.clock.now());
            Ok(())
        })
        .await
    }

    /// Lets a paused task go on, with its next time from now.
    pub async fn resume_task(self: &Arc<Self>, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        self.change_task(principal, id, |engine, task| {
            let now = engine.ports.clock.now();
            if task.state != TaskState::Paused {
                return Err(not_now(task, "resumed", "paused"));
            }
            let next = task.next_run(now);
            let next = next.ok_or_else(|| Error::field("", "its schedule has no run left; change it first"))?;
            (task.occurrence, task.next_at, task.failures_in_row) = (next, next, 0);
            task.revision += 1;
            task.becomes(TaskState::Scheduled, now);
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
        self.change_task(principal, id, move |engine, task| {
            if !matches!(task.state, TaskState::Scheduled | TaskState::Paused) {
                return Err(not_now(task, "changed", "scheduled or paused"));
            }
            engine.edit(task, change.clone())
        })
        .await
    }

    fn edit(&self, task: &mut Task, change: ChangeTask) -> Result<(), Error> {
        let now = self.ports.clock.now();
        let mut problems: Vec<FieldProblem> = wrong_attempts(change.max_attempts).into_iter().collect();
        if let Some(parameters) = change.context {
            let plugin = self.catalog.plugin(task.plugin.as_str())?;
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
        let user = whose(principal, &filter)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.to_its_end(async move {
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

    /// The tasks that wait for an account: `alias` by its name, or as the default.
    pub(crate) async fn tasks_that_need(
        &self,
        org: &OrgId,
        user: Option<&UserId>,
        plugin: &PluginName,
        alias: &Alias,
        is_default: bool,
    ) -> Result<Vec<TaskId>, Error> {
        let filter = TaskFilter { tool: Some(plugin.clone()), ..TaskFilter::default() };
        let mut needing = Vec::new();
        let mut cursor = None;
        while needing.len() < NEEDING_MAX {
            let page = self.tasks(org, user, (&filter, Wanted::Open), BATCH_MAX, cursor).await?;
            let by_name = |task: &Task| match &task.integration {
                Some(named) => named == alias,
                None => is_default,
            };
            needing.extend(page.entries.into_iter().map(|(task, _)| task).filter(by_name).map(|task| task.id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(needing)
    }

    /// Forgets the alarm of a task as it was.
    async fn forget_alarm(&self, before: &Task) {
        if let Err(error) = self.ports.timer.cancel(&before.work()).await {
            tracing::warn!(org = %before.org, task = %before.id, error = %causes(&error), "an alarm that is not needed stays");
        }
    }
}

/// Whose tasks a filter is about: one user's, or everybody's.
fn whose(principal: &Principal, filter: &TaskFilter) -> Result<Option<UserId>, Error> {
    match &filter.user_id {
        None if sees_all(principal) => Ok(None),
        asked => principal.acting_for(asked.clone()).map(Some),
    }
}

/// Whether a caller acts for each user of the organization.
fn sees_all(principal: &Principal) -> bool {
    principal.roles.contains(&Role::Administrator) || principal.roles.contains(&Role::Service)
}

/// Cancels a task that waits; asks one that is under way to end. What has ended stays as it is.
fn cancel(task: &mut Task, now: Timestamp) {
    match task.state {
        TaskState::Scheduled | TaskState::Retrying | TaskState::Paused => {
            task.revision += 1;
            task.becomes(TaskState::Cancelled, now);
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

fn wrong_time(time: Timestamp, now: Timestamp) -> Option<FieldProblem> {
    let problem = |message: &str| Some(FieldProblem::new("/scheduledTime", message));
    if now.duration_since(time) > PAST_MAX {
        return problem("is in the past; leave it out to do it now");
    }
    if time.duration_since(now) > AHEAD_MAX {
        return problem("is more than ten years ahead");
    }
    None
}

fn wrong_attempts(attempts: Option<u32>) -> Option<FieldProblem> {
    let wrong = attempts.is_some_and(|attempts| !(1..=ATTEMPTS_MAX).contains(&attempts));
    wrong.then(|| FieldProblem::new("/maxAttempts", format!("must be 1 to {ATTEMPTS_MAX}")))
}

fn too_large(parameters: &Map<String, Value>) -> Option<FieldProblem> {
    let bytes = serde_json::to_string(parameters).map_or(usize::MAX, |text| text.len());
    let message = format!("has {bytes} bytes of JSON, more than the {PARAMETERS_MAX_BYTES} that a task may keep");
    (bytes > PARAMETERS_MAX_BYTES).then(|| FieldProblem::new("/context", message))
}
