//! Tasks found and listed: each caller's own, or the organization's.

use schemars::JsonSchema;
use serde::Deserialize;

use super::TaskView;
use super::record::{Task, TaskState};
use crate::engine::Engine;
use crate::error::{Error, causes};
use crate::ids::{AgentId, Alias, OrgId, PluginName, TaskId, UserId};
use crate::keys;
use crate::ports::table::{BATCH_MAX, Cursor, Item, Page, Query, Range, Read};
use crate::principal::{Principal, Role};

/// How often the store is asked for one page of a filtered list.
const ASKED_MAX: usize = 10;
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
    pub(super) async fn tasks(
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

/// Whose tasks a filter is about: one user's, or everybody's.
pub(super) fn whose(principal: &Principal, filter: &TaskFilter) -> Result<Option<UserId>, Error> {
    match &filter.user_id {
        None if sees_all(principal) => Ok(None),
        asked => principal.acting_for(asked.clone()).map(Some),
    }
}

/// Whether a caller acts for each user of the organization.
fn sees_all(principal: &Principal) -> bool {
    principal.roles.contains(&Role::Administrator) || principal.roles.contains(&Role::Service)
}
