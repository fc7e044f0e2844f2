//! A caller creates a task from an intent: checks it, stores it under its idempotency key, and sets its first alarm.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tracing::debug_span;
use tracing::field::Empty;

use super::record::{Task, TaskState};
use super::validate::{attempts_problem, storable_parameters, time_problem};
use super::view::TaskView;
use crate::access::principal::Principal;
use crate::accounts::AccountLookup;
use crate::core::error::Error;
use crate::core::ids::TaskId;
use crate::core::intent::Intent;
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::invoke::runs::{
    IdempotencyRecord, IdempotencyRequest, IdempotencyState, KeyState, Replayable, RequestOptions, in_progress,
};
use crate::plugin::breaker::ActionClass;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::Auth;
use crate::ports::table::{Condition, Read, TableError, Write};
use crate::registry::instances::{Availability, LoadedInstance};
use crate::storage::keys;

/// The most attempts of a run if neither the intent nor the plugin's manifest sets a number.
const ATTEMPTS_DEFAULT: u32 = 3;

/// A task that a caller has created.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedTask {
    /// The task.
    pub task: TaskView,
    /// What would make it fail if nothing changes before its time, in words for a person or a model.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Creates a task from an intent that runs later, on a schedule, or now without the caller waiting. A second request
    /// with the same idempotency key gets the task of the first.
    pub async fn schedule(
        self: &Arc<Self>,
        principal: &Principal,
        intent: Intent,
        options: &RequestOptions,
    ) -> Result<Replayable<CreatedTask>, Error> {
        let span = debug_span!("schedule", org = %principal.org, outcome = Empty);
        traced(span, async {
            let intent = principal.with_agent(intent)?;
            self.must_be_admitted(&principal.org, principal.channel(options.channel.as_ref())?, &intent.tool).await?;
            let plugin = self.plugin_latest(&principal.org, &intent.tool).await?;
            let action = plugin.action(&intent.intent)?.action;
            let now = self.ports.clock.now();
            let user = principal.resolve_user(intent.user_id.clone())?;
            let keyed = IdempotencyRequest::of(&intent, options, &user, &plugin.manifest.name, &action.name, true)?;
            if options.resolve.is_some() {
                return Err(Error::field(
                    "",
                    "?resolve does not apply to tasks, which are created once per key; leave it out",
                ));
            }
            if let Some(keyed) = &keyed {
                let key = keys::idempotency(&principal.org, &user, &keyed.key);
                let item = self.ports.table.get(&key, Read::Consistent).await?;
                let state = IdempotencyState::of(item, &keyed.payload, now)?;
                if let Some(created) = self.replay_created(principal, state).await? {
                    return Ok(created);
                }
            }
            let task = self.plan(&plugin, principal, &intent, now)?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            self.run_to_completion(async move {
                let warnings = engine.warnings(&task, &plugin).await?;
                if let Some(keyed) = &keyed
                    && let Some(created) = engine.store_keyed_task(&principal, &task, keyed, &warnings, now).await?
                {
                    return Ok(created);
                }
                if keyed.is_none() {
                    engine.ports.table.put(task.item()?, Condition::Absent).await?;
                }
                engine.set_alarm(&task, task.next_at).await;
                Ok(Replayable::first(CreatedTask { task: task.detail(), warnings }))
            })
            .await
        })
        .await
    }

    /// Stores a task together with its idempotency record. Returns the other task if another request with the same key
    /// created one first.
    async fn store_keyed_task(
        &self,
        principal: &Principal,
        task: &Task,
        keyed: &IdempotencyRequest,
        warnings: &[String],
        now: Timestamp,
    ) -> Result<Option<Replayable<CreatedTask>>, Error> {
        let state = KeyState::Task { id: task.id.clone(), warnings: warnings.to_vec() };
        let record = IdempotencyRecord { payload: keyed.payload.clone(), made_at: now, state };
        let writes = vec![
            Write::Put(task.item()?, Condition::Absent),
            Write::Put(record.item(&task.org, &task.user, &keyed.key)?, Condition::Absent),
        ];
        match self.ports.table.transact(writes).await {
            Ok(_) => Ok(None),
            Err(TableError::Condition { current, .. }) => {
                let state = IdempotencyState::of(current.map(|item| *item), &keyed.payload, now)?;
                self.replay_created(principal, state).await?.ok_or_else(in_progress).map(Some)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The task that an earlier request with the same key created, in its current state; `None` if the key is free.
    async fn replay_created(
        &self,
        principal: &Principal,
        state: IdempotencyState,
    ) -> Result<Option<Replayable<CreatedTask>>, Error> {
        match state {
            IdempotencyState::Free => Ok(None),
            IdempotencyState::Task(id, warnings) => {
                let task = self.task(principal, id.as_str()).await?.0.detail();
                Ok(Some(Replayable { answer: CreatedTask { task, warnings }, replayed: true }))
            }
            // The payload of an intent that runs now differs from a task's, so these states have another payload.
            IdempotencyState::Busy | IdempotencyState::Ended(..) | IdempotencyState::Lost(..) => Err(Error::KeyReused),
        }
    }

    /// The task of an intent, checked and not stored. Fails with every problem of the intent at once.
    pub(crate) fn plan(
        &self,
        plugin: &Plugin,
        principal: &Principal,
        intent: &Intent,
        now: Timestamp,
    ) -> Result<Task, Error> {
        let action = plugin.action(&intent.intent)?;
        let user = principal.resolve_user(intent.user_id.clone())?;
        let mut problems: Vec<FieldProblem> = Vec::new();
        let parameters = storable_parameters(action.check(intent.context.clone()), &mut problems)?;
        problems.extend(attempts_problem(intent.max_attempts));
        let first_run = first_run(intent, now, &mut problems);
        let (Some(parameters), Some(first_run), true) = (parameters, first_run, problems.is_empty()) else {
            return Err(Error::Invalid(problems));
        };
        let attempts_max = intent.max_attempts.or(plugin.manifest.retry.attempts).unwrap_or(ATTEMPTS_DEFAULT);
        Ok(Task {
            id: TaskId::parse(self.id_at(now)).map_err(Error::internal)?,
            org: principal.org.clone(),
            user,
            agent: intent.agent_id.clone(),
            channel: principal.agent.as_ref().map(|agent| agent.channel.clone()),
            plugin: plugin.manifest.name.clone(),
            action: action.action.name.clone(),
            integration: intent.integration.clone(),
            parameters,
            schedule: intent.schedule.clone(),
            anchor: now,
            occurrence: first_run,
            next_at: first_run,
            by_hand: false,
            attempts_max,
            state: TaskState::Scheduled,
            since: now,
            cancel_requested: false,
            revision: 1,
            attempt: 0,
            runs: 0,
            claim: None,
            attempts: Vec::new(),
            failures_in_row: 0,
            result: None,
            created_at: now,
            updated_at: now,
        })
    }

    /// What would make a task fail if nothing changes before its time.
    async fn warnings(&self, task: &Task, plugin: &Plugin) -> Result<Vec<String>, Error> {
        let manifest = &plugin.manifest;
        let mut item_keys = vec![keys::instance(&task.org, &manifest.name)];
        item_keys.extend(AccountLookup::keys(&task.org, &task.user, &manifest.name));
        let mut items = self.ports.table.batch_get(&item_keys, Read::Consistent).await?.into_iter();
        let instance = LoadedInstance::of(items.next().flatten())?.instance;
        let name = &manifest.display_name;
        let mut warnings = Vec::new();
        match instance.in_use(manifest, ActionClass::Write, self.ports.clock.now()) {
            Availability::NotEnabled => {
                warnings.push(format!("{name} is not enabled; an administrator must enable it before then"));
            }
            Availability::Disabled(reason) => {
                let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                warnings.push(format!(
                    "{name} was disabled by an administrator{reason}; an administrator must enable it before then"
                ));
            }
            Availability::Available
            | Availability::OnTrial
            | Availability::OpenUntil(_)
            | Availability::TrialInProgress => {}
        }
        if let Some(permission) = instance.not_granted(plugin) {
            warnings
                .push(format!("{name} lacks the permission {permission}; an administrator must grant it before then"));
        }
        if matches!(manifest.auth, Auth::None) {
            return Ok(warnings);
        }
        warnings.extend(match AccountLookup::among(items, task.integration.as_ref())? {
            None => Some(format!("{} is not connected at {name}; connect the account before then", task.user)),
            Some(account) => self.unusable_reason_at(manifest, &account, task.next_at).map(|reason| {
                format!("the account \"{}\" at {name} {}; {}", account.alias, reason.description(), reason.remedy())
            }),
        });
        Ok(warnings)
    }
}

/// When a task runs first: at its scheduled time, by its schedule, or now. Adds to `problems` what is wrong with them.
fn first_run(intent: &Intent, now: Timestamp, problems: &mut Vec<FieldProblem>) -> Option<Timestamp> {
    match (&intent.scheduled_time, &intent.schedule) {
        (Some(_), Some(_)) => {
            problems
                .push(FieldProblem::new("/schedule", "cannot be combined with scheduledTime; leave one of them out"));
            None
        }
        (Some(time), None) => match time_problem(*time, now) {
            Some(problem) => {
                problems.push(problem);
                None
            }
            None => Some((*time).max(now)),
        },
        (None, Some(schedule)) => match schedule.check(now) {
            Ok(timetable) => timetable.next_after(now),
            Err(schedule_problems) => {
                problems.extend(schedule_problems);
                None
            }
        },
        (None, None) => Some(now),
    }
}
