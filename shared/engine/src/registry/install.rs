//! Which version of a registered plugin an organization uses: enabling one, changing to another and back, and what stands in
//! the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::record::{Registered, RegistryEntry};
use super::{RegistryScope, check_config};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{Changes, Manifest, Permission, diff};
use crate::ports::events::EventKind;
use crate::ports::table::Read;
use crate::registry::hooks::must_be_signable;
use crate::registry::instances::{Installed, Instance, InstanceView, PreviousInstall, SeenInstance};
use crate::storage::keys;

/// How to use a registered plugin. What is left out stays as it is.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// Which version; when enabling, the latest that is not one before a release if left out.
    #[schemars(with = "Option<String>")]
    pub version: Option<Version>,
    /// Which registration, where there is one of the organization and one for all: the organization's, if left out.
    pub scope: Option<RegistryScope>,
    /// The permissions that are granted, in the place of all that were granted before. What was never granted is not.
    #[schemars(with = "Option<Vec<String>>")]
    pub permissions: Option<BTreeSet<Permission>>,
    /// The configuration, in the place of what was set before.
    pub config: Option<Map<String, Value>>,
}

/// What changing to another version of a plugin would mean.
#[derive(Debug, Clone, Serialize)]
pub struct UpgradeShown {
    /// What is used now.
    pub from: Version,
    /// What would be used.
    pub to: Version,
    /// What is another in the manifest.
    pub changes: Changes,
    /// Permissions that the version has and nobody has granted: until that is done, calls that need them are refused.
    pub to_grant: BTreeSet<Permission>,
    /// What of the configuration would no longer be right.
    pub config: Vec<FieldProblem>,
    /// Whether accounts would have to be connected again.
    pub reconnect: bool,
    /// What stands in the way otherwise.
    pub obstacles: Vec<String>,
}

impl Engine {
    /// What an organization would use of a registered plugin that it does not use yet, if it may.
    pub(crate) async fn first_install(
        &self,
        principal: &Principal,
        name: &str,
        asked: &Install,
    ) -> Result<(Arc<Plugin>, Installed), Error> {
        let org = &principal.org;
        let (registered, scope) = self.find_registered(org, name, asked.scope).await?;
        let (version, entry) = chosen(&registered, asked.version.as_ref())?;
        let installed = self.as_installed(scope, version, entry);
        let plugin = self.loaded(org, &registered.name, &installed).await?;
        let manifest = &plugin.manifest;
        self.ensure_installable(org, manifest).await?;
        if asked.config.is_none() {
            check_config(manifest, &Map::new(), "/config").map_err(Error::Invalid)?;
        }
        Ok((plugin, installed))
    }

    /// Refuses to enable what something stands in the way of.
    pub(crate) async fn ensure_installable(&self, org: &OrgId, manifest: &Manifest) -> Result<(), Error> {
        nothing_in_the_way(manifest, "enabled", &self.obstacles(org, manifest).await?)
    }

    /// Refuses to change to what something stands in the way of.
    async fn must_be_changeable(&self, org: &OrgId, manifest: &Manifest) -> Result<(), Error> {
        nothing_in_the_way(manifest, "used", &self.obstacles_to_change(org, manifest).await?)
    }

    fn as_installed(&self, scope: RegistryScope, version: &Version, entry: &RegistryEntry) -> Installed {
        Installed {
            scope,
            version: version.clone(),
            digest: entry.digest.clone(),
            permissions: BTreeSet::new(),
            at: self.ports.clock.now(),
        }
    }

    /// What an organization uses of a registered plugin.
    async fn in_use_by(&self, org: &OrgId, name: &str) -> Result<(PluginName, Installed, Instance), Error> {
        let unknown = || Error::unknown_plugin(name);
        let parsed = PluginName::parse(name).map_err(|_| unknown())?;
        if self.catalog.has(&parsed) {
            return Err(Error::Conflict(format!("{name} comes with Overseer, and changes with it")));
        }
        let item = self.ports.table.get(&keys::instance(org, &parsed), Read::Consistent).await?;
        let instance = SeenInstance::of(item)?.instance;
        let installed = instance.installed.clone().ok_or_else(unknown)?;
        Ok((parsed, installed, instance))
    }

    /// What changing to `version` would mean.
    pub async fn show_upgrade(
        &self,
        principal: &Principal,
        name: &str,
        version: Option<&Version>,
    ) -> Result<UpgradeShown, Error> {
        principal.must_operate()?;
        let org = &principal.org;
        let (parsed, installed, instance) = self.in_use_by(org, name).await?;
        let plugin = self.loaded(org, &parsed, &installed).await?;
        let (registered, _) = self.find_registered(org, name, Some(installed.scope)).await?;
        let (version, entry) = chosen(&registered, version)?;
        let next = self.loaded(org, &registered.name, &self.as_installed(installed.scope, version, entry)).await?;
        let (old, new) = (&plugin.manifest, &next.manifest);
        Ok(UpgradeShown {
            from: installed.version.clone(),
            to: version.clone(),
            changes: diff(old, new),
            to_grant: new.not_among(&kept(Some(old), new, &installed.permissions)),
            config: check_config(new, &instance.config, "/config").err().unwrap_or_default(),
            reconnect: self.audience(old) != self.audience(new),
            obstacles: self.obstacles_to_change(org, new).await?,
        })
    }

    /// Changes to another version. Permissions that were granted stay so where the version still has them; what is new is
    /// granted only by saying so.
    pub async fn upgrade_plugin(
        self: &Arc<Self>,
        principal: &Principal,
        name: &str,
        asked: Install,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let org = &principal.org;
        let Some(version) = &asked.version else {
            return Err(Error::field("/version", "is needed: which version to change to"));
        };
        let (parsed, seen, _) = self.in_use_by(org, name).await?;
        if asked.scope.is_some_and(|scope| scope != seen.scope) {
            return Err(Error::field("/scope", "is another than that of the plugin in use; leave it out"));
        }
        let (registered, _) = self.find_registered(org, name, Some(seen.scope)).await?;
        let (version, entry) = chosen(&registered, Some(version))?;
        let to = self.as_installed(seen.scope, version, entry);
        let next = self.loaded(org, &registered.name, &to).await?;
        self.must_be_changeable(org, &next.manifest).await?;
        let consented = granted(&next, asked.permissions.as_ref())?;
        // What does not read any more is taken for less than anything.
        let old = self.loaded(org, &parsed, &seen).await.ok();
        let widened = old.as_ref().is_none_or(|old| diff(&old.manifest, &next.manifest).widens());
        let said = json!({ "from": seen.version, "to": version, "widened": widened });
        let new = Arc::clone(&next);
        self.administer_any(principal, next, (EventKind::PluginUpgraded, said), move |instance| {
            let standing =
                instance.installed.as_ref().filter(|standing| **standing == seen).ok_or_else(version_changed)?;
            let config = asked.config.as_ref().unwrap_or(&instance.config);
            check_config(&new.manifest, config, "/config").map_err(Error::Invalid)?;
            let kept = || kept(old.as_ref().map(|old| &old.manifest), &new.manifest, &standing.permissions);
            let permissions = consented.clone().unwrap_or_else(kept);
            must_be_signable(&new.manifest, &permissions, instance)?;
            let (installed, config) = (Installed { permissions, ..to.clone() }, config.clone());
            if standing.digest != installed.digest {
                instance.before =
                    Some(PreviousInstall { installed: standing.clone(), config: instance.config.clone() });
                instance.forget_failures();
            }
            (instance.installed, instance.config) = (Some(installed), config);
            Ok(())
        })
        .await
    }

    /// Goes back to what was used before the last change of versions, with its configuration and permissions.
    pub async fn roll_back_plugin(self: &Arc<Self>, principal: &Principal, name: &str) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let org = &principal.org;
        let (parsed, seen, instance) = self.in_use_by(org, name).await?;
        let nothing = || Error::Conflict(format!("{name} was never changed to another version"));
        let before = instance.before.ok_or_else(nothing)?;
        let (registered, _) = self.find_registered(org, name, Some(before.installed.scope)).await?;
        chosen(&registered, Some(&before.installed.version))?;
        let back = self.loaded(org, &parsed, &before.installed).await?;
        self.must_be_changeable(org, &back.manifest).await?;
        let said = json!({ "from": seen.version, "to": before.installed.version });
        self.administer_any(principal, back, (EventKind::PluginRolledBack, said), move |instance| {
            if instance.installed.as_ref() != Some(&seen) || instance.before.as_ref() != Some(&before) {
                return Err(version_changed());
            }
            instance.before = Some(PreviousInstall { installed: seen.clone(), config: instance.config.clone() });
            (instance.installed, instance.config) = (Some(before.installed.clone()), before.config.clone());
            instance.forget_failures();
            Ok(())
        })
        .await
    }

    /// What stands in the way of using a version, where another is in use: also that others need the other.
    async fn obstacles_to_change(&self, org: &OrgId, manifest: &Manifest) -> Result<Vec<String>, Error> {
        let mut obstacles = self.obstacles(org, manifest).await?;
        for (other, range) in self.dependents(org, &manifest.name).await? {
            if !range.allows(&manifest.version) {
                obstacles.push(format!("{other} needs {} {range}", manifest.name));
            }
        }
        Ok(obstacles)
    }

    /// What stands in the way of using a version.
    pub(super) async fn obstacles(&self, org: &OrgId, manifest: &Manifest) -> Result<Vec<String>, Error> {
        let mut obstacles: Vec<String> = manifest.cannot_run().into_iter().collect();
        if !manifest.is_compatible() {
            let range = manifest.compatible_versions.as_ref().map(ToString::to_string).unwrap_or_default();
            obstacles.push(format!("it is for Overseer {range}, and this is {}", env!("CARGO_PKG_VERSION")));
        }
        if manifest.dependencies.plugins.is_empty() {
            return Ok(obstacles);
        }
        let there: BTreeMap<_, _> = self
            .plugins_of(org, Read::Consistent)
            .await?
            .into_iter()
            .map(|(plugin, instance)| {
                let Manifest { name, version, .. } = &plugin.manifest;
                (name.clone(), (version.clone(), instance.is_enabled(&plugin.manifest)))
            })
            .collect();
        let mut missing = false;
        for (needed, range) in &manifest.dependencies.plugins {
            match there.get(needed) {
                Some((version, _)) if !range.allows(version) => {
                    obstacles.push(format!("it needs {needed} {range}, and {version} is in use"));
                }
                Some((_, false)) => {
                    obstacles.push(format!("it needs {needed}, which is out of use; enable it first"));
                }
                Some(_) => {}
                None => missing = true,
            }
        }
        if missing {
            obstacles.push(self.what_to_enable_first(org, manifest, &there.into_keys().collect()).await?);
        }
        Ok(obstacles)
    }

    /// The plugins that have to be enabled before one can be, in their order, or why that is impossible.
    async fn what_to_enable_first(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        there: &BTreeSet<PluginName>,
    ) -> Result<String, Error> {
        let mut order: Vec<String> = Vec::new();
        let mut done = there.clone();
        // What is being looked at, from the plugin itself down, each with what it still needs.
        let needs = |manifest: &Manifest| manifest.dependencies.plugins.clone().into_iter().rev().collect::<Vec<_>>();
        let mut path = vec![(manifest.name.clone(), manifest.version.clone(), needs(manifest))];
        while let Some((name, version, left)) = path.last_mut() {
            let Some((needed, range)) = left.pop() else {
                done.insert(name.clone());
                order.push(format!("{name} {version}"));
                path.pop();
                continue;
            };
            if done.contains(&needed) {
                continue;
            }
            if let Some(from) = path.iter().position(|(name, ..)| *name == needed) {
                let circle = path.iter().skip(from).map(|(name, ..)| name.as_str()).chain([needed.as_str()]);
                return Ok(format!("they need each other: {}", circle.collect::<Vec<_>>().join(" -> ")));
            }
            let by = path.last().map(|(name, ..)| name.to_string()).unwrap_or_default();
            let found = match self.find_registered(org, needed.as_str(), None).await {
                Ok(found) => found,
                Err(Error::UnknownPlugin { .. }) => {
                    return Ok(format!("{by} needs {needed} {range}, which is not registered"));
                }
                Err(error) => return Err(error),
            };
            let (registered, scope) = found;
            let fits =
                registered.versions.iter().rev().find(|(version, entry)| entry.view.is_active && range.allows(version));
            let Some((version, entry)) = fits else {
                return Ok(format!("{by} needs {needed} {range}, of which no version is registered and active"));
            };
            let plugin = self.loaded(org, &needed, &self.as_installed(scope, version, entry)).await?;
            path.push((needed, version.clone(), needs(&plugin.manifest)));
        }
        // The last is the plugin itself.
        order.pop();
        Ok(format!("enable first, in this order: {}", order.join(", ")))
    }

    /// The plugins in use that need `name`, each with the versions that will do.
    pub(crate) async fn dependents(
        &self,
        org: &OrgId,
        name: &PluginName,
    ) -> Result<Vec<(PluginName, crate::plugin::manifest::VersionRange)>, Error> {
        let plugins = self.plugins_of(org, Read::Consistent).await?;
        let in_use = plugins.iter().filter(|(plugin, instance)| instance.is_enabled(&plugin.manifest));
        let needing = in_use.filter_map(|(plugin, _)| {
            let range = plugin.manifest.dependencies.plugins.get(name)?;
            Some((plugin.manifest.name.clone(), range.clone()))
        });
        Ok(needing.collect())
    }
}

/// The permissions that stay granted when a version takes another's place: those that it still has, but none to be asked about
/// more than was consented to.
fn kept(old: Option<&Manifest>, new: &Manifest, granted: &BTreeSet<Permission>) -> BTreeSet<Permission> {
    let stays = |permission: &&Permission| {
        let wider = match permission {
            Permission::Hook(on) => old.is_none_or(|old| new.widens_hook(old, *on)),
            Permission::Network(_) | Permission::Named(_) => false,
        };
        new.permissions.contains(permission) && !wider
    };
    granted.iter().filter(stays).cloned().collect()
}

/// The version that is asked for, or the latest.
fn chosen<'a>(registered: &'a Registered, asked: Option<&Version>) -> Result<(&'a Version, &'a RegistryEntry), Error> {
    let name = &registered.name;
    let active = || registered.versions.iter().rev().filter(|(_, entry)| entry.view.is_active);
    let found = match asked {
        Some(version) => {
            let Some(found) = registered.versions.get_key_value(version) else {
                let all: Vec<_> = active().take(5).map(|(version, _)| version.to_string()).collect();
                let message = format!("is not a version of {name} that is registered; there are {}", all.join(", "));
                return Err(Error::field("/version", message));
            };
            Some(found).filter(|(_, entry)| entry.view.is_active)
        }
        None => active().find(|(version, _)| version.pre.is_empty()).or_else(|| active().next()),
    };
    found.ok_or_else(|| {
        Error::Conflict(match asked {
            Some(version) => format!("{name} {version} can no longer be enabled; choose another version"),
            None => format!("no version of {name} can be enabled any more; register a new one"),
        })
    })
}

fn nothing_in_the_way(manifest: &Manifest, what: &str, obstacles: &[String]) -> Result<(), Error> {
    if obstacles.is_empty() {
        return Ok(());
    }
    let Manifest { name, version, .. } = manifest;
    Err(Error::Conflict(format!("{name} {version} cannot be {what}: {}", obstacles.join("; "))))
}

pub(crate) fn version_changed() -> Error {
    Error::Conflict("somebody else changed it in the meantime; look again".to_owned())
}

/// The permissions that are granted, if the plugin has them.
pub(crate) fn granted(
    plugin: &Plugin,
    asked: Option<&BTreeSet<Permission>>,
) -> Result<Option<BTreeSet<Permission>>, Error> {
    let manifest = &plugin.manifest;
    let Some(asked) = asked else { return Ok(None) };
    if plugin.digest.is_none() {
        let message = format!("{} comes with Overseer and has its permissions from there; leave it out", manifest.name);
        return Err(Error::field("/permissions", message));
    }
    let unknown = |(index, _): (usize, &Permission)| {
        let all: Vec<_> = manifest.permissions.iter().map(ToString::to_string).collect();
        let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        FieldProblem::new(format!("/permissions/{index}"), format!("is not one that {} has: {all}", manifest.name))
    };
    let wrong = asked.iter().enumerate().filter(|(_, permission)| !manifest.permissions.contains(permission));
    let problems: Vec<_> = wrong.map(unknown).collect();
    if problems.is_empty() { Ok(Some(asked.clone())) } else { Err(Error::Invalid(problems)) }
}
