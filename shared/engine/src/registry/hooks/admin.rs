//! What administrators see of a plugin's hooks, and the secret that signs what they are asked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;

use super::record::is_asked;
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::engine::Engine;
use crate::events::signing::{Signing, new_secret};
use crate::plugin::manifest::{DeclaredHook, Manifest, Permission, Runtime};
use crate::ports::events::EventKind;
use crate::ports::table::TableError;
use crate::ports::vault::SecretId;
use crate::registry::hooks::record::HookView;
use crate::registry::instances::{Instance, InstanceView};
use crate::registry::{config_secret_id, version_changed};

/// A plugin with the new secret of its hooks, which is shown here and never again.
#[derive(Debug)]
pub struct HookSecretMade {
    /// `whsec_` and the key of the signatures in base64.
    pub secret: SecretString,
    /// Until when the one before signs as well.
    pub old_signs_until: Option<Timestamp>,
    /// The plugin.
    pub view: InstanceView,
}

/// Whether hooks of a plugin are asked over HTTP, so that they are signed.
fn is_signed(manifest: &Manifest) -> bool {
    !manifest.hooks.is_empty() && matches!(manifest.runtime, Runtime::Http { .. })
}

/// Refuses to have hooks asked that nothing signs.
pub(crate) fn must_be_signable(
    manifest: &Manifest,
    permissions: &BTreeSet<Permission>,
    instance: &Instance,
) -> Result<(), Error> {
    let granted = permissions.iter().find(|permission| matches!(permission, Permission::Hook(_)));
    match granted {
        Some(permission) if is_signed(manifest) && instance.hook_secret.is_none() => {
            let name = &manifest.name;
            let (first, then) = match &instance.installed {
                Some(_) => (format!("enable it without {permission}, "), "grant that"),
                None => (String::new(), "enable it"),
            };
            Err(Error::Conflict(format!(
                "the hooks of {name} have no secret to sign with yet: {first}make the secret with POST \
                 /api/v1/plugins/{name}/hook-secret, give it to the server that is asked, and {then} then"
            )))
        }
        Some(_) | None => Ok(()),
    }
}

impl Instance {
    /// The hooks of its plugin.
    pub(crate) fn hooks_shown(&self, manifest: &Manifest) -> Vec<HookView> {
        let by = (self.installed.as_ref(), self.hook_secret.as_ref());
        let shown = |hook: &DeclaredHook| HookView {
            on: hook.on,
            priority: hook.priority,
            timeout_ms: hook.timeout_ms,
            on_failure: hook.on_failure,
            tools: hook.tools.clone(),
            asked: self.has_hooks && is_asked(manifest, hook, by),
        };
        manifest.hooks.iter().map(shown).collect()
    }
}

impl Engine {
    /// Makes a new secret for the hooks of a plugin. The one before signs as well for 24 hours.
    pub async fn make_hook_secret(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
    ) -> Result<HookSecretMade, Error> {
        principal.must_administer()?;
        let (plugin, seen) = self.plugin_and_instance(&principal.org, plugin).await?;
        if !is_signed(&plugin.manifest) {
            let name = &plugin.manifest.name;
            return Err(Error::Conflict(format!("{name} has no hooks that are asked over HTTP, and needs no secret")));
        }
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let ids = engine.ports.ids.as_ref();
            let (secret, now, before) = (new_secret(ids), engine.ports.clock.now(), seen.instance.hook_secret);
            let made = Signing::new(ids);
            let (id, version) =
                (before.as_ref().map_or(&made.secret, |before| &before.secret).clone(), made.version.clone());
            let place = config_secret_id(&principal.org, &plugin.manifest.name, &id);
            // The secret first: a record never names one that is not there.
            engine.ports.vault.put(&place, &version, &secret).await?;
            let gone = Arc::new(Mutex::new(Vec::new()));
            let (first, replaced) = (before.is_none(), Arc::clone(&gone));
            let said = (EventKind::PluginConfigured, json!({}));
            let changed = engine.administer(&principal, plugin, said, move |instance| {
                match &mut instance.hook_secret {
                    Some(standing) if standing.secret == id => {
                        *replaced.lock().unwrap_or_else(PoisonError::into_inner) = standing.rotate(&made.version, now);
                    }
                    none @ None if first => *none = Some(made.clone()),
                    Some(_) | None => return Err(version_changed()),
                }
                Ok(())
            });
            match changed.await {
                Ok(view) => {
                    let gone = std::mem::take(&mut *gone.lock().unwrap_or_else(PoisonError::into_inner));
                    for version in gone {
                        engine.forget_hook_secret(&place, Some(&version)).await;
                    }
                    let old_signs_until = view.hook_secret.as_ref().and_then(|secret| secret.old_signs_until(now));
                    Ok(HookSecretMade { secret, old_signs_until, view })
                }
                // What is not known to have failed may be there.
                Err(error @ (Error::Table(TableError::Store(_)) | Error::Panicked(_))) => Err(error),
                Err(error) => {
                    engine.forget_hook_secret(&place, Some(&version).filter(|_| !first)).await;
                    Err(error)
                }
            }
        })
        .await
    }

    /// Deletes the secret of hooks that are no more.
    pub(crate) async fn forget_hook_secrets(&self, org: &OrgId, plugin: &PluginName, signing: &Signing) {
        self.forget_hook_secret(&config_secret_id(org, plugin, &signing.secret), None).await;
    }

    /// Deletes a version of a secret, or all of it.
    async fn forget_hook_secret(&self, place: &SecretId, version: Option<&String>) {
        let deleted = match version {
            Some(version) => self.ports.vault.delete_version(place, version).await,
            None => self.ports.vault.delete(place).await,
        };
        if let Err(error) = deleted {
            // Nothing refers to it any more, and it is sealed.
            tracing::error!(org = %place.org, error = %causes(&error), "the secret of hooks stays in the vault");
        }
    }
}
