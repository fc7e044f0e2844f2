//! The records of the ledger: a run, and what is kept under an idempotency key.

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

/// How long a run is listed.
pub const RUNS_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long an answer is kept under its key.
pub const ANSWERS_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum RunState {
    /// In flight.
    Started,
    /// It did what it is for.
    Succeeded,
    /// It surely did not.
    Failed,
    /// It may have.
    Unknown,
}

/// What somebody who looked says of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolution {
    /// What was said.
    #[serde(rename = "as")]
    pub verdict: Verdict,
    /// When.
    pub at: Timestamp,
    /// Who, where the API key is bound to a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// With which API key.
    pub key: KeyId,
}

/// What can be said of a run whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Verdict {
    /// It had happened.
    Succeeded,
    /// It had not.
    Failed,
    /// The caller did it again under its key.
    Retried,
    /// The caller gave it up.
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
    /// Without what is secret.
    pub parameters: Map<String, Value>,
    pub key: Option<IdempotencyKey>,
    pub task: Option<TaskId>,
    pub request: Option<RequestId>,
    pub state: RunState,
    pub started_at: Timestamp,
    /// When whoever began it must have ended.
    pub until: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub attempts: u32,
    pub code: Option<OutcomeCode>,
    pub message: Option<String>,
    pub external_id: Option<String>,
    /// Of a failure: whether its task may try again, and when.
    #[serde(default)]
    pub try_again: bool,
    #[serde(default)]
    pub retry_after_s: Option<u64>,
    pub resolved: Option<Resolution>,
}

/// One attempt of a task, with what the ledger needs of it.
#[derive(Debug, Clone)]
pub(crate) struct AttemptRef<'a> {
    /// The attempt's entry in the ledger.
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
    /// When the claim runs out.
    pub until: Timestamp,
}

impl Run {
    pub(super) fn item(&self) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::listed(&self.org, &self.user, ListedKind::Runs, self.id.as_str()), self)?;
        item.list = Some(keys::in_list(&self.org, ListedKind::Runs, self.id.as_str()));
        item.expires_at = Some(self.started_at + RUNS_KEPT);
        Ok(item)
    }

    /// The entry of a task's attempt that never started: stored in the attempt's place, it keeps the worker from starting.
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
            message: Some("it was not begun: whoever was to do it was not heard of again".to_owned()),
            external_id: None,
            try_again: true,
            retry_after_s: None,
            resolved: None,
        }
    }

    /// Where it is: whoever began it and was not heard of again leaves what is not known.
    pub(crate) fn state_at(&self, now: Timestamp) -> RunState {
        match self.state {
            RunState::Started if self.until <= now => RunState::Unknown,
            RunState::Started => RunState::Started,
            ended @ (RunState::Succeeded | RunState::Failed | RunState::Unknown) => ended,
        }
    }

    /// How long it took, in milliseconds; 0 where nobody saw its end.
    pub(super) fn took_ms(&self) -> u64 {
        let took = self.ended_at.map_or(0, |end| end.duration_since(self.started_at).as_millis());
        u64::try_from(took).unwrap_or_default()
    }

    /// Writes down how it ended.
    pub(super) fn ends(&mut self, result: &Result<Success, Failure>, attempts: u32, now: Timestamp) {
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

/// What is kept under an idempotency key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRecord {
    /// The SHA-256 of what was asked, as canonical JSON.
    pub payload: String,
    pub made_at: Timestamp,
    pub state: KeyState,
}

/// How far the request of a key came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyState {
    /// It is under way, until then at most, by that version of the plugin.
    Started {
        run: RunId,
        until: Timestamp,
        #[serde(default)]
        by: String,
    },
    /// This came of it.
    Ended { run: RunId, answer: Box<StoredAnswer> },
    /// A task was made of it.
    Task { id: TaskId, warnings: Vec<String> },
}

impl KeyState {
    /// The run that it is about, if it is about one.
    pub(super) fn run(&self) -> Option<&RunId> {
        match self {
            Self::Started { run, .. } | Self::Ended { run, .. } => Some(run),
            Self::Task { .. } => None,
        }
    }
}

/// An outcome that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredAnswer {
    pub result: Result<Success, Failure>,
    pub metadata: Metadata,
    /// Somebody decided about what was not known.
    pub decided: bool,
}

impl StoredAnswer {
    /// What is kept of an outcome.
    pub(super) fn of(result: &Result<Success, Failure>, metadata: &Metadata) -> Self {
        let mut result = result.clone();
        if let Ok(success) = &mut result {
            success.message = cut(&success.message, MESSAGE_MAX);
            // Half an id is worse than none.
            success.external_id = success.external_id.take().filter(|id| id.chars().count() <= MESSAGE_MAX);
            if !can_be_kept(&success.data) {
                success.data = Value::Null;
                success.message.push_str(" (what it returned was too large to be kept; ask the service for it)");
            }
        }
        Self { result, metadata: metadata.clone(), decided: false }
    }

    /// Whether it is left to the caller to decide.
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

/// Whether an outcome is final for its key. What surely did not happen, for a reason that may pass, frees it.
pub(super) fn is_kept(result: &Result<Success, Failure>) -> bool {
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
