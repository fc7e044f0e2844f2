//! Plugins of an organization, as its administrators and operators see them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tracing::debug_span;
use tracing::field::Empty;

use super::record::{Disabled, Instance, LoadedInstance};
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::core::trace::traced;
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

/// How many instances one query reads.
const PAGE_SIZE: usize = 100;

/// A plugin of an organization.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceView {
    /// The name that intents use.
    pub name: PluginName,
    /// The name for people.
    pub display_name: String,
    /// The version in use.
    pub version: String,
    /// Whether it is enabled. Its breakers may be open all the same.
    pub enabled: bool,
    /// Its state.
    pub life: Lifecycle,
    /// Who disabled it, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// Who can use it, for a registered plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<RegistryScope>,
    /// The granted permissions, for a registered plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<BTreeSet<Permission>>,
    /// The permissions that a registered plugin declares and no administrator granted. Calls that need them are refused.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub to_grant: BTreeSet<Permission>,
    /// The version that a rollback would bring back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<String>,
    /// Whether the ledger records reads as well.
    pub record_reads: bool,
    /// Its two breakers.
    pub breaker: Breakers,
    /// Its hooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookView>,
    #[serde(skip)]
    pub(crate) hook_secret: Option<Signing>,
}

/// The breakers of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breakers {
    /// For actions that only read.
    pub read: BreakerView,
    /// For all other actions.
    pub write: BreakerView,
    /// When both open, and for how long.
    pub limits: BreakerLimits,
}

/// A breaker, at the time of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerView {
    /// Its state.
    pub state: BreakerState,
    /// The failures within the window.
    pub failures: usize,
    /// Since when it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When one call may pass as a trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

impl Instance {
    pub(super) fn view(&self, plugin: &Plugin, now: Timestamp) -> InstanceView {
        let manifest = &plugin.manifest;
        let granted = self.granted(plugin);
        InstanceView {
            scope: self.installed.as_ref().filter(|_| plugin.digest.is_some()).map(|installed| installed.scope),
            to_grant: granted.map(|granted| manifest.permissions_beyond(granted)).unwrap_or_default(),
            permissions: granted.cloned(),
            previous_version: self.before.as_ref().map(|before| before.installed.version.to_string()),
            name: manifest.name.clone(),
            display_name: manifest.display_name.clone(),
            version: manifest.version.to_string(),
            life: self.lifecycle(plugin, now),
            enabled: self.is_enabled(manifest),
            disabled: self.disabled.clone(),
            record_reads: self.record_reads,
            breaker: self.breakers(manifest, now),
            hooks: self.hook_views(manifest),
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

    /// One of its breakers.
    pub(crate) fn breaker(&self, class: ActionClass, manifest: &Manifest, now: Timestamp) -> BreakerView {
        let Breakers { read, write, limits: _ } = self.breakers(manifest, now);
        match class {
            ActionClass::Read => read,
            ActionClass::Write => write,
        }
    }
}

impl Engine {
    /// The plugins that the organization has, by name.
    pub async fn list_instances(&self, principal: &Principal) -> Result<Vec<InstanceView>, Error> {
        let span = debug_span!("list_instances", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let now = self.ports.clock.now();
            let plugins = self.plugins_of(&principal.org, Read::Eventual).await?;
            Ok(plugins.iter().map(|(plugin, instance)| instance.view(plugin, now)).collect())
        })
        .await
    }

    /// Every plugin that an organization has, by name, each with its instance: the catalog's, and the registered plugins that
    /// it enabled. A plugin whose manifest cannot be read is logged and left out.
    pub(crate) async fn plugins_of(&self, org: &OrgId, read: Read) -> Result<Vec<(Arc<Plugin>, Instance)>, Error> {
        let mut instances = self.instances_of(org, read).await?;
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
                    Err(error) => {
                        tracing::error!(%org, plugin = %name, error = %causes(&error), "plugin is unreadable; left out of the list");
                    }
                }
            }
        }
        Ok(plugins.into_values().collect())
    }

    /// The stored instances of an organization, by plugin.
    async fn instances_of(&self, org: &OrgId, read: Read) -> Result<BTreeMap<PluginName, Instance>, Error> {
        let mut instances = BTreeMap::new();
        let (partition, prefix) = keys::instances(org);
        let mut cursor = None;
        loop {
            let range = Range::Prefix(prefix.to_owned());
            let query = Query { range, cursor, read, ..Query::partition(partition.as_str(), PAGE_SIZE) };
            let page = self.ports.table.query(query).await?;
            for item in page.entries {
                let name = item.stored.key.sort.strip_prefix(prefix).and_then(|name| PluginName::parse(name).ok());
                if let Some(name) = name {
                    instances.insert(name, LoadedInstance::of(Some(item))?.instance);
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(instances);
            }
        }
    }

    /// One plugin of the organization.
    pub async fn get_instance(&self, principal: &Principal, plugin: &str) -> Result<InstanceView, Error> {
        let span = debug_span!("get_instance", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let (plugin, seen) = self.plugin_and_instance(&principal.org, plugin).await?;
            Ok(seen.instance.view(&plugin, self.ports.clock.now()))
        })
        .await
    }
}
