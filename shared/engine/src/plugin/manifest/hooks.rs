//! The hooks of a plugin: at which points of an agent's work Overseer calls it, and how.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use super::Hook;
use crate::core::ids::{ActionName, PluginName};

/// The largest priority.
const PRIORITY_MAX: u32 = 1_000;
/// The shortest and the longest timeout of a hook, in milliseconds.
const TIMEOUT_MS: RangeInclusive<u32> = 100..=10_000;
/// The most tools that a hook may name.
const TOOLS_MAX: usize = 50;
/// The longest URL of a hook, in bytes.
const URL_MAX_BYTES: usize = 2_048;

/// What happens when a hook fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The agent's work continues, as if the hook had allowed it.
    Ignore,
    /// The agent's work stops, as if the hook had vetoed it.
    Fatal,
}

/// A hook as a manifest declares it: its name alone, or with details.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeclaredHook {
    /// The point of an agent's work at which it is called.
    pub on: Hook,
    /// The URL to call: `https`, at a host that `permissions` names; `/hooks/<name>` after the base URL if left out.
    pub url: Option<Url>,
    /// Its order among all hooks of the organization: 0 to 1,000, the smallest first; 100 if left out.
    pub priority: u32,
    /// Its timeout, in milliseconds: 100 to 10,000; 2,000 if left out. It counts against the time of the waiting call.
    pub timeout_ms: u32,
    /// What happens when it fails.
    pub on_failure: OnFailure,
    /// The tools that it is for: plugins (`slack`) and actions (`slack.send_message`). Empty for all.
    pub tools: BTreeSet<String>,
}

/// The long form of a hook.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HookDeclaration")]
struct Declaration {
    /// The point of an agent's work at which it is called.
    on: Hook,
    /// The URL to call: `https`, at a host that `permissions` names; `/hooks/<name>` after the base URL if left out.
    #[schemars(with = "Option<String>")]
    url: Option<Url>,
    /// Its order among all hooks of the organization: 0 to 1,000, the smallest first; 100 if left out.
    priority: Option<u32>,
    /// Its timeout, in milliseconds: 100 to 10,000; 2,000 if left out.
    timeout_ms: Option<u32>,
    /// What happens when it fails: `fatal` if left out, but `ignore` for `on_error`, which has nothing to stop.
    on_failure: Option<OnFailure>,
    /// The tools that it is for: plugins (`slack`) and actions (`slack.send_message`); all if left out.
    #[serde(default)]
    tools: BTreeSet<String>,
}

/// Both forms, for the published schema.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum EitherForm {
    Name(Hook),
    Long(Declaration),
}

impl JsonSchema for DeclaredHook {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DeclaredHook".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        EitherForm::json_schema(generator)
    }
}

impl From<Declaration> for DeclaredHook {
    fn from(declaration: Declaration) -> Self {
        let Declaration { on, url, priority, timeout_ms, on_failure, tools } = declaration;
        let default_on_failure = if on == Hook::OnError { OnFailure::Ignore } else { OnFailure::Fatal };
        Self {
            on,
            url,
            priority: priority.unwrap_or(100),
            timeout_ms: timeout_ms.unwrap_or(2_000),
            on_failure: on_failure.unwrap_or(default_on_failure),
            tools,
        }
    }
}

impl<'de> Deserialize<'de> for DeclaredHook {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Declaration;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter
                    .write_str("the name of a hook, such as before_tool_call, or an object with on and further keys")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Declaration, E> {
                let on = Hook::deserialize(StrDeserializer::new(name))?;
                let (url, priority, timeout_ms, on_failure) = (None, None, None, None);
                Ok(Declaration { on, url, priority, timeout_ms, on_failure, tools: BTreeSet::new() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Declaration, A::Error> {
                Declaration::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Either).map(Self::from)
    }
}

impl DeclaredHook {
    /// Whether it applies to this plugin and action, or (for `None`) to an event without one.
    pub(crate) fn is_for(&self, tool: Option<(&str, &str)>) -> bool {
        match tool {
            Some((plugin, action)) if !self.tools.is_empty() => {
                self.tools.contains(plugin) || self.tools.contains(&format!("{plugin}.{action}"))
            }
            Some(_) => true,
            None => self.tools.is_empty(),
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut problem = |field: &str, text: String| problems.push(format!("hooks.{}.{field}: {text}", self.on));
        if self.priority > PRIORITY_MAX {
            problem("priority", format!("must be 0 to {PRIORITY_MAX}"));
        }
        if !TIMEOUT_MS.contains(&self.timeout_ms) {
            problem("timeout_ms", format!("must be {} to {}", TIMEOUT_MS.start(), TIMEOUT_MS.end()));
        }
        if self.on == Hook::OnError && self.on_failure == OnFailure::Fatal {
            problem("on_failure", "there is nothing left to stop after an error; leave it out".to_owned());
        }
        if self.tools.len() > TOOLS_MAX {
            problem("tools", format!("there are {}, more than the {TOOLS_MAX} allowed", self.tools.len()));
        }
        if !self.on.is_tool_hook() && !self.tools.is_empty() {
            problem("tools", "is for before_tool_call, after_tool_call and on_error only; leave it out".to_owned());
        }
        for tool in &self.tools {
            let (plugin, action) = tool.split_once('.').map_or((tool.as_str(), None), |(a, b)| (a, Some(b)));
            let valid = PluginName::parse(plugin).is_ok() && action.is_none_or(|name| ActionName::parse(name).is_ok());
            if !valid {
                problem(
                    "tools",
                    format!("{tool:?} is not a tool; write a plugin (slack) or an action (slack.send_message)"),
                );
            }
        }
        if self.url.as_ref().is_some_and(|url| url.as_str().len() > URL_MAX_BYTES) {
            problem("url", format!("must have at most {URL_MAX_BYTES} bytes"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::manifest::Manifest;

    const GOOD: &str = r#"
name: guard
version: 1.0.0
display_name: Guard
description: Watches.
runtime: { type: http, base_url: "https://guard.example/v1/" }
permissions: ["network:guard.example", "network:hooks.example"]
hooks:
  - before_agent_run
  - { on: before_tool_call, url: "https://hooks.example/before", priority: 5, timeout_ms: 500, tools: [slack, gmail.send_email] }
  - { on: after_tool_call, on_failure: ignore }
  - on_error
"#;

    #[test]
    fn hook_is_a_name_or_an_object() {
        let manifest = Manifest::parse(GOOD).unwrap();
        let [first, before, after, error] = manifest.hooks.as_slice() else { panic!("{:?}", manifest.hooks) };
        assert_eq!((first.on, first.priority, first.timeout_ms), (Hook::BeforeAgentRun, 100, 2_000));
        assert_eq!((first.on_failure, error.on_failure), (OnFailure::Fatal, OnFailure::Ignore));
        assert_eq!((before.priority, before.timeout_ms, after.on_failure), (5, 500, OnFailure::Ignore));
        assert_eq!(manifest.hook_url(first).unwrap().as_str(), "https://guard.example/v1/hooks/before_agent_run");
        assert_eq!(manifest.hook_url(before).unwrap().as_str(), "https://hooks.example/before");
        assert!(before.is_for(Some(("slack", "a"))) && before.is_for(Some(("gmail", "send_email"))));
        assert!(!before.is_for(Some(("gmail", "fetch"))) && !before.is_for(None));
        assert!(after.is_for(Some(("any", "thing"))) && first.is_for(None));
        let granted: Vec<_> = manifest.permissions.iter().map(ToString::to_string).collect();
        assert_eq!(
            granted,
            [
                "network:guard.example",
                "network:hooks.example",
                "hook:before_agent_run",
                "hook:before_tool_call",
                "hook:after_tool_call",
                "hook:on_error"
            ]
        );
        let needed: Vec<_> = manifest.needed_by(before).map(|permission| permission.to_string()).collect();
        assert_eq!(needed, ["hook:before_tool_call", "network:hooks.example"]);
    }

    #[test]
    fn hook_problem_names_its_path() {
        for (from, to, expected) in [
            ("priority: 5", "priority: 1001", "hooks.before_tool_call.priority: must be 0 to 1000"),
            ("priority: 5", "priority: -1", "invalid u32"),
            ("timeout_ms: 500", "timeout_ms: 99", "hooks.before_tool_call.timeout_ms: must be 100 to 10000"),
            ("timeout_ms: 500", "timeout_ms: 10001", "hooks.before_tool_call.timeout_ms: must be 100 to 10000"),
            ("on: before_tool_call, ", "on: before_tool, ", "before_tool"),
            ("on: before_tool_call, ", "", "on"),
            ("priority: 5", "prio: 5", "prio"),
            ("on_failure: ignore", "on_failure: retry", "retry"),
            ("- on_error", "- { on: on_error, on_failure: fatal }", "hooks.on_error.on_failure: there is nothing left"),
            ("- on_error", "- on_success", "on_success"),
            ("- on_error", "- 7", "the name of a hook"),
            (
                "- before_agent_run",
                "- { on: before_agent_run, tools: [slack] }",
                "hooks.before_agent_run.tools: is for",
            ),
            ("[slack, gmail", "[Slack, gmail", "\"Slack\" is not a tool"),
            ("gmail.send_email", "gmail.send email", "\"gmail.send email\" is not a tool"),
            (
                "https://hooks.example/before",
                "http://hooks.example/before",
                "hooks.before_tool_call.url: must be https",
            ),
            ("https://hooks.example/before", "https://other.example/", "permissions: add network:other.example"),
            ("\"network:hooks.example\"", "\"network:hooks.example\", \"hook:on_reasoning_step\"", "no such hook"),
            ("\"network:hooks.example\"", "\"network:hooks.example\", \"hook:on_success\"", "hook:on_success"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let problem = Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(problem.contains(expected), "{to}: {problem}");
        }
        for edge in ["priority: 0", "priority: 1000"] {
            Manifest::parse(&GOOD.replacen("priority: 5", edge, 1)).unwrap();
        }
        for edge in ["timeout_ms: 100", "timeout_ms: 10000"] {
            Manifest::parse(&GOOD.replacen("timeout_ms: 500", edge, 1)).unwrap();
        }
    }

    #[test]
    fn published_schema_accepts_both_forms() {
        let published = crate::core::schema::schema_of::<Manifest>();
        let validator = crate::core::schema::compile(&published).unwrap();
        let read = |text: &str| serde_saphyr::from_str::<serde_json::Value>(text).unwrap();
        assert!(validator.is_valid(&read(GOOD)));
        for (from, to) in [("priority: 5", "prio: 5"), ("- on_error", "- on_success"), ("- on_error", "- 7")] {
            assert!(!validator.is_valid(&read(&GOOD.replacen(from, to, 1))), "{to}");
        }
    }

    #[test]
    fn hook_name_is_its_serialized_form() {
        for hook in Hook::ALL {
            assert_eq!(serde_json::to_value(hook).unwrap(), hook.as_str());
            for name in [hook.as_str().to_owned(), hook.as_str().to_ascii_uppercase()] {
                assert_eq!(Hook::parse(&name), Some(hook));
                assert_eq!(serde_json::from_value::<Hook>(name.into()).unwrap(), hook);
            }
        }
        assert_eq!(Hook::parse("on_success"), None);
    }
}
