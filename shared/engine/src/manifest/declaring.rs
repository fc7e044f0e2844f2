//! What a plugin says of itself to the registry: what it needs, what it may do, and where it takes part.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use semver::{Prerelease, Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Host;

use super::Manifest;
use crate::ids::{PartName, PermissionName, PluginName};

/// Something a call may reach: `network:<host>`. The module form names others, which say something to its own code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Permission {
    /// A host, by its exact name.
    Network(String),
    /// Anything else, such as `file_system_read`. Nothing here grants it.
    Named(PermissionName),
}

impl Permission {
    fn network(text: &str) -> Option<Self> {
        let host = text.strip_prefix("network:").and_then(|host| Host::parse(host).ok());
        host.map(|host| Self::Network(host.to_string()))
    }

    /// As the module form writes it: a permission that is not known is kept by its name.
    pub(super) fn of_module_form(name: PermissionName) -> Self {
        Self::network(name.as_str()).unwrap_or(Self::Named(name))
    }
}

impl TryFrom<String> for Permission {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::network(&text).ok_or_else(|| {
            format!("the permission {text:?} is not known; write network:<host>, such as network:api.example.com")
        })
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> Self {
        permission.to_string()
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(host) => write!(formatter, "network:{host}"),
            Self::Named(name) => write!(formatter, "{name}"),
        }
    }
}

/// A range of versions (semver), such as `>=1.2.0, <3.0.0`. Without a sign a version stands for all that are compatible
/// with it: `1.2.3` for `>=1.2.3, <2.0.0`, but `0.1.0` for `>=0.1.0, <0.2.0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct VersionRange(VersionReq);

impl VersionRange {
    /// Whether a version is in the range. One before a release (`1.0.0-rc.1`) is only where the range names such a one.
    pub fn allows(&self, version: &Version) -> bool {
        self.0.matches(version)
    }
}

impl TryFrom<String> for VersionRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        VersionReq::parse(&text).map(Self).map_err(|error| {
            format!("{text:?} is not a range of versions ({error}); write one such as \">=1.0.0, <3.0.0\"")
        })
    }
}

impl From<VersionRange> for String {
    fn from(range: VersionRange) -> Self {
        range.0.to_string()
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What a plugin needs beside itself.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependencies {
    /// Other plugins, each with the versions that will do.
    #[serde(default)]
    pub plugins: BTreeMap<PluginName, VersionRange>,
    /// Libraries of its own code, each with the versions that will do, in the words of its language.
    #[serde(default)]
    pub libraries: BTreeMap<String, String>,
}

/// A moment at which a plugin takes part in what an agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Before an agent begins.
    BeforeAgentRun,
    /// After an agent has ended.
    AfterAgentRun,
    /// Before an action runs.
    BeforeToolCall,
    /// After an action has run.
    AfterToolCall,
    /// After a failure.
    OnError,
    /// At a step of an agent's reasoning.
    OnReasoningStep,
}

/// A source of the data that actions work on.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataAdapter {
    /// What it is called.
    pub name: PartName,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: DataAdapterKind,
    /// How it is set, where an organization says nothing else.
    #[serde(default)]
    pub config: Map<String, Value>,
}

/// What a source of data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataAdapterKind {
    /// A database.
    Database,
    /// An interface of somebody else.
    Api,
    /// A service, such as a calendar.
    Service,
}

impl Manifest {
    /// Whether this Overseer is one of those that the plugin is for.
    pub fn is_compatible(&self) -> bool {
        // An Overseer of which nobody can tell the version is for everything; a test sees that it can be told.
        Version::parse(env!("CARGO_PKG_VERSION")).is_ok_and(|own| self.is_compatible_with(&own))
    }

    /// Whether that version of Overseer is one of those that the plugin is for. One before a release counts as the release:
    /// it is there to try the release with.
    fn is_compatible_with(&self, overseer: &Version) -> bool {
        let release = Version { pre: Prerelease::EMPTY, ..overseer.clone() };
        self.compatible_versions.as_ref().is_none_or(|range| range.allows(overseer) || range.allows(&release))
    }

    /// What is wrong with what it declares.
    pub(super) fn declaring_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.dependencies.plugins.contains_key(&self.name) {
            problems.push(format!("dependencies.plugins.{}: a plugin cannot depend on itself; remove it", self.name));
        }
        for (index, adapter) in self.data_adapters.iter().enumerate() {
            if self.data_adapters.iter().take(index).any(|other| other.name == adapter.name) {
                problems.push(format!("data_adapters: the name {} is used twice; choose another", adapter.name));
            }
        }
        problems
    }
}
