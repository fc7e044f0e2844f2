//! What an agent asks for.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ids::{AgentId, Alias, UserId};

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
    /// When to do it; left out, now. Refused by this version, which runs intents at once only.
    pub scheduled_time: Option<String>,
    /// Makes a repetition safe. Refused by this version, which keeps no record of keys.
    pub idempotency_key: Option<String>,
}
