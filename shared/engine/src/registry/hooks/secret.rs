//! The secret that signs the requests to a plugin's hooks.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;
use tracing::debug_span;
use tracing::field::Empty;

use super::index::calls_hooks_over_http;
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::events::signing::{Signing, new_secret};
use crate::plugin::catalog::Plugin;
use crate::ports::events::EventKind;
use crate::ports::table::TableError;
use crate::ports::vault::SecretId;
use crate::registry::config_secret_id;
use crate::registry::instances::{InstanceView, version_changed};

/// A plugin with the new secret of its hooks. No later answer contains the secret.
#[derive(Debug)]
pub struct NewHookSecret {
    /// `whsec_` and the signing key in base64.
    pub secret: SecretString,
    /// Until when the replaced secret signs as well.
    pub old_signs_until: Option<Timestamp>,
    /// The plugin.
    pub view: InstanceView,
}

impl Engine {
    /// Makes a new secret for the hooks of a plugin. The one before signs as well for 24 hours.
    pub async fn make_hook_secret(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
    ) -> Result<NewHookSecret, Error> {
        let span = debug_span!("make_hook_secret", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let (plugin, seen) = self.plugin_and_instance(&principal.org, plugin).await?;
            if !calls_hooks_over_http(&plugin.manifest) {
                let name = &plugin.manifest.name;
                let message = format!("{name} has no hooks that are called over HTTP, and needs no secret");
                return Err(Error::Conflict(message));
            }
            let (engine, principal) = (Arc::clone(self), principal.clone());
            self.run_to_completion(async move {
                engine.store_hook_secret(&principal, plugin, seen.instance.hook_secret).await
            })
            .await
        })
        .await
    }

    /// Writes a new secret to the vault, then names it in the instance, and then deletes versions that no longer sign.
    async fn store_hook_secret(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        before: Option<Signing>,
    ) -> Result<NewHookSecret, Error> {
        let ids = self.ports.ids.as_ref();
        let (secret, now) = (new_secret(ids), self.ports.clock.now());
        let is_first = before.is_none();
        let new = Signing::new(ids);
        let id = before.map_or_else(|| new.secret.clone(), |before| before.secret);
        let version = new.version.clone();
        let secret_id = config_secret_id(&principal.org, &plugin.manifest.name, &id);
        // The secret first: an instance never names a version that does not exist.
        self.ports.vault.put(&secret_id, &version, &secret).await?;
        let expired = Arc::new(Mutex::new(Vec::new()));
        let rotated_out = Arc::clone(&expired);
        let kind = EventKind::PluginConfigured;
        let changed = self.administer(principal, plugin, kind, json!({}), move |instance| {
            match &mut instance.hook_secret {
                Some(current) if current.secret == id => {
                    *rotated_out.lock().unwrap_or_else(PoisonError::into_inner) = current.rotate(&new.version, now);
                }
                none @ None if is_first => *none = Some(new.clone()),
                // Another request made or deleted the secret.
                Some(_) | None => return Err(version_changed()),
            }
            Ok(())
        });
        match changed.await {
            Ok(view) => {
                let expired = std::mem::take(&mut *expired.lock().unwrap_or_else(PoisonError::into_inner));
                for version in expired {
                    self.forget_hook_secret(&secret_id, Some(&version)).await;
                }
                let old_signs_until = view.hook_secret.as_ref().and_then(|secret| secret.old_signs_until(now));
                Ok(NewHookSecret { secret, old_signs_until, view })
            }
            // The write may have happened: keep the version that the instance may name.
            Err(error @ (Error::Table(TableError::Store(_)) | Error::Panicked(_))) => Err(error),
            Err(error) => {
                self.forget_hook_secret(&secret_id, Some(&version).filter(|_| !is_first)).await;
                Err(error)
            }
        }
    }

    /// Deletes the hook secret of a plugin that was uninstalled.
    pub(in crate::registry) async fn forget_hook_secrets(&self, org: &OrgId, plugin: &PluginName, signing: &Signing) {
        self.forget_hook_secret(&config_secret_id(org, plugin, &signing.secret), None).await;
    }

    /// Deletes a version of a secret, or all of it. A failure is only logged: the secret stays in the vault, sealed, and no
    /// instance names it.
    async fn forget_hook_secret(&self, secret_id: &SecretId, version: Option<&String>) {
        let deleted = match version {
            Some(version) => self.ports.vault.delete_version(secret_id, version).await,
            None => self.ports.vault.delete(secret_id).await,
        };
        if let Err(error) = deleted {
            tracing::error!(org = %secret_id.org, error = %causes(&error), "failed to delete a hook secret");
        }
    }
}
