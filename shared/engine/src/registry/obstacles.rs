//! What prevents enabling a version of a plugin, or changing to it: its runtime, the version of Overseer, and the plugins
//! that need it or that it needs.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;

use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::engine::Engine;
use crate::plugin::manifest::{Manifest, VersionRange};
use crate::ports::table::Read;

/// A plugin on the path from the one to enable down through what it needs.
struct PathStep {
    name: PluginName,
    version: Version,
    /// The plugins that it needs and that have not been visited yet, in reverse order.
    unvisited: Vec<(PluginName, VersionRange)>,
}

impl PathStep {
    fn of(manifest: &Manifest) -> Self {
        let unvisited = manifest.dependencies.plugins.clone().into_iter().rev().collect();
        Self { name: manifest.name.clone(), version: manifest.version.clone(), unvisited }
    }
}

impl Engine {
    /// Refuses to enable a version while there are obstacles.
    pub(super) async fn ensure_installable(&self, org: &OrgId, manifest: &Manifest) -> Result<(), Error> {
        refuse(manifest, "enabled", &self.obstacles(org, manifest).await?)
    }

    /// Refuses to change to a version while there are obstacles.
    pub(super) async fn ensure_changeable(&self, org: &OrgId, manifest: &Manifest) -> Result<(), Error> {
        refuse(manifest, "used", &self.obstacles_to_change(org, manifest).await?)
    }

    /// Refuses to disable a plugin that other enabled plugins need.
    pub(super) async fn ensure_no_dependents(&self, org: &OrgId, name: &PluginName) -> Result<(), Error> {
        let dependents = self.dependents(org, name).await?;
        if dependents.is_empty() {
            return Ok(());
        }
        let dependents: Vec<_> = dependents.iter().map(|(other, _)| other.as_str()).collect();
        Err(Error::Conflict(format!("{name} is needed by {}; disable that first", dependents.join(", "))))
    }

    /// What prevents changing to a version, where another is in use: also that other plugins need the present one.
    pub(super) async fn obstacles_to_change(&self, org: &OrgId, manifest: &Manifest) -> Result<Vec<String>, Error> {
        let mut obstacles = self.obstacles(org, manifest).await?;
        for (other, range) in self.dependents(org, &manifest.name).await? {
            if !range.allows(&manifest.version) {
                obstacles.push(format!("{other} needs {} {range}", manifest.name));
            }
        }
        Ok(obstacles)
    }

    /// What prevents enabling a version, each as a sentence for administrators.
    pub(super) async fn obstacles(&self, org: &OrgId, manifest: &Manifest) -> Result<Vec<String>, Error> {
        let mut obstacles: Vec<String> = manifest.cannot_run().into_iter().collect();
        if !manifest.is_compatible() {
            let range = manifest.compatible_versions.as_ref().map(ToString::to_string).unwrap_or_default();
            obstacles.push(format!("it is for Overseer {range}, and this is {}", env!("CARGO_PKG_VERSION")));
        }
        if manifest.dependencies.plugins.is_empty() {
            return Ok(obstacles);
        }
        let plugins = self.plugins_of(org, Read::Consistent).await?;
        let present: BTreeMap<_, _> = plugins
            .into_iter()
            .map(|(plugin, instance)| {
                let Manifest { name, version, .. } = &plugin.manifest;
                (name.clone(), (version.clone(), instance.is_enabled(&plugin.manifest)))
            })
            .collect();
        let mut any_missing = false;
        for (needed, range) in &manifest.dependencies.plugins {
            match present.get(needed) {
                Some((version, _)) if !range.allows(version) => {
                    obstacles.push(format!("it needs {needed} {range}, and {version} is in use"));
                }
                Some((_, false)) => obstacles.push(format!("it needs {needed}, which is disabled; enable it first")),
                Some(_) => {}
                None => any_missing = true,
            }
        }
        if any_missing {
            obstacles.push(self.enabling_order(org, manifest, present.into_keys().collect()).await?);
        }
        Ok(obstacles)
    }

    /// The plugins to enable before this one, in their order, or why that is impossible. A depth-first walk through the
    /// dependencies: a plugin is `done` after everything that it needs.
    async fn enabling_order(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        mut done: BTreeSet<PluginName>,
    ) -> Result<String, Error> {
        let mut order: Vec<String> = Vec::new();
        let mut path = vec![PathStep::of(manifest)];
        while let Some(step) = path.last_mut() {
            let Some((needed, range)) = step.unvisited.pop() else {
                done.insert(step.name.clone());
                order.push(format!("{} {}", step.name, step.version));
                path.pop();
                continue;
            };
            if done.contains(&needed) {
                continue;
            }
            let dependent = step.name.clone();
            if let Some(start) = path.iter().position(|step| step.name == needed) {
                let circle = path.iter().skip(start).map(|step| step.name.as_str()).chain([needed.as_str()]);
                return Ok(format!("they need each other: {}", circle.collect::<Vec<_>>().join(" -> ")));
            }
            let (registered, scope) = match self.find_registered(org, needed.as_str(), None).await {
                Ok(found) => found,
                Err(Error::UnknownPlugin { .. }) => {
                    return Ok(format!("{dependent} needs {needed} {range}, which is not registered"));
                }
                Err(error) => return Err(error),
            };
            let mut latest_first = registered.versions.iter().rev();
            let Some((version, entry)) =
                latest_first.find(|(version, entry)| entry.view.is_active && range.allows(version))
            else {
                return Ok(format!("{dependent} needs {needed} {range}, of which no version is registered and active"));
            };
            let plugin = self.loaded(org, &needed, &self.new_install(scope, version, entry)).await?;
            path.push(PathStep::of(&plugin.manifest));
        }
        // The last is the plugin itself.
        order.pop();
        Ok(format!("enable first, in this order: {}", order.join(", ")))
    }

    /// The enabled plugins that need `name`, each with the versions that it accepts.
    async fn dependents(&self, org: &OrgId, name: &PluginName) -> Result<Vec<(PluginName, VersionRange)>, Error> {
        let plugins = self.plugins_of(org, Read::Consistent).await?;
        let enabled = plugins.iter().filter(|(plugin, instance)| instance.is_enabled(&plugin.manifest));
        let dependents = enabled.filter_map(|(plugin, _)| {
            let range = plugin.manifest.dependencies.plugins.get(name)?;
            Some((plugin.manifest.name.clone(), range.clone()))
        });
        Ok(dependents.collect())
    }
}

fn refuse(manifest: &Manifest, verb: &str, obstacles: &[String]) -> Result<(), Error> {
    if obstacles.is_empty() {
        return Ok(());
    }
    let Manifest { name, version, .. } = manifest;
    Err(Error::Conflict(format!("{name} {version} cannot be {verb}: {}", obstacles.join("; "))))
}
