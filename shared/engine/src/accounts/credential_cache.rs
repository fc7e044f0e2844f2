//! Credentials in the vault, and the cache of those that this process has opened.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::record::{Account, Accounts};
use crate::core::error::causes;
use crate::core::ids::{Alias, OrgId};
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::ports::vault::{SecretId, VaultError};

/// The most credentials that a process caches.
const CREDENTIALS_CACHED_MAX: usize = 1_000;
/// How many times new tokens are written to the vault before the write fails: the provider will not issue them again.
const STORE_TRIES: usize = 3;

/// The credentials that this process has opened, by secret and version. A version never changes, so an entry is never stale.
pub(crate) struct CredentialCache(Cache<(SecretId, String), Arc<Credential>>);

impl Default for CredentialCache {
    fn default() -> Self {
        Self(Cache::new(CREDENTIALS_CACHED_MAX))
    }
}

impl CredentialCache {
    /// Drops a version that is about to be deleted.
    pub(super) fn remove(&self, id: &SecretId, version: String) {
        self.0.remove(&(id.clone(), version));
    }
}

impl Engine {
    /// A version of an account's credential, from the cache or the vault. `None` if the vault does not have it.
    pub(super) async fn open_credential(
        &self,
        org: &OrgId,
        accounts: &Accounts,
        alias: &Alias,
        account: &Account,
        version: &str,
    ) -> Result<Option<Arc<Credential>>, VaultError> {
        let key = (account.secret_id(org, &accounts.owner, &accounts.plugin, alias), version.to_owned());
        if let Some(credential) = self.credential_cache.0.get(&key) {
            return Ok(Some(credential));
        }
        let Some(text) = self.ports.vault.get(&key.0, version).await? else { return Ok(None) };
        let credential = Arc::new(Credential::from_sealed_form(&text).ok_or(VaultError::DoesNotOpen)?);
        self.credential_cache.0.insert(key, Arc::clone(&credential));
        Ok(Some(credential))
    }

    /// Writes new tokens to the vault, with retries.
    pub(super) async fn store_tokens(
        &self,
        id: &SecretId,
        version: &str,
        credential: &Credential,
    ) -> Result<(), VaultError> {
        let form = credential.sealed_form();
        for _ in 1..STORE_TRIES {
            match self.ports.vault.put(id, version, &form).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::error!(org = %id.org, error = %causes(&error), "failed to store tokens; trying again");
                }
            }
        }
        self.ports.vault.put(id, version, &form).await
    }
}
