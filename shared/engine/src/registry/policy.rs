//! The configuration of the built-in plugin `policy`: rules by which an organization forbids actions. `invoke::hooks`
//! evaluates them.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::core::problem::FieldProblem;
use crate::plugin::manifest::{Manifest, Runtime};
use crate::plugin::template::{Expression, Names};

/// The rules of an organization.
#[derive(Deserialize)]
pub(crate) struct Policy {
    #[serde(default)]
    pub rules: Vec<PolicyRule>,
}

/// Forbids the actions that it matches.
#[derive(Deserialize)]
pub(crate) struct PolicyRule {
    /// The plugin; all if left out.
    pub tool: Option<String>,
    /// The action; all if left out.
    pub intent: Option<String>,
    /// An expression that must hold; always matches if left out.
    pub when: Option<String>,
    /// What the agent reads when the rule forbids its action.
    pub reason: String,
}

/// The names that a rule's expression can use.
pub(crate) const NAMES: [&str; 6] = ["parameters", "user", "agent", "channel", "tool", "intent"];

/// What is wrong with the configuration of a native plugin that its schema cannot express: expressions of rules. `pointer`
/// is the configuration's place in the request.
pub(crate) fn config_problems(manifest: &Manifest, config: &Map<String, Value>, pointer: &str) -> Vec<FieldProblem> {
    let Runtime::Native = manifest.runtime else { return Vec::new() };
    let Ok(policy) = serde_json::from_value::<Policy>(Value::Object(config.clone())) else { return Vec::new() };
    let names = Names::from(NAMES);
    let problem = |(index, rule): (usize, &PolicyRule)| {
        let problem = match Expression::try_from(rule.when.clone()?) {
            Ok(expression) => expression.problems(&names).into_iter().next()?,
            Err(error) => error.to_string(),
        };
        let pointer = format!("{pointer}/rules/{index}/when");
        Some(FieldProblem::new(pointer, format!("is no expression that can be used here: {problem}")))
    };
    policy.rules.iter().enumerate().filter_map(problem).collect()
}
