//! A [`Vault`] in the table: every secret sealed with AES-256-GCM under the operator's key. What a secret belongs to and
//! its version are bound into the seal, so that a ciphertext which is moved to another record does not open.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::{Deserialize, Serialize};

use crate::keys;
use crate::ports::ids::hex;
use crate::ports::table::{Condition, NewItem, Query, Read, Table, TableError};
use crate::ports::vault::{SecretId, Vault, VaultError};

/// The key that seals every secret of a vault, in bytes.
pub const MASTER_KEY_BYTES: usize = 32;

/// The key that seals every secret of a vault.
pub type MasterKey = SecretBox<[u8; MASTER_KEY_BYTES]>;

/// The vault in the table.
pub struct EnvelopeVault {
    table: Arc<dyn Table>,
    key: RandomizedNonceKey,
    key_id: String,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Which key sealed it.
    key: String,
    nonce: String,
    ciphertext: String,
}

impl EnvelopeVault {
    /// A vault whose secrets `key` seals.
    pub fn new(table: Arc<dyn Table>, key: &MasterKey) -> Result<Self, VaultError> {
        let bytes = key.expose_secret();
        let name = digest::digest(&digest::SHA256, bytes);
        Ok(Self {
            table,
            key: RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| VaultError::DoesNotOpen)?,
            key_id: hex(name.as_ref()).chars().take(16).collect(),
        })
    }

    /// What is bound into a seal.
    fn bound(&self, id: &SecretId, version: &str) -> Result<Aad<Vec<u8>>, VaultError> {
        let bound = serde_json::to_vec(&(&self.key_id, id, version));
        Ok(Aad::from(bound.map_err(|error| TableError::Record(Box::new(error)))?))
    }
}

#[async_trait]
impl Vault for EnvelopeVault {
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError> {
        let mut text = secret.expose_secret().as_bytes().to_vec();
        let sealed = self.key.seal_in_place_append_tag(self.bound(id, version)?, &mut text);
        let nonce = sealed.map_err(|_| VaultError::DoesNotOpen)?;
        let record = Sealed {
            key: self.key_id.clone(),
            nonce: STANDARD.encode(nonce.as_ref()),
            ciphertext: STANDARD.encode(&text),
        };
        let item = NewItem::new(keys::secret(&id.org, &id.id, version), &record)?;
        match self.table.put(item, Condition::Absent).await {
            Ok(_) => Ok(()),
            Err(TableError::Condition { .. }) => Err(VaultError::VersionExists),
            Err(error) => Err(error.into()),
        }
    }

    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError> {
        let Some(item) = self.table.get(&keys::secret(&id.org, &id.id, version), Read::Consistent).await? else {
            return Ok(None);
        };
        let sealed: Sealed = item.record()?;
        let (Ok(nonce), Ok(mut text)) = (STANDARD.decode(sealed.nonce), STANDARD.decode(sealed.ciphertext)) else {
            return Err(VaultError::DoesNotOpen);
        };
        let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| VaultError::DoesNotOpen)?;
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), self.bound(id, version)?, &mut text)
            .map_err(|_| VaultError::DoesNotOpen)?
            .len();
        text.truncate(opened);
        String::from_utf8(text).map(|text| Some(text.into())).map_err(|_| VaultError::DoesNotOpen)
    }

    async fn delete_version(&self, id: &SecretId, version: &str) -> Result<(), VaultError> {
        Ok(self.table.delete(&keys::secret(&id.org, &id.id, version), Condition::Any).await?)
    }

    async fn delete(&self, id: &SecretId) -> Result<(), VaultError> {
        let mut query = Query::partition(keys::secret_versions(&id.org, &id.id), 100);
        loop {
            let page = self.table.query(query.clone()).await?;
            for item in page.entries {
                self.table.delete(&item.stored.key, Condition::Any).await?;
            }
            let Some(next) = page.next else { return Ok(()) };
            query.cursor = Some(next);
        }
    }
}
