//! The built-in plugin `policy`: rules that an organization sets in its configuration. The first rule that is about a call
//! and holds forbids it. It is asked in this process, before every hook of others.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::request::HookFailure;
use super::run::{HookContext, HookReply, LoadedHook};
use crate::core::error::FieldProblem;
use crate::plugin::manifest::{Manifest, Runtime};
use crate::plugin::template::{Context, Expression, Names};

/// What an organization forbids.
#[derive(Deserialize)]
struct Policy {
    #[serde(default)]
    rules: Vec<PolicyRule>,
}

/// One thing that is forbidden.
#[derive(Deserialize)]
struct PolicyRule {
    /// Of which plugin; of all if left out.
    tool: Option<String>,
    /// Which action; all if left out.
    intent: Option<String>,
    /// When; always if left out.
    when: Option<String>,
    /// What the agent is told.
    reason: String,
}

/// What an expression sees.
const NAMES: [&str; 6] = ["parameters", "user", "agent", "channel", "tool", "intent"];

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

/// What the rules say of a call.
pub(super) fn evaluate(
    ready: &LoadedHook,
    moment: &HookContext<'_>,
    parameters: &Value,
) -> Result<HookReply, HookFailure> {
    let config = ready.manifest().config_with_defaults(ready.hooked.config.clone());
    let policy: Policy = serde_json::from_value(Value::Object(config))
        .map_err(|error| HookFailure::rejected(format!("its configuration does not read: {error}")))?;
    let (tool, intent) = moment.tool.unwrap_or_default();
    let mut context = None;
    for (index, rule) in policy.rules.into_iter().enumerate() {
        let is_about = rule.tool.as_deref().is_none_or(|named| named == tool)
            && rule.intent.as_deref().is_none_or(|named| named == intent);
        if !is_about {
            continue;
        }
        if let Some(when) = rule.when {
            let context = context.get_or_insert_with(|| {
                let context = Context::default().with("parameters", parameters).with("user", &moment.user);
                let context = context.with("agent", &moment.agent).with("channel", &moment.channel);
                context.with("tool", &tool).with("intent", &intent)
            });
            let holds = Expression::try_from(when).and_then(|when| when.holds(context));
            let holds = holds.map_err(|error| {
                // The agent has no use for the words of a rule.
                let detail = Some(format!("rules/{index}/when: {error}"));
                HookFailure { detail, ..HookFailure::rejected(format!("its rule {index} failed")) }
            })?;
            if !holds {
                continue;
            }
        }
        return Ok(HookReply::Veto(Some(rule.reason)));
    }
    Ok(HookReply::Proceed)
}
