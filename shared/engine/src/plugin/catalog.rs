//! The plugins that this process knows: the built-in catalog, embedded at build and read when first used, and the folders
//! that an operator adds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::core::error::Error;
use crate::core::ids::PluginName;
use crate::core::problem::FieldProblem;
use crate::core::schema;
use crate::core::suggest::nearest;
use crate::plugin::digest::Digest;
use crate::plugin::manifest::{Action, Manifest, ManifestError};

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
                nearest: nearest(name, names.map(crate::core::ids::ActionName::as_str)),
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

/// What reading a folder of plugins changed.
#[derive(Debug, Default)]
pub struct FolderRead {
    /// Plugins that were not there.
    pub added: Vec<PluginName>,
    /// Plugins whose manifests are others.
    pub changed: Vec<PluginName>,
    /// Plugins that are there no more.
    pub removed: Vec<PluginName>,
    /// What is wrong. Where it was right before, that is still there.
    pub left_out: Vec<LeftOut>,
}

/// The plugins by name.
#[derive(Debug, Default)]
pub struct Catalog {
    plugins: RwLock<BTreeMap<PluginName, CatalogEntry>>,
}

impl Clone for Catalog {
    fn clone(&self) -> Self {
        Self { plugins: RwLock::new(self.entries().clone()) }
    }
}

/// A plugin, read or not yet.
#[derive(Debug, Clone)]
enum CatalogEntry {
    Read(Arc<Plugin>),
    /// Reading a manifest is most of the work of a cold start, and an intent needs one.
    BuiltIn(Arc<BuiltIn>),
    /// Of a folder that is read again when it changes.
    Folder(Arc<OfFolder>),
}

#[derive(Debug)]
struct BuiltIn {
    text: &'static str,
    plugin: OnceLock<Option<Arc<Plugin>>>,
}

#[derive(Debug)]
struct OfFolder {
    path: PathBuf,
    text: String,
    plugin: Arc<Plugin>,
}

impl OfFolder {
    /// What the text in a folder is: the same as `standing`, if that is its text.
    fn read(path: &Path, text: String, standing: Option<&Arc<Self>>) -> Result<Arc<Self>, String> {
        if let Some(same) = standing.filter(|standing| standing.text == text) {
            return Ok(Arc::clone(same));
        }
        let manifest = Manifest::parse_brought(&text).map_err(|error| error.to_string())?;
        Ok(Arc::new(Self { path: path.to_owned(), text, plugin: Arc::new(Plugin::new(manifest)) }))
    }

    fn name(&self) -> &PluginName {
        &self.plugin.manifest.name
    }
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

impl CatalogEntry {
    fn plugin(&self) -> Option<&Arc<Plugin>> {
        match self {
            Self::Read(plugin) => Some(plugin),
            Self::BuiltIn(built_in) => built_in.plugin.get_or_init(|| built_in.read()).as_ref(),
            Self::Folder(of_folder) => Some(&of_folder.plugin),
        }
    }
}

fn taken(name: &PluginName) -> ManifestError {
    ManifestError(vec![format!("name: {name} is taken by a plugin that is here already; choose another")])
}

impl Catalog {
    /// The plugins that were embedded at build.
    pub fn built_in() -> Self {
        let entry = |text| CatalogEntry::BuiltIn(Arc::new(BuiltIn { text, plugin: OnceLock::new() }));
        let named = |(folder, text): &(&str, &'static str)| Some((PluginName::parse(*folder).ok()?, entry(*text)));
        Self { plugins: RwLock::new(BUILT_IN.iter().filter_map(named).collect()) }
    }

    fn entries(&self) -> RwLockReadGuard<'_, BTreeMap<PluginName, CatalogEntry>> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<PluginName, CatalogEntry>> {
        self.plugins.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the plugin of a manifest. A name can be taken once.
    pub fn add(&self, text: &str) -> Result<(), ManifestError> {
        let manifest = Manifest::parse_brought(text)?;
        let mut entries = self.entries_mut();
        if entries.contains_key(&manifest.name) {
            return Err(taken(&manifest.name));
        }
        entries.insert(manifest.name.clone(), CatalogEntry::Read(Arc::new(Plugin::new(manifest))));
        Ok(())
    }

    /// Reads every plugin of a folder, `<folder>/<plugin>/plugin.yaml` or `manifest.json`, for the first time or again: what
    /// is new is added, what is another takes the place of what was there, and what is gone is removed. Calls that are under
    /// way go on with what they began with. What is wrong is left out, and said; what was there before then stays. The error
    /// is about the folder itself.
    pub fn read_folder(&self, folder: &Path) -> std::io::Result<FolderRead> {
        let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        let mut folders: Vec<_> = entries.iter().map(std::fs::DirEntry::path).filter(|path| path.is_dir()).collect();
        let mut read = FolderRead::default();
        let mut left_out = |path: &Path, reason: String| {
            read.left_out.push(LeftOut { origin: path.display().to_string(), reason });
        };
        if folders.is_empty() {
            left_out(folder, "there are no plugins in it; each is a folder of its own".to_owned());
        }
        let here = |entry: &CatalogEntry| match entry {
            CatalogEntry::Folder(of_folder) if of_folder.path.starts_with(folder) => Some(Arc::clone(of_folder)),
            CatalogEntry::Folder(_) | CatalogEntry::Read(_) | CatalogEntry::BuiltIn(_) => None,
        };
        let entries = self.entries().clone();
        let before: BTreeMap<_, _> =
            entries.iter().filter_map(|(name, entry)| Some((name.clone(), here(entry)?))).collect();
        let standing = |path: &Path| before.values().find(|of_folder| of_folder.path == path);
        // Who has a name keeps it.
        folders.sort_by_key(|path| standing(path).is_none());
        let mut now = BTreeMap::<PluginName, Arc<OfFolder>>::new();
        for path in folders {
            let manifest = MANIFEST_FILES.iter().map(|name| path.join(name)).find(|file| file.exists());
            let text = match manifest.as_ref().map(std::fs::read_to_string) {
                None => Err(format!("there is no {}", MANIFEST_FILES.join(" or "))),
                Some(text) => text.map_err(|error| error.to_string()),
            };
            let new = text.and_then(|text| OfFolder::read(&path, text, standing(&path))).and_then(|new| {
                let name = new.name();
                let elsewhere = entries.contains_key(name) && !before.contains_key(name);
                if elsewhere || now.contains_key(name) { Err(taken(name).to_string()) } else { Ok(new) }
            });
            let new = new.or_else(|mut reason| {
                // A file that is being written does not end what runs.
                let stays = standing(&path).filter(|old| manifest.is_some() && !now.contains_key(old.name()));
                if stays.is_some() {
                    reason.push_str("; what was read before stays");
                }
                left_out(manifest.as_ref().unwrap_or(&path), reason);
                stays.cloned().ok_or(())
            });
            now.extend(new.ok().map(|new| (new.name().clone(), new)));
        }
        for (name, new) in &now {
            match before.get(name) {
                None => read.added.push(name.clone()),
                Some(old) if !Arc::ptr_eq(old, new) => read.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        read.removed = before.into_keys().filter(|name| !now.contains_key(name)).collect();
        // Nothing is waited for while others cannot look.
        let mut plugins = self.entries_mut();
        plugins.retain(|_, entry| here(entry).is_none());
        plugins.extend(now.into_iter().map(|(name, new)| (name, CatalogEntry::Folder(new))));
        Ok(read)
    }

    /// The plugin of that name.
    pub fn plugin(&self, name: &str) -> Result<Arc<Plugin>, Error> {
        let entries = self.entries();
        let entry = PluginName::parse(name).ok().and_then(|name| entries.get(&name));
        entry.and_then(CatalogEntry::plugin).cloned().ok_or_else(|| Error::UnknownPlugin {
            name: name.to_owned(),
            nearest: nearest(name, entries.keys().map(PluginName::as_str)),
        })
    }

    /// Whether there is a plugin of that name.
    pub fn has(&self, name: &PluginName) -> bool {
        self.entries().contains_key(name)
    }

    /// The names of all plugins, in their order.
    pub fn names(&self) -> Vec<PluginName> {
        self.entries().keys().cloned().collect()
    }

    /// All plugins, by name.
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.entries().values().filter_map(|entry| entry.plugin().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_plugin_reads() {
        let catalog = Catalog::built_in();
        assert_eq!(catalog.names().len(), BUILT_IN.len());
        for ((folder, text), name) in BUILT_IN.iter().zip(catalog.names()) {
            assert_eq!(Manifest::parse(text).unwrap().name, name, "the folder {folder} has another name");
        }
        assert_eq!(catalog.plugins().len(), BUILT_IN.len());
    }

    fn manifest(name: &str, version: &str) -> String {
        format!(
            "name: {name}\nversion: {version}\ndisplay_name: A\ndescription: A.\n\
             runtime: {{ type: http, base_url: \"https://a.example\" }}\npermissions: [\"network:a.example\"]\n\
             actions: [{{ name: look, description: Looks., effect: read, request: {{ path: /look }} }}]\n"
        )
    }

    #[test]
    fn a_folder_is_read_again_and_only_what_changed_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let write = |of: &str, text: &str| {
            std::fs::create_dir_all(folder.path().join(of)).unwrap();
            std::fs::write(folder.path().join(of).join("plugin.yaml"), text).unwrap();
        };
        let names = |names: &[PluginName]| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
        let catalog = Catalog::built_in();
        let read = || catalog.read_folder(folder.path()).unwrap();
        write("a", &manifest("a", "1.0.0"));
        write("b", &manifest("b", "1.0.0"));
        assert_eq!(names(&read().added), ["a", "b"]);
        let before = (catalog.plugin("a").unwrap(), catalog.plugin("b").unwrap());
        write("b", &manifest("b", "2.0.0"));
        // One that takes a name of the catalog, one that takes another's, and one for code that only Overseer has.
        write("c", &manifest("slack", "1.0.0"));
        write("d", &manifest("a", "9.0.0"));
        write("e", "name: e\nversion: 1.0.0\ndisplay_name: E\ndescription: E.\nruntime: { type: native }\n");
        let again = read();
        assert_eq!((names(&again.added), names(&again.changed)), (vec![], vec!["b".to_owned()]));
        let left_out: Vec<_> = again.left_out.iter().map(|one| one.reason.as_str()).collect();
        assert!(left_out[0].contains("slack is taken") && left_out[1].contains("a is taken"), "{left_out:?}");
        assert!(left_out[2].contains("runtime: native") && left_out.len() == 3, "{left_out:?}");
        assert!(Arc::ptr_eq(&before.0, &catalog.plugin("a").unwrap()));
        assert_eq!(catalog.plugin("b").unwrap().manifest.version.to_string(), "2.0.0");
        assert_eq!(before.1.manifest.version.to_string(), "1.0.0");
        // Who has a name keeps it, wherever another folder stands in the alphabet.
        write("0", &manifest("a", "7.0.0"));
        assert!(read().changed.is_empty() && Arc::ptr_eq(&before.0, &catalog.plugin("a").unwrap()));
        std::fs::remove_dir_all(folder.path().join("0")).unwrap();
        // One that does not read any more stays, one whose file is gone does not, and one may take another name.
        write("b", "name: [");
        std::fs::remove_file(folder.path().join("a/plugin.yaml")).unwrap();
        for gone in ["c", "d", "e"] {
            std::fs::remove_dir_all(folder.path().join(gone)).unwrap();
        }
        let again = read();
        assert_eq!((names(&again.removed), again.left_out.len()), (vec!["a".to_owned()], 2));
        assert_eq!(catalog.plugin("b").unwrap().manifest.version.to_string(), "2.0.0");
        write("b", &manifest("other", "1.0.0"));
        let again = read();
        assert_eq!((names(&again.added), names(&again.removed)), (vec!["other".to_owned()], vec!["b".to_owned()]));
        assert!(catalog.has(&PluginName::parse("slack").unwrap()));
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
