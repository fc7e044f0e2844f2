//! Sealing with AES-256-GCM. What a text belongs to is bound into its seal, so that a ciphertext which is moved elsewhere
//! does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ports::table::TableError;
use crate::ports::vault::VaultError;

/// A key, and what ciphertexts call it.
pub(crate) struct NamedKey {
    pub(crate) name: String,
    key: RandomizedNonceKey,
}

/// A ciphertext.
#[derive(Serialize, Deserialize)]
pub struct Sealed {
    /// Which key sealed it.
    pub key: String,
    /// What is needed besides the key to open it, in base64; empty where the ciphertext holds that itself.
    pub nonce: String,
    /// The sealed text, in base64.
    pub ciphertext: String,
}

impl NamedKey {
    /// A key of 32 bytes.
    pub(crate) fn new(name: String, bytes: &[u8]) -> Result<Self, VaultError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| VaultError::DoesNotOpen)?;
        Ok(Self { name, key })
    }

    /// What is bound into a seal: the key's name, too.
    fn bound(&self, to: &impl Serialize) -> Result<Aad<Vec<u8>>, VaultError> {
        let bound = serde_json::to_vec(&(&self.name, to));
        Ok(Aad::from(bound.map_err(|error| TableError::Record(Box::new(error)))?))
    }

    /// Seals `text` for what it belongs to.
    pub(crate) fn seal(&self, to: &impl Serialize, mut text: Vec<u8>) -> Result<Sealed, VaultError> {
        let nonce = self.key.seal_in_place_append_tag(self.bound(to)?, &mut text);
        let nonce = nonce.map_err(|_| VaultError::DoesNotOpen)?;
        let (nonce, ciphertext) = (STANDARD.encode(nonce.as_ref()), STANDARD.encode(&text));
        Ok(Sealed { key: self.name.clone(), nonce, ciphertext })
    }

    /// Opens what was sealed for the same.
    pub(crate) fn open(&self, to: &impl Serialize, sealed: &Sealed) -> Result<Vec<u8>, VaultError> {
        let (Ok(nonce), Ok(mut text)) = (STANDARD.decode(&sealed.nonce), STANDARD.decode(&sealed.ciphertext)) else {
            return Err(VaultError::DoesNotOpen);
        };
        let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| VaultError::DoesNotOpen)?;
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), self.bound(to)?, &mut text)
            .map_err(|_| VaultError::DoesNotOpen)?
            .len();
        text.truncate(opened);
        Ok(text)
    }
}
