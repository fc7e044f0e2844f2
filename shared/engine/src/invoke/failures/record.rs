//! The stored record of a failure, and the view of it that callers read.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::ids::{ActionName, AgentId, FailureId, KeyId, OrgId, PluginName, RequestId, RunId, TaskId, UserId};
use crate::core::outcome::OutcomeCode;
use crate::ports::table::{NewItem, TableError};
use crate::storage::keys;
use crate::storage::keys::ListedKind;

/// How long a failure is stored.
pub const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The longest stored message, in characters.
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

/// The mark of a failure that a caller has resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// When it was resolved.
    pub at: Timestamp,
    /// By whom it was resolved.
    pub by: ResolvedBy,
    /// The caller's note.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Who resolved a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedBy {
    /// The user that the API key is bound to.
    User(UserId),
    /// An API key that is not bound to a user.
    Key(KeyId),
}

/// A failure as callers read it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureView {
    /// The failure's id.
    pub id: FailureId,
    /// When it happened.
    pub created_at: Timestamp,
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
    /// Why the intent failed.
    pub code: OutcomeCode,
    /// The message for the agent, without secrets.
    pub message: String,
    /// Whether a retry of the same intent was safe.
    pub retryable: bool,
    /// Whether the action may have had its effect nevertheless.
    pub may_have_happened: bool,
    /// Seconds to wait before a retry, where the service said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// How many times the service was called.
    pub attempts: u32,
    /// The request that carried the intent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The task, where an attempt of one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The run in the ledger, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The redacted parameters; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
    /// Who resolved it, and when; absent while it is unresolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
}

impl FailureRecord {
    /// The table item, with its place in the organization's list.
    pub(super) fn item(&self, org: &OrgId) -> Result<NewItem, TableError> {
        let id = self.id.as_str();
        Ok(NewItem {
            expires_at: self.at.checked_add(KEPT).ok(),
            list: Some(keys::in_list(org, ListedKind::Failures, id)),
            ..NewItem::new(keys::listed(org, &self.user, ListedKind::Failures, id), self)?
        })
    }

    /// The failure as a list has it, without parameters.
    pub(super) fn summary(self) -> FailureView {
        FailureView { context: None, ..self.whole() }
    }

    /// The failure with its parameters.
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
