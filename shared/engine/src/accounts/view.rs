//! Accounts as they are shown: never with their credentials.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::record::{Account, Accounts, Change, LastError, Pending};
use super::{Reason, State};
use crate::access::principal::Principal;
use crate::accounts::owner::{OwnerKind, owned_by};
use crate::core::error::Error;
use crate::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use crate::engine::Engine;
use crate::plugin::manifest::Manifest;
use crate::ports::table::{BATCH_MAX, Cursor, Item, Page, Query, Range, Read, TableError};
use crate::storage::keys;

/// An account as it is shown: never with its credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Integration {
    /// The plugin whose service it is an account of.
    pub plugin: PluginName,
    /// Which of the owner's accounts there.
    pub alias: Alias,
    /// Whose it is.
    pub owner: OwnerKind,
    /// Which user's, or, where it is the organization's, who connected it.
    pub user_id: UserId,
    /// Whether it is meant where an intent names none.
    pub default: bool,
    /// What people call the account, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// What it is fit for.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Why, where it is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What helps, where it is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
    /// What it may be used for, where the plugin has scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Scopes>,
    /// When its token stops being good, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whether another token is fetched then, without the user.
    pub renews: bool,
    /// When it was last used, to the hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// What went wrong last with its credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// When it was first connected.
    pub created_at: Timestamp,
    /// When its credential was last replaced.
    pub updated_at: Timestamp,
}

/// Scopes that were wanted and that were granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scopes {
    /// What was asked for.
    pub wanted: Vec<String>,
    /// What was granted, if the provider said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<Vec<String>>,
    /// What is wanted and was not granted.
    pub missing: Vec<String>,
}

/// One plugin's accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginStatus {
    /// The plugin.
    pub plugin: PluginName,
    /// What people call it.
    pub display_name: String,
    /// The user's accounts, then the organization's, then those that wait to be confirmed.
    pub accounts: Vec<Integration>,
}

/// Which accounts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountSelector {
    /// By which alias; left out, all, or, where one has to be meant, `default`.
    pub alias: Option<Alias>,
    /// Which user's. Left out, of the user that the API key is bound to.
    pub user_id: Option<UserId>,
    /// Whose; left out, the user's.
    pub owner: Option<OwnerKind>,
}

/// Makes an account the default.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MakeDefault {
    /// Which.
    pub alias: Alias,
    /// Which user's. Left out, of the user that the API key is bound to.
    pub user_id: Option<UserId>,
    /// Whose; left out, the user's.
    pub owner: Option<OwnerKind>,
}

impl Engine {
    /// An account as it is shown. `manifest` is there as long as the plugin is.
    pub(super) fn shown(
        &self,
        manifest: Option<&Manifest>,
        accounts: &Accounts,
        alias: &Alias,
        account: &Account,
    ) -> Integration {
        let now = self.ports.clock.now();
        let unfit = manifest.and_then(|manifest| self.unusable_reason(manifest, account, now));
        let (state, since, reason) = match (unfit, account.reason) {
            (Some(reason), stored) if Some(reason) != stored => match (reason, account.expires_at) {
                (Reason::TokenExpired, Some(at)) => (State::Expired, at, Some(reason)),
                _ => (State::ReconnectRequired, account.since, Some(reason)),
            },
            _ => (account.state, account.since, account.reason),
        };
        let wanted = manifest.map(|manifest| account.wanted(manifest).to_vec()).unwrap_or_default();
        let scopes = (!wanted.is_empty() || account.granted.is_some()).then(|| {
            let granted = account.granted.clone();
            let missing = match &granted {
                Some(granted) => wanted.iter().filter(|scope| !granted.contains(scope)).cloned().collect(),
                None => Vec::new(),
            };
            Scopes { wanted, granted, missing }
        });
        let (owner, user_id) = OwnerKind::of(&accounts.owner, &account.connected_by);
        Integration {
            plugin: accounts.plugin.clone(),
            alias: alias.clone(),
            owner,
            user_id: user_id.clone(),
            default: accounts.default == *alias && account.state != State::Pending,
            account: account.name.clone(),
            state,
            since,
            reason,
            remedy: reason.map(Reason::remedy),
            scopes,
            expires_at: account.expires_at,
            renews: account.refreshable,
            last_used_at: account.last_used_at,
            last_error: account.last_error.clone(),
            created_at: account.created_at,
            updated_at: account.updated_at,
        }
    }

    async fn all_shown(&self, org: &OrgId, accounts: &Accounts) -> Result<Vec<Integration>, Error> {
        let plugin = self.plugin_if_any(org, &accounts.plugin).await?;
        let manifest = plugin.as_ref().map(|plugin| &plugin.manifest);
        Ok(accounts.by_alias.iter().map(|(alias, account)| self.shown(manifest, accounts, alias, account)).collect())
    }

    async fn pending_shown(
        &self,
        org: &OrgId,
        owner: &Owner,
        plugin: Option<&PluginName>,
    ) -> Result<Vec<Integration>, Error> {
        let pending = self.pending_of(org, owner, plugin).await?;
        let mut shown = Vec::with_capacity(pending.len());
        for Pending { owner, plugin, alias, account, .. } in pending {
            let by_alias = [(alias.clone(), account)].into();
            shown.extend(self.all_shown(org, &Accounts { owner, plugin, default: alias, by_alias }).await?);
        }
        Ok(shown)
    }

    /// The accounts that a user can use: the user's own, by plugin, then the organization's. `limit` counts plugins, whose
    /// accounts stand together; what waits to be confirmed stands on the first page.
    pub async fn list_integrations(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<Integration>, Error> {
        let org = &principal.org;
        let own = Owner::User(principal.resolve_user(user)?);
        let mut entries = Vec::new();
        // The cursor says whose accounts come next.
        let (owner, mut cursor) = match cursor {
            None => {
                entries.extend(self.pending_shown(org, &own, None).await?);
                entries.extend(self.pending_shown(org, &Owner::Organization, None).await?);
                (own, None)
            }
            Some(Cursor(text)) => match text.split_at_checked(1) {
                Some(("u", rest)) => (own, Some(Cursor(rest.to_owned()))),
                Some(("o", "")) => (Owner::Organization, None),
                Some(("o", rest)) => (Owner::Organization, Some(Cursor(rest.to_owned()))),
                Some(_) | None => return Err(Error::of_cursor(TableError::Request("a cursor of another list"))),
            },
        };
        let mut owners = vec![owner.clone()];
        if owner != Owner::Organization {
            owners.push(Owner::Organization);
        }
        let mut left = limit;
        for owner in owners {
            let letter = if owner == Owner::Organization { "o" } else { "u" };
            if left == 0 {
                return Ok(Page { entries, next: Some(Cursor(letter.to_owned())) });
            }
            let (partition, prefix) = keys::integrations_of(org, &owner);
            let range = Range::Prefix(prefix.to_owned());
            let query = Query { range, cursor: cursor.take(), ..Query::partition(partition, left) };
            let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
            left -= page.entries.len().min(left);
            for item in page.entries {
                entries.extend(self.all_shown(org, &item.record()?).await?);
            }
            if let Some(Cursor(next)) = page.next {
                return Ok(Page { entries, next: Some(Cursor(format!("{letter}{next}"))) });
            }
        }
        Ok(Page { entries, next: None })
    }

    /// The accounts that a user can use at one plugin's service.
    pub async fn integration_status(
        &self,
        principal: &Principal,
        plugin: &str,
        which: AccountSelector,
    ) -> Result<PluginStatus, Error> {
        let plugin = self.plugin(&principal.org, plugin).await?;
        let manifest = &plugin.manifest;
        let org = &principal.org;
        let owners = match which.owner {
            None => vec![Owner::User(principal.resolve_user(which.user_id)?), Owner::Organization],
            Some(OwnerKind::User) => vec![Owner::User(principal.resolve_user(which.user_id)?)],
            Some(OwnerKind::Organization) => vec![Owner::Organization],
        };
        let keys: Vec<_> = owners.iter().map(|owner| keys::integrations(org, owner, &manifest.name)).collect();
        let mut accounts = Vec::new();
        for item in self.ports.table.batch_get(&keys, Read::Consistent).await?.into_iter().flatten() {
            accounts.extend(self.all_shown(org, &item.record()?).await?);
        }
        for owner in &owners {
            accounts.extend(self.pending_shown(org, owner, Some(&manifest.name)).await?);
        }
        accounts.retain(|account| which.alias.as_ref().is_none_or(|alias| account.alias == *alias));
        Ok(PluginStatus { plugin: manifest.name.clone(), display_name: manifest.display_name.clone(), accounts })
    }

    /// Makes one of an owner's accounts at a plugin's service the one that is meant where none is named.
    pub async fn make_default(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        default: MakeDefault,
    ) -> Result<Integration, Error> {
        let plugin = self.plugin(&principal.org, plugin).await?;
        let owner = owned_by(principal, Some(&plugin.manifest), default.owner, default.user_id)?;
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
                    let shown = engine.shown(Some(&plugin.manifest), accounts, &alias, &account);
                    Ok(if changed { Change::Write(shown) } else { Change::Nothing(shown) })
                })
                .await
        })
        .await
    }

    /// Which of `plugins` the user has a default account at that can be used.
    pub(crate) async fn connected_plugins(
        &self,
        org: &OrgId,
        user: &UserId,
        plugins: &[&Manifest],
    ) -> Result<Vec<bool>, Error> {
        let own = Owner::User(user.clone());
        let now = self.ports.clock.now();
        let mut connected = Vec::with_capacity(plugins.len());
        for some in plugins.chunks(BATCH_MAX / 2) {
            let keys: Vec<_> = some
                .iter()
                .flat_map(|plugin| {
                    [&own, &Owner::Organization].map(|owner| keys::integrations(org, owner, &plugin.name))
                })
                .collect();
            let found = self.ports.table.batch_get(&keys, Read::Eventual).await?;
            for (manifest, items) in some.iter().zip(found.chunks(2)) {
                let first = items.iter().flatten().next();
                let accounts: Option<Accounts> = first.map(Item::record).transpose()?;
                let fit = accounts.is_some_and(|accounts| {
                    let default = accounts.by_alias.get(&accounts.default);
                    default.is_some_and(|account| self.unusable_reason(manifest, account, now).is_none())
                });
                connected.push(fit);
            }
        }
        Ok(connected)
    }
}
