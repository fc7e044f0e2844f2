//! The manifest: what a plugin is, written by its author as YAML or JSON.
//!
//! The types here are the format; the JSON Schema at `/schemas/plugin-manifest.json` is generated from them. An unknown
//! key is an error. What types alone cannot say is in `check`. Three forms of others are read into the same types: `older`.

mod auth;
mod check;
mod config;
mod container;
mod declarations;
mod diff;
mod foreign;
mod hooks;
mod limits;
mod names;
mod parse;
mod problems;
mod runtime;

use std::collections::{BTreeMap, BTreeSet};

pub use auth::{
    ApiKey, Auth, Basic, ClientAuthentication, ClientCredentials, ConnectionTest, Oauth2, Provider, Revocation,
    TokenRequest, TokenResponse,
};
pub(crate) use auth::{SCOPES_MAX, SCOPES_MAX_BYTES};
pub(crate) use check::is_scope;
pub use container::{
    Bounds, Container, Image, Ingress, IngressPath, OptionalVariable, Plain, Port, PullPolicy, RequiredVariable,
    Resources, Variables, Volume,
};
pub use declarations::{DataAdapter, DataAdapterKind, Dependencies, Hook, Permission, VersionRange};
pub use diff::{ActionChanged, Changes, TextChanged, diff};
pub use hooks::{DeclaredHook, OnFailure};
pub use names::{IdPattern, Lookup, NameKind};
pub use parse::{MANIFEST_DEPTH_MAX, MANIFEST_MAX_BYTES};
pub use problems::ManifestError;
pub use runtime::{Module, Runtime};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::core::effect::Effect;
use crate::core::ids::{ActionName, MappingKind, PluginName};
use crate::core::outcome::OutcomeCode;
use crate::plugin::breaker::BreakerLimits;
use crate::plugin::template::{Expression, Template, Text};

/// A plugin's manifest.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Overseer plugin manifest")]
pub struct Manifest {
    /// What intents call the plugin.
    pub name: PluginName,
    /// The version of the plugin (semver 2.0).
    #[schemars(with = "String")]
    pub version: semver::Version,
    /// What people call it.
    pub display_name: String,
    /// What it is for, for people and models.
    pub description: String,
    /// Who wrote it.
    pub author: Option<String>,
    /// Under which licence (an SPDX expression).
    pub license: Option<String>,
    /// Where to read about it.
    pub website: Option<String>,
    /// What it belongs to, such as `mail`.
    #[serde(default)]
    pub categories: Vec<String>,
    /// How its actions run.
    pub runtime: Runtime,
    /// How the service knows whose call it is.
    #[serde(default)]
    pub auth: Auth,
    /// All that a call may reach; everything else is refused.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// What the service says about trying again.
    #[serde(default)]
    pub retry: Retry,
    /// When the plugin is taken out of use for a while because it fails.
    #[serde(default)]
    pub breaker: BreakerLimits,
    /// The kinds of names that its parameters take in the place of the service's ids: those marked `x-mapping`.
    #[serde(default)]
    pub mappings: BTreeMap<MappingKind, NameKind>,
    /// JSON Schema (2020-12) of an instance's configuration, an object. A property at the top with `writeOnly: true` is a
    /// secret.
    pub config_schema: Option<Value>,
    /// What of the configuration stands where an instance says nothing else. Never a secret.
    #[serde(default)]
    pub default_config: Map<String, Value>,
    /// What an agent that may use the plugin is told. Templates in it see `config`.
    pub instruction_template: Option<Text>,
    /// What it needs beside itself.
    #[serde(default)]
    pub dependencies: Dependencies,
    /// The versions of Overseer that it is for; all where nothing is said.
    pub compatible_versions: Option<VersionRange>,
    /// The moments of an agent's work at which it is asked.
    #[serde(default)]
    pub hooks: Vec<DeclaredHook>,
    /// The sources of the data that its actions work on.
    #[serde(default)]
    pub data_adapters: Vec<DataAdapter>,
    /// Whether an organization that says nothing has it switched on.
    #[serde(default = "yes")]
    pub default_enabled: bool,
    /// What it can do. A container has none, and one that has hooks need not have any.
    #[serde(default)]
    pub actions: Vec<Action>,
}

fn yes() -> bool {
    true
}

/// What the service says about trying again.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The header with the time to wait, in seconds or as a date (RFC 9110, 10.2.3).
    #[serde(default = "retry_after")]
    pub after_header: String,
    /// How often a task tries a run where the task does not say: 1 to 10.
    pub attempts: Option<u32>,
}

fn retry_after() -> String {
    "retry-after".to_owned()
}

impl Default for Retry {
    fn default() -> Self {
        Self { after_header: retry_after(), attempts: None }
    }
}

/// One thing that a plugin can do.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// What intents call it.
    pub name: ActionName,
    /// What intents may call it, too.
    #[serde(default)]
    pub aliases: Vec<ActionName>,
    /// What it does, for people and models.
    pub description: String,
    /// What doing it twice would mean.
    pub effect: Effect,
    /// JSON Schema (2020-12) of its parameters, an object. A `default` of a property at the top stands in for it when
    /// it is left out.
    #[serde(default = "no_parameters")]
    pub parameters: Value,
    /// JSON Schema of what it returns, for people and models.
    pub returns: Option<Value>,
    /// Whether it can give its result piece by piece. Says something to its own code only.
    #[serde(default)]
    pub streaming_supported: bool,
    /// The request to the service, with the runtime `http` only, and needed there.
    pub request: Option<Request>,
    /// How to read the answer.
    #[serde(default)]
    pub response: Response,
    /// How to get the next page, where there are pages.
    pub paginate: Option<Paginate>,
    /// Asks for more about each item that was found.
    pub each: Option<Each>,
}

fn no_parameters() -> Value {
    serde_json::json!({ "type": "object", "additionalProperties": false })
}

/// An HTTP request. Templates see the parameters by their names and as `parameters`, and `config`, `user` and `now`; on a page
/// also `remaining`, and in `each` also `item`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// What to put behind the base URL. Values in it are percent-encoded and cannot leave their segment.
    pub path: Text,
    /// The query. A list gives one pair for each element.
    #[serde(default)]
    pub query: BTreeMap<String, Template>,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// A JSON body. At most one of `json`, `form` and `raw` may be there.
    pub json: Option<Template>,
    /// A form body.
    pub form: Option<BTreeMap<String, Template>>,
    /// Any other body.
    pub raw: Option<RawBody>,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    #[default]
    Get,
    /// Makes or does.
    Post,
    /// Replaces.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

impl From<Method> for http::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

/// A body that is neither JSON nor a form.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBody {
    /// Its media type.
    pub content_type: String,
    /// Its text.
    pub text: Text,
}

/// How to read an answer. Expressions see `status`, `headers` (names in small letters), `body`, `parameters`,
/// `config`, `user`, `now`, and `item` in `each`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// How to read the body.
    #[serde(default)]
    pub body: BodyFormat,
    /// When an answer of status 2xx is a failure all the same.
    pub failed_when: Option<Expression>,
    /// How to read a failure.
    #[serde(default)]
    pub error: ErrorReading,
    /// What to tell the agent after a success.
    pub message: Option<Text>,
    /// The service's id of what was made or changed.
    pub external_id: Option<Expression>,
    /// What the action returns; the whole body if left out. With pages it also sees `items`, `more` and `next_cursor`.
    pub data: Option<Data>,
}

/// How to read a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// JSON; an empty body is `null`, and a success that is anything else is a failure.
    #[default]
    Json,
    /// Text.
    Text,
}

/// How to read a failure.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorReading {
    /// The service's code for it.
    pub code: Option<Expression>,
    /// The service's words for it.
    pub message: Option<Expression>,
    /// What the service's codes mean. What is not here goes by the HTTP status.
    #[serde(default)]
    pub map: BTreeMap<String, OutcomeCode>,
    /// The codes by which the service says that it did nothing, so that even an unsafe action may be tried again.
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
    type Error = crate::plugin::template::TemplateError;
    fn try_from(value: Value) -> Result<Self, Self::Error> {
        if let Value::String(source) = value {
            return source.try_into().map(Self::Expression);
        }
        value.try_into().map(Self::Template)
    }
}

/// How to get the next page. Pages are asked for until the parameter `limit` is reached or there are no more.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paginate {
    /// Where the answer says how to go on; absent, null or empty at the end.
    pub cursor: Expression,
    /// The field of the query, or of the JSON or form body if there is one, that takes the cursor.
    pub parameter: String,
    /// The items of a page.
    pub items: Expression,
}

/// Asks for more about each item that was found; what comes back takes the item's place. At most
/// 50 items.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Each {
    /// The request for one `item`.
    pub request: Request,
    /// How to read its answer.
    #[serde(default)]
    pub response: Response,
}

/// What requests of keyed actions find the key by.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency_key";

/// The most items that `each` may ask about in one intent.
pub const EACH_MAX: usize = 50;

impl Manifest {
    /// The hosts that calls may reach.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.permissions.iter().filter_map(|permission| match permission {
            Permission::Network(host) => Some(host.as_str()),
            Permission::Hook(_) | Permission::Named(_) => None,
        })
    }
}

impl ConnectionTest {
    /// The test as an action. (None is there only because names are parsed.)
    pub(crate) fn action(&self) -> Option<Action> {
        Some(Action {
            request: Some(self.request.clone()),
            response: Response { external_id: self.account.clone(), ..self.response.clone() },
            ..Action::reading(ActionName::parse("connection_test").ok()?)
        })
    }
}

impl Action {
    /// An action that no manifest has, for what is done like one.
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

    /// Fills in the defaults of properties that were left out.
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

/// The most attempts that may be asked for.
pub const ATTEMPTS_MAX: u32 = 10;
