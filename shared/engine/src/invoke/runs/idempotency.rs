//! Intents that are sent again under their key: what the first came to is what every other is answered with.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::record::{IdempotencyRecord, KeyState, Run, StoredAnswer};
use super::{NOT_HEARD_OF, RunState, Verdict, resolution};
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{ActionName, ChannelName, IdempotencyKey, PluginName, RequestId, RunId, TaskId, UserId};
use crate::core::intent::Intent;
use crate::core::outcome::{Failure, Metadata, Outcome, OutcomeCode};
use crate::engine::Engine;
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, Item, Read, TableError, Version};
use crate::storage::keys;

/// The longest that a caller may ask to wait for the first request with the same key.
pub const WAIT_MAX: Duration = Duration::from_secs(20);
/// What a caller is told to wait who finds the first request still running, in seconds.
const ASK_AGAIN_S: u64 = 2;

/// How an intent came in.
#[derive(Debug, Clone, Default)]
pub struct RequestOptions {
    /// The request that it came with.
    pub request: Option<RequestId>,
    /// Its key, where that came beside it.
    pub key: Option<IdempotencyKey>,
    /// How long to wait for the first request with the same key, [`WAIT_MAX`] at most.
    pub wait: Duration,
    /// What to do where it is not known what came of the first.
    pub resolve: Option<Resolve>,
    /// When whoever runs this has to be done, if that is sooner than the budget of an intent.
    pub until: Option<Instant>,
    /// The channel that it came by: where there is one, only its plugins count. An agent has one of its own.
    pub channel: Option<ChannelName>,
}

/// What a caller decides about a key whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolve {
    /// Do it, whether or not it happened.
    Retry,
    /// Leave it.
    Abandon,
}

/// What came of an intent, and whether that is the answer of an earlier one.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayable<T> {
    /// What came of it.
    pub answer: T,
    /// Whether an earlier intent with the same key was answered so.
    pub replayed: bool,
}

impl<T> Replayable<T> {
    pub(crate) fn anew(answer: T) -> Self {
        Self { answer, replayed: false }
    }
}

/// An intent with a key.
#[derive(Debug, Clone)]
pub(crate) struct IdempotencyRequest {
    pub key: IdempotencyKey,
    pub payload: String,
    pub wait: Duration,
    pub resolve: Option<Resolve>,
}

impl IdempotencyRequest {
    /// The key of an intent, if it has one, with what it stands for. `user`, `plugin` and `action` are what the intent's own
    /// words mean; `later` says whether a task is to be made.
    pub(crate) fn of(
        intent: &Intent,
        asked: &RequestOptions,
        (user, plugin, action): (&UserId, &PluginName, &ActionName),
        later: bool,
    ) -> Result<Option<Self>, Error> {
        let key = match (&asked.key, &intent.idempotency_key) {
            (Some(header), Some(body)) if header != body => {
                let message = "is another than the header Idempotency-Key has; leave one of them out";
                return Err(Error::field("/idempotencyKey", message));
            }
            (header, body) => header.as_ref().or(body.as_ref()),
        };
        let Some(key) = key else {
            if asked.resolve.is_some() {
                return Err(Error::field(
                    "/idempotencyKey",
                    "is needed with ?resolve, which is about an earlier request",
                ));
            }
            return Ok(None);
        };
        // serde_json keeps the fields of an object in the order of their names, so that this is canonical.
        let payload = json!({
            "user": user, "plugin": plugin, "action": action, "agent": intent.agent_id, "account": intent.integration,
            "parameters": intent.context, "time": intent.scheduled_time, "schedule": intent.schedule,
            "attempts": intent.max_attempts, "later": later,
        });
        let payload = sha256(payload.to_string().as_bytes());
        Ok(Some(Self { key: key.clone(), payload, wait: asked.wait.min(WAIT_MAX), resolve: asked.resolve }))
    }
}

/// What stands under a key.
#[derive(Debug)]
pub(crate) enum IdempotencyState {
    /// Nothing: the intent is the first.
    Free,
    /// The first is under way.
    Busy,
    /// The first came to this.
    Ended(RunId, Box<StoredAnswer>, Version),
    /// A task was made.
    Task(TaskId, Vec<String>),
    /// The first was not heard of again: when it began, and by which version of the plugin.
    Lost(RunId, (Timestamp, String), Version),
}

impl IdempotencyState {
    /// What stands under a key for an intent of this payload.
    pub(crate) fn of(item: Option<Item>, payload: &str, now: Timestamp) -> Result<Self, Error> {
        let Some(item) = item else { return Ok(Self::Free) };
        let kept: IdempotencyRecord = item.record()?;
        if kept.payload != payload {
            return Err(Error::KeyReused);
        }
        Ok(match kept.state {
            KeyState::Started { until, .. } if now < until => Self::Busy,
            KeyState::Started { run, by, .. } => Self::Lost(run, (kept.made_at, by), item.version),
            KeyState::Ended { run, answer } => Self::Ended(run, answer, item.version),
            KeyState::Task { id, warnings } => Self::Task(id, warnings),
        })
    }
}

/// The answer to somebody who came while the first request was under way.
pub(crate) fn in_progress() -> Error {
    Error::InProgress { retry_after_s: ASK_AGAIN_S }
}

/// What is told of a key whose run was not heard of again.
pub(crate) fn lost(run: &RunId, began: Timestamp) -> Failure {
    let message = format!(
        "an earlier request with this key began at {began} (run {run}), and {NOT_HEARD_OF}; it may have happened. Look at \
         the service, then send it again with ?resolve=retry to do it, or with ?resolve=abandon to leave it"
    );
    let failure = Failure::new(OutcomeCode::OutcomeUnknown, message, false);
    Failure { may_have_happened: true, ..failure }
}

/// What is told of a key that was given up.
fn abandoned(run: &RunId) -> Failure {
    let message = format!("the request with this key was given up; whether it happened is not known (run {run})");
    Failure { may_have_happened: true, ..Failure::new(OutcomeCode::OutcomeUnknown, message, false) }
}

impl Run {
    /// What its outcome is shown with.
    pub(super) fn metadata(&self) -> Metadata {
        Metadata {
            plugin: self.plugin.clone(),
            version: self.version.clone(),
            action: self.action.clone(),
            duration_ms: self.took_ms(),
            attempts: self.attempts,
            run: Some(self.id.clone()),
        }
    }
}

impl Engine {
    /// Gives up what is not known under a key: from here on it answers so.
    pub(crate) async fn abandon_key(
        &self,
        principal: &Principal,
        user: &UserId,
        keyed: &IdempotencyRequest,
        (run, version): (&RunId, Version),
        metadata: Metadata,
    ) -> Result<Option<Outcome>, Error> {
        let (org, now) = (&principal.org, self.ports.clock.now());
        let answer = StoredAnswer { result: Err(abandoned(run)), metadata, decided: true };
        let state = KeyState::Ended { run: run.clone(), answer: Box::new(answer.clone()) };
        let place = keys::idempotency(org, user, &keyed.key);
        let Some(item) = self.ports.table.get(&place, Read::Consistent).await? else { return Ok(None) };
        let kept = IdempotencyRecord { state, ..item.record()? };
        let written = self.ports.table.put(kept.item(org, user, &keyed.key)?, Condition::Version(version)).await;
        match written {
            Ok(_) => {}
            Err(TableError::Condition { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        self.note_decision(principal, user, run, Verdict::Abandoned, now).await;
        Ok(Some(answer.outcome()))
    }

    /// Writes to a run what its caller decided. The key decides; this is for whoever looks at the run.
    pub(crate) async fn note_decision(
        &self,
        principal: &Principal,
        user: &UserId,
        run: &RunId,
        verdict: Verdict,
        now: Timestamp,
    ) {
        let noted = async {
            let place = keys::run(&principal.org, user, run);
            let Some(item) = self.ports.table.get(&place, Read::Consistent).await? else { return Ok(()) };
            let mut run: Run = item.record()?;
            if run.state_at(now) == RunState::Unknown {
                run.state = RunState::Unknown;
                run.resolved = Some(resolution(principal, verdict, now));
                self.ports.table.put(run.item()?, Condition::Version(item.version)).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = noted.await {
            tracing::error!(org = %principal.org, %run, error = %causes(&error), "a decision was not written to its run");
        }
    }
}
