//! The stored records of the ledger: a run, and the idempotency record under a key.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::effect::Effect;
use crate::core::ids::{
    ActionName, AgentId, Alias, IdempotencyKey, KeyId, OrgId, PluginName, RequestId, RunId, TaskId, UserId,
};
use crate::core::outcome::{Failure, MESSAGE_MAX, Metadata, Outcome, OutcomeCode, Success, can_be_kept, cut};
use crate::ports::table::{NewItem, TableError};
use crate::storage::keys;
use crate::storage::keys::ListedKind;

/// How long a run is stored, from its start.
pub const RUNS_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long an idempotency record is stored, from its first request.
pub const ANSWERS_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum RunState {
    /// In flight.
    Started,
    /// The action happened.
    Succeeded,
    /// The action did not happen.
    Failed,
    /// The action may have happened.
    Unknown,
}

/// What a caller decided or reported about a run whose outcome was unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolution {
    /// The decision or the reported outcome.
    #[serde(rename = "as")]
    pub verdict: Verdict,
    /// When it was made.
    pub at: Timestamp,
    /// The user that the API key is bound to, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// The API key of the request.
    pub key: KeyId,
}

/// A decision or report about a run whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Verdict {
    /// A caller who checked reported that it had happened.
    Succeeded,
    /// A caller who checked reported that it had not happened.
    Failed,
    /// The caller ran it again under its idempotency key.
    Retried,
    /// The caller gave it up under its idempotency key.
    Abandoned,
}

/// One execution of an action, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub id: RunId,
    pub org: OrgId,
    pub user: UserId,
    pub agent: Option<AgentId>,
    pub plugin: PluginName,
    pub version: String,
    pub action: ActionName,
    pub effect: Effect,
    pub integration: Option<Alias>,
    /// Redacted.
    pub parameters: Map<String, Value>,
    pub key: Option<IdempotencyKey>,
    pub task: Option<TaskId>,
    pub request: Option<RequestId>,
    pub state: RunState,
    pub started_at: Timestamp,
    /// When its lease expires. A worker sends nothing from then on.
    pub until: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub attempts: u32,
    pub code: Option<OutcomeCode>,
    pub message: Option<String>,
    pub external_id: Option<String>,
    /// Of a failure: whether its task may retry, and the seconds to wait first.
    #[serde(default)]
    pub try_again: bool,
    #[serde(default)]
    pub retry_after_s: Option<u64>,
    pub resolved: Option<Resolution>,
}

/// An attempt of a task, as the ledger needs it.
#[derive(Debug, Clone)]
pub(crate) struct AttemptRef<'a> {
    /// The id of the attempt's run.
    pub run: RunId,
    pub task: &'a TaskId,
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    pub plugin: &'a PluginName,
    pub action: &'a ActionName,
    pub integration: Option<&'a Alias>,
    /// When the worker claimed the task.
    pub since: Timestamp,
    /// When the claim expires.
    pub until: Timestamp,
}

impl Run {
    pub(super) fn item(&self) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::listed(&self.org, &self.user, ListedKind::Runs, self.id.as_str()), self)?;
        item.list = Some(keys::in_list(&self.org, ListedKind::Runs, self.id.as_str()));
        item.expires_at = Some(self.started_at + RUNS_KEPT);
        Ok(item)
    }

    /// The run of a task's attempt that never started. Stored under the attempt's id, it fences the worker off: its own start
    /// loses the compare-and-set.
    pub(crate) fn never_started(attempt: AttemptRef<'_>, effect: Effect, now: Timestamp) -> Self {
        Self {
            id: attempt.run,
            org: attempt.org.clone(),
            user: attempt.user.clone(),
            agent: attempt.agent.cloned(),
            plugin: attempt.plugin.clone(),
            version: String::new(),
            action: attempt.action.clone(),
            effect,
            integration: attempt.integration.cloned(),
            parameters: Map::new(),
            key: None,
            task: Some(attempt.task.clone()),
            request: None,
            state: RunState::Failed,
            started_at: attempt.since,
            until: attempt.until,
            ended_at: Some(now),
            attempts: 0,
            code: Some(OutcomeCode::Unavailable),
            message: Some("never started: the worker that claimed it stopped".to_owned()),
            external_id: None,
            try_again: true,
            retry_after_s: None,
            resolved: None,
        }
    }

    /// The state now: a run whose lease expired without a result is unknown.
    pub(crate) fn state_at(&self, now: Timestamp) -> RunState {
        match self.state {
            RunState::Started if self.until <= now => RunState::Unknown,
            RunState::Started => RunState::Started,
            ended @ (RunState::Succeeded | RunState::Failed | RunState::Unknown) => ended,
        }
    }

    /// How long it took, in milliseconds; 0 if its end was not recorded.
    pub(super) fn duration_ms(&self) -> u64 {
        let duration = self.ended_at.map_or(0, |end| end.duration_since(self.started_at).as_millis());
        u64::try_from(duration).unwrap_or_default()
    }

    /// Sets the result. Texts are cut to their limits; an external id that is too long is left out.
    pub(super) fn end(&mut self, result: &Result<Success, Failure>, attempts: u32, now: Timestamp) {
        let (state, code, message, external_id) = match result {
            Ok(success) => (RunState::Succeeded, None, &success.message, success.external_id.clone()),
            Err(failure) if failure.may_have_happened || failure.unclear => {
                (RunState::Unknown, Some(failure.code), &failure.message, None)
            }
            Err(failure) => (RunState::Failed, Some(failure.code), &failure.message, None),
        };
        (self.state, self.code, self.attempts, self.ended_at) = (state, code, attempts, Some(now));
        (self.message, self.external_id) =
            (Some(cut(message, MESSAGE_MAX)), external_id.filter(|id| id.chars().count() <= MESSAGE_MAX));
        let failure = result.as_ref().err();
        self.try_again = failure.is_some_and(|failure| failure.try_again);
        self.retry_after_s = failure.and_then(|failure| failure.retry_after_s);
    }
}

/// The record under an idempotency key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRecord {
    /// The SHA-256 of the intent as canonical JSON.
    pub payload: String,
    pub made_at: Timestamp,
    pub state: KeyState,
}

/// The progress of the first request with a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyState {
    /// It is in flight until `until` at most, with version `by` of the plugin.
    Started {
        run: RunId,
        until: Timestamp,
        #[serde(default)]
        by: String,
    },
    /// It ended with this answer.
    Ended { run: RunId, answer: Box<StoredAnswer> },
    /// It made a task.
    Task { id: TaskId, warnings: Vec<String> },
}

impl KeyState {
    /// The run that owns the key; none if a task does.
    pub(super) fn run(&self) -> Option<&RunId> {
        match self {
            Self::Started { run, .. } | Self::Ended { run, .. } => Some(run),
            Self::Task { .. } => None,
        }
    }

    /// Whether a caller has decided about, or reported, an unknown outcome.
    pub(super) fn is_decided(&self) -> bool {
        matches!(self, Self::Ended { answer, .. } if answer.decided)
    }
}

/// The answer that an idempotency key replays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredAnswer {
    pub result: Result<Success, Failure>,
    pub metadata: Metadata,
    /// Whether a caller has decided about, or reported, an unknown outcome.
    pub decided: bool,
}

impl StoredAnswer {
    /// An outcome within the limits of a record: the message is cut, data that is too large is left out.
    pub(super) fn of(result: &Result<Success, Failure>, metadata: &Metadata) -> Self {
        let mut result = result.clone();
        if let Ok(success) = &mut result {
            success.message = cut(&success.message, MESSAGE_MAX);
            // A cut id would name something else.
            success.external_id = success.external_id.take().filter(|id| id.chars().count() <= MESSAGE_MAX);
            if !can_be_kept(&success.data) {
                success.data = Value::Null;
                success.message.push_str(" (its data was too large to store; ask the service for it)");
            }
        }
        Self { result, metadata: metadata.clone(), decided: false }
    }

    /// Whether the outcome is unknown and the caller still has to decide.
    pub(crate) fn is_open(&self) -> bool {
        !self.decided && self.result.as_ref().is_err_and(|failure| failure.may_have_happened)
    }

    pub(crate) fn outcome(self) -> Outcome {
        Outcome { result: self.result, metadata: self.metadata }
    }
}

impl IdempotencyRecord {
    pub(crate) fn item(&self, org: &OrgId, user: &UserId, key: &IdempotencyKey) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::idempotency(org, user, key), self)?;
        item.expires_at = Some(self.made_at + ANSWERS_KEPT);
        Ok(item)
    }
}

/// Whether a result is final for its idempotency key. A failure that had no effect, for a reason that may pass, frees the key.
pub(super) fn is_final(result: &Result<Success, Failure>) -> bool {
    let Err(failure) = result else { return true };
    failure.may_have_happened
        || match failure.code {
            OutcomeCode::Rejected | OutcomeCode::Vetoed => true,
            OutcomeCode::NotConnected
            | OutcomeCode::ReconnectRequired
            | OutcomeCode::RateLimited
            | OutcomeCode::Timeout
            | OutcomeCode::Unavailable
            | OutcomeCode::OutcomeUnknown
            | OutcomeCode::Disabled => false,
        }
}
