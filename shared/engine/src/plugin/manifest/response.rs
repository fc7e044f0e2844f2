//! How to read a service's response.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::core::outcome::OutcomeCode;
use crate::plugin::template::{Expression, Template, TemplateError, Text};

/// How to read a response. Expressions see `status`, `headers` (names in lower case), `body`, `parameters`, `config`, `user`,
/// `now`, and `item` in `each`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// How to read the body.
    #[serde(default)]
    pub body: BodyFormat,
    /// When a response of status 2xx is a failure nevertheless.
    pub failed_when: Option<Expression>,
    /// How to read a failure.
    #[serde(default)]
    pub error: ErrorReading,
    /// The message to the agent after a success.
    pub message: Option<Text>,
    /// The service's id of the object that was created or changed.
    pub external_id: Option<Expression>,
    /// The action's result; the whole body if left out. With pages it also sees `items`, `more` and `next_cursor`.
    pub data: Option<Data>,
}

/// How to read a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// JSON. An empty body is `null`; a 2xx response with any other body that is not JSON is a failure.
    #[default]
    Json,
    /// Text.
    Text,
}

/// How to read a failure.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorReading {
    /// The service's error code.
    pub code: Option<Expression>,
    /// The service's error message.
    pub message: Option<Expression>,
    /// The outcome for each of the service's codes. For a code that is not listed the HTTP status decides.
    #[serde(default)]
    pub map: BTreeMap<String, OutcomeCode>,
    /// The codes by which the service says that it did nothing, so that even an unsafe action may be retried.
    #[serde(default)]
    pub did_nothing: BTreeSet<String>,
}

/// A bare expression, or JSON with templates for strings.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(with = "Value")]
pub enum Data {
    /// A bare expression, such as `body.message`.
    Expression(Expression),
    /// An object or array of templates.
    Template(Template),
}

impl TryFrom<Value> for Data {
    type Error = TemplateError;
    fn try_from(value: Value) -> Result<Self, Self::Error> {
        if let Value::String(source) = value {
            return source.try_into().map(Self::Expression);
        }
        value.try_into().map(Self::Template)
    }
}
