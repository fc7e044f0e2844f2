//! The vault on AWS: on Secrets Manager ([`SecretsManagerVault`]), or in the table under a KMS key
//! ([`EnvelopeVault`](overseer_engine::storage::vault::EnvelopeVault) with [`KmsKeys`]).

mod kms;
mod secrets_manager;

use std::error::Error;

use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
pub use kms::KmsKeys;
use overseer_engine::ports::vault::VaultError;
pub use secrets_manager::{SECRET_MAX_BYTES, SecretsManagerVault};

use crate::failure::Failure;

/// Errors whose messages are about permissions, states and limits, and may be logged. Messages of others, such as
/// `InvalidParameterException`, may quote the request.
const LOGGED_MESSAGES: [&str; 9] = [
    "AccessDeniedException",
    "DecryptionFailure",
    "DisabledException",
    "EncryptionFailure",
    "InvalidRequestException",
    "KMSInvalidStateException",
    "LimitExceededException",
    "NotFoundException",
    "ThrottlingException",
];

/// A failure of the service that the port has no error of its own for.
fn failure<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> VaultError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    VaultError::service(Failure::new(operation, error, |code| LOGGED_MESSAGES.contains(&code)))
}
