//! The configuration of the built-in plugin `policy`: rules that an organization sets. `invoke::hooks` evaluates them.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::core::problem::FieldProblem;
use crate::plugin::manifest::{Manifest, Runtime};
use crate::plugin::template::{Expression, Names};

/// What an organization forbids.
#[derive(Deserialize)]
pub(crate) struct Policy {
    #[serde(default)]
    pub rules: Vec<PolicyRule>,
}

/// One thing that is forbidden.
#[derive(Deserialize)]
pub(crate) struct PolicyRule {
    /// Of which plugin; of all if left out.
    pub tool: Option<String>,
    /// Which action; all if left out.
    pub intent: Option<String>,
    /// When; always if left out.
    pub when: Option<String>,
    /// What the agent is told.
    pub reason: String,
}

/// What an expression sees.
pub(crate) const NAMES: [&str; 6] = ["parameters", "user", "agent", "channel", "tool", "intent"];

/// What is wrong with the configuration of a plugin that runs here, and what its schema cannot say.
pub(crate) fn config_problems(manifest: &Manifest, config: &Map<String, Value>, place: &str) -> Vec<FieldProblem> {
    let Runtime::Native = manifest.runtime else { return Vec::new() };
    let Ok(policy) = serde_json::from_value::<Policy>(Value::Object(config.clone())) else { return Vec::new() };
    let names = Names::from(NAMES);
    let wrong = |(index, rule): (usize, &PolicyRule)| {
        let pointer = format!("{place}/rules/{index}/when");
        let problem = match Expression::try_from(rule.when.clone()?) {
            Ok(expression) => expression.problems(&names).into_iter().next()?,
            Err(error) => error.to_string(),
        };
        Some(FieldProblem::new(pointer, format!("is no expression that can be used here: {problem}")))
    };
    policy.rules.iter().enumerate().filter_map(wrong).collect()
}
