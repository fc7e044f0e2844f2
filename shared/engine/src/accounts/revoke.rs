//! Disconnecting an account: its record and its credential are deleted, and its token is revoked at the provider.
//!
//! `Engine::disconnect`, in `engine.rs`, runs the steps of this file in order. It also asks for the tasks that need the
//! account, which this folder does not know.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::owner::resolve_owner;
use super::record::{Account, Accounts, AccountsChange};
use super::refresh::version_of;
use super::state::StateReason;
use super::view::{AccountSelector, Integration};
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId, Owner, PluginName, TaskId, UserId};
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::plugin::manifest::Manifest;
use crate::ports::events::EventKind;

/// The time for revoking a token at its provider.
const REVOCATION_TIME: Duration = Duration::from_secs(10);

/// Why a token counts as not revoked if the process ends before it knows.
const REVOCATION_UNKNOWN: &str = "the process that was revoking the tokens ended before it reported the result";

/// A disconnected account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disconnected {
    /// The account as it was.
    #[serde(flatten)]
    pub integration: Integration,
    /// Whether its provider revoked the tokens.
    pub revoked: bool,
    /// Why the tokens were not revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_revoked_because: Option<String>,
    /// The tasks that wait for the account, about 1,000 at most. They were not cancelled.
    pub tasks: Vec<TaskId>,
}

/// The account that a request names, with the right to disconnect it checked.
pub(crate) struct SelectedAccount {
    org: OrgId,
    owner: Owner,
    plugin: PluginName,
    /// The default account if there is none.
    alias: Option<Alias>,
}

/// An account that its record no longer has. Its credential and its event are still to be dealt with.
pub(crate) struct RemovedAccount {
    pub org: OrgId,
    pub plugin: PluginName,
    pub alias: Alias,
    account: Account,
    /// The owner's accounts before.
    accounts: Accounts,
    /// The id under which the event is held.
    event_id: String,
}

impl RemovedAccount {
    /// The user whose account it was; `None` for the organization's.
    pub(crate) fn user(&self) -> Option<&UserId> {
        match &self.accounts.owner {
            Owner::User(user) => Some(user),
            Owner::Organization => None,
        }
    }

    /// Whether it was the owner's default account at the plugin.
    pub(crate) fn was_default(&self) -> bool {
        self.accounts.default == self.alias
    }
}

impl Engine {
    /// Step 1: finds out which account a caller may disconnect.
    pub(crate) async fn select_account(
        &self,
        principal: &Principal,
        plugin: &str,
        selector: AccountSelector,
    ) -> Result<SelectedAccount, Error> {
        // A plugin that was removed leaves accounts, which users still want to disconnect.
        let plugin = PluginName::parse(plugin).map_err(|_| Error::NotFound("account"))?;
        let found = self.plugin_if_any(&principal.org, &plugin).await?;
        let manifest = found.as_ref().map(|found| &found.manifest);
        let owner = resolve_owner(principal, manifest, selector.owner, selector.user_id)?;
        Ok(SelectedAccount { org: principal.org.clone(), owner, plugin, alias: selector.alias })
    }

    /// Step 2: removes the account from its record. The event is held until [`Self::report_disconnected`].
    pub(crate) async fn remove_account(&self, selected: SelectedAccount) -> Result<RemovedAccount, Error> {
        let SelectedAccount { org, owner, plugin, alias } = selected;
        let event_id = self.id_at(self.ports.clock.now());
        let (accounts, alias, account) = self
            .change_accounts(&org, &owner, &plugin, |accounts| {
                let before = accounts.clone();
                let alias = alias.clone().unwrap_or_else(|| accounts.default.clone());
                let account = accounts.remove(&alias).ok_or(Error::NotFound("account"))?;
                // Reported if this process ends before it knows the rest.
                let unknown = Disconnected {
                    integration: self.disconnected_view(&before, &alias, &account),
                    revoked: false,
                    not_revoked_because: Some(REVOCATION_UNKNOWN.to_owned()),
                    tasks: Vec::new(),
                };
                let event = self.event(&org, EventKind::IntegrationDisconnected, &unknown);
                let returned = (before, alias, account);
                Ok(AccountsChange::WriteAndHoldEvent { returned, event, id: event_id.clone() })
            })
            .await?;
        Ok(RemovedAccount { org, plugin, alias, account, accounts, event_id })
    }

    /// Step 3: deletes the credential and revokes the tokens. The error says why they were not revoked.
    pub(crate) async fn revoke_removed(&self, removed: &RemovedAccount) -> Result<(), String> {
        let mut others = removed.accounts.clone();
        others.by_alias.remove(&removed.alias);
        self.revoke_account(&removed.org, &removed.alias, &removed.account, &others).await
    }

    /// Step 4: releases the event with the full result, and returns the result.
    pub(crate) async fn report_disconnected(
        &self,
        removed: RemovedAccount,
        revoked: Result<(), String>,
        tasks: Vec<TaskId>,
    ) -> Disconnected {
        let disconnected = Disconnected {
            integration: self.disconnected_view(&removed.accounts, &removed.alias, &removed.account),
            revoked: revoked.is_ok(),
            not_revoked_because: revoked.err(),
            tasks,
        };
        let event = self.event(&removed.org, EventKind::IntegrationDisconnected, &disconnected);
        self.release_held(&removed.event_id, event).await;
        disconnected
    }

    fn disconnected_view(&self, accounts: &Accounts, alias: &Alias, account: &Account) -> Integration {
        let plugin = self.catalog.plugin(accounts.plugin.as_str()).ok();
        let manifest = plugin.as_ref().map(|plugin| &plugin.manifest);
        self.integration_view(manifest, accounts, alias, account)
    }

    /// Deletes the credential of an account that no record names any more, and revokes it at its provider. The error says
    /// why the provider did not revoke it. `others` are the owner's other accounts at the plugin.
    pub(super) async fn revoke_account(
        &self,
        org: &OrgId,
        alias: &Alias,
        account: &Account,
        others: &Accounts,
    ) -> Result<(), String> {
        let credential = self.delete_credential(org, alias, account, others).await;
        let credential = credential.ok_or("the credential could not be read any more")?;
        if let Some(other) = shares_grant(account, others) {
            return Err(format!("the account \"{other}\" may be the same one at the provider, and stays connected"));
        }
        let plugin = self.plugin(org, others.plugin.as_str()).await;
        let plugin = plugin.map_err(|_| "the plugin was removed, so its provider is not known")?;
        self.revoke_tokens(org, &plugin.manifest, account, &credential).await
    }

    /// Reads the latest version of an account's credential and deletes all of its versions.
    async fn delete_credential(
        &self,
        org: &OrgId,
        alias: &Alias,
        account: &Account,
        others: &Accounts,
    ) -> Option<Credential> {
        let id = account.secret_id(org, &others.owner, &others.plugin, alias);
        // A refresh that is in progress or was interrupted may have stored a later version than the record's.
        let leased = account.lease.iter().map(|lease| &lease.holder);
        let holders = leased.chain(account.expired_holders.iter().rev());
        let newer = holders.map(|holder| version_of(account.generation + 1, holder));
        let mut credential = None;
        for version in newer.chain([account.version.clone()]) {
            let text = self.ports.vault.get(&id, &version).await.ok().flatten();
            credential = credential.or_else(|| text.as_ref().and_then(Credential::from_sealed_form));
            self.credential_cache.remove(&id, version);
        }
        // Before the provider is asked: a provider that does not answer must not keep the credential alive here.
        if let Err(error) = self.ports.vault.delete(&id).await {
            tracing::error!(%org, error = %causes(&error), "failed to delete credential of disconnected account");
        }
        credential
    }

    /// Revokes a credential of an account at its provider.
    pub(super) async fn revoke_tokens(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        account: &Account,
        credential: &Credential,
    ) -> Result<(), String> {
        if account.audience != self.audience(manifest) {
            return Err(format!("the account {}", StateReason::PluginChanged.description()));
        }
        let Some(client_id) = &account.client_id else {
            return Err("the credential was entered by hand; revoke it at the service".to_owned());
        };
        let client = self.client(org, manifest).await.map_err(|error| {
            tracing::error!(%org, error = %causes(&error), "OAuth client read failed");
            "the OAuth client could not be read"
        })?;
        let client = client.filter(|client| client.id == *client_id);
        let client = client.ok_or_else(|| format!("the account {}", StateReason::ClientChanged.description()))?;
        let protocol = self.protocol(manifest, &client, Instant::now() + REVOCATION_TIME);
        protocol.ok_or("the plugin has no provider")?.revoke(credential).await
    }
}

/// The alias of another account that may have the same grant at the provider. Providers may know one grant for each person
/// and client: revoking one of the two accounts would end both.
fn shares_grant<'a>(account: &Account, others: &'a Accounts) -> Option<&'a Alias> {
    let client_id = account.client_id.as_ref()?;
    let may_share = |other: &Account| {
        let same_name = other.name.is_none() || account.name.is_none() || other.name == account.name;
        other.client_id.as_ref() == Some(client_id) && same_name
    };
    others.by_alias.iter().find(|(_, other)| may_share(other)).map(|(alias, _)| alias)
}
