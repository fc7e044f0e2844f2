//! Enabling a plugin: check the obstacles, check what the administrator consents to, then write.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use semver::Version;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::debug_span;
use tracing::field::Empty;

use super::instances::{Installed, Instance, InstanceView, version_changed};
use super::permissions::{checked_grant, must_be_signable};
use super::record::{RegisteredPlugin, RegistryEntry};
use super::{RegistryScope, check_config};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::Permission;
use crate::ports::events::EventKind;

/// How many versions an error message lists.
const VERSIONS_LISTED: usize = 5;

/// How to use a registered plugin. What is left out stays as it is.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// The version. When enabling, the default is the latest that is not a pre-release.
    #[schemars(with = "Option<String>")]
    pub version: Option<Version>,
    /// Which registration, if both the organization and the platform registered the plugin. Default: the organization's.
    pub scope: Option<RegistryScope>,
    /// The permissions to grant. They replace all earlier grants; without any grant a plugin has none.
    #[schemars(with = "Option<Vec<String>>")]
    pub permissions: Option<BTreeSet<Permission>>,
    /// The configuration. It replaces the earlier one.
    pub config: Option<Map<String, Value>>,
}

/// Everything checked that an enabling writes.
struct EnablePlan {
    plugin: Arc<Plugin>,
    /// What to install; `None` if the organization has the plugin already.
    first: Option<Installed>,
    scope: Option<RegistryScope>,
    config: Option<Map<String, Value>>,
    /// The permissions to grant; `None` keeps the earlier grants.
    consented: Option<BTreeSet<Permission>>,
}

impl EnablePlan {
    /// Makes the change, if the instance is still the one that was checked.
    fn apply(&self, instance: &mut Instance) -> Result<(), Error> {
        let manifest = &self.plugin.manifest;
        let is_catalog = self.plugin.digest.is_none();
        if let (none @ None, Some(first)) = (&mut instance.installed, &self.first) {
            *none = Some(first.clone());
        }
        if !instance.uses(&self.plugin) {
            return Err(version_changed());
        }
        // A catalog plugin has every permission that it declares.
        let all = is_catalog.then(|| manifest.permissions.iter().cloned().collect());
        if let Some(permissions) = self.consented.as_ref().or(all.as_ref()) {
            must_be_signable(manifest, permissions, instance)?;
        }
        if let (Some(scope), Some(installed)) = (self.scope, &instance.installed)
            && scope != installed.scope
        {
            return Err(Error::field("/scope", "differs from that of the plugin in use; leave it out"));
        }
        if let Some(permissions) = &self.consented {
            instance.grant(&self.plugin, permissions);
        }
        if let Some(config) = &self.config {
            instance.config.clone_from(config);
        }
        // A catalog plugin that is enabled by default and has no hooks needs no record.
        let by_default = manifest.default_enabled && manifest.hooks.is_empty();
        instance.enabled = is_catalog && !by_default;
        instance.disabled = None;
        instance.forget_failures();
        instance.note_hooks(manifest);
        Ok(())
    }
}

impl Engine {
    /// Enables a plugin: a registered one that the organization does not use yet, or one that was disabled, by an
    /// administrator or by its breaker.
    pub async fn enable_plugin(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        request: Install,
    ) -> Result<InstanceView, Error> {
        let span = debug_span!("enable_plugin", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let plan = self.plan_enabling(principal, plugin, request).await?;
            let plugin = Arc::clone(&plan.plugin);
            let detail = json!({ "version": plugin.manifest.version });
            self.administer_any(principal, plugin, EventKind::PluginEnabled, detail, move |instance| {
                plan.apply(instance)
            })
            .await
        })
        .await
    }

    async fn plan_enabling(&self, principal: &Principal, name: &str, request: Install) -> Result<EnablePlan, Error> {
        let (plugin, first) = match self.plugin_latest(&principal.org, name).await {
            Ok(plugin) => {
                self.ensure_installable(&principal.org, &plugin.manifest).await?;
                (plugin, None)
            }
            Err(Error::UnknownPlugin { .. }) => {
                let (plugin, first) = self.first_install(principal, name, &request).await?;
                (plugin, Some(first))
            }
            Err(error) => return Err(error),
        };
        must_match(&plugin, &request)?;
        if let Some(config) = &request.config {
            check_config(&plugin.manifest, config, "/config").map_err(Error::Invalid)?;
        }
        let consented = checked_grant(&plugin, request.permissions.as_ref())?;
        Ok(EnablePlan { plugin, first, scope: request.scope, config: request.config, consented })
    }

    /// The version of a registered plugin that an organization without it would use, if nothing prevents that.
    async fn first_install(
        &self,
        principal: &Principal,
        name: &str,
        request: &Install,
    ) -> Result<(Arc<Plugin>, Installed), Error> {
        let org = &principal.org;
        let (registered, scope) = self.find_registered(org, name, request.scope).await?;
        let (version, entry) = chosen_version(&registered, request.version.as_ref())?;
        let installed = self.new_install(scope, version, entry);
        let plugin = self.loaded(org, &registered.name, &installed).await?;
        self.ensure_installable(org, &plugin.manifest).await?;
        if request.config.is_none() {
            check_config(&plugin.manifest, &Map::new(), "/config").map_err(Error::Invalid)?;
        }
        Ok((plugin, installed))
    }

    /// The record of using a version from now on, without any permission.
    pub(super) fn new_install(&self, scope: RegistryScope, version: &Version, entry: &RegistryEntry) -> Installed {
        Installed {
            scope,
            version: version.clone(),
            digest: entry.digest.clone(),
            permissions: BTreeSet::new(),
            at: self.ports.clock.now(),
        }
    }
}

/// Refuses a request for another version, or another registration, than the one that enabling would use.
fn must_match(plugin: &Plugin, request: &Install) -> Result<(), Error> {
    let (manifest, is_catalog) = (&plugin.manifest, plugin.digest.is_none());
    if request.version.as_ref().is_some_and(|version| *version != manifest.version) {
        return Err(Error::Conflict(if is_catalog {
            format!("{} comes with Overseer, at {}", manifest.name, manifest.version)
        } else {
            format!("{} is in use at {}; POST …/upgrade changes that", manifest.name, manifest.version)
        }));
    }
    if is_catalog && request.scope.is_some() {
        return Err(Error::field("/scope", format!("{} comes with Overseer; leave it out", manifest.name)));
    }
    Ok(())
}

/// The requested version, if it is active. Without a request, the latest active one; pre-releases only if there is nothing
/// else.
pub(super) fn chosen_version<'a>(
    registered: &'a RegisteredPlugin,
    requested: Option<&Version>,
) -> Result<(&'a Version, &'a RegistryEntry), Error> {
    let name = &registered.name;
    let active = || registered.versions.iter().rev().filter(|(_, entry)| entry.view.is_active);
    let Some(requested) = requested else {
        let latest = active().find(|(version, _)| version.pre.is_empty()).or_else(|| active().next());
        return latest.ok_or_else(|| {
            Error::Conflict(format!("no version of {name} can be enabled any more; register a new one"))
        });
    };
    let Some(found) = registered.versions.get_key_value(requested) else {
        let versions: Vec<_> = active().take(VERSIONS_LISTED).map(|(version, _)| version.to_string()).collect();
        let message = format!("is not a version of {name} that is registered; there are {}", versions.join(", "));
        return Err(Error::field("/version", message));
    };
    if !found.1.view.is_active {
        return Err(Error::Conflict(format!("{name} {requested} can no longer be enabled; choose another version")));
    }
    Ok(found)
}
