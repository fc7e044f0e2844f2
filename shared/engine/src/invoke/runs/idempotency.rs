//! Idempotency keys: the first intent with a key runs, and every retry with the same key gets its result.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::record::{IdempotencyRecord, KeyState, Run, StoredAnswer, Verdict};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{ActionName, ChannelName, IdempotencyKey, PluginName, RequestId, RunId, TaskId, UserId};
use crate::core::intent::Intent;
use crate::core::outcome::{Failure, Metadata, Outcome, OutcomeCode};
use crate::engine::Engine;
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, Item, Read, TableError, Version};
use crate::storage::keys;

/// The longest that a caller may ask to wait for the first request with the same key.
pub const WAIT_MAX: Duration = Duration::from_secs(20);
/// `Retry-After` of a request whose key is in progress, in seconds.
const IN_PROGRESS_RETRY_S: u64 = 2;

/// What a request says beside its intent.
#[derive(Debug, Clone, Default)]
pub struct RequestOptions {
    /// The id of the request.
    pub request: Option<RequestId>,
    /// The idempotency key from the header `Idempotency-Key`.
    pub key: Option<IdempotencyKey>,
    /// How long to wait for the first request with the same key, [`WAIT_MAX`] at most.
    pub wait: Duration,
    /// What to do if the outcome of the first request is unknown.
    pub resolve: Option<Resolve>,
    /// The process's own deadline, if it is sooner than the budget of an intent.
    pub until: Option<Instant>,
    /// The channel of the request: only plugins enabled in it count. An agent's key names its channel itself.
    pub channel: Option<ChannelName>,
}

/// What a caller decides about a key whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolve {
    /// Run it again, whether or not it happened.
    Retry,
    /// Give it up: the key answers `outcome_unknown` from then on.
    Abandon,
}

/// The answer to an intent, and whether it repeats an earlier one.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayable<T> {
    /// The answer.
    pub answer: T,
    /// Whether an earlier intent with the same key got this answer.
    pub replayed: bool,
}

impl<T> Replayable<T> {
    /// An answer that is not a replay.
    pub(crate) fn first(answer: T) -> Self {
        Self { answer, replayed: false }
    }
}

/// The idempotency key of an intent, with what decides how the key is used.
#[derive(Debug, Clone)]
pub(crate) struct IdempotencyRequest {
    pub key: IdempotencyKey,
    /// The SHA-256 of the intent as canonical JSON. The same key with another payload is refused.
    pub payload: String,
    pub wait: Duration,
    pub resolve: Option<Resolve>,
}

impl IdempotencyRequest {
    /// The idempotency key of an intent, if it has one. `user`, `plugin` and `action` are what the intent's own words resolve
    /// to; `later` says whether the intent makes a task. `Invalid` if header and body name different keys, or if
    /// `?resolve` comes without a key.
    pub(crate) fn of(
        intent: &Intent,
        options: &RequestOptions,
        user: &UserId,
        plugin: &PluginName,
        action: &ActionName,
        later: bool,
    ) -> Result<Option<Self>, Error> {
        let key = match (&options.key, &intent.idempotency_key) {
            (Some(header), Some(body)) if header != body => {
                let message = "differs from the header Idempotency-Key; send only one of them";
                return Err(Error::field("/idempotencyKey", message));
            }
            (header, body) => header.as_ref().or(body.as_ref()),
        };
        let Some(key) = key else {
            if options.resolve.is_some() {
                let message = "is required with ?resolve, which decides about an earlier request";
                return Err(Error::field("/idempotencyKey", message));
            }
            return Ok(None);
        };
        // serde_json sorts the fields of an object by name, so this is canonical.
        let payload = json!({
            "user": user, "plugin": plugin, "action": action, "agent": intent.agent_id, "account": intent.integration,
            "parameters": intent.context, "time": intent.scheduled_time, "schedule": intent.schedule,
            "attempts": intent.max_attempts, "later": later,
        });
        let payload = sha256(payload.to_string().as_bytes());
        Ok(Some(Self { key: key.clone(), payload, wait: options.wait.min(WAIT_MAX), resolve: options.resolve }))
    }
}

/// The state of an idempotency key, as an intent finds it.
#[derive(Debug)]
pub(crate) enum IdempotencyState {
    /// There is no record: the intent is the first.
    Free,
    /// The first request is in flight.
    Busy,
    /// The first request ended with this answer.
    Ended(RunId, Box<StoredAnswer>, Version),
    /// The first request made a task.
    Task(TaskId, Vec<String>),
    /// The first request's lease expired without a result: when it started, and which version of the plugin ran.
    Lost(RunId, (Timestamp, String), Version),
}

impl IdempotencyState {
    /// The state of the record under a key. `KeyReused` if the record is of another payload.
    pub(crate) fn of(item: Option<Item>, payload: &str, now: Timestamp) -> Result<Self, Error> {
        let Some(item) = item else { return Ok(Self::Free) };
        let record: IdempotencyRecord = item.record()?;
        if record.payload != payload {
            return Err(Error::KeyReused);
        }
        Ok(match record.state {
            KeyState::Started { until, .. } if now < until => Self::Busy,
            KeyState::Started { run, by, .. } => Self::Lost(run, (record.made_at, by), item.version),
            KeyState::Ended { run, answer } => Self::Ended(run, answer, item.version),
            KeyState::Task { id, warnings } => Self::Task(id, warnings),
        })
    }
}

/// The error for a request whose key is in progress.
pub(crate) fn in_progress() -> Error {
    Error::InProgress { retry_after_s: IN_PROGRESS_RETRY_S }
}

/// The failure of a request whose key belongs to a run that never recorded its result.
pub(crate) fn unknown_result(run: &RunId, started_at: Timestamp) -> Failure {
    let message = format!(
        "an earlier request with this key started at {started_at} (run {run}) and stopped before it recorded its result; it \
         may have happened. Check at the service, then retry with ?resolve=retry to run it again, or with \
         ?resolve=abandon to give it up"
    );
    let failure = Failure::new(OutcomeCode::OutcomeUnknown, message, false);
    Failure { may_have_happened: true, ..failure }
}

/// The failure that an abandoned key answers with.
fn abandoned(run: &RunId) -> Failure {
    let message = format!("the request with this key was given up; whether it happened is not known (run {run})");
    Failure { may_have_happened: true, ..Failure::new(OutcomeCode::OutcomeUnknown, message, false) }
}

impl Run {
    /// The metadata of the run's outcome.
    pub(super) fn metadata(&self) -> Metadata {
        Metadata {
            plugin: self.plugin.clone(),
            version: self.version.clone(),
            action: self.action.clone(),
            duration_ms: self.duration_ms(),
            attempts: self.attempts,
            run: Some(self.id.clone()),
        }
    }
}

impl Engine {
    /// Gives up a run whose outcome is unknown: its key answers so from now on. `None` if another request changed the
    /// idempotency record first; the caller has to read it again.
    pub(crate) async fn abandon_key(
        &self,
        principal: &Principal,
        user: &UserId,
        keyed: &IdempotencyRequest,
        run: &RunId,
        version: Version,
        metadata: Metadata,
    ) -> Result<Option<Outcome>, Error> {
        let (org, now) = (&principal.org, self.ports.clock.now());
        let answer = StoredAnswer { result: Err(abandoned(run)), metadata, decided: true };
        let state = KeyState::Ended { run: run.clone(), answer: Box::new(answer.clone()) };
        let table_key = keys::idempotency(org, user, &keyed.key);
        let Some(item) = self.ports.table.get(&table_key, Read::Consistent).await? else { return Ok(None) };
        let record = IdempotencyRecord { state, ..item.record()? };
        match self.ports.table.put(record.item(org, user, &keyed.key)?, Condition::Version(version)).await {
            Ok(_) => {}
            Err(TableError::Condition { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        self.note_decision(principal, user, run, Verdict::Abandoned, now).await;
        Ok(Some(answer.outcome()))
    }
}
