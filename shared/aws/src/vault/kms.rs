//! Data keys wrapped by a KMS key, which never leaves KMS.
//!
//! The organization and the data key's name are the encryption context: a wrapped key that was moved to another record does
//! not open, and `CloudTrail` shows both with every use. Only the configured KMS keys decrypt: a record in the table could
//! name another party's key.
//!
//! Requests: one to wrap, one to open. See <https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html>.

use std::fmt;
use std::iter::once;

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::ProvideErrorMetadata as _;
use aws_sdk_kms::primitives::Blob;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overseer_engine::core::ids::OrgId;
use overseer_engine::ports::vault::VaultError;
use overseer_engine::storage::vault::{Sealed, Wrap};
use secrecy::{ExposeSecret as _, SecretSlice};

use super::failure;
use crate::Lazy;

/// The entry of the encryption context for the organization that the data key belongs to.
const ORGANIZATION: &str = "organization";
/// The entry of the encryption context for the data key's name within its organization.
const DATA_KEY: &str = "data-key";

/// The KMS keys that wrap the data keys of a vault.
pub struct KmsKeys {
    client: Lazy<Client>,
    current: String,
    older: Vec<String>,
}

impl fmt::Debug for KmsKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut formatter = formatter.debug_struct("KmsKeys");
        formatter.field("current", &self.current).field("older", &self.older).finish_non_exhaustive()
    }
}

impl KmsKeys {
    /// `current` wraps; `older` keys still open what they wrapped. Both are ARNs of symmetric keys: an alias may be pointed
    /// at another key. The yearly rotation by KMS needs no change here, since it keeps the ARN. `client` makes the client on
    /// first use.
    pub fn new(
        client: impl FnOnce() -> Client + Send + 'static,
        current: impl Into<String>,
        older: Vec<String>,
    ) -> Self {
        Self { client: Lazy::new(Box::new(client)), current: current.into(), older }
    }
}

#[async_trait]
impl Wrap for KmsKeys {
    fn current(&self) -> &str {
        &self.current
    }

    async fn wrap(&self, org: &OrgId, name: &str, data_key: &SecretSlice<u8>) -> Result<Sealed, VaultError> {
        let request = self.client.encrypt().key_id(&self.current).plaintext(Blob::new(data_key.expose_secret()));
        let request = request.encryption_context(ORGANIZATION, org.as_str()).encryption_context(DATA_KEY, name);
        let response = request.send().await.map_err(|error| failure("Encrypt", error))?;
        let wrapped = response.ciphertext_blob.ok_or_else(|| VaultError::service("KMS returned no ciphertext"))?;
        Ok(Sealed { key: self.current.clone(), nonce: String::new(), ciphertext: STANDARD.encode(wrapped) })
    }

    async fn open(&self, org: &OrgId, name: &str, wrapped: &Sealed) -> Result<SecretSlice<u8>, VaultError> {
        let mut configured = once(&self.current).chain(&self.older);
        let key = configured.find(|key| **key == wrapped.key).ok_or(VaultError::DoesNotOpen)?;
        let blob = STANDARD.decode(&wrapped.ciphertext).map_err(|_| VaultError::DoesNotOpen)?;
        let request = self.client.decrypt().key_id(key).ciphertext_blob(Blob::new(blob));
        let request = request.encryption_context(ORGANIZATION, org.as_str()).encryption_context(DATA_KEY, name);
        match request.send().await {
            Ok(response) => Ok(response.plaintext.ok_or(VaultError::DoesNotOpen)?.into_inner().into()),
            Err(error) => match error.code().unwrap_or_default() {
                "InvalidCiphertextException" | "IncorrectKeyException" => Err(VaultError::DoesNotOpen),
                _ => Err(failure("Decrypt", error)),
            },
        }
    }
}
