//! The states of an account, the reasons for them, and the remedies.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::record::Account;
use crate::accounts::record::AccountLookup;
use crate::core::ids::{Alias, UserId};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::engine::Engine;
use crate::plugin::manifest::Manifest;

/// Whether an account can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// Waits for `connect/complete`.
    Pending,
    /// Can be used.
    Active,
    /// Its credential expired, and only the user can get another.
    Expired,
    /// The provider revoked it.
    Revoked,
    /// Its credential cannot be refreshed at the moment; the refresh is tried again.
    Error,
    /// It cannot be used until the user connects it again.
    ReconnectRequired,
}

/// Why an account is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateReason {
    /// The application that started the connection has not confirmed it.
    NotCompleted,
    /// The token expired, and there is no refresh token.
    TokenExpired,
    /// Refreshing failed for four days.
    RefreshFailed,
    /// Refreshing fails at the moment.
    RefreshFailing,
    /// The provider no longer accepts the refresh token.
    InvalidGrant,
    /// A refresh was interrupted, and the tokens that the provider issued were lost.
    RefreshInterrupted,
    /// The service refused the credential, and there is no refresh token.
    Refused,
    /// The OAuth client that the tokens belong to is not the configured one.
    ClientChanged,
    /// The plugin's address, hosts or sign-in changed.
    PluginChanged,
    /// The credential does not open with the vault's key.
    VaultKey,
    /// The credential is missing in the vault.
    CredentialLost,
}

impl StateReason {
    /// What happened, as a continuation of "the account".
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::NotCompleted => "waits for the application that started the connection to confirm it",
            Self::TokenExpired => "has an expired token and no refresh token",
            Self::RefreshFailed => "could not be refreshed at its provider for four days",
            Self::RefreshFailing => "cannot be refreshed at its provider at the moment",
            Self::InvalidGrant => {
                "is no longer accepted by its provider: access was revoked there, or unused for too long"
            }
            Self::RefreshInterrupted => "lost its tokens when a refresh was interrupted (refresh_interrupted)",
            Self::Refused => "has a credential that the service refused",
            Self::ClientChanged => "was connected through another OAuth client than the one configured now",
            Self::PluginChanged => "was connected for another address or sign-in of the plugin",
            Self::CredentialLost => "has a credential that is no longer in the vault",
            Self::VaultKey => "has a credential sealed with another key than this server's",
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::NotCompleted => "return to the application that started; after 10 minutes, start again",
            Self::RefreshFailing => "nothing to do: the refresh is tried again; lastError has the provider's answer",
            Self::TokenExpired
            | Self::RefreshFailed
            | Self::InvalidGrant
            | Self::RefreshInterrupted
            | Self::Refused
            | Self::ClientChanged
            | Self::CredentialLost
            | Self::PluginChanged => "connect the account again",
            Self::VaultKey => "restore the vault's key, or connect the account again",
        }
    }
}

impl Engine {
    /// Why an account certainly cannot be used now.
    pub(super) fn unusable_reason(
        &self,
        manifest: &Manifest,
        account: &Account,
        now: Timestamp,
    ) -> Option<StateReason> {
        if account.audience != self.audience(manifest) {
            return Some(StateReason::PluginChanged);
        }
        match (account.state, account.reason) {
            // A service that refused once may accept again, and a try costs nothing.
            (AccountState::ReconnectRequired, Some(StateReason::Refused))
            | (AccountState::Active | AccountState::Error, _) => {}
            (
                AccountState::Pending | AccountState::Expired | AccountState::Revoked | AccountState::ReconnectRequired,
                reason,
            ) => return Some(reason.unwrap_or(StateReason::InvalidGrant)),
        }
        account.expires_without_refresh(now).then_some(StateReason::TokenExpired)
    }

    /// The failure of an account that certainly cannot be used now.
    pub(crate) fn unusable_failure(
        &self,
        manifest: &Manifest,
        lookup: &AccountLookup,
        now: Timestamp,
    ) -> Option<Failure> {
        let reason = self.unusable_reason(manifest, &lookup.account, now)?;
        Some(reconnect_required(manifest, &lookup.alias, reason))
    }

    /// Why an account certainly cannot be used at `at`, as far as is known now.
    pub(crate) fn unusable_reason_at(
        &self,
        manifest: &Manifest,
        lookup: &AccountLookup,
        at: Timestamp,
    ) -> Option<StateReason> {
        let account = &lookup.account;
        let expires = account.expires_without_refresh(at);
        self.unusable_reason(manifest, account, self.ports.clock.now()).or(expires.then_some(StateReason::TokenExpired))
    }
}

/// The failure of an account that the user has to connect again.
pub(super) fn reconnect_required(manifest: &Manifest, alias: &Alias, reason: StateReason) -> Failure {
    let name = &manifest.display_name;
    let message = format!("the account \"{alias}\" at {name} {}; {}", reason.description(), reason.remedy());
    Failure::new(OutcomeCode::ReconnectRequired, message, false)
}

/// The failure of a user who has no account at the plugin's service, or none with this alias.
pub(crate) fn not_connected(manifest: &Manifest, user: &UserId, alias: Option<&Alias>) -> Failure {
    let scopes = manifest.auth.scopes();
    let scopes = if scopes.is_empty() { String::new() } else { format!(" (scopes: {})", scopes.join(", ")) };
    let Manifest { name, display_name, .. } = manifest;
    let account = alias.map_or_else(|| "no account".to_owned(), |alias| format!("no account \"{alias}\""));
    let message = format!(
        "{user} has {account} at {display_name}; connect one: POST \
         /api/plugin-engine/integrations/{name}/connect{scopes}"
    );
    Failure::new(OutcomeCode::NotConnected, message, false)
}
