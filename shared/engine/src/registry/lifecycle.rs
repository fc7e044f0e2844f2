//! Where a plugin is in its life in an organization. Stored is only what nobody could tell otherwise: that it is enabled,
//! that an administrator took it out of use, and that it failed, each with its time. The rest follows from what is
//! registered, and what is read and runs in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Read, TableError, Write};
use crate::registry::hooks::hooks_changed;
use crate::registry::instances::{Instance, SeenInstance};
use crate::storage::keys;

/// Where a plugin is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LifecycleState {
    /// It is registered, and not in use.
    Discovered,
    /// Beside that, this process has read it.
    Loaded,
    /// Beside that, nothing stands in the way of enabling it.
    Initialized,
    /// It is in use.
    Active,
    /// An administrator took it out of use.
    Paused,
    /// It is no longer in use, and calls of it are still under way in this process.
    Stopping,
    /// It is no longer in use.
    Stopped,
    /// It is not in use, and no version of it can be enabled.
    Unloaded,
    /// It cannot be used: it failed too often, or it cannot run here any more.
    Failed,
}

/// Where a plugin is in its life, since when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lifecycle {
    /// Where it is.
    pub state: LifecycleState,
    /// Since when, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Lifecycle {
    fn of(state: LifecycleState) -> Self {
        Self { state, since: None, reason: None }
    }
}

/// The calls of registered plugins that are under way in this process.
pub(super) type InFlight = Arc<Mutex<HashMap<(OrgId, PluginName), usize>>>;

/// A call that is under way, until it is dropped.
pub(crate) struct InFlightGuard {
    running: InFlight,
    of: (OrgId, PluginName),
}

fn locked(running: &InFlight) -> MutexGuard<'_, HashMap<(OrgId, PluginName), usize>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut running = locked(&self.running);
        if let Some(count) = running.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.of);
            }
        }
    }
}

impl Instance {
    /// Where a plugin that is enabled is in its life.
    pub(crate) fn life(&self, plugin: &Plugin, now: Timestamp) -> Lifecycle {
        if let Some((since, reason)) = self.paused() {
            return Lifecycle { state: LifecycleState::Paused, since: Some(since), reason };
        }
        if self.is_off(&plugin.manifest) {
            return Lifecycle::of(LifecycleState::Initialized);
        }
        if let Some(reason) = plugin.manifest.cannot_run() {
            return Lifecycle { reason: Some(reason), ..Lifecycle::of(LifecycleState::Failed) };
        }
        if let Some((since, what)) = self.failed(&plugin.manifest, now) {
            let reason = format!("its actions that {what} failed too often");
            return Lifecycle { state: LifecycleState::Failed, since: Some(since), reason: Some(reason) };
        }
        Lifecycle {
            since: self.installed.as_ref().map(|installed| installed.at),
            ..Lifecycle::of(LifecycleState::Active)
        }
    }
}

impl Engine {
    /// Counts a call of a registered plugin as under way.
    pub(crate) fn track_in_flight(&self, org: &OrgId, plugin: &Plugin) -> Option<InFlightGuard> {
        plugin.digest.as_ref()?;
        let of = (org.clone(), plugin.manifest.name.clone());
        *locked(&self.plugin_cache.in_flight).entry(of.clone()).or_default() += 1;
        Some(InFlightGuard { running: Arc::clone(&self.plugin_cache.in_flight), of })
    }

    /// Where a plugin that is registered and not enabled is in its life: `plugin` is the version that would be enabled, if
    /// this process has read it.
    pub(super) async fn life_before(&self, org: &OrgId, plugin: Option<Arc<Plugin>>) -> Result<Lifecycle, Error> {
        let Some(plugin) = plugin else { return Ok(Lifecycle::of(LifecycleState::Discovered)) };
        let obstacles = self.obstacles(org, &plugin.manifest).await?;
        Ok(if obstacles.is_empty() {
            Lifecycle::of(LifecycleState::Initialized)
        } else {
            Lifecycle { reason: Some(obstacles.join("; ")), ..Lifecycle::of(LifecycleState::Loaded) }
        })
    }

    /// Ends the use of a registered plugin: its configuration and what was granted are gone. Accounts at its service stay
    /// until somebody disconnects them, and tasks for it will fail.
    pub async fn uninstall(self: &Arc<Self>, principal: &Principal, name: &str) -> Result<Lifecycle, Error> {
        principal.must_administer()?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        let unknown = || Error::unknown_plugin(name);
        let name = PluginName::parse(name).map_err(|_| unknown())?;
        // Its manifest is not looked at: one that does not read any more must not be there for ever.
        let item = self.ports.table.get(&keys::instance(&principal.org, &name), Read::Consistent).await?;
        let mut seen = SeenInstance::of(item)?;
        // One that the operator brought, and took away, may have left its hooks.
        let (here, left) = (self.catalog.has(&name), seen.instance.has_hooks);
        let version = match &seen.instance.installed {
            Some(installed) => Some(installed.version.clone()),
            None if here => {
                return Err(Error::Conflict(format!("{name} comes with Overseer; POST …/disable takes it out of use")));
            }
            None if left => None,
            None => return Err(unknown()),
        };
        self.ensure_no_dependents(&principal.org, &name).await?;
        self.run_to_completion(async move {
            let org = &principal.org;
            let key = keys::instance(org, &name);
            let said = json!({ "tool": name, "version": version, "key": principal.key,
                               "userId": principal.user });
            let event = engine.event(org, EventKind::PluginStopped, &said);
            loop {
                let Some(version) = seen.version.take().filter(|_| seen.instance.installed.is_some() || left) else {
                    return Err(Error::unknown_plugin(name.as_str()));
                };
                let delete = Write::Delete(key.clone(), Condition::Version(version));
                let hooks = hooks_changed(&engine, org, None, (&name, &seen.instance, None)).await?;
                match engine.transact_with([delete].into_iter().chain(hooks).collect(), Some(&event)).await {
                    Ok(_) => break,
                    // A failure that was counted, or somebody else's change.
                    Err(TableError::Condition { .. }) => {
                        seen = SeenInstance::of(engine.ports.table.get(&key, Read::Consistent).await?)?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            engine.remember_installed(org, &name, None);
            if let Some(secrets) = &seen.instance.secrets {
                engine.forget_secrets(org, &name, secrets).await;
            }
            if let Some(secret) = &seen.instance.hook_secret {
                engine.forget_hook_secrets(org, &name, secret).await;
            }
            engine.publish(event).await;
            let runs = locked(&engine.plugin_cache.in_flight).contains_key(&(org.clone(), name));
            Ok(Lifecycle::of(if runs { LifecycleState::Stopping } else { LifecycleState::Stopped }))
        })
        .await
    }

    /// Refuses to take away what other plugins need.
    pub(crate) async fn ensure_no_dependents(&self, org: &OrgId, name: &PluginName) -> Result<(), Error> {
        let needing = self.dependents(org, name).await?;
        if needing.is_empty() {
            return Ok(());
        }
        let needing: Vec<_> = needing.iter().map(|(other, _)| other.as_str()).collect();
        Err(Error::Conflict(format!("{name} is needed by {}; disable that first", needing.join(", "))))
    }
}
