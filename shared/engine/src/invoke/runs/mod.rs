//! The ledger of runs: every action with an effect is on record before it can happen, with what came of it after. It is the
//! history that people look at, and what makes an intent safe to repeat under its key.

mod idempotency;
mod ledger;
mod record;

use std::sync::Arc;

pub(crate) use idempotency::{IdempotencyRequest, IdempotencyState, in_progress, lost};
pub use idempotency::{Replayable, RequestOptions, Resolve, WAIT_MAX};
use jiff::Timestamp;
pub(crate) use ledger::{Fenced, KeyClaim, StartedRun};
use record::StoredAnswer;
pub use record::{ANSWERS_KEPT, RUNS_KEPT, Resolution, RunState, Verdict};
pub(crate) use record::{AttemptRef, IdempotencyRecord, KeyState, Run};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::access::principal::Principal;
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, Alias, IdempotencyKey, PluginName, RequestId, RunId, TaskId, UserId};
use crate::core::outcome::{OutcomeCode, Success};
use crate::engine::Engine;
use crate::ports::table::{Condition, Cursor, Item, Page, Read, TableError, Write};
use crate::storage::keys;
use crate::storage::keys::ListedKind;

/// A run as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    /// Names it.
    pub id: RunId,
    /// Where it is.
    pub state: RunState,
    /// Whose account was used.
    pub user_id: UserId,
    /// The agent that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The plugin.
    pub tool: PluginName,
    /// Its version.
    pub version: String,
    /// The action, by its own name.
    pub intent: ActionName,
    /// What doing it twice would mean.
    pub effect: Effect,
    /// Which account, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration: Option<Alias>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended, if somebody saw that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How often the service was called.
    pub attempts: u32,
    /// What the failure was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<OutcomeCode>,
    /// For a person to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The service's id of what was made or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The key that it was asked for under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// The task that it is an attempt of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The request that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// What somebody who looked said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// The parameters, without what is secret; only where one run is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
}

impl Run {
    fn summary(&self, now: Timestamp) -> RunView {
        let state = self.state_at(now);
        let lost = state == RunState::Unknown && self.state == RunState::Started;
        let message = if lost { Some(NOT_HEARD_OF.to_owned()) } else { self.message.clone() };
        RunView {
            id: self.id.clone(),
            state,
            user_id: self.user.clone(),
            agent_id: self.agent.clone(),
            tool: self.plugin.clone(),
            version: self.version.clone(),
            intent: self.action.clone(),
            effect: self.effect,
            integration: self.integration.clone(),
            started_at: self.started_at,
            ended_at: self.ended_at,
            attempts: self.attempts,
            code: if lost { Some(OutcomeCode::OutcomeUnknown) } else { self.code },
            message,
            external_id: self.external_id.clone(),
            idempotency_key: self.key.clone(),
            task_id: self.task.clone(),
            request_id: self.request.clone(),
            resolution: self.resolved.clone(),
            context: None,
        }
    }

    fn whole(&self, now: Timestamp) -> RunView {
        RunView { context: Some(self.parameters.clone()), ..self.summary(now) }
    }
}

/// What is said of a run whose end nobody saw.
const NOT_HEARD_OF: &str = "whoever was doing it was not heard of again";

/// Which runs.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of which user; left out, of the user that the API key is bound to, or, for whoever acts for all, of everybody.
    pub user: Option<UserId>,
    /// Of which agent.
    pub agent: Option<AgentId>,
    /// Of which plugin.
    pub plugin: Option<PluginName>,
    /// In which state.
    pub state: Option<RunState>,
}

impl RunFilter {
    fn holds(&self, run: &Run, now: Timestamp) -> bool {
        self.agent.as_ref().is_none_or(|agent| run.agent.as_ref() == Some(agent))
            && self.plugin.as_ref().is_none_or(|plugin| run.plugin == *plugin)
            && self.state.is_none_or(|state| run.state_at(now) == state)
    }
}

/// What a person who looked says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ReportedOutcome {
    /// It had happened.
    Succeeded,
    /// It had not.
    Failed,
}

impl Engine {
    /// Runs, the newest first.
    pub async fn list_runs(
        &self,
        principal: &Principal,
        filter: &RunFilter,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<RunView>, Error> {
        let user = principal.visible_user(filter.user.as_ref())?;
        let now = self.ports.clock.now();
        let holds = |run: &Run| filter.holds(run, now);
        let page = self.list(&principal.org, user.as_ref(), ListedKind::Runs, holds, limit, cursor).await?;
        Ok(Page { entries: page.entries.iter().map(|(run, _)| run.summary(now)).collect(), next: page.next })
    }

    /// One run, with its parameters.
    pub async fn get_run(&self, principal: &Principal, id: &str) -> Result<RunView, Error> {
        Ok(self.run(principal, id).await?.0.whole(self.ports.clock.now()))
    }

    async fn run(&self, principal: &Principal, id: &str) -> Result<(Run, Item), Error> {
        let unknown = || Error::NotFound("run");
        let id = RunId::parse(id).map_err(|_| unknown())?;
        let item = self.listed(principal, ListedKind::Runs, id.as_str()).await?.ok_or_else(unknown)?;
        Ok((item.record()?, item))
    }

    /// Takes down what somebody who looked at the service says of a run whose outcome is not known. Its key then answers so,
    /// or, if it had not happened, is free.
    pub async fn resolve_run(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        found: ReportedOutcome,
    ) -> Result<RunView, Error> {
        let (engine, principal, id) = (Arc::clone(self), principal.clone(), id.to_owned());
        self.run_to_completion(async move {
            loop {
                let (mut run, item) = engine.run(&principal, &id).await?;
                let now = engine.ports.clock.now();
                if run.state_at(now) != RunState::Unknown {
                    let state = serde_json::to_value(run.state).unwrap_or_default();
                    let state = state.as_str().unwrap_or_default();
                    let message = format!("a run that is {state} cannot be resolved; only one that is unknown");
                    return Err(Error::Conflict(message));
                }
                let (state, verdict) = match found {
                    ReportedOutcome::Succeeded => (RunState::Succeeded, Verdict::Succeeded),
                    ReportedOutcome::Failed => (RunState::Failed, Verdict::Failed),
                };
                (run.state, run.code) = (state, None);
                run.message = Some("somebody looked, and said so".to_owned());
                run.resolved = Some(resolution(&principal, verdict, now));
                let mut writes = vec![Write::Put(run.item()?, Condition::Version(item.version))];
                writes.extend(engine.idempotency_write(&run, found).await?);
                match engine.ports.table.transact(writes).await {
                    Ok(_) => return Ok(run.whole(now)),
                    Err(TableError::Condition { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        })
        .await
    }

    /// What follows for the key of a run that was resolved by hand, if the key still stands for it.
    async fn idempotency_write(&self, run: &Run, found: ReportedOutcome) -> Result<Option<Write>, Error> {
        let Some(key) = &run.key else { return Ok(None) };
        let place = keys::idempotency(&run.org, &run.user, key);
        let Some(item) = self.ports.table.get(&place, Read::Consistent).await? else { return Ok(None) };
        let kept: IdempotencyRecord = item.record()?;
        if kept.state.run() != Some(&run.id) {
            return Ok(None);
        }
        let condition = Condition::Version(item.version);
        Ok(Some(match found {
            ReportedOutcome::Failed => Write::Delete(place, condition),
            ReportedOutcome::Succeeded => {
                let message = "somebody looked and found that it had happened".to_owned();
                let success = Success { message, data: Value::Null, external_id: run.external_id.clone() };
                let answer = StoredAnswer { result: Ok(success), metadata: run.metadata(), decided: true };
                let state = KeyState::Ended { run: run.id.clone(), answer: Box::new(answer) };
                Write::Put(IdempotencyRecord { state, ..kept }.item(&run.org, &run.user, key)?, condition)
            }
        }))
    }
}

fn resolution(principal: &Principal, verdict: Verdict, at: Timestamp) -> Resolution {
    Resolution { verdict, at, by: principal.user.clone(), key: principal.key.clone() }
}
