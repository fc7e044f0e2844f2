//! Watches the folder of `--plugins`, so that a plugin's author sees a change without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use overseer_engine::core::ids::PluginName;
use overseer_engine::engine::Engine;
use overseer_engine::plugin::catalog::FolderRead;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long a folder must be unchanged before it is read: an editor saves a file in several steps.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// A folder that is watched until this is dropped.
pub(crate) struct FolderWatch {
    folder: PathBuf,
    changes: UnboundedReceiver<()>,
    _watcher: RecommendedWatcher,
}

impl FolderWatch {
    /// Starts to watch a folder. [`Self::follow`] sees every change from here on.
    pub(crate) fn start(folder: &Path) -> Result<Self, notify::Error> {
        let (sender, changes) = unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            // Reading a file is no change. An error may have hidden one, so it counts as a change.
            if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                return;
            }
            let _ = sender.send(());
        })?;
        watcher.watch(folder, RecursiveMode::Recursive)?;
        Ok(Self { folder: folder.to_owned(), changes, _watcher: watcher })
    }

    /// Reloads the folder after each change. Does not return while the watcher runs.
    pub(crate) async fn follow(mut self, engine: Arc<Engine>) {
        while self.changes.recv().await.is_some() {
            while timeout(DEBOUNCE, self.changes.recv()).await.is_ok_and(|change| change.is_some()) {}
            let (engine, path) = (Arc::clone(&engine), self.folder.clone());
            let folder = self.folder.display();
            match spawn_blocking(move || engine.catalog.read_folder(&path)).await {
                Ok(Ok(read)) => log_reload(&read),
                Ok(Err(error)) => tracing::warn!(%folder, %error, "failed to reload plugins"),
                Err(error) => tracing::error!(%folder, %error, "failed to reload plugins"),
            }
        }
    }
}

/// Logs which plugins a read of the folder added, changed, removed or left out as invalid.
pub(crate) fn log_reload(read: &FolderRead) {
    for plugin in &read.left_out {
        tracing::warn!("left out {}: {}", plugin.origin, plugin.reason);
    }
    for (change, plugins) in [("added", &read.added), ("changed", &read.changed), ("removed", &read.removed)] {
        if !plugins.is_empty() {
            tracing::info!("plugins {change}: {}", comma_separated(plugins));
        }
    }
}

/// The names of plugins, for a line of the log.
pub(crate) fn comma_separated(plugins: &[PluginName]) -> String {
    plugins.iter().map(PluginName::as_str).collect::<Vec<_>>().join(", ")
}
