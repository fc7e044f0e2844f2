//! Changing a registered plugin to another version, previewing that, and rolling it back.

use std::collections::BTreeSet;
use std::sync::Arc;

use semver::Version;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::debug_span;
use tracing::field::Empty;

use super::enable::chosen_version;
use super::instances::{Installed, Instance, InstanceView, LoadedInstance, PreviousInstall, version_changed};
use super::permissions::{carried_over, checked_grant, must_be_signable};
use super::{Install, check_config};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{Changes, Permission, diff};
use crate::ports::events::EventKind;
use crate::ports::table::Read;
use crate::storage::keys;

/// What changing to another version of a plugin would mean.
#[derive(Debug, Clone, Serialize)]
pub struct UpgradePreview {
    /// The version in use.
    pub from: Version,
    /// The version to change to.
    pub to: Version,
    /// The differences between the manifests.
    pub changes: Changes,
    /// Permissions of the new version that no administrator has granted. Until one does, calls that need them are refused.
    pub to_grant: BTreeSet<Permission>,
    /// What would be wrong with the present configuration.
    pub config: Vec<FieldProblem>,
    /// Whether users would have to connect their accounts again.
    pub reconnect: bool,
    /// What else prevents the change.
    pub obstacles: Vec<String>,
}

/// A registered plugin that an organization uses.
struct PluginInUse {
    name: PluginName,
    installed: Installed,
    instance: Instance,
}

/// Everything checked that an upgrade writes.
struct UpgradePlan {
    /// The version in use when the upgrade was checked.
    from: Installed,
    /// Its manifest; `None` if it cannot be read any more.
    old: Option<Arc<Plugin>>,
    /// The version to change to, without permissions.
    to: Installed,
    new: Arc<Plugin>,
    /// The permissions to grant; `None` carries the earlier grants over.
    consented: Option<BTreeSet<Permission>>,
    config: Option<Map<String, Value>>,
}

impl UpgradePlan {
    /// Whether the new version may do more than the old one. An unreadable old version counts as having been able to do
    /// nothing.
    fn widens(&self) -> bool {
        self.old.as_ref().is_none_or(|old| diff(&old.manifest, &self.new.manifest).widens())
    }

    /// Makes the change, if the version in use is still the one that was checked.
    fn apply(&self, instance: &mut Instance) -> Result<(), Error> {
        let current =
            instance.installed.clone().filter(|installed| *installed == self.from).ok_or_else(version_changed)?;
        let manifest = &self.new.manifest;
        let config = self.config.as_ref().unwrap_or(&instance.config).clone();
        check_config(manifest, &config, "/config").map_err(Error::Invalid)?;
        let permissions = self.consented.clone().unwrap_or_else(|| {
            carried_over(self.old.as_ref().map(|old| &old.manifest), manifest, &current.permissions)
        });
        must_be_signable(manifest, &permissions, instance)?;
        let installed = Installed { permissions, ..self.to.clone() };
        if current.digest != installed.digest {
            instance.before = Some(PreviousInstall { installed: current, config: instance.config.clone() });
            instance.forget_failures();
        }
        (instance.installed, instance.config) = (Some(installed), config);
        Ok(())
    }
}

impl Engine {
    /// What changing to `version`, or else to the latest, would mean. Changes nothing.
    pub async fn preview_upgrade(
        &self,
        principal: &Principal,
        name: &str,
        version: Option<&Version>,
    ) -> Result<UpgradePreview, Error> {
        let span = debug_span!("preview_upgrade", org = %principal.org, plugin = name, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let org = &principal.org;
            let PluginInUse { name: parsed, installed, instance } = self.plugin_in_use(org, name).await?;
            let plugin = self.loaded(org, &parsed, &installed).await?;
            let (registered, _) = self.find_registered(org, name, Some(installed.scope)).await?;
            let (version, entry) = chosen_version(&registered, version)?;
            let next = self.loaded(org, &registered.name, &self.new_install(installed.scope, version, entry)).await?;
            let (old, new) = (&plugin.manifest, &next.manifest);
            Ok(UpgradePreview {
                from: installed.version.clone(),
                to: version.clone(),
                changes: diff(old, new),
                to_grant: new.permissions_beyond(&carried_over(Some(old), new, &installed.permissions)),
                config: check_config(new, &instance.config, "/config").err().unwrap_or_default(),
                reconnect: self.audience(old) != self.audience(new),
                obstacles: self.obstacles_to_change(org, new).await?,
            })
        })
        .await
    }

    /// Changes to another version. Earlier grants are carried over; new permissions need a grant that names them
    /// (see `permissions`).
    pub async fn upgrade_plugin(
        self: &Arc<Self>,
        principal: &Principal,
        name: &str,
        request: Install,
    ) -> Result<InstanceView, Error> {
        let span = debug_span!("upgrade_plugin", org = %principal.org, plugin = name, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let plan = self.plan_upgrade(&principal.org, name, request).await?;
            let detail = json!({ "from": plan.from.version, "to": plan.to.version, "widened": plan.widens() });
            let new = Arc::clone(&plan.new);
            self.administer_any(principal, new, EventKind::PluginUpgraded, detail, move |instance| plan.apply(instance))
                .await
        })
        .await
    }

    async fn plan_upgrade(&self, org: &OrgId, name: &str, request: Install) -> Result<UpgradePlan, Error> {
        let Some(version) = &request.version else {
            return Err(Error::field("/version", "is needed: which version to change to"));
        };
        let PluginInUse { name: parsed, installed: from, .. } = self.plugin_in_use(org, name).await?;
        if request.scope.is_some_and(|scope| scope != from.scope) {
            return Err(Error::field("/scope", "differs from that of the plugin in use; leave it out"));
        }
        let (registered, _) = self.find_registered(org, name, Some(from.scope)).await?;
        let (version, entry) = chosen_version(&registered, Some(version))?;
        let to = self.new_install(from.scope, version, entry);
        let new = self.loaded(org, &registered.name, &to).await?;
        self.ensure_changeable(org, &new.manifest).await?;
        let consented = checked_grant(&new, request.permissions.as_ref())?;
        let old = self.loaded(org, &parsed, &from).await.ok();
        Ok(UpgradePlan { from, old, to, new, consented, config: request.config })
    }

    /// Goes back to the version before the last change of versions, with its configuration and permissions.
    pub async fn roll_back_plugin(self: &Arc<Self>, principal: &Principal, name: &str) -> Result<InstanceView, Error> {
        let span = debug_span!("roll_back_plugin", org = %principal.org, plugin = name, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let org = &principal.org;
            let PluginInUse { name: parsed, installed: current, instance } = self.plugin_in_use(org, name).await?;
            let never_changed = || Error::Conflict(format!("{name} was never changed to another version"));
            let before = instance.before.ok_or_else(never_changed)?;
            let (registered, _) = self.find_registered(org, name, Some(before.installed.scope)).await?;
            chosen_version(&registered, Some(&before.installed.version))?;
            let plugin = self.loaded(org, &parsed, &before.installed).await?;
            self.ensure_changeable(org, &plugin.manifest).await?;
            let detail = json!({ "from": current.version, "to": before.installed.version });
            self.administer_any(principal, plugin, EventKind::PluginRolledBack, detail, move |instance| {
                if instance.installed.as_ref() != Some(&current) || instance.before.as_ref() != Some(&before) {
                    return Err(version_changed());
                }
                instance.before = Some(PreviousInstall { installed: current.clone(), config: instance.config.clone() });
                (instance.installed, instance.config) = (Some(before.installed.clone()), before.config.clone());
                instance.forget_failures();
                Ok(())
            })
            .await
        })
        .await
    }

    /// The registered plugin that an organization uses by that name. Catalog plugins have no versions to choose from.
    async fn plugin_in_use(&self, org: &OrgId, name: &str) -> Result<PluginInUse, Error> {
        let unknown = || Error::unknown_plugin(name);
        let parsed = PluginName::parse(name).map_err(|_| unknown())?;
        if self.catalog.has(&parsed) {
            return Err(Error::Conflict(format!("{name} comes with Overseer, and changes with it")));
        }
        let item = self.ports.table.get(&keys::instance(org, &parsed), Read::Consistent).await?;
        let instance = LoadedInstance::of(item)?.instance;
        let installed = instance.installed.clone().ok_or_else(unknown)?;
        Ok(PluginInUse { name: parsed, installed, instance })
    }
}
