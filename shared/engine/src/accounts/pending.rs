//! Pending accounts: connected in a browser for an application, and unusable until the application confirms them.
//!
//! The confirmation is what ties the account to a person: the browser that brings the code back belongs to the user who is
//! signed in at the application. A pending account that nothing confirms is revoked after [`CONNECTING_TIME`].

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tracing::debug_span;
use tracing::field::Empty;

use super::attempt::{CONNECTING_TIME, hash};
use super::new_account::NewAccount;
use super::record::{Account, accounts_in};
use super::state::{AccountState, StateReason};
use super::view::Integration;
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::manifest::Manifest;
use crate::ports::table::{Condition, Item, NewItem, Query, Range, Read, TableError, Write};
use crate::ports::timer::{Queue, Work, WorkKind};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// The most pending accounts of one owner that are listed.
const LISTED_MAX: usize = 100;

/// Confirms an account.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfirmAccount {
    /// The code that the browser brought to `returnTo`.
    #[schemars(with = "String", length(min = 1, max = 255))]
    pub code: SecretString,
    /// The user who is signed in where the browser came back. Defaults to the user that the API key is bound to.
    pub user_id: Option<UserId>,
}

/// An account that the application has not confirmed yet. Stored under the hash of its code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PendingAccount {
    pub org: OrgId,
    pub owner: Owner,
    pub plugin: PluginName,
    pub alias: Alias,
    pub account: Account,
    /// When it is dropped.
    pub until: Timestamp,
}

impl PendingAccount {
    /// The work of its alarm. `hash` is that of its code.
    fn work(&self, hash: String) -> Work {
        Work { org: self.org.clone(), kind: WorkKind::PendingAccount, id: hash, revision: 0 }
    }
}

/// The work of the alarm of the pending account in `item`.
pub(crate) fn pending_work(item: &Item) -> Result<Work, TableError> {
    Ok(item.record::<PendingAccount>()?.work(item.stored.key.sort.clone()))
}

/// Why a pending account is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DropReason {
    /// The application confirmed it for another user than the one who started.
    OtherUser,
    /// The application did not confirm it in time.
    Expired,
}

impl Engine {
    /// Stores an account as pending. Returns the code that confirms it.
    pub(super) async fn store_pending(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        new: NewAccount,
    ) -> Result<SecretString, Error> {
        let code = SecretString::from(self.ports.ids.hex(32));
        let until = self.ports.clock.now() + CONNECTING_TIME;
        let (owner, alias) = (new.target.owner.clone(), new.target.alias.clone());
        let mut account = self.store_credential(org, manifest, new).await?;
        (account.state, account.reason) = (AccountState::Pending, Some(StateReason::NotCompleted));
        let pending = PendingAccount { org: org.clone(), owner, plugin: manifest.name.clone(), alias, account, until };
        let hash = hash(&code);
        let mut item = NewItem::new(keys::pending(org, &hash), &pending)?;
        item.list = Some(keys::pending_in_list(org, &pending.owner, &pending.plugin, &hash));
        item.due = Some(Queue::PendingAccounts.due(until));
        if let Err(error) = self.ports.table.put(item, Condition::Absent).await {
            // After an error of the store the record may be there all the same.
            if !matches!(error, TableError::Store(_)) {
                let no_others = accounts_in(None, &pending.owner, &pending.plugin)?;
                let revoked = self.revoke_account(org, &pending.alias, &pending.account, &no_others).await;
                tracing::warn!(%org, ?revoked, error = %causes(&error), "failed to store pending account");
            }
            return Err(error.into());
        }
        self.schedule_pending(&pending, hash).await;
        Ok(code)
    }

    async fn schedule_pending(&self, pending: &PendingAccount, hash: String) {
        if let Err(error) = self.ports.timer.set(pending.work(hash), pending.until).await {
            tracing::error!(org = %pending.org, error = %causes(&error), "failed to schedule alarm; the sweep retries it");
        }
    }

    /// The application confirms an account for the user who is signed in where the browser came back.
    pub async fn complete(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        complete: ConfirmAccount,
    ) -> Result<Integration, Error> {
        let span = debug_span!("complete", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            let manifest = self.plugin(&principal.org, plugin).await?.manifest.clone();
            let user = principal.resolve_user(complete.user_id)?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            let code = complete.code;
            self.run_to_completion(async move { engine.confirm(&principal, &manifest, &user, &code).await }).await
        })
        .await
    }

    async fn confirm(
        &self,
        principal: &Principal,
        manifest: &Manifest,
        user: &UserId,
        code: &SecretString,
    ) -> Result<Integration, Error> {
        let org = &principal.org;
        let now = self.ports.clock.now();
        let item = self.ports.table.get(&keys::pending(org, &hash(code)), Read::Consistent).await?;
        let item = item.ok_or_else(unknown_code)?;
        let pending: PendingAccount = item.record()?;
        if pending.plugin != manifest.name || pending.until <= now {
            return Err(unknown_code());
        }
        if pending.account.connected_by != *user {
            // The user who allowed it may have been made to: no user is to have the account.
            self.drop_pending(org, &item, &pending, DropReason::OtherUser).await?;
            let message = "another user started this connection; the account was dropped, and its tokens revoked where the \
                           provider can; connect again";
            return Err(Error::Forbidden(message.to_owned()));
        }
        if pending.owner == Owner::Organization {
            principal.must_administer()?;
        }
        self.activate_pending(org, manifest, &item, &pending, now).await
    }

    /// Makes a pending account active, in the transaction that deletes the pending record.
    async fn activate_pending(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        pending_item: &Item,
        pending: &PendingAccount,
        now: Timestamp,
    ) -> Result<Integration, Error> {
        let PendingAccount { owner, plugin, alias, .. } = pending;
        let key = keys::integrations(org, owner, plugin);
        let mut stored = self.ports.table.get(&key, Read::Consistent).await?;
        let mut race = CompareAndSet::default();
        loop {
            let mut accounts = accounts_in(stored.as_ref(), owner, plugin)?;
            let mut account = pending.account.clone();
            account.set_state(AccountState::Active, None, now);
            let replaced = accounts.insert(alias, account)?;
            let condition = stored.map_or(Condition::Absent, |item| Condition::Version(item.version));
            let writes = vec![
                Write::Delete(pending_item.stored.key.clone(), Condition::Version(pending_item.version.clone())),
                Write::Put(NewItem::new(key.clone(), &accounts)?, condition),
            ];
            let connected = self.connected_account(org, manifest, &accounts, alias)?;
            match self.transact_with(writes, Some(&connected.event)).await {
                Ok(_) => {
                    let replaced = replaced.map(|replaced| replaced.secret_id(org, owner, plugin, alias));
                    return Ok(self.finish_connecting(connected, replaced).await);
                }
                // The code was used in the meantime.
                Err(TableError::Condition { index: 0, .. }) => return Err(unknown_code()),
                Err(error) => stored = race.after_lost_race(error, "the list of accounts")?,
            }
        }
    }

    /// Deletes a pending account and revokes its tokens, unless it was confirmed in the meantime.
    async fn drop_pending(
        &self,
        org: &OrgId,
        item: &Item,
        pending: &PendingAccount,
        reason: DropReason,
    ) -> Result<(), Error> {
        match self.ports.table.delete(&item.stored.key, Condition::Version(item.version.clone())).await {
            Ok(()) => {}
            Err(TableError::Condition { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let PendingAccount { owner, plugin, alias, account, .. } = pending;
        let stored = match reason {
            // An account that may be the same one at the provider goes on, so the tokens are not revoked then.
            DropReason::Expired => {
                self.ports.table.get(&keys::integrations(org, owner, plugin), Read::Consistent).await?
            }
            // Revoked in any case, even if the provider ends the owner's other account with it.
            DropReason::OtherUser => None,
        };
        let others = accounts_in(stored.as_ref(), owner, plugin)?;
        let revoked = self.revoke_account(org, alias, account, &others).await;
        tracing::info!(%org, %plugin, %alias, ?reason, ?revoked, "pending account dropped");
        Ok(())
    }

    /// Drops a pending account that has expired. `id` is the hash of its code.
    pub(crate) async fn drop_if_due(&self, org: &OrgId, id: &str) -> Result<(), Error> {
        let Some(item) = self.ports.table.get(&keys::pending(org, id), Read::Consistent).await? else { return Ok(()) };
        let pending: PendingAccount = item.record()?;
        if pending.until > self.ports.clock.now() {
            // The alarm was early.
            self.schedule_pending(&pending, id.to_owned()).await;
            return Ok(());
        }
        self.drop_pending(org, &item, &pending, DropReason::Expired).await
    }

    /// The pending accounts of an owner that have not expired, [`LISTED_MAX`] at most: at one plugin, or at all.
    pub(super) async fn pending_accounts(
        &self,
        org: &OrgId,
        owner: &Owner,
        plugin: Option<&PluginName>,
    ) -> Result<Vec<PendingAccount>, Error> {
        let mut query = Query::partition(keys::pending_of(org, owner), LISTED_MAX);
        if let Some(plugin) = plugin {
            query.range = Range::Prefix(format!("{plugin}#"));
        }
        let keys = self.ports.table.query_list(query).await?.entries;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.ports.clock.now();
        let items = self.ports.table.batch_get(&keys, Read::Eventual).await?;
        let pending = items.iter().flatten().map(Item::record).collect::<Result<Vec<PendingAccount>, _>>()?;
        Ok(pending.into_iter().filter(|pending| pending.until > now).collect())
    }
}

fn unknown_code() -> Error {
    Error::field("/code", "is not valid: it was used, or it is older than 10 minutes; connect again")
}
