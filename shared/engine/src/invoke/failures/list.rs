//! Reading the error log: one failure, and lists of the caller's own or of the organization's.

use schemars::JsonSchema;
use serde::Deserialize;
use tracing::debug_span;
use tracing::field::Empty;

use super::record::{FailureRecord, FailureView};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, FailureId, OrgId, PluginName, UserId};
use crate::core::outcome::OutcomeCode;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{Cursor, Item, Page};
use crate::storage::keys::ListedKind;

/// Which failures to list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailureFilter {
    /// Of which user. By default of the user that the API key is bound to, or of every user for a key that acts for all.
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
    fn matches(&self, record: &FailureRecord) -> bool {
        self.agent_id.as_ref().is_none_or(|agent| record.agent.as_ref() == Some(agent))
            && self.tool.as_ref().is_none_or(|tool| record.plugin == *tool)
            && self.intent.as_ref().is_none_or(|intent| record.action == *intent)
            && self.code.is_none_or(|code| record.code == code)
    }
}

impl Engine {
    /// Reads one failure, with its parameters.
    pub async fn get_failure(&self, principal: &Principal, id: &str) -> Result<FailureView, Error> {
        let span = debug_span!("get_failure", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            let (record, _) = self.visible_failure(principal, id).await?.ok_or(Error::NotFound("error"))?;
            Ok(record.whole())
        })
        .await
    }

    /// Lists failures, the newest first. `resolved` limits the list to those that are resolved, or that are not.
    pub async fn list_failures(
        &self,
        principal: &Principal,
        filter: &FailureFilter,
        resolved: Option<bool>,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<FailureView>, Error> {
        let span = debug_span!("list_failures", org = %principal.org, outcome = Empty);
        traced(span, async {
            let user = principal.visible_user(filter.user_id.as_ref())?;
            let page = self.failures(&principal.org, user.as_ref(), filter, resolved, limit, cursor).await?;
            let entries = page.entries.into_iter().map(|(record, _)| record.summary()).collect();
            Ok(Page { entries, next: page.next })
        })
        .await
    }

    /// Reads a failure that the caller may see, with its item.
    pub(super) async fn visible_failure(
        &self,
        principal: &Principal,
        id: &str,
    ) -> Result<Option<(FailureRecord, Item)>, Error> {
        let Ok(id) = FailureId::parse(id) else { return Ok(None) };
        let Some(item) = self.listed(principal, ListedKind::Failures, id.as_str()).await? else { return Ok(None) };
        Ok(Some((item.record()?, item)))
    }

    /// Reads failures with their items. A page may have fewer than `limit` and still not be the last.
    pub(super) async fn failures(
        &self,
        org: &OrgId,
        user: Option<&UserId>,
        filter: &FailureFilter,
        resolved: Option<bool>,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<(FailureRecord, Item)>, Error> {
        let matches = |record: &FailureRecord| {
            filter.matches(record) && resolved.is_none_or(|resolved| record.resolved.is_some() == resolved)
        };
        self.list(org, user, ListedKind::Failures, matches, limit, cursor).await
    }
}
