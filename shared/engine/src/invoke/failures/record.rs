//! A failure as it is stored, and as it is shown.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::ids::{ActionName, AgentId, FailureId, KeyId, OrgId, PluginName, RequestId, RunId, TaskId, UserId};
use crate::core::outcome::OutcomeCode;
use crate::ports::table::{NewItem, TableError};
use crate::storage::keys;
use crate::storage::keys::ListedKind;

/// How long a failure is listed.
pub const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The longest message that is kept, in characters.
pub const MESSAGE_MAX: usize = 1_000;

/// The stored record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FailureRecord {
    pub(super) id: FailureId,
    pub(super) user: UserId,
    pub(super) agent: Option<AgentId>,
    pub(super) plugin: PluginName,
    pub(super) version: String,
    pub(super) action: ActionName,
    pub(super) code: OutcomeCode,
    pub(super) message: String,
    pub(super) retryable: bool,
    pub(super) may_have_happened: bool,
    pub(super) retry_after_s: Option<u64>,
    pub(super) attempts: u32,
    pub(super) request: Option<RequestId>,
    pub(super) task: Option<TaskId>,
    pub(super) run: Option<RunId>,
    /// Redacted.
    pub(super) parameters: Map<String, Value>,
    pub(super) at: Timestamp,
    pub(super) resolved: Option<Resolved>,
}

/// That somebody has seen to a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: ResolvedBy,
    /// What they said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Who resolved a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedBy {
    /// The user that the API key is bound to.
    User(UserId),
    /// An API key that is bound to nobody.
    Key(KeyId),
}

/// A failure as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureView {
    /// Names it.
    pub id: FailureId,
    /// When it happened.
    pub created_at: Timestamp,
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
    /// Why.
    pub code: OutcomeCode,
    /// What the agent was told.
    pub message: String,
    /// Whether the same intent could be sent again without doing anything twice.
    pub retryable: bool,
    /// Whether the action may have had its effect all the same.
    pub may_have_happened: bool,
    /// Seconds to wait that the service asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// How often the service was called.
    pub attempts: u32,
    /// The request that it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The task that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The run that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// Its parameters without their secrets; only where one failure is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
    /// Who has seen to it, if somebody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
}

impl FailureRecord {
    /// As it is stored.
    pub(super) fn item(&self, org: &OrgId) -> Result<NewItem, TableError> {
        let id = self.id.as_str();
        Ok(NewItem {
            expires_at: self.at.checked_add(KEPT).ok(),
            list: Some(keys::in_list(org, ListedKind::Failures, id)),
            ..NewItem::new(keys::listed(org, &self.user, ListedKind::Failures, id), self)?
        })
    }

    /// As it is shown in a list.
    pub(super) fn summary(self) -> FailureView {
        FailureView { context: None, ..self.whole() }
    }

    /// As it is shown by itself.
    pub(super) fn whole(self) -> FailureView {
        FailureView {
            id: self.id,
            created_at: self.at,
            user_id: self.user,
            agent_id: self.agent,
            tool: self.plugin,
            version: self.version,
            intent: self.action,
            code: self.code,
            message: self.message,
            retryable: self.retryable,
            may_have_happened: self.may_have_happened,
            retry_after: self.retry_after_s,
            attempts: self.attempts,
            request_id: self.request,
            task_id: self.task,
            run_id: self.run,
            context: Some(self.parameters),
            resolved: self.resolved,
        }
    }
}
