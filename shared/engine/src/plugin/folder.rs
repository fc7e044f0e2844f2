//! Reads a folder of plugins, for the first time or again, and reports what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::ids::PluginName;
use crate::plugin::loaded::Plugin;
use crate::plugin::manifest::{MANIFEST_MAX_BYTES, Manifest, ManifestError};

/// The file names of a manifest in a plugin's folder.
const MANIFEST_FILES: [&str; 2] = ["plugin.yaml", "manifest.json"];

/// A manifest that was not loaded, and why.
#[derive(Debug)]
pub struct LeftOut {
    /// The path of the manifest or its folder.
    pub origin: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What reading a folder of plugins changed.
#[derive(Debug, Default)]
pub struct FolderRead {
    /// New plugins.
    pub added: Vec<PluginName>,
    /// Plugins whose manifests changed.
    pub changed: Vec<PluginName>,
    /// Plugins that no longer exist.
    pub removed: Vec<PluginName>,
    /// Manifests with problems. If one was valid before, its earlier version stays loaded.
    pub left_out: Vec<LeftOut>,
}

/// A plugin of a folder that may be read again.
#[derive(Debug)]
pub(super) struct FolderPlugin {
    path: PathBuf,
    text: String,
    plugin: Arc<Plugin>,
}

/// The plugins of a folder, by name.
pub(super) type FolderPlugins = BTreeMap<PluginName, Arc<FolderPlugin>>;

impl FolderPlugin {
    /// The plugin with a manifest's text: `previous` itself, if its text did not change.
    fn load(path: &Path, text: String, previous: Option<&Arc<Self>>) -> Result<Arc<Self>, String> {
        if let Some(unchanged) = previous.filter(|previous| previous.text == text) {
            return Ok(Arc::clone(unchanged));
        }
        let manifest = Manifest::parse_external(&text).map_err(|error| error.to_string())?;
        Ok(Arc::new(Self { path: path.to_owned(), text, plugin: Arc::new(Plugin::new(manifest)) }))
    }

    fn name(&self) -> &PluginName {
        &self.plugin.manifest.name
    }

    pub(super) fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    pub(super) fn is_in(&self, folder: &Path) -> bool {
        self.path.starts_with(folder)
    }
}

/// The error for a name that another plugin has.
pub(super) fn name_taken(name: &PluginName) -> ManifestError {
    ManifestError::one(format!("name: {name} is taken by another plugin; choose another"))
}

/// The text of a manifest. Opening a pipe would wait for its writer, and a device may have no end: neither is opened.
fn read_manifest(path: &Path) -> Result<String, String> {
    if !std::fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that the file is too large.
    let limit = u64::try_from(MANIFEST_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() > MANIFEST_MAX_BYTES {
        return Err(format!("it has more than {} KiB", MANIFEST_MAX_BYTES / 1024));
    }
    String::from_utf8(bytes).map_err(|_| "it is not text in UTF-8".to_owned())
}

/// The plugin folders in a folder, ordered by name.
pub(super) fn plugin_folders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    Ok(entries.iter().map(std::fs::DirEntry::path).filter(|path| path.is_dir()).collect())
}

/// One reading of a folder.
pub(super) struct FolderScan {
    /// The plugins of the folder's last reading.
    before: FolderPlugins,
    /// The names of plugins from elsewhere.
    taken: BTreeSet<PluginName>,
    now: FolderPlugins,
    left_out: Vec<LeftOut>,
}

impl FolderScan {
    pub(super) fn new(before: FolderPlugins, taken: BTreeSet<PluginName>) -> Self {
        Self { before, taken, now: BTreeMap::new(), left_out: Vec::new() }
    }

    /// Reads the plugin folders of `folder`.
    pub(super) fn read(mut self, folder: &Path, mut plugin_folders: Vec<PathBuf>) -> (FolderPlugins, FolderRead) {
        if plugin_folders.is_empty() {
            self.leave_out(folder, "there are no plugins in it; put each into a folder of its own".to_owned());
        }
        // A folder that already has a name keeps it.
        plugin_folders.sort_by_key(|path| self.previous(path).is_none());
        for path in plugin_folders {
            if let Some(plugin) = self.read_plugin(&path) {
                self.now.insert(plugin.name().clone(), plugin);
            }
        }
        self.finish()
    }

    /// The plugin of one folder. If its manifest is wrong, this is the plugin of the last reading: a file that is being
    /// written must not stop a plugin.
    fn read_plugin(&mut self, path: &Path) -> Option<Arc<FolderPlugin>> {
        let Some(file) = MANIFEST_FILES.iter().map(|name| path.join(name)).find(|file| file.exists()) else {
            self.leave_out(path, format!("there is no {}", MANIFEST_FILES.join(" or ")));
            return None;
        };
        let mut reason = match self.load(path, &file) {
            Ok(plugin) => return Some(plugin),
            Err(reason) => reason,
        };
        let previous = self.previous(path).filter(|previous| !self.now.contains_key(previous.name())).cloned();
        if previous.is_some() {
            reason.push_str("; its earlier version stays loaded");
        }
        self.leave_out(&file, reason);
        previous
    }

    /// Loads a manifest, and checks that its name is free.
    fn load(&self, path: &Path, file: &Path) -> Result<Arc<FolderPlugin>, String> {
        let text = read_manifest(file)?;
        let plugin = FolderPlugin::load(path, text, self.previous(path))?;
        let name = plugin.name();
        if self.taken.contains(name) || self.now.contains_key(name) {
            return Err(name_taken(name).to_string());
        }
        Ok(plugin)
    }

    fn previous(&self, path: &Path) -> Option<&Arc<FolderPlugin>> {
        self.before.values().find(|plugin| plugin.path == path)
    }

    fn leave_out(&mut self, path: &Path, reason: String) {
        self.left_out.push(LeftOut { origin: path.display().to_string(), reason });
    }

    /// The plugins that the folder has now, and what changed.
    fn finish(self) -> (FolderPlugins, FolderRead) {
        let Self { before, now, left_out, .. } = self;
        let mut read = FolderRead { left_out, ..FolderRead::default() };
        for (name, plugin) in &now {
            match before.get(name) {
                None => read.added.push(name.clone()),
                Some(previous) if !Arc::ptr_eq(previous, plugin) => read.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        read.removed = before.into_keys().filter(|name| !now.contains_key(name)).collect();
        (now, read)
    }
}
