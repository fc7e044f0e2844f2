//! Plugins as they are shown to an organization.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::record::{Disabled, Instance, SeenInstance};
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::engine::Engine;
use crate::events::signing::Signing;
use crate::plugin::breaker::{ActionClass, BreakerLimits, Circuit, Gate};
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{Manifest, Permission};
use crate::ports::table::{Query, Range, Read};
use crate::registry::hooks::HookView;
use crate::registry::instances::record::BreakerState;
use crate::registry::{Lifecycle, RegistryScope};
use crate::storage::keys;

/// Instances that are read at once.
const PAGE: usize = 100;

/// A plugin as it is shown to the organization's administrators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceView {
    /// The plugin.
    pub name: PluginName,
    /// What people call it.
    pub display_name: String,
    /// Its version.
    pub version: String,
    /// Whether it is in use, as far as administrators decide that.
    pub enabled: bool,
    /// Where it is in its life.
    pub life: Lifecycle,
    /// Who took it out of use, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// Of a registered plugin, for whom it was registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<RegistryScope>,
    /// Of a registered plugin, the permissions that were granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<BTreeSet<Permission>>,
    /// Of a registered plugin, those that it has and that nobody granted: calls that need them are refused.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub to_grant: BTreeSet<Permission>,
    /// The version that it can be rolled back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<String>,
    /// Whether reads are in the ledger as well.
    pub record_reads: bool,
    /// The breaker of the actions that read, and of those that do more.
    pub breaker: Breakers,
    /// The moments at which it is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookView>,
    #[serde(skip)]
    pub(crate) hook_secret: Option<Signing>,
}

/// The breakers of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breakers {
    /// Of actions that only read.
    pub read: BreakerView,
    /// Of all other actions.
    pub write: BreakerView,
    /// When they open.
    pub limits: BreakerLimits,
}

/// A breaker as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerView {
    /// Where it is.
    pub state: BreakerState,
    /// The failures that count at the moment.
    pub failures: usize,
    /// Since when it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When one call is let through to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

impl Instance {
    pub(super) fn shown(&self, plugin: &Plugin, now: Timestamp) -> InstanceView {
        let manifest = &plugin.manifest;
        let granted = self.granted(plugin);
        InstanceView {
            scope: self.installed.as_ref().filter(|_| plugin.digest.is_some()).map(|installed| installed.scope),
            to_grant: granted.map(|granted| manifest.not_among(granted)).unwrap_or_default(),
            permissions: granted.cloned(),
            previous_version: self.before.as_ref().map(|before| before.installed.version.to_string()),
            name: manifest.name.clone(),
            display_name: manifest.display_name.clone(),
            version: manifest.version.to_string(),
            life: self.life(plugin, now),
            enabled: self.is_enabled(manifest),
            disabled: self.disabled.clone(),
            record_reads: self.record_reads,
            breaker: self.breakers(manifest, now),
            hooks: self.hooks_shown(manifest),
            hook_secret: self.hook_secret.clone(),
        }
    }

    fn breakers(&self, manifest: &Manifest, now: Timestamp) -> Breakers {
        let limits = self.limits(manifest);
        let breaker = |circuit: &Circuit| {
            let (state, retry_at) = match circuit.gate(now) {
                Gate::Closed => (BreakerState::Closed, None),
                Gate::HalfOpen | Gate::TrialInProgress => (BreakerState::HalfOpen, None),
                Gate::Open(until) => (BreakerState::Open, Some(until)),
            };
            BreakerView { state, failures: circuit.counted(limits, now), since: circuit.open_since(), retry_at }
        };
        Breakers { read: breaker(&self.read), write: breaker(&self.write), limits }
    }

    /// One of its breakers as it is shown.
    pub(crate) fn breaker(&self, class: ActionClass, manifest: &Manifest, now: Timestamp) -> BreakerView {
        let Breakers { read, write, limits: _ } = self.breakers(manifest, now);
        match class {
            ActionClass::Read => read,
            ActionClass::Write => write,
        }
    }
}

impl Engine {
    /// The plugins as the organization has them.
    pub async fn list_instances(&self, principal: &Principal) -> Result<Vec<InstanceView>, Error> {
        principal.must_operate()?;
        let now = self.ports.clock.now();
        let plugins = self.plugins_of(&principal.org, Read::Eventual).await?;
        Ok(plugins.iter().map(|(plugin, instance)| instance.shown(plugin, now)).collect())
    }

    /// Every plugin that an organization has, by name, each with its instance: the catalog's, and what it enabled of what is
    /// registered.
    pub(crate) async fn plugins_of(&self, org: &OrgId, read: Read) -> Result<Vec<(Arc<Plugin>, Instance)>, Error> {
        let mut instances = BTreeMap::new();
        let (partition, prefix) = keys::instances(org);
        let mut cursor = None;
        loop {
            let range = Range::Prefix(prefix.to_owned());
            let query = Query { range, cursor, read, ..Query::partition(partition.as_str(), PAGE) };
            let page = self.ports.table.query(query).await?;
            for item in page.entries {
                let name = item.stored.key.sort.strip_prefix(prefix).and_then(|name| PluginName::parse(name).ok());
                if let Some(name) = name {
                    instances.insert(name, SeenInstance::of(Some(item))?.instance);
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let mut plugins = BTreeMap::new();
        for plugin in self.catalog.plugins() {
            let instance = instances.remove(&plugin.manifest.name).unwrap_or_default();
            plugins.insert(plugin.manifest.name.clone(), (plugin, instance));
        }
        for (name, instance) in instances {
            if let Some(installed) = &instance.installed {
                match self.loaded(org, &name, installed).await {
                    Ok(plugin) => {
                        plugins.insert(name, (plugin, instance));
                    }
                    // One that does not read must not hide the others.
                    Err(error) => {
                        tracing::error!(%org, plugin = %name, error = %causes(&error), "a plugin is left out");
                    }
                }
            }
        }
        Ok(plugins.into_values().collect())
    }

    /// Refuses a plugin whose calls need a permission that nobody granted, for whoever has not read its instance.
    pub(crate) async fn must_be_granted(&self, org: &OrgId, plugin: &Plugin) -> Result<(), Error> {
        if plugin.digest.is_none() {
            return Ok(());
        }
        let item = self.ports.table.get(&keys::instance(org, &plugin.manifest.name), Read::Consistent).await?;
        SeenInstance::of(item)?.instance.must_be_granted(plugin)
    }

    /// A plugin as the organization has it.
    pub async fn get_instance(&self, principal: &Principal, plugin: &str) -> Result<InstanceView, Error> {
        principal.must_operate()?;
        let (plugin, seen) = self.plugin_and_instance(&principal.org, plugin).await?;
        Ok(seen.instance.shown(&plugin, self.ports.clock.now()))
    }
}
