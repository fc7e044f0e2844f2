//! An action of a plugin: its parameters, its effect, and the requests that it makes.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Request, Response};
use crate::core::effect::Effect;
use crate::core::ids::ActionName;
use crate::plugin::template::Expression;

/// The variable that holds the idempotency key in the requests of keyed actions.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency_key";

/// The most items that `each` may fetch in one intent.
pub const EACH_MAX: usize = 50;

/// An action of a plugin.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// The action's name in intents.
    pub name: ActionName,
    /// Other names that intents may use for it.
    #[serde(default)]
    pub aliases: Vec<ActionName>,
    /// What it does, for people and models.
    pub description: String,
    /// What a second execution would mean.
    pub effect: Effect,
    /// JSON Schema (2020-12) of its parameters, an object. The `default` of a property at the top is used when the caller
    /// leaves the parameter out.
    #[serde(default = "no_parameters")]
    pub parameters: Value,
    /// JSON Schema of its result, for people and models.
    pub returns: Option<Value>,
    /// Whether its own code can return the result piece by piece. Overseer does not use it.
    #[serde(default)]
    pub streaming_supported: bool,
    /// The request to the service: required with the runtime `http`, not allowed with another.
    pub request: Option<Request>,
    /// How to read the response.
    #[serde(default)]
    pub response: Response,
    /// How to fetch further pages.
    pub paginate: Option<Paginate>,
    /// Fetches details of each item that was found.
    pub each: Option<Each>,
}

fn no_parameters() -> Value {
    serde_json::json!({ "type": "object", "additionalProperties": false })
}

/// How to fetch the next page. Overseer fetches pages until the parameter `limit` is reached or there are no more.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paginate {
    /// The cursor of the next page in the response; absent, null or empty on the last page.
    pub cursor: Expression,
    /// The field of the query, or of the JSON or form body if there is one, that takes the cursor.
    pub parameter: String,
    /// The items of a page.
    pub items: Expression,
}

/// Fetches details of each item that was found and replaces the item with the result. At most 50 items.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Each {
    /// The request for one `item`.
    pub request: Request,
    /// How to read its response.
    #[serde(default)]
    pub response: Response,
}

impl Action {
    /// A `read` action that is in no manifest, for a request that is sent like an action's.
    pub(crate) fn reading(name: ActionName) -> Self {
        Self {
            name,
            aliases: Vec::new(),
            description: String::new(),
            effect: Effect::Read,
            parameters: no_parameters(),
            returns: None,
            streaming_supported: false,
            request: None,
            response: Response::default(),
            paginate: None,
            each: None,
        }
    }

    /// Adds the defaults of properties that the caller left out.
    pub fn with_defaults(&self, mut parameters: Map<String, Value>) -> Map<String, Value> {
        if let Some(properties) = self.parameters.get("properties").and_then(Value::as_object) {
            for (name, schema) in properties {
                if let Some(default) = schema.get("default").filter(|_| !parameters.contains_key(name)) {
                    parameters.insert(name.clone(), default.clone());
                }
            }
        }
        parameters
    }
}
