//! Tasks: intents that are run later, again, or while nobody waits. A task is a record; an alarm is only a hint, and the
//! record decides whether anything is due.

mod list;
mod record;
mod run;
mod update;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
pub use list::TaskFilter;
pub use record::{
    ATTEMPTS_DEFAULT, ATTEMPTS_KEPT, ENDED_KEPT, FAILURES_MAX, RETRY_AFTER_MAX, TaskAttempt, TaskAttemptOutcome,
    TaskResult, TaskState,
};
pub(crate) use record::{TASKS, Task};
use serde::Serialize;
use serde_json::{Map, Value};
pub use update::{Cancelled, ChangeTask};

use crate::access::principal::Principal;
use crate::accounts::AccountLookup;
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, Alias, PluginName, TaskId, UserId};
use crate::core::intent::Intent;
use crate::core::problem::FieldProblem;
use crate::core::schedule::Schedule;
pub use crate::core::work_report::WorkReport;
use crate::engine::Engine;
use crate::invoke::runs::{
    IdempotencyRecord, IdempotencyRequest, IdempotencyState, KeyState, Replayable, RequestOptions, in_progress,
};
use crate::plugin::breaker::ActionClass;
use crate::plugin::catalog::Plugin;
pub use crate::plugin::manifest::ATTEMPTS_MAX;
use crate::plugin::manifest::Auth;
use crate::ports::table::{Condition, Read, TableError, Write};
use crate::registry::instances::{InUse, SeenInstance};
use crate::storage::keys;

/// The largest parameters of a task, in bytes of JSON.
pub const PARAMETERS_MAX_BYTES: usize = 256 * 1024;
/// How far ahead a task may be.
pub const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(10 * 366 * 24);
/// How far in the past a time may be, for clocks that differ.
pub const PAST_MAX: SignedDuration = SignedDuration::from_secs(60);
/// The most tasks that are cancelled at once.
pub const CANCEL_MAX: usize = 1_000;
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
    pub attempts: Option<Vec<TaskAttempt>>,
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

impl Engine {
    /// Makes a task of an intent that is to be run later, again, or at once while nobody waits.
    pub async fn schedule(
        self: &Arc<Self>,
        principal: &Principal,
        intent: Intent,
        asked: &RequestOptions,
    ) -> Result<Replayable<Made>, Error> {
        let intent = principal.with_agent(intent)?;
        self.must_be_admitted(&principal.org, principal.channel(asked.channel.as_ref())?, &intent.tool).await?;
        let plugin = self.plugin_latest(&principal.org, &intent.tool).await?;
        let found = plugin.action(&intent.intent)?;
        let at = self.ports.clock.now();
        let user = principal.resolve_user(intent.user_id.clone())?;
        let keyed = IdempotencyRequest::of(&intent, asked, &user, &plugin.manifest.name, &found.action.name, true)?;
        if asked.resolve.is_some() {
            return Err(Error::field(
                "",
                "?resolve is of no use for a task, which is made once under its key; leave it out",
            ));
        }
        if let Some(keyed) = &keyed {
            let item =
                self.ports.table.get(&keys::idempotency(&principal.org, &user, &keyed.key), Read::Consistent).await?;
            if let Some(made) = self.made_before(principal, IdempotencyState::of(item, &keyed.payload, at)?).await? {
                return Ok(made);
            }
        }
        let task = self.plan(&plugin, principal, &intent, at)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let warnings = engine.warnings(&task, &plugin).await?;
            if let Some(keyed) = &keyed {
                let state = KeyState::Task { id: task.id.clone(), warnings: warnings.clone() };
                let kept = IdempotencyRecord { payload: keyed.payload.clone(), made_at: at, state };
                let writes = vec![
                    Write::Put(task.item()?, Condition::Absent),
                    Write::Put(kept.item(&task.org, &task.user, &keyed.key)?, Condition::Absent),
                ];
                match engine.ports.table.transact(writes).await {
                    Ok(_) => {}
                    Err(TableError::Condition { standing, .. }) => {
                        let judged = IdempotencyState::of(standing.map(|item| *item), &keyed.payload, at)?;
                        return engine.made_before(&principal, judged).await?.ok_or_else(in_progress);
                    }
                    Err(error) => return Err(error.into()),
                }
            } else {
                engine.ports.table.put(task.item()?, Condition::Absent).await?;
            }
            engine.set_alarm(&task, task.next_at).await;
            Ok(Replayable::anew(Made { task: task.whole(), warnings }))
        })
        .await
    }

    /// The task that an intent stands for, checked, and not yet made.
    pub(crate) fn plan(
        &self,
        plugin: &Plugin,
        principal: &Principal,
        intent: &Intent,
        at: Timestamp,
    ) -> Result<Task, Error> {
        let found = plugin.action(&intent.intent)?;
        let user = principal.resolve_user(intent.user_id.clone())?;
        let mut problems: Vec<FieldProblem> = Vec::new();
        let parameters = match found.check(intent.context.clone()) {
            Ok(parameters) => parameters,
            Err(Error::Invalid(wrong)) => {
                problems.extend(wrong);
                Map::new()
            }
            Err(error) => return Err(error),
        };
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
        let id = self.id_at(at);
        Ok(Task {
            id: TaskId::parse(id).map_err(Error::internal)?,
            org: principal.org.clone(),
            user,
            agent: intent.agent_id.clone(),
            channel: principal.agent.as_ref().map(|agent| agent.channel.clone()),
            plugin: plugin.manifest.name.clone(),
            action: found.action.name.clone(),
            integration: intent.integration.clone(),
            parameters,
            schedule: intent.schedule.clone(),
            anchor: at,
            occurrence: first,
            next_at: first,
            by_hand: false,
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
        })
    }

    /// The task that was made under a key before, as it is now.
    async fn made_before(
        &self,
        principal: &Principal,
        judged: IdempotencyState,
    ) -> Result<Option<Replayable<Made>>, Error> {
        match judged {
            IdempotencyState::Free => Ok(None),
            IdempotencyState::Task(id, warnings) => {
                let task = self.task(principal, id.as_str()).await?.0.whole();
                Ok(Some(Replayable { answer: Made { task, warnings }, replayed: true }))
            }
            // What is kept of an outcome is of other words than a task's.
            IdempotencyState::Busy | IdempotencyState::Ended(..) | IdempotencyState::Lost(..) => Err(Error::KeyReused),
        }
    }

    /// What stands in a task's way already.
    async fn warnings(&self, task: &Task, plugin: &Plugin) -> Result<Vec<String>, Error> {
        let manifest = &plugin.manifest;
        let mut wanted = vec![keys::instance(&task.org, &manifest.name)];
        wanted.extend(AccountLookup::keys(&task.org, &task.user, &manifest.name));
        let mut items = self.ports.table.batch_get(&wanted, Read::Consistent).await?.into_iter();
        let instance = SeenInstance::of(items.next().flatten())?.instance;
        let name = &manifest.display_name;
        let mut warnings = Vec::new();
        let in_use = instance.in_use(manifest, ActionClass::Write, self.ports.clock.now());
        if in_use == InUse::Off {
            warnings.push(format!("{name} is not in use; an administrator has to bring it into use before then"));
        }
        if let InUse::Disabled(reason) = in_use {
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            warnings.push(format!(
                "{name} was taken out of use by an administrator{reason}; it has to be back before then"
            ));
        }
        if let Some(missing) = instance.not_granted(plugin) {
            warnings
                .push(format!("{name} was not granted the permission {missing}; an administrator has to, before then"));
        }
        if matches!(manifest.auth, Auth::None) {
            return Ok(warnings);
        }
        warnings.extend(match AccountLookup::among(items, task.integration.as_ref())? {
            None => Some(format!("{} is not connected at {name} yet; connect the account before then", task.user)),
            Some(found) => self.will_be_unfit(manifest, &found, task.next_at).map(|reason| {
                format!("the account \"{}\" at {name} {}; {}", found.alias, reason.what(), reason.remedy())
            }),
        });
        Ok(warnings)
    }
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
