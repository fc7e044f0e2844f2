//! The store of secrets: credentials of accounts, client secrets, configuration values and webhook keys.

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Serialize;

use super::ids::sha256;
use super::table::TableError;
use crate::core::ids::{Alias, OrgId, Owner, PluginName, WebhookId};

/// Identifies a secret by everything that it belongs to, so that a ciphertext that is moved elsewhere does not open.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SecretId {
    /// The organization that owns it.
    pub org: OrgId,
    /// What it is for.
    pub purpose: Purpose,
    /// A new random id for each record that refers to the secret.
    pub id: String,
}

impl SecretId {
    /// The SHA-256 over everything that a version of the secret belongs to, in lower-case hexadecimal: a unique name that
    /// reveals nothing.
    pub fn digest(&self, version: &str) -> Result<String, VaultError> {
        let identity = serde_json::to_vec(&(self, version)).map_err(|error| TableError::Record(Box::new(error)))?;
        Ok(sha256(&identity))
    }
}

/// The purpose of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The credential of an account at a plugin's service.
    Integration {
        /// The owner of the account.
        owner: Owner,
        /// The plugin of the service.
        plugin: PluginName,
        /// The alias of the account.
        alias: Alias,
    },
    /// The secret of an organization's own OAuth client.
    Client {
        /// The plugin of the service.
        plugin: PluginName,
    },
    /// The secrets in the configuration of a plugin.
    Config {
        /// The plugin.
        plugin: PluginName,
    },
    /// The key that signs the deliveries of a webhook.
    Webhook {
        /// The webhook.
        webhook: WebhookId,
    },
}

/// Why a secret could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store behind the vault failed.
    #[error("the vault's store failed")]
    Table(#[from] TableError),
    /// The service behind the vault failed or refused. It is unknown whether a write happened.
    #[error("the vault's service failed")]
    Service(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Larger than the vault accepts; nothing was written.
    #[error("a secret has {bytes} bytes, more than the {limit} that this vault accepts")]
    TooLarge {
        /// Its size, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The stored secret does not open: another key sealed it, or the ciphertext was moved or changed.
    #[error("a stored secret does not open with this vault's key")]
    DoesNotOpen,
    /// The version exists with another content. Versions are immutable.
    #[error("this version of the secret already exists with another content")]
    VersionExists,
}

impl VaultError {
    /// A failure of the service itself. The error must not contain a secret.
    pub fn service(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Service(error.into())
    }
}

/// Stores secrets as immutable versions. A reader names the version that its record refers to, never the latest.
#[async_trait]
pub trait Vault: Send + Sync {
    /// Stores `secret` as a new version. Storing the same content again succeeds, so that a write without an answer can be
    /// retried. Another content for an existing version fails with [`VaultError::VersionExists`].
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError>;

    /// The secret of that version, if there is one. For an `id` that differs in any part from the one it was stored with, the
    /// result is `None` or [`VaultError::DoesNotOpen`].
    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError>;

    /// Deletes one version, to which no record may still refer. A version that does not exist is no error. The table's vault
    /// deletes it at once and permanently. Secrets Manager may keep it readable until [`Self::delete`].
    async fn delete_version(&self, id: &SecretId, version: &str) -> Result<(), VaultError>;

    /// Deletes every version at once and permanently. No version is no error.
    async fn delete(&self, id: &SecretId) -> Result<(), VaultError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_differs_in_every_part_of_the_identity() {
        let purpose = |owner, alias| Purpose::Integration {
            owner,
            plugin: PluginName::parse("slack").unwrap(),
            alias: Alias::parse(alias).unwrap(),
        };
        let org = OrgId::parse("acme").unwrap();
        let id = SecretId { org, purpose: purpose(Owner::Organization, "default"), id: "s1".to_owned() };
        // A change of the digest would lose every stored secret.
        assert_eq!(id.digest("1").unwrap(), "2fddeb498659d08a872a5e87042912be92cb4d19d3701ed41640fb99f39cc62f");
        let others = [
            (SecretId { org: OrgId::parse("other").unwrap(), ..id.clone() }, "1"),
            (SecretId { purpose: purpose(Owner::Organization, "work"), ..id.clone() }, "1"),
            (SecretId { purpose: Purpose::Client { plugin: PluginName::parse("slack").unwrap() }, ..id.clone() }, "1"),
            (SecretId { id: "s2".to_owned(), ..id.clone() }, "1"),
            (id.clone(), "2"),
        ];
        for (other, version) in others {
            assert_ne!(other.digest(version).unwrap(), id.digest("1").unwrap(), "{other:?} {version}");
        }
    }
}
