//! Accounts as callers see them, without their credentials; and the choice of the default.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::debug_span;
use tracing::field::Empty;

use super::owner::{OwnerKind, resolve_owner};
use super::pending::PendingAccount;
use super::record::{Account, Accounts, AccountsChange, LastError};
use super::state::{AccountState, StateReason};
use crate::access::principal::Principal;
use crate::accounts::record::AccountLookup;
use crate::core::error::Error;
use crate::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::manifest::Manifest;
use crate::ports::table::{BATCH_MAX, Cursor, Item, Page, Query, Range, Read, TableError};
use crate::storage::keys;

/// An account without its credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Integration {
    /// The plugin whose service the account is at.
    pub plugin: PluginName,
    /// The name that tells the owner's accounts at the service apart.
    pub alias: Alias,
    /// The kind of owner.
    pub owner: OwnerKind,
    /// The user who owns it, or, for an organization's account, who connected it.
    pub user_id: UserId,
    /// Whether an intent without an alias uses it.
    pub default: bool,
    /// The name that people know the account by, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Whether it can be used.
    pub state: AccountState,
    /// When it entered this state.
    pub since: Timestamp,
    /// Why it is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<StateReason>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
    /// Its scopes, if the plugin has scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Scopes>,
    /// When its token expires, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whether the engine refreshes its token without the user.
    pub renews: bool,
    /// When it was last used, to the hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// The last error of its credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// When it was first connected.
    pub created_at: Timestamp,
    /// When its credential was last replaced.
    pub updated_at: Timestamp,
}

/// The scopes of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scopes {
    /// The scopes that were requested.
    pub wanted: Vec<String>,
    /// The scopes that were granted, if the provider named them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<Vec<String>>,
    /// The requested scopes that were not granted.
    pub missing: Vec<String>,
}

impl Scopes {
    /// The scopes of an account; `None` if it has none.
    fn of(account: &Account, manifest: Option<&Manifest>) -> Option<Self> {
        let wanted = manifest.map(|manifest| account.wanted_scopes(manifest).to_vec()).unwrap_or_default();
        let granted = account.granted_scopes.clone();
        if wanted.is_empty() && granted.is_none() {
            return None;
        }
        let missing = match &granted {
            Some(granted) => wanted.iter().filter(|scope| !granted.contains(scope)).cloned().collect(),
            None => Vec::new(),
        };
        Some(Self { wanted, granted, missing })
    }
}

/// The accounts at one plugin's service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginStatus {
    /// The plugin's name.
    pub plugin: PluginName,
    /// The name that people know the plugin by.
    pub display_name: String,
    /// The user's accounts, then the organization's, then the pending ones.
    pub accounts: Vec<Integration>,
}

/// Selects accounts at a plugin's service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountSelector {
    /// The alias. Left out, all accounts, or, where one is needed, the default account.
    pub alias: Option<Alias>,
    /// The user. Defaults to the user that the API key is bound to.
    pub user_id: Option<UserId>,
    /// The kind of owner. Defaults to the user.
    pub owner: Option<OwnerKind>,
}

/// Makes an account the default.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MakeDefault {
    /// The account's alias.
    pub alias: Alias,
    /// The user. Defaults to the user that the API key is bound to.
    pub user_id: Option<UserId>,
    /// The kind of owner. Defaults to the user.
    pub owner: Option<OwnerKind>,
}

/// The state that a view shows.
struct ShownState {
    state: AccountState,
    since: Timestamp,
    reason: Option<StateReason>,
}

impl ShownState {
    /// The stored state, unless the account is unusable for a reason that its record does not have yet.
    fn of(account: &Account, unusable: Option<StateReason>) -> Self {
        let stored = Self { state: account.state, since: account.since, reason: account.reason };
        match (unusable, account.expires_at) {
            (None, _) => stored,
            (reason, _) if reason == stored.reason => stored,
            (Some(StateReason::TokenExpired), Some(expires_at)) => {
                Self { state: AccountState::Expired, since: expires_at, reason: unusable }
            }
            (Some(_), _) => Self { state: AccountState::ReconnectRequired, since: account.since, reason: unusable },
        }
    }
}

/// A cursor of the list of accounts: the owner whose accounts come next, as a letter, before the store's own cursor.
struct AccountsCursor {
    organization: bool,
    /// The store's cursor; `None` at the owner's first account.
    inner: Option<Cursor>,
}

impl AccountsCursor {
    fn parse(text: &str) -> Result<Self, Error> {
        let cursor_of = |rest: &str| Some(Cursor(rest.to_owned()));
        match text.split_at_checked(1) {
            Some(("u", rest)) => Ok(Self { organization: false, inner: cursor_of(rest) }),
            Some(("o", "")) => Ok(Self { organization: true, inner: None }),
            Some(("o", rest)) => Ok(Self { organization: true, inner: cursor_of(rest) }),
            Some(_) | None => Err(Error::of_cursor(TableError::Request("a cursor of another list"))),
        }
    }

    /// The cursor before the owner's first account, or, with `inner`, after some of them.
    fn format(owner: &Owner, inner: &str) -> Cursor {
        let letter = match owner {
            Owner::User(_) => "u",
            Owner::Organization => "o",
        };
        Cursor(format!("{letter}{inner}"))
    }
}

impl Engine {
    /// The view of an account that was found.
    pub(crate) fn account_view(&self, manifest: &Manifest, lookup: &AccountLookup) -> Integration {
        self.integration_view(Some(manifest), &lookup.accounts, &lookup.alias, &lookup.account)
    }

    /// The view of an account. `manifest` is `None` if the plugin was removed.
    pub(super) fn integration_view(
        &self,
        manifest: Option<&Manifest>,
        accounts: &Accounts,
        alias: &Alias,
        account: &Account,
    ) -> Integration {
        let now = self.ports.clock.now();
        let unusable = manifest.and_then(|manifest| self.unusable_reason(manifest, account, now));
        let ShownState { state, since, reason } = ShownState::of(account, unusable);
        let (owner, user_id) = OwnerKind::of(&accounts.owner, &account.connected_by);
        Integration {
            plugin: accounts.plugin.clone(),
            alias: alias.clone(),
            owner,
            user_id: user_id.clone(),
            default: accounts.default == *alias && account.state != AccountState::Pending,
            account: account.name.clone(),
            state,
            since,
            reason,
            remedy: reason.map(StateReason::remedy),
            scopes: Scopes::of(account, manifest),
            expires_at: account.expires_at,
            renews: account.refreshable,
            last_used_at: account.last_used_at,
            last_error: account.last_error.clone(),
            created_at: account.created_at,
            updated_at: account.updated_at,
        }
    }

    /// The views of all accounts of a record.
    async fn account_views(&self, org: &OrgId, accounts: &Accounts) -> Result<Vec<Integration>, Error> {
        let plugin = self.plugin_if_any(org, &accounts.plugin).await?;
        let manifest = plugin.as_ref().map(|plugin| &plugin.manifest);
        let by_alias = accounts.by_alias.iter();
        Ok(by_alias.map(|(alias, account)| self.integration_view(manifest, accounts, alias, account)).collect())
    }

    /// The views of an owner's pending accounts, at one plugin or at all.
    async fn pending_views(
        &self,
        org: &OrgId,
        owner: &Owner,
        plugin: Option<&PluginName>,
    ) -> Result<Vec<Integration>, Error> {
        let pending = self.pending_accounts(org, owner, plugin).await?;
        let mut views = Vec::with_capacity(pending.len());
        for PendingAccount { owner, plugin, alias, account, .. } in pending {
            let by_alias = [(alias.clone(), account)].into();
            views.extend(self.account_views(org, &Accounts { owner, plugin, default: alias, by_alias }).await?);
        }
        Ok(views)
    }

    /// The accounts that a user can use: the user's own, by plugin, then the organization's. `limit` counts plugins: the
    /// accounts of one plugin stay on one page. Pending accounts are on the first page.
    pub async fn list_integrations(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<Integration>, Error> {
        let span = debug_span!("list_integrations", org = %principal.org, outcome = Empty);
        traced(span, async {
            let org = &principal.org;
            let own = Owner::User(principal.resolve_user(user)?);
            let mut entries = Vec::new();
            let AccountsCursor { organization, inner: mut cursor } = if let Some(Cursor(text)) = cursor {
                AccountsCursor::parse(&text)?
            } else {
                entries.extend(self.pending_views(org, &own, None).await?);
                entries.extend(self.pending_views(org, &Owner::Organization, None).await?);
                AccountsCursor { organization: false, inner: None }
            };
            let owners = if organization { vec![Owner::Organization] } else { vec![own, Owner::Organization] };
            let mut remaining = limit;
            for owner in owners {
                if remaining == 0 {
                    return Ok(Page { entries, next: Some(AccountsCursor::format(&owner, "")) });
                }
                let (partition, prefix) = keys::integrations_of(org, &owner);
                let range = Range::Prefix(prefix.to_owned());
                let query = Query { range, cursor: cursor.take(), ..Query::partition(partition, remaining) };
                let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
                remaining -= page.entries.len().min(remaining);
                for item in page.entries {
                    entries.extend(self.account_views(org, &item.record()?).await?);
                }
                if let Some(Cursor(next)) = page.next {
                    return Ok(Page { entries, next: Some(AccountsCursor::format(&owner, &next)) });
                }
            }
            Ok(Page { entries, next: None })
        })
        .await
    }

    /// The accounts that a user can use at one plugin's service.
    pub async fn integration_status(
        &self,
        principal: &Principal,
        plugin: &str,
        selector: AccountSelector,
    ) -> Result<PluginStatus, Error> {
        let span = debug_span!("integration_status", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            let plugin = self.plugin(&principal.org, plugin).await?;
            let manifest = &plugin.manifest;
            let org = &principal.org;
            let owners = match selector.owner {
                None => vec![Owner::User(principal.resolve_user(selector.user_id)?), Owner::Organization],
                Some(OwnerKind::User) => vec![Owner::User(principal.resolve_user(selector.user_id)?)],
                Some(OwnerKind::Organization) => vec![Owner::Organization],
            };
            let keys: Vec<_> = owners.iter().map(|owner| keys::integrations(org, owner, &manifest.name)).collect();
            let mut accounts = Vec::new();
            for item in self.ports.table.batch_get(&keys, Read::Consistent).await?.into_iter().flatten() {
                accounts.extend(self.account_views(org, &item.record()?).await?);
            }
            for owner in &owners {
                accounts.extend(self.pending_views(org, owner, Some(&manifest.name)).await?);
            }
            accounts.retain(|account| selector.alias.as_ref().is_none_or(|alias| account.alias == *alias));
            Ok(PluginStatus { plugin: manifest.name.clone(), display_name: manifest.display_name.clone(), accounts })
        })
        .await
    }

    /// Makes one of an owner's accounts at a plugin's service the account that intents without an alias use.
    pub async fn make_default(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        default: MakeDefault,
    ) -> Result<Integration, Error> {
        let span = debug_span!("make_default", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            let plugin = self.plugin(&principal.org, plugin).await?;
            let owner = resolve_owner(principal, Some(&plugin.manifest), default.owner, default.user_id)?;
            let (engine, org, alias) = (Arc::clone(self), principal.org.clone(), default.alias);
            self.run_to_completion(async move {
                let name = &plugin.manifest.name;
                engine
                    .change_accounts(&org, &owner, name, |accounts| {
                        let Some(account) = accounts.by_alias.get(&alias).cloned() else {
                            return Err(Error::NotFound("account"));
                        };
                        let changed = accounts.default != alias;
                        accounts.default = alias.clone();
                        let view = engine.integration_view(Some(&plugin.manifest), accounts, &alias, &account);
                        Ok(if changed { AccountsChange::Write(view) } else { AccountsChange::None(view) })
                    })
                    .await
            })
            .await
        })
        .await
    }

    /// For each of `plugins`, whether the user has a default account there that can be used.
    pub(crate) async fn connected_plugins(
        &self,
        org: &OrgId,
        user: &UserId,
        plugins: &[&Manifest],
    ) -> Result<Vec<bool>, Error> {
        let now = self.ports.clock.now();
        let mut connected = Vec::with_capacity(plugins.len());
        // Two keys for each plugin.
        for batch in plugins.chunks(BATCH_MAX / 2) {
            let keys: Vec<_> = batch.iter().flat_map(|plugin| AccountLookup::keys(org, user, &plugin.name)).collect();
            let items = self.ports.table.batch_get(&keys, Read::Eventual).await?;
            for (manifest, items) in batch.iter().zip(items.chunks(2)) {
                let first = items.iter().flatten().next();
                let accounts: Option<Accounts> = first.map(Item::record).transpose()?;
                let usable = accounts.is_some_and(|accounts| {
                    let default = accounts.by_alias.get(&accounts.default);
                    default.is_some_and(|account| self.unusable_reason(manifest, account, now).is_none())
                });
                connected.push(usable);
            }
        }
        Ok(connected)
    }
}
