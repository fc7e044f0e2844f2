//! Ending an organization's use of a registered plugin.

use std::sync::Arc;

use serde_json::json;
use tracing::debug_span;
use tracing::field::Empty;

use super::hooks::index_removal;
use super::instances::{Instance, LoadedInstance};
use super::{Lifecycle, LifecycleState};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Read, Write};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

impl Engine {
    /// Ends the use of a registered plugin and deletes its configuration and grants. Connected accounts stay until a user
    /// disconnects them; tasks for the plugin will fail.
    pub async fn uninstall(self: &Arc<Self>, principal: &Principal, name: &str) -> Result<Lifecycle, Error> {
        let span = debug_span!("uninstall", org = %principal.org, plugin = name, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let name = PluginName::parse(name).map_err(|_| Error::unknown_plugin(name))?;
            // The manifest is not read: a plugin whose manifest cannot be read any more can still be uninstalled.
            let item = self.ports.table.get(&keys::instance(&principal.org, &name), Read::Consistent).await?;
            let seen = LoadedInstance::of(item)?;
            let version = match &seen.instance.installed {
                Some(installed) => Some(installed.version.clone()),
                None if self.catalog.has(&name) => {
                    return Err(Error::Conflict(format!("{name} comes with Overseer; POST …/disable disables it")));
                }
                // A plugin that the operator added and removed may have left its hooks.
                None if seen.instance.has_hooks => None,
                None => return Err(Error::unknown_plugin(name.as_str())),
            };
            self.ensure_no_dependents(&principal.org, &name).await?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            self.run_to_completion(async move {
                let org = &principal.org;
                let detail =
                    json!({ "tool": name, "version": version, "key": principal.key, "userId": principal.user });
                let event = engine.event(org, EventKind::PluginStopped, &detail);
                let instance = engine.delete_instance(org, &name, seen, &event).await?;
                engine.remember_installed(org, &name, None);
                if let Some(secrets) = &instance.secrets {
                    engine.forget_secrets(org, &name, secrets).await;
                }
                if let Some(secret) = &instance.hook_secret {
                    engine.forget_hook_secrets(org, &name, secret).await;
                }
                engine.publish(event).await;
                let in_flight = engine.plugin_cache.in_flight.contains(org, &name);
                Ok(Lifecycle::of(if in_flight { LifecycleState::Stopping } else { LifecycleState::Stopped }))
            })
            .await
        })
        .await
    }

    /// Deletes the instance, its hooks and its claim to secrets in one transaction with the event. Gives the instance that
    /// was deleted.
    async fn delete_instance(
        &self,
        org: &OrgId,
        name: &PluginName,
        mut seen: LoadedInstance,
        event: &Event,
    ) -> Result<Instance, Error> {
        let key = keys::instance(org, name);
        let had_leftover_hooks = seen.instance.has_hooks;
        let mut race = CompareAndSet::default();
        loop {
            let uninstallable = seen.instance.installed.is_some() || had_leftover_hooks;
            let Some(version) = seen.version.take().filter(|_| uninstallable) else {
                return Err(Error::unknown_plugin(name.as_str()));
            };
            let delete = Write::Delete(key.clone(), Condition::Version(version));
            let hooks = index_removal(self, org, name, &seen.instance).await?;
            match self.transact_with([delete].into_iter().chain(hooks).collect(), Some(event)).await {
                Ok(_) => return Ok(seen.instance),
                // A counted failure, or another caller, changed the instance or the list of hooks.
                Err(error) => {
                    race.after_lost_race(error, format_args!("the plugin {name}"))?;
                    seen = LoadedInstance::of(self.ports.table.get(&key, Read::Consistent).await?)?;
                }
            }
        }
    }
}
