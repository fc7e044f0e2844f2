//! Failures found and listed: each caller's own, or the organization's.

use schemars::JsonSchema;
use serde::Deserialize;

use super::FailureView;
use super::record::FailureRecord;
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, FailureId, OrgId, PluginName, UserId};
use crate::core::outcome::OutcomeCode;
use crate::engine::Engine;
use crate::ports::table::{Cursor, Item, Page};
use crate::storage::keys::ListedKind;

/// Which failures.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailureFilter {
    /// Of which user; left out, of the user that the API key is bound to, or, for a key that acts for all, of everybody.
    pub user_id: Option<UserId>,
    /// Of which agent.
    pub agent_id: Option<AgentId>,
    /// Of which plugin.
    pub tool: Option<PluginName>,
    /// Of which action, by its own name.
    pub intent: Option<ActionName>,
    /// With which code.
    pub code: Option<OutcomeCode>,
}

impl FailureFilter {
    fn holds(&self, record: &FailureRecord) -> bool {
        self.agent_id.as_ref().is_none_or(|agent| record.agent.as_ref() == Some(agent))
            && self.tool.as_ref().is_none_or(|tool| record.plugin == *tool)
            && self.intent.as_ref().is_none_or(|intent| record.action == *intent)
            && self.code.is_none_or(|code| record.code == code)
    }
}

impl Engine {
    /// A failure that the caller may see.
    pub(super) async fn failure(
        &self,
        principal: &Principal,
        id: &str,
    ) -> Result<Option<(FailureRecord, Item)>, Error> {
        let Ok(id) = FailureId::parse(id) else { return Ok(None) };
        let Some(item) = self.listed(principal, ListedKind::Failures, id.as_str()).await? else { return Ok(None) };
        Ok(Some((item.record()?, item)))
    }

    /// One failure, with its parameters.
    pub async fn get_failure(&self, principal: &Principal, id: &str) -> Result<FailureView, Error> {
        let (record, _) = self.failure(principal, id).await?.ok_or(Error::NotFound("error"))?;
        Ok(record.whole())
    }

    /// Failures, the newest first; only those that are resolved, or are not, if that is asked.
    pub async fn list_failures(
        &self,
        principal: &Principal,
        filter: &FailureFilter,
        resolved: Option<bool>,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<FailureView>, Error> {
        let user = principal.visible_user(filter.user_id.as_ref())?;
        let page = self.failures(&principal.org, user.as_ref(), (filter, resolved), limit, cursor).await?;
        let entries = page.entries.into_iter().map(|(record, _)| record.summary()).collect();
        Ok(Page { entries, next: page.next })
    }

    /// Failures with their items. A page may have fewer than `limit` and still not be the last.
    pub(super) async fn failures(
        &self,
        org: &OrgId,
        user: Option<&UserId>,
        (filter, resolved): (&FailureFilter, Option<bool>),
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<(FailureRecord, Item)>, Error> {
        let holds = |record: &FailureRecord| {
            filter.holds(record) && resolved.is_none_or(|resolved| record.resolved.is_some() == resolved)
        };
        self.list(org, user, ListedKind::Failures, holds, limit, cursor).await
    }
}
