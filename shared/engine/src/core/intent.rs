//! What an agent asks for.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::core::ids::{AgentId, Alias, IdempotencyKey, UserId};
use crate::core::problem::FieldProblem;
use crate::core::schedule::Schedule;

/// An agent's intent, as `POST /api/plugin-engine` takes it.
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
    /// The agent that asks.
    pub agent_id: Option<AgentId>,
    /// Whose account to use. Left out, it is the user that the API key is bound to.
    pub user_id: Option<UserId>,
    /// Which of the accounts at the service; left out, the default one.
    pub integration: Option<Alias>,
    /// When to do it (RFC 3339, with its offset); left out, now.
    #[serde(default, deserialize_with = "time")]
    #[schemars(with = "Option<String>")]
    pub scheduled_time: Option<Timestamp>,
    /// When to do it again and again.
    // Without an alternative in its schema every problem has its own place.
    #[serde(default)]
    #[schemars(with = "Schedule")]
    pub schedule: Option<Schedule>,
    /// How often a task tries a run: 1 to 10; left out, as the plugin says, or 3.
    pub max_attempts: Option<u32>,
    /// Makes a repetition safe: the same intent with the same key is answered as the first was, for 24 hours.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl Intent {
    /// Refuses what is of use for a task only.
    pub(crate) fn is_for_now(&self) -> Result<(), FieldProblem> {
        let remedy = "is for what runs as a task; leave it out, or say scheduledTime or schedule";
        if self.max_attempts.is_some() { Err(FieldProblem::new("/maxAttempts", remedy)) } else { Ok(()) }
    }
}

/// A time as RFC 3339 has it.
pub(crate) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let rule = "must be a time with its offset (RFC 3339), such as 2026-12-01T09:00:00+01:00";
    text.parse().map(Some).map_err(|_| serde::de::Error::custom(rule))
}
