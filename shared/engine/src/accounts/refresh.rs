//! Refreshing a token: take the lease, ask the provider, store the tokens, commit, clean up. One process refreshes at a
//! time, and a crash after any step loses nothing that the provider still accepts (`docs/internals.md`, "Renew a token").

use std::iter::once;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::Instant;
use tracing::field::{Empty, display};
use tracing::{Span, debug_span};

use super::clients::VersionedClient;
use super::owner::OwnerKind;
use super::record::{Account, Accounts, AccountsChange, AccountsWrite, Lease, accounts_in};
use super::refresh_failure::{BACKOFF_MAX, backoff_failure};
use super::state::{AccountState, StateReason};
use crate::accounts::record::AccountLookup;
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId, Owner};
use crate::core::outcome::Failure;
use crate::core::trace::traced_by;
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::outbound::oauth::{Protocol, TokenError, Tokens};
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Read, TableError};
use crate::ports::vault::VaultError;
use crate::storage::keys;

/// How long a lease is valid: much longer than the time for a provider ([`PROVIDER_TIME`]).
const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// The time for one request for tokens.
const PROVIDER_TIME: Duration = Duration::from_secs(15);
/// The part of an intent's time that is reserved for storing the tokens.
const STORING_TIME: Duration = Duration::from_secs(4);
/// With less time than this the provider is not asked; a third of the budget if that is shorter.
const MIN_PROVIDER_TIME: Duration = Duration::from_secs(8);
/// How many expired lease holders are remembered.
const EXPIRED_HOLDERS_MAX: usize = 5;

/// The outcome of a refresh.
pub(super) enum RefreshOutcome {
    /// There is a new token.
    Refreshed,
    /// The record changed after it was read.
    RecordChanged,
    /// Another process is refreshing, or there is too little time left to begin.
    InProgress,
    Failed(Failure),
}

impl RefreshOutcome {
    fn record_in(&self, span: &Span) {
        match self {
            Self::Refreshed => span.record("outcome", "ok"),
            Self::RecordChanged => span.record("outcome", "record_changed"),
            Self::InProgress => span.record("outcome", "in_progress"),
            Self::Failed(failure) => span.record("outcome", display(failure.code)),
        };
    }
}

/// An account whose refresh lease this process holds.
pub(super) struct LeasedAccount<'a> {
    pub org: &'a OrgId,
    pub manifest: &'a Manifest,
    pub owner: &'a Owner,
    pub alias: &'a Alias,
    /// The account as it was written with the lease.
    pub account: Account,
    /// The holder of the lease.
    pub holder: String,
}

/// An account after the change that released its lease, with the event that was written.
pub(super) struct Settled {
    pub account: Account,
    pub event: Option<Event>,
}

/// What the provider is asked with, or the outcome without asking it.
enum Preparation {
    Ask { client: VersionedClient, current: Arc<Credential> },
    Stop(RefreshOutcome),
}

/// Whether a time is still to come. One further ahead than `most` was written by a clock that was wrong.
fn is_ahead(at: Timestamp, most: SignedDuration, now: Timestamp) -> bool {
    at > now && at.duration_since(now) <= most
}

impl Engine {
    /// Refreshes an account's token, unless another process is refreshing it or a refresh has just failed.
    pub(super) async fn refresh_account(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        lookup: &AccountLookup,
        deadline: Instant,
    ) -> Result<RefreshOutcome, Error> {
        let span = debug_span!("refresh_account", %org, plugin = %manifest.name, outcome = Empty);
        let refresh = async {
            let now = self.ports.clock.now();
            if let Some(outcome) = self.backed_off(org, manifest, &lookup.account, now).await? {
                return Ok(outcome);
            }
            if self.refresh_must_wait(&lookup.account, now, deadline) {
                return Ok(RefreshOutcome::InProgress);
            }
            let Some(leased) = self.take_lease(org, manifest, lookup, now).await? else {
                return Ok(RefreshOutcome::RecordChanged);
            };
            self.refresh_with_lease(&leased, &lookup.accounts, deadline).await
        };
        traced_by(span, refresh, RefreshOutcome::record_in).await
    }

    /// The failure of an account whose refresh failed lately, unless its client has been replaced since.
    async fn backed_off(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        account: &Account,
        now: Timestamp,
    ) -> Result<Option<RefreshOutcome>, Error> {
        let Some(backoff) = account.backoff.as_ref().filter(|backoff| is_ahead(backoff.retry_at, BACKOFF_MAX, now))
        else {
            return Ok(None);
        };
        if self.client_version(org, manifest).await? != backoff.client_version {
            return Ok(None);
        }
        Ok(Some(RefreshOutcome::Failed(backoff_failure(manifest, account, backoff, now))))
    }

    /// Whether another process is refreshing the account, or this one has too little time for it.
    fn refresh_must_wait(&self, account: &Account, now: Timestamp, deadline: Instant) -> bool {
        let is_leased = account.lease.as_ref().is_some_and(|lease| is_ahead(lease.until, LEASE, now));
        // The tokens must arrive and be stored. A caller with more time does it.
        is_leased || Instant::now() + MIN_PROVIDER_TIME.min(self.config.limits.budget / 3) > deadline
    }

    /// Step 1: takes the lease with one conditional write. `None` if the compare-and-set was lost. The holder of an expired
    /// lease is remembered: it may have stored tokens.
    async fn take_lease<'a>(
        &self,
        org: &'a OrgId,
        manifest: &'a Manifest,
        lookup: &'a AccountLookup,
        now: Timestamp,
    ) -> Result<Option<LeasedAccount<'a>>, Error> {
        let holder = self.ports.ids.hex(8);
        let mut account = lookup.account.clone();
        if let Some(expired) = account.lease.replace(Lease { holder: holder.clone(), until: now + LEASE }) {
            account.interrupted = true;
            account.expired_holders.push(expired.holder);
            let forgotten = account.expired_holders.len().saturating_sub(EXPIRED_HOLDERS_MAX);
            account.expired_holders.drain(..forgotten);
        }
        let mut accounts = lookup.accounts.clone();
        accounts.by_alias.insert(lookup.alias.clone(), account.clone());
        let write =
            AccountsWrite { accounts: &accounts, version: Some(lookup.version.clone()), event: None, held: None };
        match self.put_accounts(org, write).await {
            Ok(()) => {}
            Err(TableError::Condition { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let (owner, alias) = (&lookup.accounts.owner, &lookup.alias);
        Ok(Some(LeasedAccount { org, manifest, owner, alias, account, holder }))
    }

    /// Steps 2 to 5, unless an expired holder got as far as the vault: then its tokens are committed.
    async fn refresh_with_lease(
        &self,
        leased: &LeasedAccount<'_>,
        accounts: &Accounts,
        deadline: Instant,
    ) -> Result<RefreshOutcome, Error> {
        if let Some(outcome) = self.roll_forward(leased, accounts).await? {
            return Ok(outcome);
        }
        let (client, current) = match self.prepare_refresh(leased, accounts).await? {
            Preparation::Ask { client, current } => (client, current),
            Preparation::Stop(outcome) => return Ok(outcome),
        };
        let requested_at = self.ports.clock.now();
        let deadline = self.provider_deadline(deadline);
        let Some(protocol) = self.protocol(leased.manifest, &client.client, deadline) else {
            return Ok(RefreshOutcome::RecordChanged);
        };
        match request_tokens(&protocol, leased, &current).await {
            Ok(tokens) => {
                let credential = credential_of(tokens, requested_at, Some(&current));
                self.store_and_commit(leased, &credential).await
            }
            Err(TokenError::InvalidGrant) => self.handle_invalid_grant(leased, accounts).await,
            Err(error) => self.back_off(leased, Some(&client.version), &error).await,
        }
    }

    /// Reads what the provider is asked with: the client and the current credential.
    async fn prepare_refresh(&self, leased: &LeasedAccount<'_>, accounts: &Accounts) -> Result<Preparation, Error> {
        let LeasedAccount { org, manifest, alias, account, .. } = leased;
        let client = match self.versioned_client(org, manifest).await {
            Ok(Some(client)) => client,
            Ok(None) => {
                let error = TokenError::Refused("no OAuth client is configured any more".to_owned());
                return Ok(Preparation::Stop(self.back_off(leased, None, &error).await?));
            }
            Err(error) => {
                self.release_lease(leased).await?;
                return Err(error);
            }
        };
        if account.client_id.as_ref() != Some(&client.client.id) {
            let (state, reason) = (AccountState::ReconnectRequired, StateReason::ClientChanged);
            return Ok(Preparation::Stop(self.give_up(leased, state, reason).await?));
        }
        match self.open_credential(org, accounts, alias, account, &account.version).await {
            Ok(Some(current)) => Ok(Preparation::Ask { client, current }),
            Ok(None) => {
                let (state, reason) = (AccountState::ReconnectRequired, StateReason::CredentialLost);
                Ok(Preparation::Stop(self.give_up(leased, state, reason).await?))
            }
            Err(error) => {
                self.release_lease(leased).await?;
                Err(error.into())
            }
        }
    }

    /// Releases the lease without a result. The provider was not asked, so the next refresh need not wait.
    async fn release_lease(&self, leased: &LeasedAccount<'_>) -> Result<(), Error> {
        self.settle(leased, |_| {}, |_| None).await.map(|_| ())
    }

    /// When the provider must have answered: early enough that this process can store the tokens before `deadline`.
    fn provider_deadline(&self, deadline: Instant) -> Instant {
        let storing = STORING_TIME.min(self.config.limits.budget / 6);
        deadline.checked_sub(storing).unwrap_or(deadline).min(Instant::now() + PROVIDER_TIME)
    }

    /// The provider no longer accepts the refresh token. If a slow holder has used it and stored the new tokens in the
    /// meantime, they are committed; otherwise the account is given up.
    async fn handle_invalid_grant(
        &self,
        leased: &LeasedAccount<'_>,
        accounts: &Accounts,
    ) -> Result<RefreshOutcome, Error> {
        if let Some(outcome) = self.roll_forward(leased, accounts).await? {
            return Ok(outcome);
        }
        let rotates = matches!(&leased.manifest.auth, Auth::Oauth2(oauth) if oauth.rotates_refresh_token);
        let (state, reason) = if leased.account.interrupted && rotates {
            (AccountState::ReconnectRequired, StateReason::RefreshInterrupted)
        } else {
            (AccountState::Revoked, StateReason::InvalidGrant)
        };
        self.give_up(leased, state, reason).await
    }

    /// Commits the tokens that an expired holder stored but did not commit, if there are any.
    async fn roll_forward(
        &self,
        leased: &LeasedAccount<'_>,
        accounts: &Accounts,
    ) -> Result<Option<RefreshOutcome>, Error> {
        let LeasedAccount { org, manifest, alias, account, .. } = leased;
        for holder in account.expired_holders.iter().rev() {
            let version = version_of(account.generation + 1, holder);
            match self.open_credential(org, accounts, alias, account, &version).await {
                Ok(Some(credential)) => {
                    tracing::warn!(%org, plugin = %manifest.name, %alias, "interrupted refresh rolled forward");
                    return Ok(Some(self.commit(leased, &version, &credential).await?));
                }
                Ok(None) | Err(VaultError::DoesNotOpen) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Step 3: stores the tokens as a new version of the secret. Then commits them.
    async fn store_and_commit(
        &self,
        leased: &LeasedAccount<'_>,
        credential: &Credential,
    ) -> Result<RefreshOutcome, Error> {
        let LeasedAccount { org, manifest, owner, alias, account, holder } = leased;
        let version = version_of(account.generation + 1, holder);
        let id = account.secret_id(org, owner, &manifest.name, alias);
        self.store_tokens(&id, &version, credential).await?;
        self.commit(leased, &version, credential).await
    }

    /// Step 4: makes the stored version the current one, unless the lease or the generation changed. Then cleans up.
    async fn commit(
        &self,
        leased: &LeasedAccount<'_>,
        version: &str,
        new: &Credential,
    ) -> Result<RefreshOutcome, Error> {
        let now = self.ports.clock.now();
        let refreshed = |account: &mut Account| {
            account.generation += 1;
            version.clone_into(&mut account.version);
            (account.issued_at, account.updated_at) = (now, now);
            account.expires_at = new.expires_at;
            account.granted_scopes = new.scopes.clone().or(account.granted_scopes.take());
            account.backoff = None;
            account.interrupted = false;
            account.expired_holders.clear();
            account.set_state(AccountState::Active, None, now);
        };
        let event = |account: &Account| Some(self.refreshed_event(leased, account));
        let Some(settled) = self.settle(leased, refreshed, event).await? else {
            self.clean_up_late_tokens(leased, version, new).await?;
            return Ok(RefreshOutcome::RecordChanged);
        };
        self.delete_old_versions(leased, version).await;
        if let Some(event) = settled.event {
            self.publish(event).await;
        }
        Ok(RefreshOutcome::Refreshed)
    }

    fn refreshed_event(&self, leased: &LeasedAccount<'_>, account: &Account) -> Event {
        let LeasedAccount { org, manifest, owner, alias, .. } = leased;
        let (owner, user) = OwnerKind::of(owner, &account.connected_by);
        let detail = json!({
            "plugin": manifest.name, "alias": alias, "owner": owner, "userId": user,
            "expiresAt": account.expires_at,
        });
        self.event(org, EventKind::IntegrationRefreshed, &detail)
    }

    /// Step 5: deletes the previous version, and the versions of expired holders other than the committed one.
    async fn delete_old_versions(&self, leased: &LeasedAccount<'_>, committed: &str) {
        let LeasedAccount { org, manifest, owner, alias, account, .. } = leased;
        let id = account.secret_id(org, owner, &manifest.name, alias);
        let expired = account.expired_holders.iter().map(|holder| version_of(account.generation + 1, holder));
        for old in once(account.version.clone()).chain(expired.filter(|version| version != committed)) {
            if let Err(error) = self.ports.vault.delete_version(&id, &old).await {
                // No record refers to it, and it is sealed; disconnecting deletes it.
                tracing::error!(%org, error = %causes(&error), "failed to delete old token version");
            }
        }
    }

    /// Step 5 after a lost commit: the account was disconnected, connected again, or refreshed by another process. Deletes
    /// the tokens that came too late, and revokes them if the account is gone.
    async fn clean_up_late_tokens(
        &self,
        leased: &LeasedAccount<'_>,
        version: &str,
        tokens: &Credential,
    ) -> Result<(), Error> {
        let LeasedAccount { org, manifest, owner, alias, account: before, .. } = leased;
        let item = self.ports.table.get(&keys::integrations(org, owner, &manifest.name), Read::Consistent).await?;
        let accounts = accounts_in(item.as_ref(), owner, &manifest.name)?;
        let stored = accounts.by_alias.get(alias);
        let same = stored.filter(|account| account.secret == before.secret);
        // While the generation is the same, another process may be about to roll this version forward.
        if same.is_some_and(|account| account.generation == before.generation || account.version == *version) {
            return Ok(());
        }
        let id = before.secret_id(org, owner, &manifest.name, alias);
        let deleted = match same {
            Some(_) => self.ports.vault.delete_version(&id, version).await,
            // No record names the secret, and storing the version may have created it again.
            None => self.ports.vault.delete(&id).await,
        };
        if let Err(error) = deleted {
            tracing::error!(%org, error = %causes(&error), "failed to delete late tokens");
        }
        if stored.is_none() {
            let revoked = self.revoke_tokens(org, manifest, before, tokens).await;
            tracing::info!(%org, plugin = %manifest.name, %alias, ?revoked, "account disconnected during refresh");
        }
        Ok(())
    }

    /// Changes the account and releases the lease, if generation and lease are still those of `leased`; otherwise `None`.
    /// The event that `event` makes is written in the same transaction.
    pub(super) async fn settle(
        &self,
        leased: &LeasedAccount<'_>,
        change: impl Fn(&mut Account),
        event: impl Fn(&Account) -> Option<Event>,
    ) -> Result<Option<Settled>, Error> {
        let LeasedAccount { org, manifest, owner, alias, account: before, holder } = leased;
        self.change_accounts(org, owner, &manifest.name, |accounts| {
            let account = accounts.by_alias.get_mut(alias).filter(|account| {
                let same = account.credential_identity() == before.credential_identity();
                same && account.lease.as_ref().is_some_and(|lease| lease.holder == *holder)
            });
            let Some(account) = account else { return Ok(AccountsChange::None(None)) };
            account.lease = None;
            change(account);
            let event = event(account);
            let settled = Some(Settled { account: account.clone(), event: event.clone() });
            Ok(match event {
                Some(event) => AccountsChange::WriteWithEvent(settled, event),
                None => AccountsChange::Write(settled),
            })
        })
        .await
    }
}

/// Step 2: asks the provider for new tokens, inline.
async fn request_tokens(
    protocol: &Protocol<'_>,
    leased: &LeasedAccount<'_>,
    current: &Credential,
) -> Result<Tokens, TokenError> {
    let LeasedAccount { manifest, account, .. } = leased;
    match (&manifest.auth, &current.refresh_token) {
        (Auth::ClientCredentials(_), _) => protocol.client_credentials(account.wanted_scopes(manifest)).await,
        (Auth::Oauth2(_), Some(token)) => protocol.refresh(token).await,
        (Auth::Oauth2(_) | Auth::None | Auth::ApiKey(_) | Auth::Basic(_), _) => Err(TokenError::InvalidGrant),
    }
}

/// The name of a version of a secret. From a record alone a reader can compute the version that a holder stored.
pub(super) fn version_of(generation: u64, holder: &str) -> String {
    format!("{generation}-{holder}")
}

/// The credential of issued tokens. `requested_at` is before the provider began to count their seconds. What the provider
/// left out comes from the `previous` credential.
pub(super) fn credential_of(tokens: Tokens, requested_at: Timestamp, previous: Option<&Credential>) -> Credential {
    let expires_at = tokens.expires_in_s.and_then(|s| requested_at.checked_add(SignedDuration::from_secs(s)).ok());
    Credential {
        token: tokens.access,
        username: None,
        // Without a new refresh token the old one stays valid (RFC 6749, 6).
        refresh_token: tokens.refresh.or_else(|| previous.and_then(|previous| previous.refresh_token.clone())),
        expires_at,
        scopes: tokens.scopes.or_else(|| previous.and_then(|previous| previous.scopes.clone())),
    }
}
