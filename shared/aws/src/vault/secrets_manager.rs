//! The vault on Secrets Manager: a secret for each [`SecretId`], named by its random id, which tells nothing where AWS logs it.
//!
//! A version's id is a hash over the whole [`SecretId`] and the version. That is what binds here, as the authenticated data
//! do in the envelope vault: a record that was moved to another owner asks for a version that does not exist. (Deleting
//! takes the name alone, so a moved record can delete; it can do no more.)
//!
//! Secrets Manager keeps the versions that have a label, and may drop others (it does so when there are more than a hundred,
//! and they are older than a day). So each version gets a label of its own, which is its id again, until it is given up; and
//! `AWSCURRENT`, which moves on to the next one. A version that was put and never committed takes only `AWSCURRENT` from the
//! committed one, and nothing here reads by that.
//!
//! A secret has twenty labels at most. They run out only where many versions were never given up, each because a process
//! ended, or was not heard, at the one moment between storing and giving up. The vault cannot tell which of them is the
//! committed one, so it takes no label from any: it leaves the new version without its own. `AWSCURRENT`, and
//! `AWSPREVIOUS` after it, keep such a version until two more are put.
//!
//! Requests for each operation: one; `put` three where the secret is new. Where the labels have run out, `put` sends one more
//! than the client is set to try, since the SDK takes that answer for one that passes.
//!
//! At the level TRACE the SDK logs whole requests, secrets too (target `aws_smithy_runtime`): whoever sets up a log must
//! leave that out.
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
/// The longest id of a [`SecretId`], in characters. The engine makes them of 32.
const ID_MAX: usize = 64;
/// What a name may hold beside letters and digits.
const IN_NAMES: &[u8] = b"/_+=.@-";
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
    /// A vault of secrets whose names begin with `prefix`: letters, digits and `/_+=.@-`. `kms_key` encrypts those that are
    /// made from now on; without it the account's own key `aws/secretsmanager` does. The client is made by `client`, when it
    /// is first needed.
    pub fn new(
        client: impl FnOnce() -> Client + Send + 'static,
        prefix: impl Into<String>,
        kms_key: Option<String>,
    ) -> Self {
        Self { client: Lazy::new(Box::new(client)), prefix: prefix.into(), kms_key }
    }

    /// The name of a secret.
    fn name(&self, id: &SecretId) -> Result<String, VaultError> {
        if !(1..=ID_MAX).contains(&id.id.len()) || !id.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(VaultError::service("the id of a secret must be 1 to 64 letters and digits"));
        }
        let in_names = |byte: u8| byte.is_ascii_alphanumeric() || IN_NAMES.contains(&byte);
        if self.prefix.len() > NAME_MAX - ID_MAX || !self.prefix.bytes().all(in_names) {
            let rule = "the prefix of secrets must be at most 448 letters, digits and /_+=.@-; configure another";
            return Err(VaultError::service(rule));
        }
        Ok(format!("{}{}", self.prefix, id.id))
    }

    /// Makes a secret without a version; one that is there already does.
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
            Ok(answer) => answer.secret_string.map(|text| Some(text.into())).ok_or(VaultError::DoesNotOpen),
            // The latter for a secret that is being deleted.
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
                // There is no such secret or version, the version has no such label, or the secret is being deleted.
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
