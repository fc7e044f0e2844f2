//! Storing a new account: the credential first, then the record that names it, then the event.

use super::record::{Account, Accounts, AccountsChange};
use super::refresh::version_of;
use super::state::AccountState;
use super::view::Integration;
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId, Owner, UserId};
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::TableError;
use crate::ports::vault::SecretId;

/// The account that a request wants to connect.
pub(super) struct ConnectTarget {
    /// The user who connects it.
    pub user: UserId,
    pub owner: Owner,
    pub alias: Alias,
    /// The scopes to request instead of the plugin's own.
    pub requested_scopes: Option<Vec<String>>,
}

/// An account with its first credential, not yet stored.
pub(super) struct NewAccount {
    pub target: ConnectTarget,
    pub credential: Credential,
    /// The OAuth client that the credential was issued to.
    pub client_id: Option<String>,
    /// The name that people know the account by.
    pub name: Option<String>,
}

/// A connected account as callers see it, and the event that reports it.
pub(super) struct ConnectedAccount {
    pub integration: Integration,
    pub event: Event,
}

impl Engine {
    /// Puts the credential into the vault and makes the record that names it. The record is not written yet.
    pub(super) async fn store_credential(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        new: NewAccount,
    ) -> Result<Account, Error> {
        let now = self.ports.clock.now();
        let NewAccount { target, credential, client_id, name } = new;
        let refreshable = credential.refresh_token.is_some() || matches!(manifest.auth, Auth::ClientCredentials(_));
        let account = Account {
            audience: self.audience(manifest),
            secret: self.ports.ids.hex(16),
            version: version_of(1, &self.ports.ids.hex(8)),
            generation: 1,
            client_id,
            granted_scopes: credential.scopes.clone(),
            requested_scopes: target.requested_scopes,
            name,
            issued_at: now,
            expires_at: credential.expires_at,
            refreshable,
            state: AccountState::Active,
            since: now,
            reason: None,
            lease: None,
            expired_holders: Vec::new(),
            interrupted: false,
            backoff: None,
            connected_by: target.user,
            created_at: now,
            updated_at: now,
            last_used_at: None,
            last_error: None,
        };
        let id = account.secret_id(org, &target.owner, &manifest.name, &target.alias);
        // The vault first: a record never names a credential that is missing.
        self.store_tokens(&id, &account.version, &credential).await?;
        Ok(account)
    }

    /// Stores an account that can be used at once.
    pub(super) async fn connect_account(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        new: NewAccount,
    ) -> Result<Integration, Error> {
        let (owner, alias) = (new.target.owner.clone(), new.target.alias.clone());
        let account = self.store_credential(org, manifest, new).await?;
        let inserted = self
            .change_accounts(org, &owner, &manifest.name, |accounts| {
                let replaced = accounts.insert(&alias, account.clone())?;
                let connected = self.connected_account(org, manifest, accounts, &alias)?;
                let event = connected.event.clone();
                Ok(AccountsChange::WriteWithEvent((connected, replaced), event))
            })
            .await;
        match inserted {
            Ok((connected, replaced)) => {
                let replaced = replaced.map(|replaced| replaced.secret_id(org, &owner, &manifest.name, &alias));
                Ok(self.finish_connecting(connected, replaced).await)
            }
            // The write may have succeeded. A record without its secret would be worse than a secret without a record.
            Err(error @ Error::Table(TableError::Store(_))) => Err(error),
            Err(error) => {
                let id = account.secret_id(org, &owner, &manifest.name, &alias);
                if let Err(error) = self.ports.vault.delete(&id).await {
                    tracing::error!(%org, error = %causes(&error), "failed to delete credential without record");
                }
                Err(error)
            }
        }
    }

    /// The view and the event of an account that is about to be connected.
    pub(super) fn connected_account(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        accounts: &Accounts,
        alias: &Alias,
    ) -> Result<ConnectedAccount, Error> {
        let account = accounts.by_alias.get(alias).ok_or(Error::NotFound("account"))?;
        let integration = self.integration_view(Some(manifest), accounts, alias, account);
        let event = self.event(org, EventKind::IntegrationConnected, &integration);
        Ok(ConnectedAccount { integration, event })
    }

    /// Deletes the credential that the new account replaced, and publishes the event.
    pub(super) async fn finish_connecting(
        &self,
        connected: ConnectedAccount,
        replaced: Option<SecretId>,
    ) -> Integration {
        let ConnectedAccount { integration, event } = connected;
        // It is not revoked: a provider that knows one grant for each user would revoke the new tokens, too.
        if let Some(id) = replaced
            && let Err(error) = self.ports.vault.delete(&id).await
        {
            // No record refers to it, and it is sealed.
            tracing::error!(org = %id.org, error = %causes(&error), "failed to delete replaced credential");
        }
        self.publish(event).await;
        integration
    }
}
