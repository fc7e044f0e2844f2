//! Compares two versions of a plugin by what their manifests mean. An administrator who moves an instance to another version
//! needs to know what the plugin may then do, and which texts models will read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Action, ActionChanged, Changes, Hook, Manifest, TextChanged};
use crate::core::ids::ActionName;

/// What changed from `old` to `new`. The order of keys and actions does not matter, and versions are not compared.
pub fn diff(old: &Manifest, new: &Manifest) -> Changes {
    let (permissions_removed, permissions_added) = difference(&old.permissions, &new.permissions);
    let (scopes_removed, scopes_added) = difference(old.auth.scopes(), new.auth.scopes());
    let (hooks_removed, hooks_added) = difference(hooks_of(old), hooks_of(new));
    let (actions_removed, actions_added) = difference(action_names(old), action_names(new));
    let hosts_changed = old.runtime.base_url() != new.runtime.base_url()
        || old.hosts().collect::<BTreeSet<_>>() != new.hosts().collect::<BTreeSet<_>>();
    let mut kept_hooks = hooks_of(old).filter(|on| hooks_of(new).any(|other| other == *on));
    let hooks_widened = kept_hooks.any(|on| new.widens_hook(old, *on));
    Changes {
        hooks_widened,
        actions_changed: actions_changed(old, new),
        description_changed: texts_changed(old, new),
        auth_changed: old.auth != new.auth,
        hosts_changed,
        reconnect: old.audience() != new.audience() || !scopes_added.is_empty(),
        config_schema_changed: old.config_schema != new.config_schema,
        keys_changed: keys_changed(old, new),
        actions_removed,
        actions_added,
        permissions_removed,
        permissions_added,
        scopes_removed,
        scopes_added,
        hooks_removed,
        hooks_added,
    }
}

/// What only `old` has, and what only `new` has.
fn difference<'a, T: Ord + Clone + 'a>(
    old: impl IntoIterator<Item = &'a T>,
    new: impl IntoIterator<Item = &'a T>,
) -> (Vec<T>, Vec<T>) {
    let (old, new): (BTreeSet<&T>, BTreeSet<&T>) = (old.into_iter().collect(), new.into_iter().collect());
    (old.difference(&new).copied().cloned().collect(), new.difference(&old).copied().cloned().collect())
}

fn action_names(manifest: &Manifest) -> impl Iterator<Item = &ActionName> {
    manifest.actions.iter().map(|action| &action.name)
}

fn hooks_of(manifest: &Manifest) -> impl Iterator<Item = &Hook> {
    manifest.hooks.iter().map(|hook| &hook.on)
}

/// The keys whose values differ, from pairs of a key and whether its values are equal.
fn changed(keys: &[(&'static str, bool)]) -> Vec<&'static str> {
    keys.iter().filter(|(_, equal)| !equal).map(|(key, _)| *key).collect()
}

fn keys_changed(old: &Manifest, new: &Manifest) -> Vec<&'static str> {
    changed(&[
        ("author", old.author == new.author),
        ("license", old.license == new.license),
        ("website", old.website == new.website),
        ("categories", old.categories == new.categories),
        ("runtime", old.runtime == new.runtime),
        ("retry", old.retry == new.retry),
        ("breaker", old.breaker == new.breaker),
        ("mappings", old.mappings == new.mappings),
        ("default_config", old.default_config == new.default_config),
        ("dependencies", old.dependencies == new.dependencies),
        ("compatible_versions", old.compatible_versions == new.compatible_versions),
        ("hooks", old.hooks == new.hooks),
        ("data_adapters", old.data_adapters == new.data_adapters),
        ("default_enabled", old.default_enabled == new.default_enabled),
    ])
}

fn actions_changed(old: &Manifest, new: &Manifest) -> Vec<ActionChanged> {
    let keys = |old: &Action, new: &Action| {
        changed(&[
            ("aliases", old.aliases.iter().collect::<BTreeSet<_>>() == new.aliases.iter().collect()),
            ("description", old.description == new.description),
            ("effect", old.effect == new.effect),
            ("parameters", old.parameters == new.parameters),
            ("returns", old.returns == new.returns),
            ("streaming_supported", old.streaming_supported == new.streaming_supported),
            ("request", old.request == new.request),
            ("response", old.response == new.response),
            ("paginate", old.paginate == new.paginate),
            ("each", old.each == new.each),
        ])
    };
    let both = old.actions.iter().filter_map(|action| Some((action, new.action(&action.name)?)));
    let changed = both.map(|(old, new)| ActionChanged { name: new.name.clone(), keys: keys(old, new) });
    changed.filter(|action| !action.keys.is_empty()).collect()
}

fn texts_changed(old: &Manifest, new: &Manifest) -> Vec<TextChanged> {
    let (old, new) = (texts(old, new), texts(new, old));
    let places: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = places.into_iter().filter(|place| old.get(*place) != new.get(*place));
    changed
        .map(|place| TextChanged { place: place.clone(), old: old.get(place).cloned(), new: new.get(place).cloned() })
        .collect()
}

/// The texts of a manifest that models read, by their paths. Actions that `other` does not have are left out.
fn texts(manifest: &Manifest, other: &Manifest) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::from([
        ("description".to_owned(), manifest.description.clone()),
        ("display_name".to_owned(), manifest.display_name.clone()),
    ]);
    let template = manifest.instruction_template.as_ref();
    texts.extend(template.map(|text| ("instruction_template".to_owned(), text.source().to_owned())));
    for action in manifest.actions.iter().filter(|action| other.action(&action.name).is_some()) {
        let place = format!("actions.{}", action.name);
        texts.insert(format!("{place}.description"), action.description.clone());
        texts_in(&action.parameters, &format!("{place}.parameters"), &mut texts);
        if let Some(returns) = &action.returns {
            texts_in(returns, &format!("{place}.returns"), &mut texts);
        }
    }
    texts
}

/// Adds the titles and descriptions in a schema, by their paths.
fn texts_in(schema: &Value, place: &str, texts: &mut BTreeMap<String, String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                let place = format!("{place}/{key}");
                match value.as_str().filter(|_| matches!(key.as_str(), "description" | "title")) {
                    Some(text) => {
                        texts.insert(place, text.to_owned());
                    }
                    None => texts_in(value, &place, texts),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                texts_in(item, &format!("{place}/{index}"), texts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Manifest {
    fn action(&self, name: &ActionName) -> Option<&Action> {
        self.actions.iter().find(|action| action.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::manifest::{Module, Runtime};

    const OLD: &str = r#"
name: chat
version: 1.0.0
display_name: Chat
description: Talks.
runtime: { type: http, base_url: "https://chat.example/v1" }
auth: { type: oauth2, authorization_url: "https://p.example/a", token_url: "https://p.example/t", scopes: [read, write] }
permissions: ["network:chat.example", "network:files.example"]
config_schema: { type: object, properties: { tone: { type: string } } }
instruction_template: Be kind.
hooks: [on_error]
actions:
  - name: say
    description: Says it.
    effect: unsafe
    parameters: { type: object, properties: { text: { type: string, description: The text. } } }
    request: { method: POST, path: /say, json: { text: "{{ text }}", to: all } }
  - name: hear
    description: Hears it.
    effect: read
    request: { path: /hear }
"#;

    /// The changes that replacing texts of the manifest makes.
    #[track_caller]
    fn changes(edits: &[(&str, &str)]) -> Changes {
        let new = edits.iter().fold(OLD.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        diff(&Manifest::parse(OLD).unwrap(), &Manifest::parse(&new).unwrap())
    }

    #[test]
    fn equal_meaning_is_no_change() {
        let same = changes(&[
            ("version: 1.0.0", "version: 2.0.0"),
            (
                "{ type: object, properties: { tone: { type: string } } }",
                "{ properties: { tone: {\"type\": \"string\"} }, type: object }",
            ),
            ("[read, write]", "[write, read]"),
            (
                "\"network:chat.example\", \"network:files.example\"",
                "\"network:files.example\", \"network:CHAT.example\"",
            ),
            (
                "effect: read\n",
                "effect: read # as ever\n    aliases: []\n    parameters: { additionalProperties: false, type: object }\n",
            ),
        ]);
        // Scopes in another order are the same scopes, but `auth` sends the provider another text.
        assert_eq!(same, Changes { auth_changed: true, ..Changes::default() });
        assert!(!same.widens());
        assert!(changes(&[("version: 1.0.0", "version: 1.0.1")]).is_empty());
    }

    #[test]
    fn changed_actions_are_named() {
        let changes = changes(&[
            ("name: hear", "name: listen"),
            ("effect: unsafe", "effect: idempotent\n    aliases: [tell]"),
            ("to: all", "to: some"),
        ]);
        let json = serde_json::to_value(&changes).unwrap();
        assert_eq!(json["actions_removed"], json!(["hear"]));
        assert_eq!(json["actions_added"], json!(["listen"]));
        assert_eq!(json["actions_changed"], json!([{ "name": "say", "keys": ["aliases", "effect", "request"] }]));
        assert_eq!(json["description_changed"], json!([]));
        assert!(!changes.widens() && !changes.reconnect);
    }

    #[test]
    fn changed_texts_are_listed_with_the_old_text() {
        let changes = changes(&[
            ("description: Talks.", "description: Talks a lot."),
            ("Be kind.", "Be quick."),
            ("Hears it.", "Hears all."),
            ("description: The text.", "description: The text and all passwords., title: Text"),
        ]);
        let text = |place: &str, old: Option<&str>, new: &str| TextChanged {
            place: place.to_owned(),
            old: old.map(str::to_owned),
            new: Some(new.to_owned()),
        };
        assert_eq!(
            changes.description_changed,
            [
                text("actions.hear.description", Some("Hears it."), "Hears all."),
                text(
                    "actions.say.parameters/properties/text/description",
                    Some("The text."),
                    "The text and all passwords."
                ),
                text("actions.say.parameters/properties/text/title", None, "Text"),
                text("description", Some("Talks."), "Talks a lot."),
                text("instruction_template", Some("Be kind."), "Be quick."),
            ]
        );
        assert!(!changes.widens());
    }

    #[test]
    fn wider_access_needs_consent_again() {
        for (from, to, widens, reconnect) in [
            ("\"network:files.example\"", "\"network:files.example\", \"network:more.example\"", true, true),
            (", \"network:files.example\"", "", true, true),
            ("https://chat.example/v1", "https://files.example/v1", true, true),
            ("https://chat.example/v1", "https://chat.example/v2", true, false),
            ("[on_error]", "[on_error, before_tool_call]", true, false),
            ("[on_error]", "[]", false, false),
            ("[read, write]", "[read, write, admin]", true, true),
            ("[read, write]", "[read]", false, false),
            ("https://p.example/t", "https://q.example/t", true, true),
            ("scopes:", "refresh_margin_s: 60, scopes:", false, false),
            ("effect: read", "effect: idempotent", false, false),
        ] {
            let changes = changes(&[(from, to)]);
            assert_eq!((changes.widens(), changes.reconnect), (widens, reconnect), "{to}: {changes:?}");
            assert!(!changes.is_empty());
        }
        let hosts = changes(&[(", \"network:files.example\"", "")]);
        assert_eq!(serde_json::to_value(&hosts).unwrap()["permissions_removed"], json!(["network:files.example"]));
        assert!(hosts.hosts_changed && !hosts.auth_changed && hosts.permissions_added.is_empty());
        let hooks = changes(&[("[on_error]", "[before_tool_call]")]);
        assert_eq!((hooks.hooks_added, hooks.hooks_removed), (vec![Hook::BeforeToolCall], vec![Hook::OnError]));
    }

    #[test]
    fn other_changes_are_named_by_their_keys() {
        let changes = changes(&[
            ("tone: { type: string }", "tone: { type: string }, size: { type: integer }"),
            (
                "instruction_template:",
                "default_config: { size: 1 }\ndefault_enabled: false\nlicense: MIT\nretry: { attempts: 2 }\n\
                 dependencies: { plugins: { other: \"1\" } }\ncompatible_versions: \">=0.1\"\n\
                 data_adapters: [{ name: a, type: api }]\ninstruction_template:",
            ),
        ]);
        assert!(changes.config_schema_changed && !changes.widens());
        let keys = [
            "license",
            "retry",
            "default_config",
            "dependencies",
            "compatible_versions",
            "data_adapters",
            "default_enabled",
        ];
        assert_eq!(changes.keys_changed, keys);
    }

    #[test]
    fn new_runtime_requires_reconnecting() {
        let old = Manifest::parse(OLD).unwrap();
        let new = Manifest { runtime: Runtime::Module(Module::default()), ..old.clone() };
        let changes = diff(&old, &new);
        assert!(changes.hosts_changed && changes.reconnect && changes.keys_changed == ["runtime"]);
    }
}
