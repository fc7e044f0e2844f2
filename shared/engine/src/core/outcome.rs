//! What came of a well-formed intent, in the one shape that every caller gets.

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
    /// The service no longer takes the account's credential.
    ReconnectRequired,
    /// The service asks to come back later.
    RateLimited,
    /// The service did not answer within the budget.
    Timeout,
    /// The service could not be reached, failed, or answered what nobody can read.
    Unavailable,
    /// The service understood and refused.
    Rejected,
    /// The plugin is switched off, by an administrator or after failures.
    Disabled,
    /// A hook forbade the call.
    Vetoed,
    /// Whether the action happened is not known.
    OutcomeUnknown,
}

/// The result of one intent.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What came of it.
    pub result: Result<Success, Failure>,
    /// What was run and how.
    pub metadata: Metadata,
}

/// The action did what it is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Success {
    /// For a person or a model to read.
    pub message: String,
    /// What the action returns.
    pub data: Value,
    /// The service's id of what was made or changed.
    pub external_id: Option<String>,
}

/// The action did not do what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Failure {
    /// Why.
    pub code: OutcomeCode,
    /// For a person or a model to read: what happened, and the remedy.
    pub message: String,
    /// Whether the same intent may be sent again without doing anything twice.
    pub retryable: bool,
    /// Whether the same run may try once more. Beside what is `retryable` that is what the service knows by this run's own
    /// key. Not shown.
    pub try_again: bool,
    /// Whether the action may have had its effect all the same, and doing it again is not the same as doing it once.
    pub may_have_happened: bool,
    /// Whether it may have had an effect at all. Not shown; the ledger has it.
    pub unclear: bool,
    /// Whether what was asked for is to blame, and not the service. Not shown; the breaker does not count it.
    pub of_caller: bool,
    /// Seconds to wait before trying again, where the service says so.
    pub retry_after_s: Option<u64>,
    /// Whether the service refused the credential itself, so that a newer one may help. Not shown.
    pub credential_refused: bool,
    /// What the agent is to say and to do now, once that has been looked up.
    pub fallback: Option<String>,
}

/// What was run and how.
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
    /// How often the action was tried: 0 if the service was not called.
    pub attempts: u32,
    /// Its entry in the ledger, if there is one.
    #[serde(rename = "runId", skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// The largest data of a success that is kept, in bytes of JSON.
pub const KEPT_MAX_BYTES: usize = 64 * 1024;
/// The deepest data that is kept: what is nested deeper might not read any more within a record.
const KEPT_DEPTH_MAX: usize = 64;
/// The longest message that is kept, in characters.
pub const MESSAGE_MAX: usize = 500;

/// Whether the data of a success is small enough to be kept.
pub(crate) fn can_be_kept(data: &Value) -> bool {
    depth(data) <= KEPT_DEPTH_MAX && data.to_string().len() <= KEPT_MAX_BYTES
}

/// A text that is not too long to keep: `most` characters of it.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// How deep arrays and objects are nested.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

impl Failure {
    /// A failure in which the action surely had no effect.
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
}

impl Failure {
    /// As it is shown.
    pub(crate) fn shown(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message, "retryable": self.retryable });
        if let Some(error) = error.as_object_mut() {
            let after = self.retry_after_s.map(|seconds| ("retryAfter".to_owned(), seconds.into()));
            let maybe = self.may_have_happened.then(|| ("mayHaveHappened".to_owned(), true.into()));
            let fallback = self.fallback.as_ref().map(|text| ("fallback".to_owned(), text.as_str().into()));
            error.extend(after.into_iter().chain(maybe).chain(fallback));
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
