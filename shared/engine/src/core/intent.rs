//! An agent's intent.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::core::ids::{AgentId, Alias, IdempotencyKey, UserId};
use crate::core::problem::FieldProblem;
use crate::core::schedule::Schedule;

/// An agent's intent: the body of `POST /api/plugin-engine`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intent {
    /// The plugin, such as `slack`.
    #[schemars(length(min = 1, max = 255))]
    pub tool: String,
    /// The action, or an alias of one, such as `send_message`.
    #[schemars(length(min = 1, max = 255))]
    pub intent: String,
    /// The action's parameters.
    #[serde(default)]
    pub context: Map<String, Value>,
    /// The agent that sends the intent.
    pub agent_id: Option<AgentId>,
    /// The user whose account to use; left out, the user that the API key is bound to.
    pub user_id: Option<UserId>,
    /// The alias of the user's account at the service; left out, the default account.
    pub integration: Option<Alias>,
    /// When to execute it (RFC 3339, with its offset); left out, now.
    #[serde(default, deserialize_with = "time")]
    #[schemars(with = "Option<String>")]
    pub scheduled_time: Option<Timestamp>,
    /// When to execute it repeatedly.
    // The schema has no alternative for null, so that each problem gets its own pointer.
    #[serde(default)]
    #[schemars(with = "Schedule")]
    pub schedule: Option<Schedule>,
    /// The attempts of each run of a task: 1 to 10; left out, the plugin's setting, or 3.
    pub max_attempts: Option<u32>,
    /// Makes a retry safe: for 24 hours, the same intent with the same key returns the result of the first.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl Intent {
    /// Refuses options that only a task uses.
    pub(crate) fn is_for_now(&self) -> Result<(), FieldProblem> {
        let remedy = "is for tasks only; leave it out, or set scheduledTime or schedule";
        if self.max_attempts.is_some() { Err(FieldProblem::new("/maxAttempts", remedy)) } else { Ok(()) }
    }
}

/// Deserializes a time of RFC 3339.
pub(crate) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let rule = "must be a time with its offset (RFC 3339), such as 2026-12-01T09:00:00+01:00";
    text.parse().map(Some).map_err(|_| serde::de::Error::custom(rule))
}
