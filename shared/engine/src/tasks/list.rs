//! Reads one task, or lists the tasks of a user or an organization.

use schemars::JsonSchema;
use serde::Deserialize;
use tracing::debug_span;
use tracing::field::Empty;

use super::TaskView;
use super::record::{Task, TaskState};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{AgentId, Alias, OrgId, PluginName, TaskId, UserId};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{BATCH_MAX, Cursor, Item, Page};
use crate::storage::keys::ListedKind;

/// About how many tasks an answer names that need a disconnected account.
const NEEDING_MAX: usize = 1_000;

/// Which tasks to list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskFilter {
    /// Tasks of this user. Left out: of the user that the API key is bound to, or of every user for an administrator.
    pub user_id: Option<UserId>,
    /// Tasks of this agent.
    pub agent_id: Option<AgentId>,
    /// Tasks of this plugin.
    pub tool: Option<PluginName>,
    /// Tasks in this state.
    pub status: Option<TaskState>,
}

impl TaskFilter {
    fn matches(&self, task: &Task, states: StateFilter) -> bool {
        let state_matches = match states {
            StateFilter::Any => true,
            StateFilter::Open => !task.state.is_final(),
        };
        state_matches
            && self.agent_id.as_ref().is_none_or(|agent| task.agent.as_ref() == Some(agent))
            && self.tool.as_ref().is_none_or(|tool| task.plugin == *tool)
            && self.status.is_none_or(|status| task.state == status)
    }
}

/// Whether a list contains tasks in a final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateFilter {
    /// Tasks in any state.
    Any,
    /// Only tasks that are not in a final state.
    Open,
}

impl Engine {
    /// A task that the caller may see, with its item.
    pub(super) async fn task(&self, principal: &Principal, id: &str) -> Result<(Task, Item), Error> {
        let unknown = || Error::NotFound("task");
        let id = TaskId::parse(id).map_err(|_| unknown())?;
        let item = self.listed(principal, ListedKind::Tasks, id.as_str()).await?.ok_or_else(unknown)?;
        Ok((item.record()?, item))
    }

    /// One task, with its attempts.
    pub async fn get_task(&self, principal: &Principal, id: &str) -> Result<TaskView, Error> {
        let span = debug_span!("get_task", org = %principal.org, id, outcome = Empty);
        traced(span, async { Ok(self.task(principal, id).await?.0.detail()) }).await
    }

    /// Tasks that the caller may see, the newest first. A page may have fewer than `limit` and still not be the last.
    pub async fn list_tasks(
        &self,
        principal: &Principal,
        filter: &TaskFilter,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<TaskView>, Error> {
        let span = debug_span!("list_tasks", org = %principal.org, outcome = Empty);
        traced(span, async {
            let user = principal.visible_user(filter.user_id.as_ref())?;
            let page = self.tasks(&principal.org, user.as_ref(), filter, StateFilter::Any, limit, cursor).await?;
            Ok(Page { entries: page.entries.iter().map(|(task, _)| task.summary()).collect(), next: page.next })
        })
        .await
    }

    /// Tasks with their items. A page may have fewer than `limit` and still not be the last.
    pub(super) async fn tasks(
        &self,
        org: &OrgId,
        user: Option<&UserId>,
        filter: &TaskFilter,
        states: StateFilter,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<(Task, Item)>, Error> {
        self.list(org, user, ListedKind::Tasks, |task| filter.matches(task, states), limit, cursor).await
    }

    /// The open tasks that use an account: those that name `alias`, and those that name none if it is the default. About
    /// 1,000 at most.
    pub(crate) async fn tasks_that_need(
        &self,
        org: &OrgId,
        user: Option<&UserId>,
        plugin: &PluginName,
        alias: &Alias,
        is_default: bool,
    ) -> Result<Vec<TaskId>, Error> {
        let filter = TaskFilter { tool: Some(plugin.clone()), ..TaskFilter::default() };
        let needs_account = |task: &Task| match &task.integration {
            Some(named) => named == alias,
            None => is_default,
        };
        let mut needing = Vec::new();
        let mut cursor = None;
        while needing.len() < NEEDING_MAX {
            let page = self.tasks(org, user, &filter, StateFilter::Open, BATCH_MAX, cursor).await?;
            let tasks = page.entries.into_iter().map(|(task, _)| task);
            needing.extend(tasks.filter(needs_account).map(|task| task.id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(needing)
    }
}
