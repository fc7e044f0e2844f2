//! The record of accounts: one item for all accounts that an owner has at one plugin's service. One read finds the account
//! that an intent names, or the default.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::{AccountState, StateReason};
use crate::core::error::Error;
use crate::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use crate::engine::Engine;
use crate::plugin::manifest::Manifest;
use crate::ports::Event;
use crate::ports::table::{Condition, Item, Key, NewItem, Read, TableError, Version, Write};
use crate::ports::vault::{Purpose, SecretId};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// The most accounts that one owner may have at one plugin's service.
pub const ACCOUNTS_MAX: usize = 20;

/// Every account that an owner has at one plugin's service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Accounts {
    pub owner: Owner,
    pub plugin: PluginName,
    /// The account that an intent without an alias uses.
    pub default: Alias,
    #[serde(rename = "accounts")]
    pub by_alias: BTreeMap<Alias, Account>,
}

/// One account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    /// What the credential may be used for: [`Engine::audience`] when it was connected.
    #[serde(rename = "bound_to")]
    pub audience: String,
    /// The id of the secret in the vault.
    pub secret: String,
    /// The current version of the secret.
    pub version: String,
    /// Grows with every new credential.
    pub generation: u64,
    /// The OAuth client that the tokens were issued to.
    pub client_id: Option<String>,
    /// The scopes that were granted, if known.
    #[serde(rename = "granted")]
    pub granted_scopes: Option<Vec<String>>,
    /// The scopes that were requested, if they were not the manifest's.
    #[serde(rename = "asked")]
    pub requested_scopes: Option<Vec<String>>,
    /// The name that people know the account by.
    pub name: Option<String>,
    /// When the credential was issued.
    pub issued_at: Timestamp,
    /// When the credential expires, if known.
    pub expires_at: Option<Timestamp>,
    /// Whether the engine can get another credential without the user.
    pub refreshable: bool,
    pub state: AccountState,
    /// When the account entered its state.
    pub since: Timestamp,
    /// Why the account is not active.
    pub reason: Option<StateReason>,
    /// The lease of the refresh that is in progress.
    pub lease: Option<Lease>,
    /// The holders whose leases expired before their refresh ended, the latest last.
    #[serde(default, rename = "lapsed")]
    pub expired_holders: Vec<String>,
    /// Whether the provider may have issued tokens that were lost.
    #[serde(default)]
    pub interrupted: bool,
    /// The refreshes that failed since the last that succeeded.
    #[serde(rename = "trouble")]
    pub backoff: Option<RefreshBackoff>,
    /// The user who connected it.
    pub connected_by: UserId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// To the hour: a write at every use would double the cost of a read.
    pub last_used_at: Option<Timestamp>,
    pub last_error: Option<LastError>,
}

/// The right to refresh an account's token, which one refresh has at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// A random id of the refresh.
    #[serde(rename = "owner")]
    pub holder: String,
    /// When the lease expires.
    pub until: Timestamp,
}

/// A series of failed refreshes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefreshBackoff {
    /// When the series began.
    pub since: Timestamp,
    /// How many refreshes failed.
    pub count: u32,
    /// Before this time the provider is not asked again, unless the client has another version.
    pub retry_at: Timestamp,
    /// The version of the client that the provider refused, if one was there.
    #[serde(default)]
    pub client_version: Option<String>,
}

/// The last error of an account's credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// A code for programs.
    pub code: String,
    /// A message for people.
    pub message: String,
    /// When it happened.
    pub at: Timestamp,
}

impl Account {
    /// The id of its secret.
    pub(super) fn secret_id(&self, org: &OrgId, owner: &Owner, plugin: &PluginName, alias: &Alias) -> SecretId {
        let purpose = Purpose::Integration { owner: owner.clone(), plugin: plugin.clone(), alias: alias.clone() };
        SecretId { org: org.clone(), purpose, id: self.secret.clone() }
    }

    /// Identifies one credential of one account.
    pub(super) fn credential_identity(&self) -> (&str, u64) {
        (&self.secret, self.generation)
    }

    /// The scopes that it should have: those of the request to connect, else the manifest's.
    pub(super) fn wanted_scopes<'a>(&'a self, manifest: &'a Manifest) -> &'a [String] {
        manifest.auth.requested_or_own(self.requested_scopes.as_deref())
    }

    /// Whether its credential has expired at `at` and cannot be refreshed.
    pub(super) fn expires_without_refresh(&self, at: Timestamp) -> bool {
        !self.refreshable && self.expires_at.is_some_and(|expires_at| expires_at <= at)
    }

    /// Changes the state. `since` moves only if state or reason change.
    pub(super) fn set_state(&mut self, state: AccountState, reason: Option<StateReason>, now: Timestamp) {
        if (self.state, self.reason) != (state, reason) {
            (self.state, self.reason, self.since) = (state, reason, now);
        }
    }
}

impl Accounts {
    /// Adds an account. Returns the account that it replaced.
    pub(super) fn insert(&mut self, alias: &Alias, mut account: Account) -> Result<Option<Account>, Error> {
        if self.by_alias.is_empty() {
            self.default = alias.clone();
        }
        self.check_room(alias)?;
        let replaced = self.by_alias.remove(alias);
        if let Some(replaced) = &replaced {
            account.created_at = replaced.created_at;
        }
        self.by_alias.insert(alias.clone(), account);
        Ok(replaced)
    }

    /// Refuses an account beyond [`ACCOUNTS_MAX`].
    pub(super) fn check_room(&self, alias: &Alias) -> Result<(), Error> {
        if self.by_alias.contains_key(alias) || self.by_alias.len() < ACCOUNTS_MAX {
            return Ok(());
        }
        Err(Error::field("/alias", format!("there are {ACCOUNTS_MAX} accounts already; disconnect one first")))
    }

    /// Removes an account. If it was the default, the first of the others becomes the default.
    pub(super) fn remove(&mut self, alias: &Alias) -> Option<Account> {
        let removed = self.by_alias.remove(alias)?;
        if self.default == *alias
            && let Some(first) = self.by_alias.keys().next()
        {
            self.default = first.clone();
        }
        Some(removed)
    }
}

/// The accounts in an item; no accounts without an item.
pub(super) fn accounts_in(item: Option<&Item>, owner: &Owner, plugin: &PluginName) -> Result<Accounts, TableError> {
    let none = || Accounts {
        owner: owner.clone(),
        plugin: plugin.clone(),
        default: Alias::default(),
        by_alias: BTreeMap::new(),
    };
    item.map_or_else(|| Ok(none()), Item::record)
}

/// What a change of accounts asks to be written. `T` is what the change returns.
pub(super) enum AccountsChange<T> {
    /// Nothing changed.
    None(T),
    /// Write the accounts.
    Write(T),
    /// Write the accounts and their event in one transaction. The caller publishes the event.
    WriteWithEvent(T, Event),
    /// The same, but hold the event under `id` until the caller releases it with the full detail.
    WriteAndHoldEvent { returned: T, event: Event, id: String },
}

/// One conditional write of accounts.
pub(super) struct AccountsWrite<'a> {
    pub accounts: &'a Accounts,
    /// The version that the write replaces; `None` if there must be no item.
    pub version: Option<Version>,
    /// The event to write in the same transaction.
    pub event: Option<&'a Event>,
    /// The id under which the event is held.
    pub held: Option<&'a str>,
}

impl Engine {
    /// Changes the accounts that an owner has at a plugin's service by compare-and-set. `change` may be called several times
    /// and must have no side effects.
    pub(super) async fn change_accounts<T>(
        &self,
        org: &OrgId,
        owner: &Owner,
        plugin: &PluginName,
        mut change: impl FnMut(&mut Accounts) -> Result<AccountsChange<T>, Error>,
    ) -> Result<T, Error> {
        let key = keys::integrations(org, owner, plugin);
        let mut stored = self.ports.table.get(&key, Read::Consistent).await?;
        let mut race = CompareAndSet::default();
        loop {
            let mut accounts = accounts_in(stored.as_ref(), owner, plugin)?;
            let (returned, event, held) = match change(&mut accounts)? {
                AccountsChange::None(returned) => return Ok(returned),
                AccountsChange::Write(returned) => (returned, None, None),
                AccountsChange::WriteWithEvent(returned, event) => (returned, Some(event), None),
                AccountsChange::WriteAndHoldEvent { returned, event, id } => (returned, Some(event), Some(id)),
            };
            let version = stored.map(|item| item.version);
            let write = AccountsWrite { accounts: &accounts, version, event: event.as_ref(), held: held.as_deref() };
            match self.put_accounts(org, write).await {
                Ok(()) => return Ok(returned),
                Err(error) => stored = race.after_lost_race(error, "the list of accounts")?,
            }
        }
    }

    /// Writes accounts once, or deletes the item if there are none left.
    pub(super) async fn put_accounts(&self, org: &OrgId, write: AccountsWrite<'_>) -> Result<(), TableError> {
        let AccountsWrite { accounts, version, event, held } = write;
        let key = keys::integrations(org, &accounts.owner, &accounts.plugin);
        let condition = version.map_or(Condition::Absent, Condition::Version);
        let write = if accounts.by_alias.is_empty() {
            Write::Delete(key, condition)
        } else {
            Write::Put(NewItem::new(key, accounts)?, condition)
        };
        self.transact_holding(vec![write], event, held).await.map(|_| ())
    }
}

/// An account as the table had it.
#[derive(Debug, Clone)]
pub(crate) struct AccountLookup {
    /// All of the owner's accounts at the plugin's service.
    pub accounts: Accounts,
    pub alias: Alias,
    pub(crate) account: Account,
    /// The version of the item, for a compare-and-set.
    pub(crate) version: Version,
}

impl AccountLookup {
    /// The scopes that the plugin needs and that this account was not granted; none if the granted scopes are not known.
    pub(crate) fn missing_scopes(&self, manifest: &Manifest) -> Vec<String> {
        let Some(granted) = &self.account.granted_scopes else { return Vec::new() };
        manifest.auth.scopes().iter().filter(|scope| !granted.contains(scope)).cloned().collect()
    }

    /// The keys of the accounts that a user can use: the user's own, then the organization's.
    pub(crate) fn keys(org: &OrgId, user: &UserId, plugin: &PluginName) -> [Key; 2] {
        [Owner::User(user.clone()), Owner::Organization].map(|owner| keys::integrations(org, &owner, plugin))
    }

    /// The account with `alias`, or the default account, among the items of [`Self::keys`]: the user's own, else the
    /// organization's.
    pub(crate) fn among(
        items: impl IntoIterator<Item = Option<Item>>,
        alias: Option<&Alias>,
    ) -> Result<Option<Self>, TableError> {
        for item in items.into_iter().flatten() {
            let accounts: Accounts = item.record()?;
            let alias = alias.unwrap_or(&accounts.default).clone();
            if let Some(account) = accounts.by_alias.get(&alias).cloned() {
                return Ok(Some(Self { accounts, alias, account, version: item.version }));
            }
        }
        Ok(None)
    }

    /// Identifies this connection. The next connection with the same alias has another identity.
    pub(crate) fn identity(&self) -> &str {
        &self.account.secret
    }
}
