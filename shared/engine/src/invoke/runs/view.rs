//! Runs as callers read them: one run, and lists.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::debug_span;
use tracing::field::Empty;

use super::record::{Resolution, Run, RunState};
use crate::access::principal::Principal;
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, Alias, IdempotencyKey, PluginName, RequestId, RunId, TaskId, UserId};
use crate::core::outcome::OutcomeCode;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{Cursor, Item, Page};
use crate::storage::keys::ListedKind;

/// The message of a run whose result was never recorded.
const RESULT_NEVER_RECORDED: &str = "the worker stopped before it recorded the result; the action may have happened";

/// A run as callers read it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    /// The run's id.
    pub id: RunId,
    /// Its state now.
    pub state: RunState,
    /// The user whose account was used.
    pub user_id: UserId,
    /// The agent that sent the intent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The plugin's name.
    pub tool: PluginName,
    /// The plugin's version.
    pub version: String,
    /// The action, by its own name.
    pub intent: ActionName,
    /// What a second execution would do.
    pub effect: Effect,
    /// The account, where the intent named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration: Option<Alias>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended, where the end was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How many times the service was called.
    pub attempts: u32,
    /// The failure's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<OutcomeCode>,
    /// The result's message, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The service's id of what was created or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The intent's idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// The task, where the run is an attempt of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The request that carried the intent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// What a caller decided or reported about a run that was unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// The redacted parameters; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
}

impl Run {
    /// The run as a list has it, without parameters.
    fn summary(&self, now: Timestamp) -> RunView {
        let state = self.state_at(now);
        let lost = state == RunState::Unknown && self.state == RunState::Started;
        let message = if lost { Some(RESULT_NEVER_RECORDED.to_owned()) } else { self.message.clone() };
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

    /// The run with its parameters.
    pub(super) fn whole(&self, now: Timestamp) -> RunView {
        RunView { context: Some(self.parameters.clone()), ..self.summary(now) }
    }
}

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of which user. By default of the user that the API key is bound to, or of every user for a key that acts for all.
    pub user: Option<UserId>,
    /// Of which agent.
    pub agent: Option<AgentId>,
    /// Of which plugin.
    pub plugin: Option<PluginName>,
    /// In which state now.
    pub state: Option<RunState>,
}

impl RunFilter {
    fn matches(&self, run: &Run, now: Timestamp) -> bool {
        self.agent.as_ref().is_none_or(|agent| run.agent.as_ref() == Some(agent))
            && self.plugin.as_ref().is_none_or(|plugin| run.plugin == *plugin)
            && self.state.is_none_or(|state| run.state_at(now) == state)
    }
}

impl Engine {
    /// Lists runs, the newest first.
    pub async fn list_runs(
        &self,
        principal: &Principal,
        filter: &RunFilter,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<RunView>, Error> {
        let span = debug_span!("list_runs", org = %principal.org, outcome = Empty);
        traced(span, async {
            let user = principal.visible_user(filter.user.as_ref())?;
            let now = self.ports.clock.now();
            let matches = |run: &Run| filter.matches(run, now);
            let page = self.list(&principal.org, user.as_ref(), ListedKind::Runs, matches, limit, cursor).await?;
            Ok(Page { entries: page.entries.iter().map(|(run, _)| run.summary(now)).collect(), next: page.next })
        })
        .await
    }

    /// Reads one run, with its parameters.
    pub async fn get_run(&self, principal: &Principal, id: &str) -> Result<RunView, Error> {
        let span = debug_span!("get_run", org = %principal.org, id, outcome = Empty);
        traced(span, async { Ok(self.visible_run(principal, id).await?.0.whole(self.ports.clock.now())) }).await
    }

    /// A run that the caller may see, with its item. `NotFound` covers runs that belong to other users.
    pub(super) async fn visible_run(&self, principal: &Principal, id: &str) -> Result<(Run, Item), Error> {
        let unknown = || Error::NotFound("run");
        let id = RunId::parse(id).map_err(|_| unknown())?;
        let item = self.listed(principal, ListedKind::Runs, id.as_str()).await?.ok_or_else(unknown)?;
        Ok((item.record()?, item))
    }
}
