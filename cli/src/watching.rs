//! Watches the folder of `--plugins`: whoever writes a plugin sees what it does without a restart.

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

/// How long a folder has to be left alone before it is read: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// A folder that is watched, until this is dropped.
pub(crate) struct Watched {
    folder: PathBuf,
    changes: UnboundedReceiver<()>,
    _watcher: RecommendedWatcher,
}

impl Watched {
    /// Begins to watch a folder. What changes from here on is not missed, also before [`Self::follow`].
    pub(crate) fn begin(folder: &Path) -> Result<Self, notify::Error> {
        let (tell, changes) = unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            // What was missed is found by reading the folder, too; that it was looked at is no change.
            if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                return;
            }
            let _ = tell.send(());
        })?;
        watcher.watch(folder, RecursiveMode::Recursive)?;
        Ok(Self { folder: folder.to_owned(), changes, _watcher: watcher })
    }

    /// Reads the folder again whenever something in it changes, and never ends by itself.
    pub(crate) async fn follow(mut self, engine: Arc<Engine>) {
        while self.changes.recv().await.is_some() {
            while timeout(QUIET, self.changes.recv()).await.is_ok_and(|change| change.is_some()) {}
            let (engine, read) = (Arc::clone(&engine), self.folder.clone());
            let folder = self.folder.display();
            match spawn_blocking(move || engine.catalog.read_folder(&read)).await {
                Ok(Ok(read)) => log_reload(&read),
                Ok(Err(error)) => tracing::warn!("the plugins in {folder} cannot be read again: {error}"),
                Err(error) => tracing::error!("the plugins in {folder} were not read again: {error}"),
            }
        }
    }
}

/// Says what reading a folder changed, and what of it is wrong.
pub(crate) fn log_reload(read: &FolderRead) {
    for plugin in &read.left_out {
        tracing::warn!("left out {}: {}", plugin.origin, plugin.reason);
    }
    for (what, plugins) in [("added", &read.added), ("changed", &read.changed), ("removed", &read.removed)] {
        if !plugins.is_empty() {
            let names: Vec<&str> = plugins.iter().map(PluginName::as_str).collect();
            tracing::info!("plugins {what}: {}", names.join(", "));
        }
    }
}
