//! The catalog: the built-in plugins, which are embedded at build and read at first use, and the plugins of folders that an
//! operator adds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::core::error::Error;
use crate::core::ids::PluginName;
use crate::core::suggest::nearest;
use crate::plugin::folder::{FolderPlugin, FolderPlugins, FolderScan, name_taken, plugin_folders};
pub use crate::plugin::folder::{FolderRead, LeftOut};
pub use crate::plugin::loaded::{CompiledAction, Plugin};
use crate::plugin::manifest::{Manifest, ManifestError};

include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// The plugins of this process, by name.
#[derive(Debug, Default)]
pub struct Catalog {
    plugins: RwLock<BTreeMap<PluginName, CatalogEntry>>,
}

impl Clone for Catalog {
    fn clone(&self) -> Self {
        Self { plugins: RwLock::new(self.entries().clone()) }
    }
}

/// A plugin, loaded or not yet.
#[derive(Debug, Clone)]
enum CatalogEntry {
    /// Read from a single manifest.
    Read(Arc<Plugin>),
    /// Embedded. Read at first use: reading manifests takes most of a cold start, and an intent needs only one.
    BuiltIn(Arc<BuiltIn>),
    /// Read from a folder that may be read again.
    Folder(Arc<FolderPlugin>),
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
            // Never happens: a test reads all of them.
            Err(error) => {
                tracing::error!(%error, "built-in manifest is invalid");
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
            Self::Folder(plugin) => Some(plugin.plugin()),
        }
    }

    /// The plugin, if it was read from that folder.
    fn plugin_of_folder(&self, folder: &Path) -> Option<&Arc<FolderPlugin>> {
        match self {
            Self::Folder(plugin) => Some(plugin).filter(|plugin| plugin.is_in(folder)),
            Self::Read(_) | Self::BuiltIn(_) => None,
        }
    }
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

    /// Adds the plugin of a manifest. An error if its name is taken.
    pub fn add(&self, text: &str) -> Result<(), ManifestError> {
        let manifest = Manifest::parse_external(text)?;
        let mut entries = self.entries_mut();
        if entries.contains_key(&manifest.name) {
            return Err(name_taken(&manifest.name));
        }
        entries.insert(manifest.name.clone(), CatalogEntry::Read(Arc::new(Plugin::new(manifest))));
        Ok(())
    }

    /// Reads every plugin of a folder, `<folder>/<plugin>/plugin.yaml` or `manifest.json`, for the first time or again. New
    /// plugins are added, changed ones replaced, and missing ones removed; calls in flight continue with the plugin that they
    /// started with. A plugin with a problem is reported in the result, and its earlier version stays. An error means that
    /// the folder itself cannot be read.
    pub fn read_folder(&self, folder: &Path) -> std::io::Result<FolderRead> {
        let plugin_folders = plugin_folders(folder)?;
        let entries = self.entries().clone();
        let before: FolderPlugins = entries
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), Arc::clone(entry.plugin_of_folder(folder)?))))
            .collect();
        let taken = entries.into_keys().filter(|name| !before.contains_key(name)).collect();
        let (now, read) = FolderScan::new(before, taken).read(folder, plugin_folders);
        // The lock for writing is taken last, since readers wait for it.
        let mut plugins = self.entries_mut();
        plugins.retain(|_, entry| entry.plugin_of_folder(folder).is_none());
        plugins.extend(now.into_iter().map(|(name, plugin)| (name, CatalogEntry::Folder(plugin))));
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

    /// The names of all plugins, in alphabetical order.
    pub fn names(&self) -> Vec<PluginName> {
        self.entries().keys().cloned().collect()
    }

    /// All plugins, ordered by name.
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.entries().values().filter_map(|entry| entry.plugin().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_manifest_is_valid() {
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
    fn reading_a_folder_again_replaces_only_changed_plugins() {
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
        // A built-in plugin's name, another plugin's name, and the runtime that only Overseer's own plugins may have.
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
        // A plugin keeps its name, even if another folder comes first in the alphabet.
        write("0", &manifest("a", "7.0.0"));
        assert!(read().changed.is_empty() && Arc::ptr_eq(&before.0, &catalog.plugin("a").unwrap()));
        std::fs::remove_dir_all(folder.path().join("0")).unwrap();
        // A plugin whose manifest became invalid stays, and one whose file is gone does not. A plugin may change its name.
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

    /// The reason why a folder is left out whose `plugin.yaml` `make` makes at the path.
    fn reason_for(make: impl FnOnce(&Path)) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        make(&folder.path().join("a/plugin.yaml"));
        let read = Catalog::built_in().read_folder(folder.path()).unwrap();
        read.left_out.into_iter().map(|plugin| plugin.reason).collect()
    }

    #[test]
    fn manifest_that_is_a_pipe_is_left_out() {
        let pipe = |path: &Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        assert_eq!(reason_for(pipe), "it is not a regular file");
    }

    #[test]
    fn manifest_that_is_a_device_is_left_out() {
        let link = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
        assert_eq!(reason_for(link), "it is not a regular file");
    }

    #[test]
    fn manifest_over_the_limit_is_left_out() {
        let text = "#".repeat(crate::plugin::manifest::MANIFEST_MAX_BYTES + 1);
        assert_eq!(reason_for(|path| std::fs::write(path, text).unwrap()), "it has more than 256 KiB");
    }

    #[test]
    fn nearest_names_are_similar() {
        let names = ["send_message", "schedule_message", "list_channels"];
        assert_eq!(nearest("send_mesage", names.into_iter()), ["send_message", "schedule_message"]);
        assert_eq!(nearest("berlin", ["Europe/Berlin", "Asia/Tokyo"].into_iter()), ["Europe/Berlin"]);
        assert!(nearest("quux", names.into_iter()).is_empty());
        assert!(nearest("", names.into_iter()).is_empty());
        assert!(nearest(&"send_message".repeat(10), names.into_iter()).is_empty());
    }
}
