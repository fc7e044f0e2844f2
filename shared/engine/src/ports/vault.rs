//! Where secrets are kept: tokens now, client secrets and config values later.

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Serialize;

use super::ids::sha256;
use super::table::TableError;
use crate::core::ids::{Alias, OrgId, Owner, PluginName, WebhookId};

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

impl SecretId {
    /// The SHA-256 over everything that a version of the secret belongs to, in small hexadecimal digits: a name that differs
    /// wherever any of it does, and tells nothing.
    pub fn digest(&self, version: &str) -> Result<String, VaultError> {
        let whole = serde_json::to_vec(&(self, version)).map_err(|error| TableError::Record(Box::new(error)))?;
        Ok(sha256(&whole))
    }
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
    /// The secrets in the configuration of a plugin.
    Config {
        /// Which plugin.
        plugin: PluginName,
    },
    /// What signs the deliveries of a webhook.
    Webhook {
        /// Of which.
        webhook: WebhookId,
    },
}

/// Why a secret could not be kept or given.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store behind the vault failed.
    #[error("the vault's store failed")]
    Table(#[from] TableError),
    /// The service behind the vault failed, or refused; whether something was written is not known.
    #[error("the vault's service failed")]
    Service(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Larger than the vault takes; nothing was written.
    #[error("a secret has {bytes} bytes, more than the {limit} that this vault takes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// What is stored does not open: another key, or a ciphertext that was moved or changed.
    #[error("a stored secret does not open with this vault's key")]
    DoesNotOpen,
    /// A version once written is never written again.
    #[error("that version of the secret exists already, with another content")]
    VersionExists,
}

impl VaultError {
    /// Any failure of the service itself. No secret may be in it.
    pub fn service(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Service(error.into())
    }
}

/// Keeps secrets as immutable versions: a reader asks for the version that its record names, never for the latest.
#[async_trait]
pub trait Vault: Send + Sync {
    /// Stores `secret` as a new version. Storing the same again is a success, since what got no answer is sent again; another
    /// content under a version that exists is refused with [`VaultError::VersionExists`].
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError>;

    /// The secret of that version, if there is one. What was put under an `id` that differs in anything is not given: it is
    /// `None` or [`VaultError::DoesNotOpen`].
    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError>;

    /// Gives up one version, which no record may name any more; giving up none is fine. In the table it is gone at once and
    /// for good. On Secrets Manager it can be read until Secrets Manager drops it, which may be never before [`Self::delete`].
    async fn delete_version(&self, id: &SecretId, version: &str) -> Result<(), VaultError>;

    /// Removes every version at once and for good; removing none is fine.
    async fn delete(&self, id: &SecretId) -> Result<(), VaultError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_never_changes_and_differs_in_everything_that_is_bound() {
        let parsed = |owner, alias| Purpose::Integration {
            owner,
            plugin: PluginName::parse("slack").unwrap(),
            alias: Alias::parse(alias).unwrap(),
        };
        let org = OrgId::parse("acme").unwrap();
        let id = SecretId { org, purpose: parsed(Owner::Organization, "default"), id: "s1".to_owned() };
        // What was stored under it is lost when it changes.
        assert_eq!(id.digest("1").unwrap(), "2fddeb498659d08a872a5e87042912be92cb4d19d3701ed41640fb99f39cc62f");
        let others = [
            (SecretId { org: OrgId::parse("other").unwrap(), ..id.clone() }, "1"),
            (SecretId { purpose: parsed(Owner::Organization, "work"), ..id.clone() }, "1"),
            (SecretId { purpose: Purpose::Client { plugin: PluginName::parse("slack").unwrap() }, ..id.clone() }, "1"),
            (SecretId { id: "s2".to_owned(), ..id.clone() }, "1"),
            (id.clone(), "2"),
        ];
        for (other, version) in others {
            assert_ne!(other.digest(version).unwrap(), id.digest("1").unwrap(), "{other:?} {version}");
        }
    }
}
