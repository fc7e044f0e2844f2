//! What a plugin says of itself to the registry: what it needs, what it may do, and where it takes part.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use semver::{Prerelease, Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Host;

use super::Manifest;
use crate::core::ids::{PartName, PermissionName, PluginName};

/// Something that a plugin may do: reach a host (`network:<host>`), or be asked at a moment of an agent's work
/// (`hook:<name>`). The module form names others, which say something to its own code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Permission {
    /// A host, by its exact name.
    Network(String),
    /// To see what an agent does at that moment, to change it, and to forbid it.
    Hook(Hook),
    /// Anything else, such as `file_system_read`. Nothing here grants it.
    Named(PermissionName),
}

impl Permission {
    fn known(text: &str) -> Option<Self> {
        let host = text.strip_prefix("network:").and_then(|host| Host::parse(host).ok());
        let hook = text.strip_prefix("hook:").and_then(Hook::parse);
        host.map(|host| Self::Network(host.to_string())).or(hook.map(Self::Hook))
    }

    /// As the module form writes it: a permission that is not known is kept by its name.
    pub(super) fn of_module_form(name: PermissionName) -> Self {
        Self::known(name.as_str()).unwrap_or(Self::Named(name))
    }
}

impl TryFrom<String> for Permission {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::known(&text).ok_or_else(|| {
            format!(
                "the permission {text:?} is not known; write network:<host>, such as network:api.example.com, or \
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
        let mut names = BTreeSet::new();
        for adapter in self.data_adapters.iter().filter(|adapter| !names.insert(&adapter.name)) {
            problems.push(format!("data_adapters: the name {} is used twice; choose another", adapter.name));
        }
        problems
    }
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

impl Hook {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::BeforeAgentRun,
        Self::AfterAgentRun,
        Self::BeforeToolCall,
        Self::AfterToolCall,
        Self::OnError,
        Self::OnReasoningStep,
    ];

    /// As it is written.
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

    /// The hook of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.as_str() == name)
    }

    /// Whether it is about one action, so that it can be for some actions only.
    pub const fn is_of_a_tool(self) -> bool {
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
    fn what_is_declared_is_kept() {
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
    fn what_is_wrong_is_said_with_its_place() {
        for (from, to, said) in [
            (">=1.0.0, <3.0.0", ">=1.0.0 <3.0.0", "write one such as"),
            (">=1.0.0, <3.0.0", "latest", "\"latest\" is not a range of versions"),
            ("other:", "echo:", "dependencies.plugins.echo: a plugin cannot depend on itself"),
            ("other:", "Other:", "small letter"),
            ("libraries:", "library:", "library"),
            ("\">=0.1.0\"", "soon", "\"soon\" is not a range of versions"),
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
            assert!(problem.contains(said), "{to}: {problem}");
        }
    }

    #[test]
    fn a_range_of_overseer_itself_is_taken_as_semver_has_it() {
        let compatible = |range: &str, version: &str| {
            let manifest = Manifest::parse(&GOOD.replacen("\">=0.1.0\"", &format!("\"{range}\""), 1)).unwrap();
            manifest.is_compatible_with(&Version::parse(version).unwrap())
        };
        for (range, good, bad) in [
            // Before 1.0.0 a new minor version is another.
            ("0.1.0", "0.1.9", "0.2.0"),
            ("^0.1", "0.1.0", "0.2.0"),
            ("0", "0.9.0", "1.0.0"),
            (">=0.1.0", "2.0.0", "0.0.9"),
            (">=0.1.0, <0.3.0", "0.2.7", "0.3.0"),
            ("=0.1.0", "0.1.0", "0.1.1"),
            ("1", "1.4.0", "0.1.0"),
            // What comes before a release stands for the release, and for itself.
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
    fn names_of_tools_stay_as_short_as_all_makers_of_models_take_them() {
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
