//! What administrators change of a plugin: in use or not, its breaker, what it was granted.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::InstanceView;
use super::record::{Disabled, Instance, SeenInstance};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::plugin::breaker::BreakerLimits;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::Permission;
use crate::ports::events::EventKind;
use crate::registry::hooks::must_be_signable;
use crate::registry::{Install, check_config, granted, version_changed};

/// The longest reason for taking a plugin out of use, in characters.
pub const REASON_MAX: usize = 500;

/// Takes a plugin out of use.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disable {
    /// Why: agents are told. At most 500 characters.
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
}

/// What an organization sets of a plugin. What is left out stays.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetInstance {
    /// When the breaker opens, in the place of all that was set before; where it says nothing, the plugin does.
    pub breaker: Option<BreakerLimits>,
    /// Whether reads are in the ledger as well.
    pub record_reads: Option<bool>,
    /// The permissions that a registered plugin has, in the place of all that were granted before.
    #[schemars(with = "Option<Vec<String>>")]
    pub permissions: Option<BTreeSet<Permission>>,
}

impl Engine {
    /// Takes a plugin out of use for the organization, until an administrator brings it back.
    pub async fn disable_plugin(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        asked: Disable,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        if asked.reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_MAX) {
            return Err(Error::field("/reason", format!("must have at most {REASON_MAX} characters")));
        }
        let disabled = Disabled {
            at: self.ports.clock.now(),
            by: principal.user.clone(),
            key: principal.key.clone(),
            reason: asked.reason,
        };
        let plugin = self.plugin_latest(&principal.org, plugin).await?;
        self.ensure_no_dependents(&principal.org, &plugin.manifest.name).await?;
        self.administer(principal, plugin, (EventKind::PluginDisabled, json!({})), move |instance| {
            instance.disabled = Some(disabled.clone());
            Ok(())
        })
        .await
    }

    /// Brings a plugin into use: a registered one that the organization does not use yet, or one that was taken out of use,
    /// whoever or whatever did so.
    pub async fn enable_plugin(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        asked: Install,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let (plugin, first) = match self.plugin_latest(&principal.org, plugin).await {
            Ok(plugin) => {
                self.ensure_installable(&principal.org, &plugin.manifest).await?;
                (plugin, None)
            }
            Err(Error::UnknownPlugin { .. }) => {
                let (plugin, first) = self.first_install(principal, plugin, &asked).await?;
                (plugin, Some(first))
            }
            Err(error) => return Err(error),
        };
        let manifest = &plugin.manifest;
        if asked.version.as_ref().is_some_and(|version| *version != manifest.version) {
            return Err(Error::Conflict(if plugin.digest.is_some() {
                format!("{} is in use at {}; POST …/upgrade changes that", manifest.name, manifest.version)
            } else {
                format!("{} comes with Overseer, at {}", manifest.name, manifest.version)
            }));
        }
        if plugin.digest.is_none() && asked.scope.is_some() {
            return Err(Error::field("/scope", format!("{} comes with Overseer; leave it out", manifest.name)));
        }
        if let Some(config) = &asked.config {
            check_config(manifest, config, "/config").map_err(Error::Invalid)?;
        }
        let permissions = granted(&plugin, asked.permissions.as_ref())?;
        let said = json!({ "version": manifest.version });
        // What the operator brought has all that it asks for.
        let brought = plugin.digest.is_none().then(|| manifest.permissions.iter().cloned().collect::<BTreeSet<_>>());
        let of = Arc::clone(&plugin);
        self.administer_any(principal, plugin, (EventKind::PluginEnabled, said), move |instance| {
            if let (standing @ None, Some(first)) = (&mut instance.installed, &first) {
                *standing = Some(first.clone());
            }
            if !instance.uses(&of) {
                return Err(version_changed());
            }
            if let Some(permissions) = permissions.as_ref().or(brought.as_ref()) {
                must_be_signable(&of.manifest, permissions, instance)?;
            }
            if let (Some(asked), Some(installed)) = (asked.scope, &instance.installed)
                && asked != installed.scope
            {
                return Err(Error::field("/scope", "is another than that of the plugin in use; leave it out"));
            }
            if let Some(permissions) = &permissions {
                instance.grant(of.as_ref(), permissions);
            }
            if let Some(config) = &asked.config {
                instance.config.clone_from(config);
            }
            // Of the catalog's, what is in use by itself and asks nothing of its own needs no record.
            let by_itself = of.manifest.default_enabled && of.manifest.hooks.is_empty();
            instance.enabled = of.digest.is_none() && !by_itself;
            instance.disabled = None;
            instance.forget_failures();
            instance.note_hooks(&of.manifest);
            Ok(())
        })
        .await
    }

    /// Closes the breakers of a plugin, and forgets its failures.
    pub async fn reset_breaker(self: &Arc<Self>, principal: &Principal, plugin: &str) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let plugin = self.plugin_latest(&principal.org, plugin).await?;
        self.administer(principal, plugin, (EventKind::PluginReset, json!({})), |instance| {
            instance.forget_failures();
            Ok(())
        })
        .await
    }

    /// Sets what an organization may set of a plugin.
    pub async fn set_instance(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        asked: SetInstance,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let found = self.plugin_latest(&principal.org, plugin).await?;
        let manifest = &found.manifest;
        let together = asked.breaker.unwrap_or_default().or(manifest.breaker);
        let problem = |(field, message)| FieldProblem::new(format!("/breaker/{field}"), message);
        let problems: Vec<_> = together.problems().into_iter().map(problem).collect();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let permissions = granted(&found, asked.permissions.as_ref())?;
        let of = Arc::clone(&found);
        self.administer(principal, found, (EventKind::PluginConfigured, json!({})), move |instance| {
            instance.breaker = asked.breaker.unwrap_or(instance.breaker);
            instance.record_reads = asked.record_reads.unwrap_or(instance.record_reads);
            if let Some(permissions) = &permissions {
                must_be_signable(&of.manifest, permissions, instance)?;
                instance.grant(&of, permissions);
                instance.note_hooks(&of.manifest);
            }
            Ok(())
        })
        .await
    }

    /// Changes an instance in an administrator's name, and says so: of which kind the event is, and what it says beside the
    /// plugin and who did it. Nothing is changed where `change` fails.
    pub(crate) async fn administer(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        said: (EventKind, Value),
        change: impl Fn(&mut Instance) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<InstanceView, Error> {
        let of = Arc::clone(&plugin);
        self.administer_any(principal, plugin, said, move |instance| {
            // What was decided was decided of the version that was looked at.
            if !instance.uses(&of) {
                return Err(version_changed());
            }
            change(instance)
        })
        .await
    }

    /// As [`Self::administer`], whichever version is in use.
    pub(crate) async fn administer_any(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        said: (EventKind, Value),
        change: impl Fn(&mut Instance) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<InstanceView, Error> {
        let instance = self.update_as(principal, Arc::clone(&plugin), None, said, change).await?;
        Ok(instance.shown(&plugin, self.ports.clock.now()))
    }

    /// As [`Self::administer`], beginning with what was `seen`. Gives the instance as it is then.
    pub(crate) async fn update_as(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        seen: Option<SeenInstance>,
        (kind, said): (EventKind, Value),
        change: impl Fn(&mut Instance) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<Instance, Error> {
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let manifest = &plugin.manifest;
            let change = |instance: &mut Instance| {
                let mut changed = instance.clone();
                change(&mut changed)?;
                *instance = changed;
                Ok::<(), Error>(())
            };
            let mut detail = json!({ "tool": manifest.name, "key": principal.key, "userId": principal.user });
            if let (Some(detail), Value::Object(said)) = (detail.as_object_mut(), said) {
                detail.extend(said);
            }
            let event = |_: &Instance, _: &Result<(), Error>| Some(engine.event(&principal.org, kind, &detail));
            let changed = engine.change_instance(&principal.org, manifest, seen, change, event).await?;
            let (instance, said_so, _) = changed;
            said_so?;
            engine.remember_installed(&principal.org, &manifest.name, instance.installed.as_ref());
            Ok(instance)
        })
        .await
    }
}
