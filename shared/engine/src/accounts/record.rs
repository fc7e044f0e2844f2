//! The records of accounts: one item for all that an owner has at one plugin's service, so that an intent finds the account
//! that it means, and the default among several, in one read.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use url::Url;

use super::state::{Reason, State};
use crate::core::error::Error;
use crate::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use crate::engine::Engine;
use crate::plugin::manifest::Manifest;
use crate::ports::Event;
use crate::ports::table::{Condition, Item, Key, NewItem, Read, TableError, Version, Write};
use crate::ports::vault::{Purpose, SecretId};
use crate::storage::keys;

/// The most accounts that one owner may have at one plugin's service.
pub const ACCOUNTS_MAX: usize = 20;

/// How long somebody may take to renew a token before another tries: much longer than a provider is waited for (15 s).
pub(super) const LEASE: SignedDuration = SignedDuration::from_secs(60);

/// Every account that an owner has at one plugin's service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Accounts {
    pub owner: Owner,
    pub plugin: PluginName,
    /// The account that is meant where none is named.
    pub default: Alias,
    #[serde(rename = "accounts")]
    pub by_alias: BTreeMap<Alias, Account>,
}

/// One account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    /// What the credential may be used for: [`Engine::bound_to`] when it was connected.
    pub bound_to: String,
    /// Names the secret in the vault.
    pub secret: String,
    /// The version of the secret that counts.
    pub version: String,
    /// Grows with every new credential.
    pub generation: u64,
    /// The OAuth client that the tokens were given to.
    pub client_id: Option<String>,
    /// The scopes that were granted, if that is known.
    pub granted: Option<Vec<String>>,
    /// The scopes that were asked for, if they were not the manifest's.
    pub asked: Option<Vec<String>>,
    /// What people call the account.
    pub name: Option<String>,
    /// When the credential was given.
    pub issued_at: Timestamp,
    /// When it stops being good, if that is known.
    pub expires_at: Option<Timestamp>,
    /// Whether another can be had without the user.
    pub refreshable: bool,
    /// What it is fit for.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Why, where it is not active.
    pub reason: Option<Reason>,
    /// Who is getting the next credential.
    pub lease: Option<Lease>,
    /// Who tried to get the next credential and was not heard of again, the latest last.
    #[serde(default)]
    pub lapsed: Vec<String>,
    /// Whether the provider may have given a credential that was lost.
    #[serde(default)]
    pub interrupted: bool,
    /// Refreshing that fails, until it succeeds.
    pub trouble: Option<RefreshBackoff>,
    /// The user who connected it.
    pub connected_by: UserId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// To the hour: writing it at every use would double the cost of reading.
    pub last_used_at: Option<Timestamp>,
    pub last_error: Option<LastError>,
}

/// The right to refresh, for one at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub owner: String,
    pub until: Timestamp,
}

/// Refreshing that fails.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefreshBackoff {
    pub since: Timestamp,
    pub count: u32,
    pub retry_at: Timestamp,
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// A machine's word for it.
    pub code: String,
    /// A person's words for it.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// An account whose connection somebody has to confirm.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub org: OrgId,
    pub owner: Owner,
    pub plugin: PluginName,
    pub alias: Alias,
    pub account: Account,
    pub until: Timestamp,
}

/// A wish to connect an account, which a browser is to fulfil.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ConnectAttempt {
    /// Until when a browser may set out.
    pub until: Timestamp,
    pub org: OrgId,
    /// Who asked for it.
    pub user: UserId,
    pub owner: Owner,
    pub plugin: PluginName,
    pub alias: Alias,
    /// The scopes that are asked for, if they are not the manifest's.
    pub asked: Option<Vec<String>>,
    pub bound_to: String,
    pub client_id: String,
    /// The exact redirect URI.
    pub redirect_uri: Url,
    /// Where the browser is sent on to.
    pub return_to: Option<Url>,
}

impl Account {
    /// Names its secret.
    pub(super) fn secret_id(&self, org: &OrgId, owner: &Owner, plugin: &PluginName, alias: &Alias) -> SecretId {
        let purpose = Purpose::Integration { owner: owner.clone(), plugin: plugin.clone(), alias: alias.clone() };
        SecretId { org: org.clone(), purpose, id: self.secret.clone() }
    }

    /// Tells one credential of one account from every other.
    pub(super) fn credential(&self) -> (&str, u64) {
        (&self.secret, self.generation)
    }

    /// Moves to another state.
    pub(super) fn becomes(&mut self, state: State, reason: Option<Reason>, now: Timestamp) {
        if (self.state, self.reason) != (state, reason) {
            (self.state, self.reason, self.since) = (state, reason, now);
        }
    }
}

/// What a change leaves of a record.
pub(super) enum Change<T> {
    /// It is as it was.
    Nothing(T),
    /// It is to be written.
    Write(T),
    /// It is to be written with the event that it is, which is published by whoever asked for the change.
    Tell(T, Event),
    /// So it is, but the event is held under this id until all is known that is to be said of it.
    Hold(T, Event, String),
}

impl Engine {
    /// Changes what an owner has at a plugin's service, as often as it takes until nobody interferes. `change` may be
    /// called several times and must have no effect of its own.
    pub(super) async fn change_accounts<T>(
        &self,
        org: &OrgId,
        owner: &Owner,
        plugin: &PluginName,
        mut change: impl FnMut(&mut Accounts) -> Result<Change<T>, Error>,
    ) -> Result<T, Error> {
        let key = keys::integrations(org, owner, plugin);
        let mut standing = self.ports.table.get(&key, Read::Consistent).await?;
        loop {
            let mut accounts = accounts_in(standing.as_ref(), owner, plugin)?;
            let (gives, event, held) = match change(&mut accounts)? {
                Change::Nothing(gives) => return Ok(gives),
                Change::Write(gives) => (gives, None, None),
                Change::Tell(gives, event) => (gives, Some(event), None),
                Change::Hold(gives, event, held) => (gives, Some(event), Some(held)),
            };
            let told = (event.as_ref(), held.as_deref());
            match self.put_accounts(org, &accounts, standing.map(|item| item.version), told).await {
                Ok(()) => return Ok(gives),
                Err(TableError::Condition { standing: found, .. }) => standing = found.map(|item| *item),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes accounts in the place of those that have `version`, or of none, with the event that it is, if it is one,
    /// and the id under which that is held, if it is.
    pub(super) async fn put_accounts(
        &self,
        org: &OrgId,
        accounts: &Accounts,
        version: Option<Version>,
        (event, held): (Option<&Event>, Option<&str>),
    ) -> Result<(), TableError> {
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

/// The accounts in an item; none where there is no item.
pub(super) fn accounts_in(item: Option<&Item>, owner: &Owner, plugin: &PluginName) -> Result<Accounts, TableError> {
    let none = || Accounts {
        owner: owner.clone(),
        plugin: plugin.clone(),
        default: Alias::default(),
        by_alias: BTreeMap::new(),
    };
    item.map_or_else(|| Ok(none()), Item::record)
}

impl Accounts {
    /// Puts an account in, and gives the one that it takes the place of.
    pub(super) fn insert(&mut self, alias: &Alias, mut account: Account) -> Result<Option<Account>, Error> {
        if self.by_alias.is_empty() {
            self.default = alias.clone();
        }
        self.check_room(alias)?;
        let before = self.by_alias.remove(alias);
        if let Some(before) = &before {
            account.created_at = before.created_at;
        }
        self.by_alias.insert(alias.clone(), account);
        Ok(before)
    }

    /// Refuses one account too many.
    pub(super) fn check_room(&self, alias: &Alias) -> Result<(), Error> {
        if self.by_alias.contains_key(alias) || self.by_alias.len() < ACCOUNTS_MAX {
            return Ok(());
        }
        Err(Error::field("/alias", format!("there are {ACCOUNTS_MAX} accounts already; disconnect one first")))
    }

    /// Takes an account out. Where it was the default, the first of the others is.
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

/// An account as it was found.
#[derive(Debug, Clone)]
pub(crate) struct AccountLookup {
    pub accounts: Accounts,
    pub alias: Alias,
    pub(crate) account: Account,
    pub(crate) version: Version,
}

impl AccountLookup {
    /// The scopes that the plugin needs and that this account was not granted; none where that is not known.
    pub(crate) fn missing_scopes(&self, manifest: &Manifest) -> Vec<String> {
        let Some(granted) = &self.account.granted else { return Vec::new() };
        manifest.auth.scopes().iter().filter(|scope| !granted.contains(scope)).cloned().collect()
    }

    /// Where the accounts stand that a user can use.
    pub(crate) fn keys(org: &OrgId, user: &UserId, plugin: &PluginName) -> [Key; 2] {
        [Owner::User(user.clone()), Owner::Organization].map(|owner| keys::integrations(org, &owner, plugin))
    }

    /// The account that is meant by `alias`, or by its absence, among what stands there: the user's own, else the
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

    /// Tells this connection from every other: the next one has another secret, whatever its alias.
    pub(crate) fn identity(&self) -> &str {
        &self.account.secret
    }
}
