//! The vault on Secrets Manager: a secret for each [`SecretId`], named by its random id, which reveals nothing in AWS's logs.
//!
//! A version's id is a hash over the whole [`SecretId`] and the version. It binds a secret to its owner, as the authenticated
//! data do in the envelope vault: a record that was moved to another owner reads a version that does not exist. (Deleting
//! needs only the name, so a moved record can delete a secret, and nothing more.)
//!
//! Secrets Manager keeps versions that have a label, and may drop others (when there are more than a hundred of them, older
//! than a day). So each version gets two labels: its own id, until the version is deleted, and `AWSCURRENT`, which moves on
//! to the next version. A version that was put and never committed takes only `AWSCURRENT` from the committed one, and this
//! vault never reads by that label.
//!
//! A secret has twenty labels at most. They run out only if many versions were never deleted, each because a process ended,
//! or its request was lost, between storing the new version and deleting the old one. The vault cannot tell which version is
//! committed, so it removes no label: the new version gets only `AWSCURRENT`. That label, and `AWSPREVIOUS` after it, keep
//! the version until two more are put.
//!
//! Requests for each operation: one; `put` three where the secret is new. Where the labels have run out, `put` sends one more
//! than the client's configured attempts, since the SDK retries that error as a transient one.
//!
//! At the level TRACE the SDK logs whole requests, secrets too (target `aws_smithy_runtime`): the log's filter must exclude
//! that target.
//!
//! See <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>.

use std::fmt;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata as _;
use overseer_engine::ports::Vault;
use overseer_engine::ports::vault::{SecretId, VaultError};
use secrecy::{ExposeSecret as _, SecretString};

use super::failure;
use crate::Lazy;

/// The largest secret, in bytes.
pub const SECRET_MAX_BYTES: usize = 65_536;
/// The longest name of a secret, in characters.
const NAME_MAX: usize = 512;
/// The longest id of a [`SecretId`], in characters. The engine's ids have 32.
const ID_MAX: usize = 64;
/// The characters of a name beside letters and digits.
const NAME_PUNCTUATION: &[u8] = b"/_+=.@-";
const CURRENT: &str = "AWSCURRENT";
const DESCRIPTION: &str = "Made and deleted by Overseer";

/// The vault on Secrets Manager.
pub struct SecretsManagerVault {
    client: Lazy<Client>,
    prefix: String,
    kms_key: Option<String>,
}

impl fmt::Debug for SecretsManagerVault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SecretsManagerVault").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl SecretsManagerVault {
    /// A vault of secrets whose names begin with `prefix`: letters, digits and `/_+=.@-`. `kms_key` encrypts new secrets;
    /// without it the account's default key `aws/secretsmanager` does. `client` makes the client on first use.
    pub fn new(
        client: impl FnOnce() -> Client + Send + 'static,
        prefix: impl Into<String>,
        kms_key: Option<String>,
    ) -> Self {
        Self { client: Lazy::new(Box::new(client)), prefix: prefix.into(), kms_key }
    }

    /// The secret's name in Secrets Manager.
    fn name(&self, id: &SecretId) -> Result<String, VaultError> {
        if !(1..=ID_MAX).contains(&id.id.len()) || !id.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(VaultError::service("the id of a secret must be 1 to 64 letters and digits"));
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || NAME_PUNCTUATION.contains(&byte);
        if self.prefix.len() > NAME_MAX - ID_MAX || !self.prefix.bytes().all(is_allowed) {
            let rule = "the prefix of secrets must be at most 448 letters, digits and /_+=.@-; configure another";
            return Err(VaultError::service(rule));
        }
        Ok(format!("{}{}", self.prefix, id.id))
    }

    /// Creates a secret without a version, unless it exists.
    async fn create(&self, name: &str) -> Result<(), VaultError> {
        let request = self.client.create_secret().name(name).description(DESCRIPTION);
        match request.set_kms_key_id(self.kms_key.clone()).send().await {
            Err(error) if error.code() != Some("ResourceExistsException") => Err(failure("CreateSecret", error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Vault for SecretsManagerVault {
    /// [`VaultError::TooLarge`] for more than [`SECRET_MAX_BYTES`].
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError> {
        let secret = secret.expose_secret();
        if secret.len() > SECRET_MAX_BYTES {
            return Err(VaultError::TooLarge { bytes: secret.len(), limit: SECRET_MAX_BYTES });
        }
        let (name, version) = (self.name(id)?, id.digest(version)?);
        let (mut labels, mut created) = (vec![CURRENT.to_owned(), version.clone()], false);
        loop {
            let request = self.client.put_secret_value().secret_id(&name).client_request_token(&version);
            let request = request.set_version_stages(Some(labels.clone())).secret_string(secret);
            let Err(error) = request.send().await else { return Ok(()) };
            match error.code().unwrap_or_default() {
                "ResourceExistsException" => return Err(VaultError::VersionExists),
                "ResourceNotFoundException" if !created => {
                    self.create(&name).await?;
                    created = true;
                }
                "LimitExceededException" if labels.len() > 1 => labels.truncate(1),
                _ => return Err(failure("PutSecretValue", error)),
            }
        }
    }

    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError> {
        let request = self.client.get_secret_value().secret_id(self.name(id)?).version_id(id.digest(version)?);
        match request.send().await {
            Ok(response) => response.secret_string.map(|text| Some(text.into())).ok_or(VaultError::DoesNotOpen),
            // InvalidRequestException: the secret is being deleted.
            Err(error) => match error.code().unwrap_or_default() {
                "ResourceNotFoundException" | "InvalidRequestException" => Ok(None),
                _ => Err(failure("GetSecretValue", error)),
            },
        }
    }

    async fn delete_version(&self, id: &SecretId, version: &str) -> Result<(), VaultError> {
        let (name, version) = (self.name(id)?, id.digest(version)?);
        let request = self.client.update_secret_version_stage().secret_id(name);
        match request.version_stage(&version).remove_from_version_id(&version).send().await {
            Ok(_) => Ok(()),
            Err(error) => match error.code().unwrap_or_default() {
                // The secret or the version does not exist, the version has no such label, or the secret is being deleted.
                "ResourceNotFoundException" | "InvalidParameterException" | "InvalidRequestException" => Ok(()),
                _ => Err(failure("UpdateSecretVersionStage", error)),
            },
        }
    }

    async fn delete(&self, id: &SecretId) -> Result<(), VaultError> {
        let request = self.client.delete_secret().secret_id(self.name(id)?).force_delete_without_recovery(true);
        match request.send().await {
            Err(error) if error.code() != Some("ResourceNotFoundException") => Err(failure("DeleteSecret", error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
