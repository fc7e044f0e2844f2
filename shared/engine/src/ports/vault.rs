//! Where secrets are kept: tokens now, client secrets and config values later.

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Serialize;

use super::table::TableError;
use crate::ids::{Alias, OrgId, Owner, PluginName};

/// Names a secret by everything that it belongs to, so that a stored secret that is moved elsewhere does not open.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SecretId {
    /// Whose secret it is.
    pub org: OrgId,
    /// What it is for.
    pub purpose: Purpose,
    /// Made anew with the record that refers to the secret.
    pub id: String,
}

/// What a secret is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The credential of an account at a plugin's service.
    Integration {
        /// Whose account.
        owner: Owner,
        /// At which plugin's service.
        plugin: PluginName,
        /// Which of the owner's accounts there.
        alias: Alias,
    },
    /// The secret of an organization's own OAuth client.
    Client {
        /// For which plugin's service.
        plugin: PluginName,
    },
}

/// Why a secret could not be kept or given.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store behind the vault failed.
    #[error("the vault's store failed")]
    Table(#[from] TableError),
    /// What is stored does not open: another key, or a ciphertext that was moved or changed.
    #[error("a stored secret does not open with this vault's key")]
    DoesNotOpen,
    /// A version once written is never written again.
    #[error("that version of the secret exists already")]
    VersionExists,
}

/// Keeps secrets as immutable versions: a reader asks for the version that its record names, never for the latest.
#[async_trait]
pub trait Vault: Send + Sync {
    /// Stores `secret` as a new version. Fails where that version exists.
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError>;

    /// The secret of that version, if there is one.
    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError>;

    /// Removes one version at once and for good; removing none is fine.
    async fn delete_version(&self, id: &SecretId, version: &str) -> Result<(), VaultError>;

    /// Removes every version at once and for good.
    async fn delete(&self, id: &SecretId) -> Result<(), VaultError>;
}
