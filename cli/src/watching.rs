//! Watches the folder of `--plugins`: whoever writes a plugin sees what it does without a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use overseer_engine::catalog::FolderRead;
use overseer_engine::engine::Engine;
use overseer_engine::ids::PluginName;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::spawn_blocking;

/// How long a folder has to be left alone before it is read: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// Reads the folder again whenever something in it changes, until the watcher is dropped.
pub(crate) fn watch(folder: &Path, engine: Arc<Engine>) -> Result<RecommendedWatcher, notify::Error> {
    let (tell, mut changes) = unbounded_channel();
    let again = tell.clone();
    let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        // What was missed is found by reading the folder, too; that it was looked at is no change.
        if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            return;
        }
        let _ = tell.send(());
    })?;
    watcher.watch(folder, RecursiveMode::Recursive)?;
    // What changed between the first reading and now.
    let _ = again.send(());
    let folder = folder.to_owned();
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|change| change.is_some()) {}
            let (engine, read) = (Arc::clone(&engine), folder.clone());
            match spawn_blocking(move || engine.catalog.read_folder(&read)).await {
                Ok(Ok(read)) => tell_of(&read),
                Ok(Err(error)) => tracing::warn!("the plugins in {} cannot be read again: {error}", folder.display()),
                Err(error) => tracing::error!("the plugins in {} were not read again: {error}", folder.display()),
            }
        }
    });
    Ok(watcher)
}

/// Says what reading a folder changed, and what of it is wrong.
pub(crate) fn tell_of(read: &FolderRead) {
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
