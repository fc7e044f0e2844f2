//! The plugin that an organization means by a name, with as few reads as can be: what is in the catalog costs none, and of
//! what is registered a warm process knows which version an organization uses, and has it read.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use quick_cache::sync::Cache;

use super::RegistryScope;
use super::lifecycle::InFlight;
use super::record::ManifestText;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::digest::Digest;
use crate::plugin::manifest::Manifest;
use crate::ports::table::{Read, TableError};
use crate::registry::instances::{Installed, SeenInstance};
use crate::storage::keys;

/// How long a process goes by the version that it saw an organization use, where it does not see the instance anyway.
const SEEN_FOR: SignedDuration = SignedDuration::from_secs(60);

/// The most pairs of organization and plugin whose version a process keeps in memory.
const INSTALLED_CACHED_MAX: usize = 1_000;
/// The most parsed versions that a process keeps in memory: each may take some megabytes.
const VERSIONS_CACHED_MAX: usize = 100;

/// Where the text of a version is: whose it is, the plugin, and which text.
pub(super) type TextId = (Option<OrgId>, PluginName, Digest);

/// Nobody can say what a plugin does that is another whenever one looks.
pub(crate) fn contention(name: &str) -> Error {
    Error::Conflict(format!("the plugin {name} changes all the time; try again"))
}

/// The registered plugins that this process knows.
pub(crate) struct PluginCache {
    /// Which version each organization uses, with the time when that was read.
    installed: Cache<(OrgId, PluginName), (Timestamp, Arc<Installed>)>,
    /// Parsed versions. A version never changes, so an entry is never stale.
    versions: Cache<TextId, Arc<Plugin>>,
    /// The calls in flight.
    pub(super) in_flight: InFlight,
}

impl Default for PluginCache {
    fn default() -> Self {
        Self {
            installed: Cache::new(INSTALLED_CACHED_MAX),
            versions: Cache::new(VERSIONS_CACHED_MAX),
            in_flight: InFlight::default(),
        }
    }
}

impl PluginCache {
    /// The parsed version, if this process has it.
    pub(super) fn version(&self, id: &TextId) -> Option<Arc<Plugin>> {
        self.versions.get(id)
    }
}

impl Engine {
    /// The plugin that `org` means by `name`, as it was at most a minute ago.
    pub(crate) async fn plugin(&self, org: &OrgId, name: &str) -> Result<Arc<Plugin>, Error> {
        self.plugin_seen(org, name, self.ports.clock.now() - SEEN_FOR).await
    }

    /// The same; nothing where there is none.
    pub(crate) async fn plugin_if_any(&self, org: &OrgId, name: &PluginName) -> Result<Option<Arc<Plugin>>, Error> {
        match self.plugin(org, name.as_str()).await {
            Ok(plugin) => Ok(Some(plugin)),
            Err(Error::UnknownPlugin { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The plugin that `org` means by `name`, as this process saw it last: whoever asks compares it with the instance, which
    /// they read themselves.
    pub(crate) async fn plugin_cached(&self, org: &OrgId, name: &str) -> Result<Arc<Plugin>, Error> {
        self.plugin_seen(org, name, Timestamp::MIN).await
    }

    /// The plugin that `org` uses by that name at this moment.
    pub(crate) async fn plugin_latest(&self, org: &OrgId, name: &str) -> Result<Arc<Plugin>, Error> {
        self.plugin_seen(org, name, Timestamp::MAX).await
    }

    /// The plugin that `org` uses by that name at this moment, and its instance.
    pub(crate) async fn plugin_and_instance(
        &self,
        org: &OrgId,
        name: &str,
    ) -> Result<(Arc<Plugin>, SeenInstance), Error> {
        let found = self.catalog.plugin(name);
        let Ok(parsed) = PluginName::parse(name) else { return Err(found.err().unwrap_or(Error::NotFound("plugin"))) };
        let item = self.ports.table.get(&keys::instance(org, &parsed), Read::Consistent).await?;
        let seen = SeenInstance::of(item)?;
        match (found, &seen.instance.installed) {
            (Ok(plugin), _) => Ok((plugin, seen)),
            (Err(_), Some(installed)) => Ok((self.loaded(org, &parsed, installed).await?, seen)),
            (Err(unknown), None) => Err(unknown),
        }
    }

    async fn plugin_seen(&self, org: &OrgId, name: &str, since: Timestamp) -> Result<Arc<Plugin>, Error> {
        let unknown = match self.catalog.plugin(name) {
            Ok(plugin) => return Ok(plugin),
            Err(unknown) => unknown,
        };
        let Ok(name) = PluginName::parse(name) else { return Err(unknown) };
        let place = (org.clone(), name);
        if let Some((_, installed)) = self.plugin_cache.installed.get(&place).filter(|(at, _)| *at >= since) {
            return self.loaded(org, &place.1, &installed).await;
        }
        let item = self.ports.table.get(&keys::instance(org, &place.1), Read::Consistent).await?;
        let installed = SeenInstance::of(item)?.instance.installed;
        self.remember_installed(org, &place.1, installed.as_ref());
        self.loaded(org, &place.1, &installed.ok_or(unknown)?).await
    }

    /// What to try again with, where what came of `plugin` may have come of another than the organization uses by now: of
    /// one that was remembered. `Ok(None)` stands for an instance that was found to use another.
    pub(crate) async fn refreshed_if_stale<T: Sync>(
        &self,
        org: &OrgId,
        plugin: &Plugin,
        came: &Result<Option<T>, Error>,
    ) -> Result<Option<Arc<Plugin>>, Error> {
        let suspect = match came {
            Ok(None) | Err(Error::UnknownAction { .. } | Error::Invalid(_)) => plugin.digest.is_some(),
            Ok(Some(_)) | Err(_) => false,
        };
        if !suspect {
            return Ok(None);
        }
        let now = self.plugin_latest(org, plugin.manifest.name.as_str()).await?;
        Ok((now.digest != plugin.digest).then_some(now))
    }

    /// Remembers what an organization uses, or that it uses nothing of that name.
    pub(crate) fn remember_installed(&self, org: &OrgId, name: &PluginName, installed: Option<&Installed>) {
        let place = (org.clone(), name.clone());
        match installed {
            Some(installed) => {
                self.plugin_cache.installed.insert(place, (self.ports.clock.now(), Arc::new(installed.clone())));
            }
            None => {
                self.plugin_cache.installed.remove(&place);
            }
        }
    }

    /// A version of a registered plugin, read once in the life of a process.
    pub(crate) async fn loaded(
        &self,
        org: &OrgId,
        name: &PluginName,
        installed: &Installed,
    ) -> Result<Arc<Plugin>, Error> {
        let Installed { scope, version, digest, .. } = installed;
        let id: TextId = (scope.owner_org(org).cloned(), name.clone(), digest.clone());
        if let Some(plugin) = self.plugin_cache.version(&id) {
            return Ok(plugin);
        }
        let text = self.manifest_text(org, *scope, name, version).await?;
        let manifest = Manifest::parse(&text).map_err(|error| {
            tracing::error!(%org, plugin = %name, %version, %error, "a registered manifest does not read");
            Error::Unavailable(format!(
                "{name} {version} was registered with an Overseer that read manifests otherwise; register a new version"
            ))
        })?;
        let plugin = Arc::new(Plugin::registered(manifest, digest.clone()));
        self.plugin_cache.versions.insert(id, Arc::clone(&plugin));
        Ok(plugin)
    }

    /// The text of a version.
    pub(super) async fn manifest_text(
        &self,
        org: &OrgId,
        scope: RegistryScope,
        name: &PluginName,
        version: &semver::Version,
    ) -> Result<String, Error> {
        let key = keys::manifest_text(scope.owner_org(org), name, version);
        // It never changes, so that whatever is found is right; what was written just now is not always found at once.
        let item = match self.ports.table.get(&key, Read::Eventual).await? {
            Some(item) => Some(item),
            None => self.ports.table.get(&key, Read::Consistent).await?,
        };
        let missing = || TableError::Record("a manifest's text is gone".into());
        Ok(item.ok_or_else(missing)?.record::<ManifestText>()?.read()?)
    }
}
