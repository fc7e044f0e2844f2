//! What an account is fit for, why, and what helps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::ids::Alias;
use crate::core::outcome::{Failure, OutcomeCode};
use crate::plugin::manifest::Manifest;

/// What an account is fit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for `connect/complete`.
    Pending,
    /// Can be used.
    Active,
    /// Its credential ran out, and no other can be had without the user.
    Expired,
    /// The provider took it back.
    Revoked,
    /// Its credential cannot be renewed at the moment; that is tried again.
    Error,
    /// It cannot be used until the user connects it again.
    ReconnectRequired,
}

/// Why an account is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The application that began has not confirmed it.
    NotCompleted,
    /// The token ran out, and there is nothing to renew it with.
    TokenExpired,
    /// Renewing failed for four days.
    RefreshFailed,
    /// Renewing fails at the moment.
    RefreshFailing,
    /// The provider no longer accepts the refresh token.
    InvalidGrant,
    /// A renewal broke off, and what the provider gave was lost.
    RefreshInterrupted,
    /// The service refused the credential, and there is nothing to renew it with.
    Refused,
    /// The OAuth client that the tokens belong to is not the one that is configured.
    ClientChanged,
    /// The plugin's address, hosts or sign-in changed.
    PluginChanged,
    /// The credential does not open with the vault's key.
    VaultKey,
    /// The credential is not in the vault.
    CredentialLost,
}

impl Reason {
    /// What happened, to go on after "the account".
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::NotCompleted => "waits to be confirmed by the application that began to connect it",
            Self::TokenExpired => "has a token that ran out, and nothing to renew it with",
            Self::RefreshFailed => "could not be renewed at its provider for four days",
            Self::RefreshFailing => "cannot be renewed at its provider at the moment",
            Self::InvalidGrant => {
                "is no longer accepted by its provider: access was withdrawn there, or not used for too long"
            }
            Self::RefreshInterrupted => "lost its tokens when a renewal was interrupted (refresh_interrupted)",
            Self::Refused => "has a credential that the service refused",
            Self::ClientChanged => "was connected through another OAuth client than is configured now",
            Self::PluginChanged => "was handed over for another address or sign-in",
            Self::CredentialLost => "has a credential that is no longer in the vault",
            Self::VaultKey => "was sealed with another key than this server has",
        }
    }

    /// What helps.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::NotCompleted => "go back to the application that began; after 10 minutes, begin again",
            Self::RefreshFailing => "nothing: it is tried again; lastError says what the provider said",
            Self::TokenExpired
            | Self::RefreshFailed
            | Self::InvalidGrant
            | Self::RefreshInterrupted
            | Self::Refused
            | Self::ClientChanged
            | Self::CredentialLost
            | Self::PluginChanged => "connect the account again",
            Self::VaultKey => "put the vault's key back, or connect the account again",
        }
    }
}

pub(crate) fn connect_again(manifest: &Manifest, alias: &Alias, reason: Reason) -> Failure {
    let name = &manifest.display_name;
    let message = format!("the account \"{alias}\" at {name} {}; {}", reason.what(), reason.remedy());
    Failure::new(OutcomeCode::ReconnectRequired, message, false)
}
