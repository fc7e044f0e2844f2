//! The built-in plugin `policy`: rules in an organization's configuration. The first rule that matches a call forbids it. It
//! runs in this process, before the hooks of all other plugins.

use serde_json::Value;

use crate::invoke::hooks::context::{HookContext, HookFailure, HookReply, LoadedHook};
use crate::plugin::template::{Context, Expression};
use crate::registry::policy::Policy;

/// The decision of the rules about a call.
pub(super) fn evaluate(
    loaded: &LoadedHook,
    context: &HookContext<'_>,
    parameters: &Value,
) -> Result<HookReply, HookFailure> {
    let config = loaded.manifest().config_with_defaults(loaded.hooked.config.clone());
    let policy: Policy = serde_json::from_value(Value::Object(config))
        .map_err(|error| HookFailure::rejected(format!("its configuration is invalid: {error}")))?;
    let (tool, intent) = context.tool.unwrap_or_default();
    let mut variables = None;
    for (index, rule) in policy.rules.into_iter().enumerate() {
        let applies = rule.tool.as_deref().is_none_or(|name| name == tool)
            && rule.intent.as_deref().is_none_or(|name| name == intent);
        if !applies {
            continue;
        }
        if let Some(when) = rule.when {
            let variables = variables.get_or_insert_with(|| {
                let variables = Context::default().with("parameters", parameters).with("user", &context.user);
                let variables = variables.with("agent", &context.agent).with("channel", &context.channel);
                variables.with("tool", &tool).with("intent", &intent)
            });
            let holds = Expression::try_from(when).and_then(|when| when.holds(variables));
            let holds = holds.map_err(|error| {
                // The expression is for administrators, and not for the agent.
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
