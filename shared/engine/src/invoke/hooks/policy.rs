//! The built-in plugin `policy`: rules that an organization sets in its configuration. The first rule that is about a call
//! and holds forbids it. It is asked in this process, before every hook of others.

use serde_json::Value;

use crate::invoke::hooks::context::{HookContext, HookFailure, HookReply, LoadedHook};
use crate::plugin::template::{Context, Expression};
use crate::registry::policy::Policy;

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
