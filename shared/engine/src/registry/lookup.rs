//! Which plugin an organization means by a name, with as few reads as possible.
//!
//! A catalog plugin costs no read. For a registered plugin, the process caches which version each organization uses, and
//! every parsed version. Callers choose how stale the version may be ([`Freshness`]). A call takes any cached version,
//! because it reads the instance anyway; if the instance names another version, the call starts over with that one
//! ([`Engine::refreshed_if_stale`]).

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
use crate::registry::instances::{Installed, LoadedInstance};
use crate::storage::keys;

/// How long [`Freshness::Minute`] accepts a cached version.
const CACHED_FOR: SignedDuration = SignedDuration::from_secs(60);

/// The most pairs of organization and plugin whose version a process keeps in memory.
const INSTALLED_CACHED_MAX: usize = 1_000;
/// The most parsed versions that a process keeps in memory: each may take some megabytes.
const VERSIONS_CACHED_MAX: usize = 100;

/// Identifies a registered version by its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct VersionId {
    /// The organization that registered it; `None` for the platform.
    pub owner: Option<OrgId>,
    pub plugin: PluginName,
    pub digest: Digest,
}

/// How stale the version that a process has cached for an organization may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// Any age: the caller reads the instance and compares.
    Cached,
    /// Read at most [`CACHED_FOR`] ago.
    Minute,
    /// Read now.
    Latest,
}

impl Freshness {
    fn accepts(self, read_at: Timestamp, now: Timestamp) -> bool {
        match self {
            Self::Cached => true,
            Self::Minute => read_at >= now - CACHED_FOR,
            Self::Latest => false,
        }
    }
}

/// The organization changed the plugin's version during every try.
pub(crate) fn contention(name: &str) -> Error {
    Error::Conflict(format!("the version of {name} in use changed again and again; try again"))
}

/// The registered plugins that this process knows.
pub(crate) struct PluginCache {
    /// Which version each organization uses, with the time when that was read.
    installed: Cache<(OrgId, PluginName), (Timestamp, Arc<Installed>)>,
    /// Parsed versions. A version never changes, so an entry is never stale.
    versions: Cache<VersionId, Arc<Plugin>>,
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
    /// The parsed version, if it is cached.
    pub(super) fn version(&self, id: &VersionId) -> Option<Arc<Plugin>> {
        self.versions.get(id)
    }
}

impl Engine {
    /// The plugin that `org` uses by that name, at most a minute stale.
    pub(crate) async fn plugin(&self, org: &OrgId, name: &str) -> Result<Arc<Plugin>, Error> {
        self.plugin_as_of(org, name, Freshness::Minute).await
    }

    /// As [`Self::plugin`]; `None` if the organization has no such plugin.
    pub(crate) async fn plugin_if_any(&self, org: &OrgId, name: &PluginName) -> Result<Option<Arc<Plugin>>, Error> {
        match self.plugin(org, name.as_str()).await {
            Ok(plugin) => Ok(Some(plugin)),
            Err(Error::UnknownPlugin { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The plugin that `org` used by that name when this process last read it, for callers that compare it with the instance
    /// which they read themselves.
    pub(crate) async fn plugin_cached(&self, org: &OrgId, name: &str) -> Result<Arc<Plugin>, Error> {
        self.plugin_as_of(org, name, Freshness::Cached).await
    }

    /// The plugin that `org` uses by that name now.
    pub(crate) async fn plugin_latest(&self, org: &OrgId, name: &str) -> Result<Arc<Plugin>, Error> {
        self.plugin_as_of(org, name, Freshness::Latest).await
    }

    /// The plugin that `org` uses by that name now, and its instance.
    pub(crate) async fn plugin_and_instance(
        &self,
        org: &OrgId,
        name: &str,
    ) -> Result<(Arc<Plugin>, LoadedInstance), Error> {
        let in_catalog = self.catalog.plugin(name);
        let Ok(parsed) = PluginName::parse(name) else {
            return Err(in_catalog.err().unwrap_or(Error::NotFound("plugin")));
        };
        let item = self.ports.table.get(&keys::instance(org, &parsed), Read::Consistent).await?;
        let seen = LoadedInstance::of(item)?;
        match (in_catalog, &seen.instance.installed) {
            (Ok(plugin), _) => Ok((plugin, seen)),
            (Err(_), Some(installed)) => Ok((self.loaded(org, &parsed, installed).await?, seen)),
            (Err(unknown), None) => Err(unknown),
        }
    }

    async fn plugin_as_of(&self, org: &OrgId, name: &str, freshness: Freshness) -> Result<Arc<Plugin>, Error> {
        let unknown = match self.catalog.plugin(name) {
            Ok(plugin) => return Ok(plugin),
            Err(unknown) => unknown,
        };
        let Ok(name) = PluginName::parse(name) else { return Err(unknown) };
        let cached = self.plugin_cache.installed.get(&(org.clone(), name.clone()));
        if let Some((read_at, installed)) = cached
            && freshness.accepts(read_at, self.ports.clock.now())
        {
            return self.loaded(org, &name, &installed).await;
        }
        let item = self.ports.table.get(&keys::instance(org, &name), Read::Consistent).await?;
        let installed = LoadedInstance::of(item)?.instance.installed;
        self.remember_installed(org, &name, installed.as_ref());
        self.loaded(org, &name, &installed.ok_or(unknown)?).await
    }

    /// The version to start over with, if `result` may come from a stale version and the organization uses another by now.
    /// Results that may come from a stale version are `Ok(None)`, by which the attempt says that the instance names another
    /// version, and errors that the other version may not give: an unknown action, invalid parameters.
    pub(crate) async fn refreshed_if_stale<T: Sync>(
        &self,
        org: &OrgId,
        plugin: &Plugin,
        result: &Result<Option<T>, Error>,
    ) -> Result<Option<Arc<Plugin>>, Error> {
        let may_be_stale = match result {
            // The catalog's plugins are never stale.
            Ok(None) | Err(Error::UnknownAction { .. } | Error::Invalid(_)) => plugin.digest.is_some(),
            Ok(Some(_)) | Err(_) => false,
        };
        if !may_be_stale {
            return Ok(None);
        }
        let latest = self.plugin_latest(org, plugin.manifest.name.as_str()).await?;
        Ok((latest.digest != plugin.digest).then_some(latest))
    }

    /// Caches which version an organization uses; with `None`, forgets it.
    pub(crate) fn remember_installed(&self, org: &OrgId, name: &PluginName, installed: Option<&Installed>) {
        let key = (org.clone(), name.clone());
        match installed {
            Some(installed) => {
                self.plugin_cache.installed.insert(key, (self.ports.clock.now(), Arc::new(installed.clone())));
            }
            None => {
                self.plugin_cache.installed.remove(&key);
            }
        }
    }

    /// The parsed version that an organization uses: from the cache, or read once and cached.
    pub(crate) async fn loaded(
        &self,
        org: &OrgId,
        name: &PluginName,
        installed: &Installed,
    ) -> Result<Arc<Plugin>, Error> {
        let Installed { scope, version, digest, .. } = installed;
        let owner = scope.owner_org(org).cloned();
        let id = VersionId { owner, plugin: name.clone(), digest: digest.clone() };
        if let Some(plugin) = self.plugin_cache.version(&id) {
            return Ok(plugin);
        }
        let text = self.manifest_text(org, *scope, name, version).await?;
        let manifest = Manifest::parse(&text).map_err(|error| {
            tracing::error!(%org, plugin = %name, %version, %error, "registered manifest is unreadable");
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
        // The text never changes, so an eventually consistent read that finds one is right. It may miss one written just now.
        let item = match self.ports.table.get(&key, Read::Eventual).await? {
            Some(item) => Some(item),
            None => self.ports.table.get(&key, Read::Consistent).await?,
        };
        let missing = || TableError::Record("a manifest's text is missing".into());
        Ok(item.ok_or_else(missing)?.record::<ManifestText>()?.read()?)
    }
}
