//! Where a plugin is in its life in an organization.
//!
//! The instance stores only what cannot be derived: that an administrator enabled or disabled the plugin and that its calls
//! failed, each with its time. The rest follows from what is registered, cached and in flight in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use super::instances::Instance;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;

/// The states of a plugin in an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LifecycleState {
    /// Registered, and not enabled.
    Discovered,
    /// `Discovered`, and this process has read its manifest.
    Loaded,
    /// `Loaded`, and nothing prevents enabling it.
    Initialized,
    /// Enabled.
    Active,
    /// Disabled by an administrator.
    Paused,
    /// No longer enabled, with calls still in flight in this process.
    Stopping,
    /// No longer enabled.
    Stopped,
    /// Not enabled, and no version of it can be.
    Unloaded,
    /// Enabled but unusable: it failed too often, or cannot run here any more.
    Failed,
}

/// A plugin's state in an organization, since when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lifecycle {
    /// The state.
    pub state: LifecycleState,
    /// Since when, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why, in a sentence for administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Lifecycle {
    /// A state without time and reason.
    pub(super) fn of(state: LifecycleState) -> Self {
        Self { state, since: None, reason: None }
    }
}

type InFlightCounts = HashMap<(OrgId, PluginName), usize>;

/// Counts the calls of registered plugins that are in flight in this process.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<InFlightCounts>>);

impl InFlight {
    fn counts(&self) -> MutexGuard<'_, InFlightCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any call of the plugin is in flight.
    pub(super) fn contains(&self, org: &OrgId, plugin: &PluginName) -> bool {
        self.counts().contains_key(&(org.clone(), plugin.clone()))
    }
}

/// A call counts as in flight until this is dropped.
pub(crate) struct InFlightGuard {
    in_flight: InFlight,
    call: (OrgId, PluginName),
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut counts = self.in_flight.counts();
        if let Some(count) = counts.get_mut(&self.call) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.call);
            }
        }
    }
}

impl Instance {
    /// The state of a plugin that the organization has: of the catalog, or registered and enabled.
    pub(super) fn lifecycle(&self, plugin: &Plugin, now: Timestamp) -> Lifecycle {
        if let Some((since, reason)) = self.paused() {
            return Lifecycle { state: LifecycleState::Paused, since: Some(since), reason };
        }
        if self.is_off(&plugin.manifest) {
            return Lifecycle::of(LifecycleState::Initialized);
        }
        if let Some(reason) = plugin.manifest.cannot_run() {
            return Lifecycle { reason: Some(reason), ..Lifecycle::of(LifecycleState::Failed) };
        }
        if let Some((since, purpose)) = self.failed(&plugin.manifest, now) {
            let reason = format!("its actions that {purpose} failed too often");
            return Lifecycle { state: LifecycleState::Failed, since: Some(since), reason: Some(reason) };
        }
        Lifecycle {
            since: self.installed.as_ref().map(|installed| installed.at),
            ..Lifecycle::of(LifecycleState::Active)
        }
    }
}

impl Engine {
    /// Counts a call of a registered plugin as in flight; `None` for a catalog plugin.
    pub(crate) fn track_in_flight(&self, org: &OrgId, plugin: &Plugin) -> Option<InFlightGuard> {
        plugin.digest.as_ref()?;
        let call = (org.clone(), plugin.manifest.name.clone());
        let in_flight = self.plugin_cache.in_flight.clone();
        *in_flight.counts().entry(call.clone()).or_default() += 1;
        Some(InFlightGuard { in_flight, call })
    }

    /// The state of a plugin that is registered and not enabled. `plugin` is the version that enabling would use, if this
    /// process has read it.
    pub(super) async fn lifecycle_before_enabling(
        &self,
        org: &OrgId,
        plugin: Option<Arc<Plugin>>,
    ) -> Result<Lifecycle, Error> {
        let Some(plugin) = plugin else { return Ok(Lifecycle::of(LifecycleState::Discovered)) };
        let obstacles = self.obstacles(org, &plugin.manifest).await?;
        Ok(if obstacles.is_empty() {
            Lifecycle::of(LifecycleState::Initialized)
        } else {
            Lifecycle { reason: Some(obstacles.join("; ")), ..Lifecycle::of(LifecycleState::Loaded) }
        })
    }
}
