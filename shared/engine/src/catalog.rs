//! The plugins that this process knows: the built-in catalog, embedded at build and read when first used, and the folders
//! that an operator adds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::error::{Error, FieldProblem};
use crate::ids::PluginName;
use crate::manifest::{Action, Manifest, ManifestError};
use crate::registry::Digest;
use crate::schema;

include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// The names of the manifest in a plugin's folder.
const MANIFEST_FILES: [&str; 2] = ["plugin.yaml", "manifest.json"];

/// A plugin that can be used.
#[derive(Debug)]
pub struct Plugin {
    /// What it is.
    pub manifest: Manifest,
    /// Of a registered plugin, which text it was read from; the catalog's have none.
    pub(crate) digest: Option<Digest>,
    /// The compiled parameter schemas, by the action's place; made when first used.
    validators: Vec<OnceLock<Option<Validator>>>,
}

impl Plugin {
    fn new(manifest: Manifest) -> Self {
        let validators = manifest.actions.iter().map(|_| OnceLock::new()).collect();
        Self { manifest, digest: None, validators }
    }

    /// A plugin that was registered, with its text.
    pub(crate) fn registered(manifest: Manifest, digest: Digest) -> Self {
        Self { digest: Some(digest), ..Self::new(manifest) }
    }

    /// The action that an intent calls `name`, by its own name or an alias.
    pub fn action(&self, name: &str) -> Result<ActionOf<'_>, Error> {
        let found = self.manifest.actions.iter().zip(&self.validators).find(|(action, _)| {
            action.name.as_str() == name || action.aliases.iter().any(|alias| alias.as_str() == name)
        });
        let Some((action, validator)) = found else {
            let names = self.manifest.actions.iter().flat_map(|a| std::iter::once(&a.name).chain(&a.aliases));
            return Err(Error::UnknownAction {
                plugin: self.manifest.name.to_string(),
                name: name.to_owned(),
                nearest: nearest(name, names.map(crate::ids::ActionName::as_str)),
            });
        };
        Ok(ActionOf { action, validator })
    }
}

/// An action together with its compiled schema.
#[derive(Debug, Clone, Copy)]
pub struct ActionOf<'a> {
    /// The action.
    pub action: &'a Action,
    validator: &'a OnceLock<Option<Validator>>,
}

impl ActionOf<'_> {
    /// Fills in defaults and checks the parameters; every problem at once, with pointers into the intent.
    pub fn check(&self, parameters: Map<String, Value>) -> Result<Map<String, Value>, Error> {
        let parameters = Value::Object(self.action.with_defaults(parameters));
        // A schema that does not compile was refused with its manifest.
        let validator = self.validator.get_or_init(|| schema::compile(&self.action.parameters).ok());
        let problems = match validator {
            Some(validator) => schema::problems_of(validator, &self.action.parameters, &parameters, "/context"),
            None => vec![FieldProblem::new("/intent", "the action's own schema is wrong; tell the plugin's author")],
        };
        match parameters {
            Value::Object(parameters) if problems.is_empty() => Ok(parameters),
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(Error::Invalid(problems))
            }
        }
    }
}

/// A manifest that was left out, and why.
#[derive(Debug)]
pub struct LeftOut {
    /// Where it came from.
    pub origin: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The plugins by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    plugins: BTreeMap<PluginName, Entry>,
}

/// A plugin, read or not yet.
#[derive(Debug, Clone)]
enum Entry {
    Read(Arc<Plugin>),
    /// Reading a manifest is most of the work of a cold start, and an intent needs one.
    BuiltIn(Arc<BuiltIn>),
}

#[derive(Debug)]
struct BuiltIn {
    text: &'static str,
    plugin: OnceLock<Option<Arc<Plugin>>>,
}

impl BuiltIn {
    fn read(&self) -> Option<Arc<Plugin>> {
        match Manifest::parse(self.text) {
            Ok(manifest) => Some(Arc::new(Plugin::new(manifest))),
            // A test reads all of them.
            Err(error) => {
                tracing::error!(%error, "a built-in plugin does not read");
                None
            }
        }
    }
}

impl Entry {
    fn plugin(&self) -> Option<&Arc<Plugin>> {
        match self {
            Self::Read(plugin) => Some(plugin),
            Self::BuiltIn(built_in) => built_in.plugin.get_or_init(|| built_in.read()).as_ref(),
        }
    }
}

impl Catalog {
    /// The plugins that were embedded at build.
    pub fn built_in() -> Self {
        let entry = |text| Entry::BuiltIn(Arc::new(BuiltIn { text, plugin: OnceLock::new() }));
        let named = |(folder, text): &(&str, &'static str)| Some((PluginName::parse(*folder).ok()?, entry(*text)));
        Self { plugins: BUILT_IN.iter().filter_map(named).collect() }
    }

    /// Adds the plugin of a manifest. A name can be taken once.
    pub fn add(&mut self, text: &str) -> Result<(), ManifestError> {
        let manifest = Manifest::parse(text)?;
        if self.plugins.contains_key(&manifest.name) {
            let taken = format!("name: {} is taken by a plugin that is here already; choose another", manifest.name);
            return Err(ManifestError(vec![taken]));
        }
        self.plugins.insert(manifest.name.clone(), Entry::Read(Arc::new(Plugin::new(manifest))));
        Ok(())
    }

    /// Adds every plugin of a folder, `<folder>/<plugin>/plugin.yaml` or `manifest.json`. What is wrong is left out, and
    /// said. The error is about the folder itself.
    pub fn add_folder(&mut self, folder: &Path) -> std::io::Result<Vec<LeftOut>> {
        let mut left_out = Vec::new();
        let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        let folders: Vec<_> = entries.iter().map(std::fs::DirEntry::path).filter(|path| path.is_dir()).collect();
        if folders.is_empty() {
            let reason = "there are no plugins in it; each is a folder of its own".to_owned();
            left_out.push(LeftOut { origin: folder.display().to_string(), reason });
        }
        for path in folders {
            let manifest = MANIFEST_FILES.iter().map(|name| path.join(name)).find(|file| file.exists());
            let reason = match manifest.as_ref().map(std::fs::read_to_string) {
                None => format!("there is no {}", MANIFEST_FILES.join(" or ")),
                Some(Err(error)) => error.to_string(),
                Some(Ok(text)) => match self.add(&text) {
                    Ok(()) => continue,
                    Err(error) => error.to_string(),
                },
            };
            left_out.push(LeftOut { origin: manifest.unwrap_or(path).display().to_string(), reason });
        }
        Ok(left_out)
    }

    /// The plugin of that name.
    pub fn plugin(&self, name: &str) -> Result<&Arc<Plugin>, Error> {
        let entry = PluginName::parse(name).ok().and_then(|name| self.plugins.get(&name));
        entry.and_then(Entry::plugin).ok_or_else(|| Error::UnknownPlugin {
            name: name.to_owned(),
            nearest: nearest(name, self.names().map(PluginName::as_str)),
        })
    }

    /// Whether there is a plugin of that name.
    pub fn has(&self, name: &PluginName) -> bool {
        self.plugins.contains_key(name)
    }

    /// The names of all plugins, in their order.
    pub fn names(&self) -> impl Iterator<Item = &PluginName> {
        self.plugins.keys()
    }

    /// All plugins, by name.
    pub fn plugins(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.plugins.values().filter_map(Entry::plugin)
    }
}

/// Up to three of `names` that `wanted` may have been meant to be, the likeliest first.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    // Long input is not worth comparing: the time grows with its length. And nothing is in every name.
    if wanted.is_empty() || wanted.len() > 64 {
        return Vec::new();
    }
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, &str)> = names
        .map(|name| (name.to_lowercase(), name))
        .map(|(lower, name)| (strsim::jaro_winkler(&wanted, &lower), lower, name))
        .filter(|(score, lower, _)| {
            *score > 0.75 || lower.contains(&wanted) || (wanted.contains(lower.as_str()) && !lower.is_empty())
        })
        .map(|(score, _, name)| (score, name))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_plugin_reads() {
        let catalog = Catalog::built_in();
        assert_eq!(catalog.names().count(), BUILT_IN.len());
        for ((folder, text), name) in BUILT_IN.iter().zip(catalog.names()) {
            assert_eq!(Manifest::parse(text).unwrap().name, *name, "the folder {folder} has another name");
        }
        assert_eq!(catalog.plugins().count(), BUILT_IN.len());
    }

    #[test]
    fn nearest_names_are_near() {
        let names = ["send_message", "schedule_message", "list_channels"];
        assert_eq!(nearest("send_mesage", names.into_iter()), ["send_message", "schedule_message"]);
        assert_eq!(nearest("berlin", ["Europe/Berlin", "Asia/Tokyo"].into_iter()), ["Europe/Berlin"]);
        assert!(nearest("quux", names.into_iter()).is_empty());
        assert!(nearest("", names.into_iter()).is_empty());
        assert!(nearest(&"send_message".repeat(10), names.into_iter()).is_empty());
    }
}
