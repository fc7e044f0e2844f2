//! The manifest as a whole.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Action, Auth, DataAdapter, DeclaredHook, Dependencies, NameKind, Permission, Runtime, VersionRange, default_true,
};
use crate::core::ids::{MappingKind, PluginName};
use crate::plugin::breaker::BreakerLimits;
use crate::plugin::template::Text;

/// The most attempts that a manifest or an intent may ask for.
pub const ATTEMPTS_MAX: u32 = 10;

/// A plugin's manifest.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Overseer plugin manifest")]
pub struct Manifest {
    /// The plugin's name in intents.
    pub name: PluginName,
    /// The version of the plugin (semver 2.0).
    #[schemars(with = "String")]
    pub version: semver::Version,
    /// The plugin's name for people.
    pub display_name: String,
    /// What the plugin does, for people and models.
    pub description: String,
    /// The author's name.
    pub author: Option<String>,
    /// The licence, as an SPDX expression.
    pub license: Option<String>,
    /// A web page about the plugin.
    pub website: Option<String>,
    /// Categories, such as `mail`.
    #[serde(default)]
    pub categories: Vec<String>,
    /// How its actions run.
    pub runtime: Runtime,
    /// How calls authenticate to the service.
    #[serde(default)]
    pub auth: Auth,
    /// Everything that calls may reach. All else is refused.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// When and how often to retry.
    #[serde(default)]
    pub retry: Retry,
    /// When repeated failures disable the plugin for a while.
    #[serde(default)]
    pub breaker: BreakerLimits,
    /// The kinds of names that parameters marked `x-mapping` take instead of the service's ids.
    #[serde(default)]
    pub mappings: BTreeMap<MappingKind, NameKind>,
    /// JSON Schema (2020-12) of an instance's configuration, an object. A property at the top with `writeOnly: true` is a
    /// secret.
    pub config_schema: Option<Value>,
    /// Configuration values for what an instance does not set. Never a secret.
    #[serde(default)]
    pub default_config: Map<String, Value>,
    /// Instructions for agents that may use the plugin. Its templates see `config`.
    pub instruction_template: Option<Text>,
    /// Other plugins and libraries that it needs.
    #[serde(default)]
    pub dependencies: Dependencies,
    /// The versions of Overseer that the plugin works with; all if left out.
    pub compatible_versions: Option<VersionRange>,
    /// The points of an agent's work at which Overseer calls the plugin.
    #[serde(default)]
    pub hooks: Vec<DeclaredHook>,
    /// The sources of the data that its actions work on.
    #[serde(default)]
    pub data_adapters: Vec<DataAdapter>,
    /// Whether the plugin is enabled in an organization that has not set this.
    #[serde(default = "default_true")]
    pub default_enabled: bool,
    /// The actions. A container has none; a plugin with hooks need not have any.
    #[serde(default)]
    pub actions: Vec<Action>,
}

impl Manifest {
    /// The hosts that calls may reach.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.permissions.iter().filter_map(|permission| match permission {
            Permission::Network(host) => Some(host.as_str()),
            Permission::Hook(_) | Permission::Named(_) => None,
        })
    }
}

/// When and how often to retry.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The response header with the time to wait, in seconds or as a date (RFC 9110, 10.2.3).
    #[serde(default = "retry_after")]
    pub after_header: String,
    /// The attempts of a task's run where the task does not set them: 1 to 10.
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

impl Manifest {
    /// Why its actions cannot run here, with the remedy; `None` if they can.
    pub fn cannot_run(&self) -> Option<String> {
        self.runtime.cannot_run()
    }
}
