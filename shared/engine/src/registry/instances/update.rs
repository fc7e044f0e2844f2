//! Changes of the record: by compare-and-set, in one transaction with the change's event and with its effect on the
//! organization's list of hooks.

use std::sync::Arc;

use serde_json::{Value, json};

use super::InstanceView;
use super::record::{Instance, LoadedInstance};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::OrgId;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::Manifest;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Read, TableError, Write};
use crate::registry::hooks::index_update;
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// The result of [`Engine::change_instance`].
pub(super) struct InstanceChange<T> {
    /// The instance after the change.
    pub instance: Instance,
    /// What the change returned.
    pub value: T,
    /// Whether it was written: not if the change changed nothing.
    pub written: bool,
}

/// A request was checked against a version that is no longer the one in use.
pub(in crate::registry) fn version_changed() -> Error {
    Error::Conflict("another request changed the plugin in the meantime; read it again, then retry".to_owned())
}

impl Engine {
    /// Changes an instance by compare-and-set, starting from `seen` if the caller has read it. `change` runs once per try;
    /// if it fails or changes nothing, nothing is written. The event that `event` makes of the change is written with it, and
    /// published.
    pub(super) async fn change_instance<T: Send>(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: Option<LoadedInstance>,
        change: impl Fn(&mut Instance) -> Result<T, Error> + Send,
        event: impl Fn(&Instance, &T) -> Option<Event> + Send,
    ) -> Result<InstanceChange<T>, Error> {
        let mut seen = if let Some(seen) = seen {
            seen
        } else {
            let key = keys::instance(org, &manifest.name);
            LoadedInstance::of(self.ports.table.get(&key, Read::Consistent).await?)?
        };
        let mut race = CompareAndSet::default();
        loop {
            let mut instance = seen.instance.clone();
            let value = change(&mut instance)?;
            if instance == seen.instance {
                return Ok(InstanceChange { instance, value, written: false });
            }
            let hooks = index_update(self, org, manifest, &seen.instance, &mut instance).await?;
            let event = event(&instance, &value);
            let condition = seen.version.clone().map_or(Condition::Absent, Condition::Version);
            let put = Write::Put(instance.item(org, manifest)?, condition);
            let writes = [put].into_iter().chain(hooks).collect();
            let Err(lost) = self.transact_with(writes, event.as_ref()).await else {
                if let Some(event) = event {
                    self.publish(event).await;
                }
                return Ok(InstanceChange { instance, value, written: true });
            };
            let instance_changed = matches!(lost, TableError::Condition { index: 0, .. });
            let current = race.after_lost_race(lost, format_args!("the plugin {}", manifest.name))?;
            // Otherwise the race was about the list of hooks, which the next try reads.
            if instance_changed {
                seen = LoadedInstance::of(current)?;
            }
        }
    }

    /// Changes an instance for an administrator and publishes an event of this kind, which names the plugin and the
    /// administrator beside `detail`. If the version in use is not `plugin` any more, nothing changes.
    pub(in crate::registry) async fn administer(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        kind: EventKind,
        detail: Value,
        change: impl Fn(&mut Instance) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<InstanceView, Error> {
        let checked = Arc::clone(&plugin);
        self.administer_any(principal, plugin, kind, detail, move |instance| {
            if !instance.uses(&checked) {
                return Err(version_changed());
            }
            change(instance)
        })
        .await
    }

    /// As [`Self::administer`], whichever version is in use.
    pub(in crate::registry) async fn administer_any(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        kind: EventKind,
        detail: Value,
        change: impl Fn(&mut Instance) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<InstanceView, Error> {
        let instance = self.update_as(principal, Arc::clone(&plugin), None, kind, detail, change).await?;
        Ok(instance.view(&plugin, self.ports.clock.now()))
    }

    /// As [`Self::administer_any`], starting from `seen` if the caller has read it. Gives the changed instance.
    pub(in crate::registry) async fn update_as(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        seen: Option<LoadedInstance>,
        kind: EventKind,
        detail: Value,
        change: impl Fn(&mut Instance) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<Instance, Error> {
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let (org, manifest) = (&principal.org, &plugin.manifest);
            let mut whole = json!({ "tool": manifest.name, "key": principal.key, "userId": principal.user });
            if let (Some(whole), Value::Object(detail)) = (whole.as_object_mut(), detail) {
                whole.extend(detail);
            }
            let event = |_: &Instance, &(): &()| Some(engine.event(org, kind, &whole));
            let changed = engine.change_instance(org, manifest, seen, change, event).await?;
            engine.remember_installed(org, &manifest.name, changed.instance.installed.as_ref());
            Ok(changed.instance)
        })
        .await
    }
}
