//! What a plugin declares to the registry: permissions, dependencies, compatible versions, hooks and data adapters.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::de::value::{self, StrDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Host;

use crate::core::ids::{PartName, PermissionName, PluginName};

/// A permission of a plugin: to reach a host (`network:<host>`), or to be called at a point of an agent's work
/// (`hook:<name>`). The module form has others, which only the author's own code understands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Permission {
    /// To reach a host, by its exact name.
    Network(String),
    /// To see what an agent does at that point, to change it, and to veto it.
    Hook(Hook),
    /// Any other, such as `file_system_read`. It allows nothing in Overseer.
    Named(PermissionName),
}

impl Permission {
    fn parse(text: &str) -> Option<Self> {
        let host = text.strip_prefix("network:").and_then(|host| Host::parse(host).ok());
        let hook = text.strip_prefix("hook:").and_then(Hook::parse);
        host.map(|host| Self::Network(host.to_string())).or(hook.map(Self::Hook))
    }

    /// A permission of the module form: an unknown one is kept by its name.
    pub(super) fn from_module_form(name: PermissionName) -> Self {
        Self::parse(name.as_str()).unwrap_or(Self::Named(name))
    }
}

impl TryFrom<String> for Permission {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| {
            format!(
                "unknown permission {text:?}; write network:<host>, such as network:api.example.com, or \
                 hook:<name>, such as hook:before_tool_call"
            )
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
            Self::Hook(hook) => write!(formatter, "hook:{hook}"),
            Self::Named(name) => write!(formatter, "{name}"),
        }
    }
}

/// A range of versions (semver), such as `>=1.2.0, <3.0.0`. A version without an operator means all compatible versions:
/// `1.2.3` means `>=1.2.3, <2.0.0`, but `0.1.0` means `>=0.1.0, <0.2.0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct VersionRange(VersionReq);

impl VersionRange {
    /// Whether a version is in the range. A pre-release (`1.0.0-rc.1`) is in it only if the range names a pre-release.
    pub fn allows(&self, version: &Version) -> bool {
        self.0.matches(version)
    }
}

impl TryFrom<String> for VersionRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        VersionReq::parse(&text).map(Self).map_err(|error| {
            format!("{text:?} is not a version range ({error}); write one such as \">=1.0.0, <3.0.0\"")
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

/// The plugins and libraries that a plugin needs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependencies {
    /// Other plugins, each with the versions that are accepted.
    #[serde(default)]
    pub plugins: BTreeMap<PluginName, VersionRange>,
    /// Libraries of its own code, each with the versions that are accepted, in the syntax of its language.
    #[serde(default)]
    pub libraries: BTreeMap<String, String>,
}

/// A source of the data that actions work on.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataAdapter {
    /// The source's name.
    pub name: PartName,
    /// The kind of source.
    #[serde(rename = "type")]
    pub kind: DataAdapterKind,
    /// Its configuration, if an organization does not set another.
    #[serde(default)]
    pub config: Map<String, Value>,
}

/// The kind of a data source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataAdapterKind {
    /// A database.
    Database,
    /// An API of another system.
    Api,
    /// A service, such as a calendar.
    Service,
}

/// A point of an agent's work at which Overseer calls plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Before an agent's run starts.
    #[serde(alias = "BEFORE_AGENT_RUN")]
    BeforeAgentRun,
    /// After an agent's run has ended.
    #[serde(alias = "AFTER_AGENT_RUN")]
    AfterAgentRun,
    /// Before an action runs.
    #[serde(alias = "BEFORE_TOOL_CALL")]
    BeforeToolCall,
    /// After an action has run.
    #[serde(alias = "AFTER_TOOL_CALL")]
    AfterToolCall,
    /// After a failure.
    #[serde(alias = "ON_ERROR")]
    OnError,
    /// At a step of an agent's reasoning.
    #[serde(alias = "ON_REASONING_STEP")]
    OnReasoningStep,
}

impl Hook {
    /// All hooks.
    pub const ALL: [Self; 6] = [
        Self::BeforeAgentRun,
        Self::AfterAgentRun,
        Self::BeforeToolCall,
        Self::AfterToolCall,
        Self::OnError,
        Self::OnReasoningStep,
    ];

    /// The hook's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeAgentRun => "before_agent_run",
            Self::AfterAgentRun => "after_agent_run",
            Self::BeforeToolCall => "before_tool_call",
            Self::AfterToolCall => "after_tool_call",
            Self::OnError => "on_error",
            Self::OnReasoningStep => "on_reasoning_step",
        }
    }

    /// The hook of that name, which may be in capitals.
    pub fn parse(name: &str) -> Option<Self> {
        Self::deserialize(StrDeserializer::<value::Error>::new(name)).ok()
    }

    /// Whether it is about one action, and can therefore be limited to some tools.
    pub const fn is_tool_hook(self) -> bool {
        match self {
            Self::BeforeToolCall | Self::AfterToolCall | Self::OnError => true,
            Self::BeforeAgentRun | Self::AfterAgentRun | Self::OnReasoningStep => false,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::manifest::Manifest;

    const GOOD: &str = r#"
name: echo
version: 1.0.0
display_name: Echo
description: Says it again.
runtime: { type: http, base_url: "https://echo.example" }
permissions: ["network:echo.example"]
dependencies:
  plugins: { other: ">=1.0.0, <3.0.0" }
  libraries: { requests: ">=2.25.0" }
compatible_versions: ">=0.1.0"
hooks: [before_tool_call, on_error]
data_adapters: [{ name: Store, type: database, config: { url: "env:STORE" } }]
default_enabled: false
actions:
  - { name: Say, description: Says it., effect: read, request: { path: /say } }
"#;

    #[test]
    fn declarations_are_read() {
        let manifest = Manifest::parse(GOOD).unwrap();
        let range = &manifest.dependencies.plugins[&PluginName::parse("other").unwrap()];
        for (version, allowed) in
            [("1.0.0", true), ("2.9.9", true), ("3.0.0", false), ("0.9.9", false), ("2.0.0-rc.1", false)]
        {
            assert_eq!(range.allows(&Version::parse(version).unwrap()), allowed, "{version}");
        }
        assert_eq!(manifest.dependencies.libraries["requests"], ">=2.25.0");
        let hooks: Vec<_> = manifest.hooks.iter().map(|hook| hook.on).collect();
        assert_eq!(hooks, [Hook::BeforeToolCall, Hook::OnError]);
        assert_eq!(manifest.data_adapters[0].config["url"], "env:STORE");
        assert!(!manifest.default_enabled && manifest.is_compatible());
    }

    #[test]
    fn declaration_problem_names_its_path() {
        for (from, to, expected) in [
            (">=1.0.0, <3.0.0", ">=1.0.0 <3.0.0", "write one such as"),
            (">=1.0.0, <3.0.0", "latest", "\"latest\" is not a version range"),
            ("other:", "echo:", "dependencies.plugins.echo: a plugin cannot depend on itself"),
            ("other:", "Other:", "small letter"),
            ("libraries:", "library:", "library"),
            ("\">=0.1.0\"", "soon", "\"soon\" is not a version range"),
            ("on_error", "on_success", "on_success"),
            ("type: database", "type: disk", "disk"),
            ("name: Store", "name: a b", "must begin with a letter"),
            ("config: {", "configuration: {", "configuration"),
            (
                "config: { url: \"env:STORE\" } }",
                "config: { a: 1 } }, { name: Store, type: api }",
                "the name Store is used twice",
            ),
            ("default_enabled: false", "default_enabled: maybe", "boolean"),
            ("name: Say", "name: 1st", "must begin with a letter"),
            ("version: 1.0.0", "version: 1.0", "version"),
            ("version: 1.0.0", "version: v1.0.0", "v"),
            ("version: 1.0.0", "version: 01.0.0", "leading zero"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let problem = Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(problem.contains(expected), "{to}: {problem}");
        }
    }

    #[test]
    fn compatible_versions_follow_semver() {
        let compatible = |range: &str, version: &str| {
            let manifest = Manifest::parse(&GOOD.replacen("\">=0.1.0\"", &format!("\"{range}\""), 1)).unwrap();
            manifest.is_compatible_with(&Version::parse(version).unwrap())
        };
        for (range, good, bad) in [
            // Before 1.0.0 minor versions are incompatible with each other.
            ("0.1.0", "0.1.9", "0.2.0"),
            ("^0.1", "0.1.0", "0.2.0"),
            ("0", "0.9.0", "1.0.0"),
            (">=0.1.0", "2.0.0", "0.0.9"),
            (">=0.1.0, <0.3.0", "0.2.7", "0.3.0"),
            ("=0.1.0", "0.1.0", "0.1.1"),
            ("1", "1.4.0", "0.1.0"),
            // A pre-release of Overseer counts as the release, and as itself.
            (">=0.2.0", "0.2.0-rc.1", "0.1.0-rc.1"),
            (">=0.2.0-rc.2, <0.2.0", "0.2.0-rc.2", "0.2.0-rc.1"),
        ] {
            assert!(compatible(range, good) && !compatible(range, bad), "{range}");
        }
        let any = Manifest::parse(&GOOD.replacen("compatible_versions: \">=0.1.0\"\n", "", 1)).unwrap();
        assert!(any.is_compatible() && any.is_compatible_with(&Version::new(0, 0, 0)));
        assert!(Version::parse(env!("CARGO_PKG_VERSION")).is_ok());
    }

    #[test]
    fn tool_name_has_at_most_62_characters() {
        let with = |plugin: usize, action: usize| {
            let text = GOOD.replacen("name: echo", &format!("name: {}", "p".repeat(plugin)), 1);
            Manifest::parse(&text.replacen("name: Say", &format!("name: {}", "A".repeat(action)), 1))
        };
        with(2, 60).unwrap();
        with(62 - 1, 1).unwrap();
        assert!(with(2, 61).unwrap_err().to_string().contains("more than 62 characters"));
        assert!(with(2, 64).unwrap_err().to_string().contains("63 characters at most"));
    }
}
