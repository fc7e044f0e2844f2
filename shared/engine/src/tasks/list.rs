//! Tasks found and listed: each caller's own, or the organization's.

use schemars::JsonSchema;
use serde::Deserialize;

use super::TaskView;
use super::record::{Task, TaskState};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{AgentId, Alias, OrgId, PluginName, TaskId, UserId};
use crate::engine::Engine;
use crate::ports::table::{BATCH_MAX, Cursor, Item, Page};
use crate::storage::keys::ListedKind;

/// About how many tasks are named that need an account which is disconnected.
const NEEDING_MAX: usize = 1_000;

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
pub(super) enum Wanted {
    All,
    Open,
}

impl Engine {
    /// A task that the caller may see.
    pub(super) async fn task(&self, principal: &Principal, id: &str) -> Result<(Task, Item), Error> {
        let unknown = || Error::NotFound("task");
        let id = TaskId::parse(id).map_err(|_| unknown())?;
        let item = self.listed(principal, ListedKind::Tasks, id.as_str()).await?.ok_or_else(unknown)?;
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
        let user = principal.visible_user(filter.user_id.as_ref())?;
        let page = self.tasks(&principal.org, user.as_ref(), (filter, Wanted::All), limit, cursor).await?;
        Ok(Page { entries: page.entries.iter().map(|(task, _)| task.summary()).collect(), next: page.next })
    }

    /// Tasks with their items. A page may have fewer than `limit` and still not be the last.
    pub(super) async fn tasks(
        &self,
        org: &OrgId,
        user: Option<&UserId>,
        (filter, wanted): (&TaskFilter, Wanted),
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<(Task, Item)>, Error> {
        self.list(org, user, ListedKind::Tasks, |task| filter.holds(task, wanted), limit, cursor).await
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
}
