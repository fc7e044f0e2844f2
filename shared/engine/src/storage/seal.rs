//! Sealing with AES-256-GCM. The identity of a text is the additional authenticated data of its seal, so that a ciphertext that
//! is moved elsewhere does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ports::table::TableError;
use crate::ports::vault::VaultError;

/// A key with the name by which ciphertexts refer to it.
pub(crate) struct NamedKey {
    pub(crate) name: String,
    key: RandomizedNonceKey,
}

/// A ciphertext.
#[derive(Serialize, Deserialize)]
pub struct Sealed {
    /// The name of the key that sealed it.
    pub key: String,
    /// The nonce, in base64; empty if the ciphertext contains it.
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

    /// The authenticated data of a seal: the key's name and the identity of the text.
    fn authenticated_data(&self, identity: &impl Serialize) -> Result<Aad<Vec<u8>>, VaultError> {
        let data = serde_json::to_vec(&(&self.name, identity));
        Ok(Aad::from(data.map_err(|error| TableError::Record(Box::new(error)))?))
    }

    /// Seals `text` with its identity.
    pub(crate) fn seal(&self, identity: &impl Serialize, mut text: Vec<u8>) -> Result<Sealed, VaultError> {
        let nonce = self.key.seal_in_place_append_tag(self.authenticated_data(identity)?, &mut text);
        let nonce = nonce.map_err(|_| VaultError::DoesNotOpen)?;
        let (nonce, ciphertext) = (STANDARD.encode(nonce.as_ref()), STANDARD.encode(&text));
        Ok(Sealed { key: self.name.clone(), nonce, ciphertext })
    }

    /// Opens a ciphertext that was sealed with the same identity.
    pub(crate) fn open(&self, identity: &impl Serialize, sealed: &Sealed) -> Result<Vec<u8>, VaultError> {
        let (Ok(nonce), Ok(mut text)) = (STANDARD.decode(&sealed.nonce), STANDARD.decode(&sealed.ciphertext)) else {
            return Err(VaultError::DoesNotOpen);
        };
        let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| VaultError::DoesNotOpen)?;
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), self.authenticated_data(identity)?, &mut text)
            .map_err(|_| VaultError::DoesNotOpen)?
            .len();
        text.truncate(opened);
        Ok(text)
    }
}
