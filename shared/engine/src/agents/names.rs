//! The names of an agent's tools: the name of the action, or plugin and action where several plugins have an action of that
//! name.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agents::tools::full_name;
use crate::core::effect::Effect;
use crate::core::ids::{ActionName, PluginName};
use crate::plugin::manifest::{Action, Manifest};

/// The longest name of a tool that all vendors of models accept, in characters
/// (<https://platform.openai.com/docs/api-reference/chat/create>, <https://docs.anthropic.com/en/api/messages>).
const NAME_MAX: usize = 64;

/// An action that an agent can call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentTool {
    /// Its name for the model.
    pub name: String,
    /// The plugin; `tool` in an intent.
    pub plugin: PluginName,
    /// The action; `intent` in an intent.
    pub action: ActionName,
    /// Its name for people.
    pub title: String,
    /// What it does, for people and models.
    pub description: String,
    /// Whether a call changes something, and whether it can be repeated.
    pub effect: Effect,
    /// JSON Schema of its parameters.
    pub parameters: Value,
}

/// A tool whose name is not its action's, because another tool's action has that name too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenamedTool {
    /// Its name for the model.
    pub name: String,
    /// The plugin.
    pub plugin: PluginName,
    /// The action.
    pub action: ActionName,
}

/// The tools of plugins, in the order of the plugins and of their actions, each with a name of its own.
pub(super) fn name_tools<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> (Vec<AgentTool>, Vec<RenamedTool>) {
    let actions: Vec<(&Manifest, &Action)> =
        manifests.flat_map(|manifest| manifest.actions.iter().map(move |action| (manifest, action))).collect();
    let names = unambiguous_names(&actions);
    let mut taken = BTreeSet::new();
    let mut renamed = Vec::new();
    let mut tools = Vec::with_capacity(actions.len());
    for ((manifest, action), wanted) in actions.into_iter().zip(names) {
        let name = free_name(&wanted, &taken);
        taken.insert(name.clone());
        if name != action.name.as_str() {
            let (plugin, action) = (manifest.name.clone(), action.name.clone());
            renamed.push(RenamedTool { name: name.clone(), plugin, action });
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

/// The name of each action; the full name, plugin and action, where several have the same name.
fn unambiguous_names(actions: &[(&Manifest, &Action)]) -> Vec<String> {
    let full: Vec<String> = actions.iter().map(|(manifest, action)| full_name(manifest, action)).collect();
    let mut names: Vec<String> = actions.iter().map(|(_, action)| action.name.to_string()).collect();
    loop {
        let mut counts = BTreeMap::<&str, usize>::new();
        for name in &names {
            *counts.entry(name).or_default() += 1;
        }
        let is_ambiguous = |name: &String| counts.get(name.as_str()).is_some_and(|count| *count > 1);
        let pairs = names.iter().zip(&full);
        let next: Vec<String> =
            pairs.map(|(name, full)| if is_ambiguous(name) { full } else { name }.clone()).collect();
        // A full name may equal another action's name, which then becomes a full name as well.
        if next == names {
            return names;
        }
        names = next;
    }
}

/// The wanted name, with a number where it is taken: the full names of `a__b`, `c` and of `a`, `b__c` are equal.
fn free_name(wanted: &str, taken: &BTreeSet<String>) -> String {
    let mut name = wanted.to_owned();
    let mut number = 1_usize;
    while taken.contains(&name) {
        number += 1;
        let suffix = format!("_{number}");
        name = wanted.chars().take(NAME_MAX.saturating_sub(suffix.len())).chain(suffix.chars()).collect();
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
        let (tools, renamed) = name_tools(manifests.iter());
        (tools.into_iter().map(|tool| tool.name).collect(), renamed.into_iter().map(|one| one.name).collect())
    }

    #[test]
    fn names_are_unique() {
        let (crm, desk) = (manifest("crm", &["find", "add"]), manifest("desk", &["find", "close"]));
        assert_eq!(
            named(&[crm.clone(), desk.clone()]),
            (
                ["crm__find", "add", "desk__find", "close"].map(str::to_owned).to_vec(),
                vec!["crm__find".to_owned(), "desk__find".to_owned()]
            )
        );
        // A full name that is the name of another plugin's action.
        let odd = manifest("odd", &["crm__find"]);
        assert_eq!(named(&[crm.clone(), desk, odd]).0, ["crm__find", "add", "desk__find", "close", "odd__crm__find"]);
        let (long, short) = (manifest("a__b", &["c", "x"]), manifest("a", &["b__c", "x"]));
        let both = [long, short, manifest("d", &["c", "b__c"])];
        assert_eq!(named(&both).0, ["a__b__c", "a__b__x", "a__b__c_2", "a__x", "d__c", "d__b__c"]);
    }

    #[test]
    fn names_have_at_most_64_characters() {
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
