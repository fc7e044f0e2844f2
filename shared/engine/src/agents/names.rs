//! What the tools of an agent are called: by their actions, as people think of them, and by plugin and action where that
//! would be said of two.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agents::tools::full_name;
use crate::core::effect::Effect;
use crate::core::ids::{ActionName, PluginName};
use crate::plugin::manifest::{Action, Manifest};

/// The longest name of a tool that every maker of models takes, in characters
/// (<https://platform.openai.com/docs/api-reference/chat/create>, <https://docs.anthropic.com/en/api/messages>).
const NAME_MAX: usize = 64;

/// Something that an agent can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentTool {
    /// What the model calls it.
    pub name: String,
    /// The plugin; `tool` in an intent.
    pub plugin: PluginName,
    /// The action; `intent` in an intent.
    pub action: ActionName,
    /// What people call it.
    pub title: String,
    /// What it does, for people and models.
    pub description: String,
    /// What doing it twice would mean.
    pub effect: Effect,
    /// JSON Schema of its parameters.
    pub parameters: Value,
}

/// A tool that does not have its action's name, because another has it, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// What the model calls it.
    pub name: String,
    /// The plugin.
    pub plugin: PluginName,
    /// The action.
    pub action: ActionName,
}

/// The tools of plugins, in the order of these and of their manifests.
pub(super) fn tools<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> (Vec<AgentTool>, Vec<Renamed>) {
    let actions: Vec<(&Manifest, &Action)> =
        manifests.flat_map(|manifest| manifest.actions.iter().map(move |action| (manifest, action))).collect();
    let mut names: Vec<String> = actions.iter().map(|(_, action)| action.name.to_string()).collect();
    let full: Vec<String> = actions.iter().map(|(manifest, action)| full_name(manifest, action)).collect();
    loop {
        let mut counts = BTreeMap::<&str, usize>::new();
        for name in &names {
            *counts.entry(name).or_default() += 1;
        }
        let twice = |name: &String| counts.get(name.as_str()).is_some_and(|count| *count > 1);
        let next: Vec<String> =
            names.iter().zip(&full).map(|(name, full)| if twice(name) { full } else { name }.clone()).collect();
        // A name that became longer may be another's, which then becomes longer as well.
        if next == names {
            break;
        }
        names = next;
    }
    let mut taken = BTreeSet::new();
    let mut renamed = Vec::new();
    let mut tools = Vec::with_capacity(actions.len());
    for ((manifest, action), wanted) in actions.into_iter().zip(names) {
        let name = free_name(&wanted, &taken);
        taken.insert(name.clone());
        if name != action.name.as_str() {
            let (plugin, action) = (manifest.name.clone(), action.name.clone());
            renamed.push(Renamed { name: name.clone(), plugin, action });
        }
        tools.push(AgentTool {
            name,
            plugin: manifest.name.clone(),
            action: action.name.clone(),
            title: format!("{}: {}", manifest.display_name, action.name),
            description: action.description.clone(),
            effect: action.effect,
            parameters: action.parameters.clone(),
        });
    }
    (tools, renamed)
}

/// The name, or, where `a__b` and `c` have together what `a` and `b__c` have, the name with a number.
fn free_name(wanted: &str, taken: &BTreeSet<String>) -> String {
    let mut name = wanted.to_owned();
    let mut number = 1_usize;
    while taken.contains(&name) {
        number += 1;
        let end = format!("_{number}");
        name = wanted.chars().take(NAME_MAX.saturating_sub(end.len())).chain(end.chars()).collect();
    }
    name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(name: &str, actions: &[&str]) -> Manifest {
        let action =
            |name: &&str| json!({ "name": name, "description": "d", "effect": "read", "request": { "path": "/" } });
        let text = json!({
            "name": name, "version": "1.0.0", "display_name": "P", "description": "d",
            "runtime": { "type": "http", "base_url": "https://p.example" }, "permissions": ["network:p.example"],
            "actions": actions.iter().map(action).collect::<Vec<_>>(),
        });
        Manifest::parse(&text.to_string()).unwrap()
    }

    fn named(manifests: &[Manifest]) -> (Vec<String>, Vec<String>) {
        let (tools, renamed) = tools(manifests.iter());
        (tools.into_iter().map(|tool| tool.name).collect(), renamed.into_iter().map(|one| one.name).collect())
    }

    #[test]
    fn names_are_those_of_actions_and_no_two_are_the_same() {
        let (crm, desk) = (manifest("crm", &["find", "add"]), manifest("desk", &["find", "close"]));
        assert_eq!(
            named(&[crm.clone(), desk.clone()]),
            (
                ["crm__find", "add", "desk__find", "close"].map(str::to_owned).to_vec(),
                vec!["crm__find".to_owned(), "desk__find".to_owned()]
            )
        );
        // What became longer is the name of another.
        let odd = manifest("odd", &["crm__find"]);
        assert_eq!(named(&[crm.clone(), desk, odd]).0, ["crm__find", "add", "desk__find", "close", "odd__crm__find"]);
        let (long, short) = (manifest("a__b", &["c", "x"]), manifest("a", &["b__c", "x"]));
        let both = [long, short, manifest("d", &["c", "b__c"])];
        assert_eq!(named(&both).0, ["a__b__c", "a__b__x", "a__b__c_2", "a__x", "d__c", "d__b__c"]);
    }

    #[test]
    fn names_stay_within_what_models_take() {
        let names: Vec<String> = (0..12).map(|_| "n".repeat(NAME_MAX)).collect();
        let mut taken = BTreeSet::new();
        for name in names {
            let name = free_name(&name, &taken);
            assert!(name.len() == NAME_MAX && taken.insert(name.clone()), "{name}");
        }
        let (a, b) = (manifest(&"a".repeat(31), &[&"x".repeat(31)]), manifest(&"b".repeat(31), &[&"x".repeat(31)]));
        assert!(named(&[a, b]).0.iter().all(|name| name.len() == NAME_MAX));
    }
}
