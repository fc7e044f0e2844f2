//! Wrapping of a vault's data keys, and its implementation with the operator's master keys.

use std::iter::once;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretBox, SecretSlice};

use crate::core::ids::OrgId;
use crate::ports::ids::sha256;
use crate::ports::vault::VaultError;
use crate::storage::seal::{NamedKey, Sealed};

/// The size of a master key, in bytes.
pub const MASTER_KEY_BYTES: usize = 32;

/// A key that wraps the data keys of a vault.
pub type MasterKey = SecretBox<[u8; MASTER_KEY_BYTES]>;

/// Wraps data keys, so that the table alone opens nothing. A wrapped data key is bound to an organization and a name.
#[async_trait]
pub trait Wrap: Send + Sync {
    /// The name of the key that wraps now, as in [`Sealed::key`].
    fn current(&self) -> &str;

    /// Wraps a data key with the current key.
    async fn wrap(&self, org: &OrgId, name: &str, data_key: &SecretSlice<u8>) -> Result<Sealed, VaultError>;

    /// The bytes of a wrapped data key. [`VaultError::DoesNotOpen`] is permanent: an unknown key wrapped it, or it was
    /// wrapped for another organization or name. After any other error it may open later.
    async fn open(&self, org: &OrgId, name: &str, wrapped: &Sealed) -> Result<SecretSlice<u8>, VaultError>;
}

/// The operator's master keys.
pub struct MasterKeys {
    current: NamedKey,
    older: Vec<NamedKey>,
}

impl MasterKeys {
    /// `current` wraps; data keys that an `older` key wrapped still open.
    pub fn new(current: &MasterKey, older: &[&MasterKey]) -> Result<Self, VaultError> {
        let older = older.iter().map(|key| named(key)).collect::<Result<_, _>>()?;
        Ok(Self { current: named(current)?, older })
    }
}

/// A master key, named by the beginning of its hash.
fn named(key: &MasterKey) -> Result<NamedKey, VaultError> {
    let bytes = key.expose_secret();
    NamedKey::new(sha256(bytes).chars().take(16).collect(), bytes)
}

#[async_trait]
impl Wrap for MasterKeys {
    fn current(&self) -> &str {
        &self.current.name
    }

    async fn wrap(&self, org: &OrgId, name: &str, data_key: &SecretSlice<u8>) -> Result<Sealed, VaultError> {
        self.current.seal(&(org, name), data_key.expose_secret().to_vec())
    }

    async fn open(&self, org: &OrgId, name: &str, wrapped: &Sealed) -> Result<SecretSlice<u8>, VaultError> {
        let mut all = once(&self.current).chain(&self.older);
        let key = all.find(|key| key.name == wrapped.key).ok_or(VaultError::DoesNotOpen)?;
        Ok(key.open(&(org, name), wrapped)?.into())
    }
}
