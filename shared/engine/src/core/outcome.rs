//! The outcome of a well-formed intent, in the one shape that every caller gets.

use std::fmt;

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use crate::core::ids::{ActionName, PluginName, RunId};

/// Why an intent did not succeed: a closed set, part of the public surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeCode {
    /// The user has no account connected at the plugin's service.
    NotConnected,
    /// The service no longer accepts the account's credential.
    ReconnectRequired,
    /// The service limits the rate of requests.
    RateLimited,
    /// The service did not answer in time.
    Timeout,
    /// The service could not be reached, failed, or sent a response that cannot be read.
    Unavailable,
    /// The service understood the request and refused it.
    Rejected,
    /// The plugin is disabled, by an administrator or after failures.
    Disabled,
    /// A hook vetoed the call.
    Vetoed,
    /// It is unknown whether the action happened.
    OutcomeUnknown,
}

impl fmt::Display for OutcomeCode {
    /// Its name on the wire.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// The outcome of one intent.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Success or failure.
    pub result: Result<Success, Failure>,
    /// Facts about the execution.
    pub metadata: Metadata,
}

/// The action succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Success {
    /// A message for people and models.
    pub message: String,
    /// The action's result.
    pub data: Value,
    /// The service's id of the object that was created or changed.
    pub external_id: Option<String>,
}

/// The action failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a separate question")]
pub struct Failure {
    /// The reason.
    pub code: OutcomeCode,
    /// A message for people and models: what happened, and the remedy.
    pub message: String,
    /// Whether the caller may send the same intent again without a second effect.
    pub retryable: bool,
    /// Whether Overseer may retry within the same run. Also true, unlike `retryable`, if the service deduplicates by the run's
    /// own idempotency key. Not sent to callers.
    pub try_again: bool,
    /// Whether the action may have had an effect that a retry would repeat.
    pub may_have_happened: bool,
    /// Whether it may have had any effect. Not sent to callers; the ledger stores it.
    pub unclear: bool,
    /// Whether the request is at fault, and not the service. Not sent to callers; the breaker does not count such a failure.
    pub of_caller: bool,
    /// Seconds to wait before a retry, if the service says so.
    pub retry_after_s: Option<u64>,
    /// Whether the service refused the credential, so that a newer one may help. Not sent to callers.
    pub credential_refused: bool,
    /// The organization's instruction to the agent for this failure, once resolved.
    pub fallback: Option<String>,
}

/// Facts about an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The plugin.
    pub plugin: PluginName,
    /// Its version.
    pub version: String,
    /// The action, by its own name.
    pub action: ActionName,
    /// Milliseconds from the intent's arrival to its outcome.
    #[serde(rename = "durationMs")]
    pub duration_ms: u64,
    /// The number of attempts: 0 if the service was not called.
    pub attempts: u32,
    /// Its entry in the ledger, if it has one.
    #[serde(rename = "runId", skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// The largest data of a success that is stored, in bytes of JSON.
pub const KEPT_MAX_BYTES: usize = 64 * 1024;
/// The deepest data that is stored. Deeper data might exceed the JSON parser's depth within a record.
const KEPT_DEPTH_MAX: usize = 64;
/// The longest message that is stored, in characters.
pub const MESSAGE_MAX: usize = 500;

/// Whether the data of a success is small enough to be stored.
pub(crate) fn can_be_kept(data: &Value) -> bool {
    depth(data) <= KEPT_DEPTH_MAX && data.to_string().len() <= KEPT_MAX_BYTES
}

/// The first `max` characters of a text, with an ellipsis if it is longer.
pub(crate) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The nesting depth of arrays and objects.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

impl Failure {
    /// A failure in which the action certainly had no effect.
    pub fn new(code: OutcomeCode, message: String, retryable: bool) -> Self {
        Self {
            code,
            message,
            retryable,
            try_again: retryable,
            may_have_happened: false,
            unclear: false,
            of_caller: false,
            retry_after_s: None,
            credential_refused: false,
            fallback: None,
        }
    }

    /// The failure as callers get it.
    pub(crate) fn shown(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message, "retryable": self.retryable });
        if let Some(error) = error.as_object_mut() {
            let retry_after = self.retry_after_s.map(|seconds| ("retryAfter".to_owned(), seconds.into()));
            let may_have_happened = self.may_have_happened.then(|| ("mayHaveHappened".to_owned(), true.into()));
            let fallback = self.fallback.as_ref().map(|text| ("fallback".to_owned(), text.as_str().into()));
            error.extend(retry_after.into_iter().chain(may_have_happened).chain(fallback));
        }
        error
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("success", &self.result.is_ok())?;
        match &self.result {
            Ok(success) => {
                map.serialize_entry("message", &success.message)?;
                map.serialize_entry("data", &success.data)?;
                if let Some(id) = &success.external_id {
                    map.serialize_entry("externalId", id)?;
                }
            }
            Err(failure) => {
                map.serialize_entry("message", &failure.message)?;
                map.serialize_entry("error", &failure.shown())?;
            }
        }
        map.serialize_entry("metadata", &self.metadata)?;
        map.end()
    }
}
