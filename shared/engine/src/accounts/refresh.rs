//! Renewing a credential, by one caller at a time, so that nothing is lost whoever crashes when (ARCHITECTURE.md,
//! "Renewing a token").

use std::iter::once;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use super::record::{Account, Accounts, Change, LEASE, LastError, Lease, RefreshBackoff, accounts_in};
use super::state::{Reason, State};
use crate::accounts::owner::OwnerKind;
use crate::accounts::record::AccountLookup;
use crate::accounts::state::connect_again;
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId, Owner};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::outbound::oauth::{TokenError, Tokens};
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Read, TableError};
use crate::ports::vault::{SecretId, VaultError};
use crate::storage::keys;

/// The time for one request for tokens.
const RENEWAL_TIME: Duration = Duration::from_secs(15);
/// What is left of an intent's time for keeping what the provider gave.
const STORING_TIME: Duration = Duration::from_secs(4);
/// The pause after the first failure to renew; it doubles with each, up to the longest.
const BACK_OFF: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(30), SignedDuration::from_hours(1));
/// How long renewing may fail before the account counts as expired.
const FAILING_MAX: SignedDuration = SignedDuration::from_hours(4 * 24);
/// The longest pause between two failures of one series.
const SERIES_GAP: SignedDuration = SignedDuration::from_hours(24);
/// The time that has to be left for asking a provider; a third of a budget that is shorter than three times that.
const RENEWAL_TIME_LEAST: Duration = Duration::from_secs(8);
/// How many that vanished at renewing are remembered.
const LAPSED_MAX: usize = 5;
/// How often writing new tokens to the vault is tried: the provider will not give them again.
const KEEP_TRIES: usize = 3;

/// What came of renewing.
pub(super) enum Renewal {
    Done,
    /// The record is no longer as it was found.
    Moved,
    /// Somebody else is at it.
    Busy,
    Failed(Failure),
}

/// An account whose lease was just taken.
struct Renewing<'a> {
    org: &'a OrgId,
    manifest: &'a Manifest,
    owner: &'a Owner,
    alias: &'a Alias,
    /// The account, with the lease.
    account: Account,
    /// Who has the lease.
    me: String,
}

impl Engine {
    /// Takes the lease and renews, unless somebody else is at it or it failed a moment ago.
    pub(super) async fn renew(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        found: &AccountLookup,
        deadline: Instant,
    ) -> Result<Renewal, Error> {
        let now = self.ports.clock.now();
        // What lies further ahead than it ever may was written by a clock that was wrong.
        let ahead = |at: Timestamp, most: SignedDuration| at > now && at.duration_since(now) <= most;
        if let Some(trouble) = found.account.trouble.as_ref().filter(|trouble| ahead(trouble.retry_at, BACK_OFF.1)) {
            return Ok(Renewal::Failed(in_trouble(manifest, &found.account, trouble, now)));
        }
        if found.account.lease.as_ref().is_some_and(|lease| ahead(lease.until, LEASE)) {
            return Ok(Renewal::Busy);
        }
        // What a provider gives must arrive: rather leave it to somebody with more time.
        if Instant::now() + RENEWAL_TIME_LEAST.min(self.config.limits.budget / 3) > deadline {
            return Ok(Renewal::Busy);
        }
        let me = self.ports.ids.hex(8);
        let mut account = found.account.clone();
        if let Some(lapsed) = account.lease.replace(Lease { owner: me.clone(), until: now + LEASE }) {
            account.interrupted = true;
            account.lapsed.push(lapsed.owner);
            let forgotten = account.lapsed.len().saturating_sub(LAPSED_MAX);
            account.lapsed.drain(..forgotten);
        }
        let mut accounts = found.accounts.clone();
        accounts.by_alias.insert(found.alias.clone(), account.clone());
        match self.put_accounts(org, &accounts, Some(found.version.clone()), (None, None)).await {
            Ok(()) => {}
            Err(TableError::Condition { .. }) => return Ok(Renewal::Moved),
            Err(error) => return Err(error.into()),
        }
        let (owner, alias) = (&found.accounts.owner, &found.alias);
        self.renew_with_lease(&Renewing { org, manifest, owner, alias, account, me }, &found.accounts, deadline).await
    }

    async fn renew_with_lease(
        &self,
        renewing: &Renewing<'_>,
        accounts: &Accounts,
        deadline: Instant,
    ) -> Result<Renewal, Error> {
        let Renewing { org, manifest, alias, account, .. } = renewing;
        if let Some(renewal) = self.roll_forward(renewing, accounts).await {
            return renewal;
        }
        let client = match self.client(org, manifest).await {
            Ok(Some(client)) => client,
            Ok(None) => {
                let refusal = TokenError::Refused("no OAuth client is configured any more".to_owned());
                return self.fail(renewing, &refusal).await;
            }
            Err(error) => {
                // Nobody was asked yet, so that the next one need not wait.
                self.settle(renewing, |_| {}, |_| None).await?;
                return Err(error);
            }
        };
        if account.client_id.as_ref() != Some(&client.id) {
            return self.give_up(renewing, State::ReconnectRequired, Reason::ClientChanged).await;
        }
        let current = match self.open(org, accounts, alias, account, &account.version).await {
            Ok(Some(current)) => current,
            Ok(None) => return self.give_up(renewing, State::ReconnectRequired, Reason::CredentialLost).await,
            Err(error) => {
                self.settle(renewing, |_| {}, |_| None).await?;
                return Err(error.into());
            }
        };
        let asked_at = self.ports.clock.now();
        // What a provider gave has to be kept, too, before this process has to be done.
        let storing = STORING_TIME.min(self.config.limits.budget / 6);
        let deadline = deadline.checked_sub(storing).unwrap_or(deadline).min(Instant::now() + RENEWAL_TIME);
        let Some(protocol) = self.protocol(manifest, &client, deadline) else { return Ok(Renewal::Moved) };
        let answer = match (&manifest.auth, &current.refresh_token) {
            (Auth::ClientCredentials(_), _) => protocol.client_credentials(account.wanted(manifest)).await,
            (Auth::Oauth2(_), Some(token)) => protocol.refresh(token).await,
            (Auth::Oauth2(_) | Auth::None | Auth::ApiKey(_) | Auth::Basic(_), _) => Err(TokenError::InvalidGrant),
        };
        match answer {
            Ok(tokens) => {
                let credential = credential_of(tokens, asked_at, Some(&current));
                let version = version_of(account.generation + 1, &renewing.me);
                let id = account.secret_id(org, renewing.owner, &manifest.name, alias);
                self.store_tokens(&id, &version, &credential).await?;
                self.commit(renewing, &version, &credential).await
            }
            Err(TokenError::InvalidGrant) => {
                // Somebody who was only slow may have used the refresh token, and kept what came of it, just now.
                if let Some(renewal) = self.roll_forward(renewing, accounts).await {
                    return renewal;
                }
                let rotates = matches!(&manifest.auth, Auth::Oauth2(oauth) if oauth.rotates_refresh_token);
                let (state, reason) = if account.interrupted && rotates {
                    (State::ReconnectRequired, Reason::RefreshInterrupted)
                } else {
                    (State::Revoked, Reason::InvalidGrant)
                };
                self.give_up(renewing, state, reason).await
            }
            Err(refusal) => self.fail(renewing, &refusal).await,
        }
    }

    /// Commits what somebody who vanished had brought as far as the vault, if anybody did.
    async fn roll_forward(&self, renewing: &Renewing<'_>, accounts: &Accounts) -> Option<Result<Renewal, Error>> {
        let Renewing { org, manifest, alias, account, .. } = renewing;
        for lapsed in account.lapsed.iter().rev() {
            let version = version_of(account.generation + 1, lapsed);
            match self.open(org, accounts, alias, account, &version).await {
                Ok(Some(credential)) => {
                    tracing::warn!(%org, plugin = %manifest.name, %alias, "an interrupted renewal is rolled forward");
                    return Some(self.commit(renewing, &version, &credential).await);
                }
                Ok(None) | Err(VaultError::DoesNotOpen) => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
        None
    }

    /// Writes new tokens to the vault.
    pub(super) async fn store_tokens(
        &self,
        id: &SecretId,
        version: &str,
        credential: &Credential,
    ) -> Result<(), VaultError> {
        let form = credential.sealed_form();
        for _ in 1..KEEP_TRIES {
            match self.ports.vault.put(id, version, &form).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::error!(error = %causes(&error), "new tokens were not kept; trying again"),
            }
        }
        self.ports.vault.put(id, version, &form).await
    }

    /// Makes a new version of the credential the one that counts, unless somebody else was faster.
    async fn commit(&self, renewing: &Renewing<'_>, version: &str, new: &Credential) -> Result<Renewal, Error> {
        let now = self.ports.clock.now();
        let Renewing { org, manifest, owner, alias, account: before, .. } = renewing;
        let renewed = |account: &mut Account| {
            account.generation += 1;
            version.clone_into(&mut account.version);
            (account.issued_at, account.updated_at) = (now, now);
            account.expires_at = new.expires_at;
            account.granted = new.scopes.clone().or(account.granted.take());
            account.trouble = None;
            account.interrupted = false;
            account.lapsed.clear();
            account.becomes(State::Active, None, now);
        };
        let event = |account: &Account| {
            let (owner, user) = OwnerKind::of(owner, &account.connected_by);
            let detail = json!({
                "plugin": manifest.name, "alias": alias, "owner": owner, "userId": user,
                "expiresAt": account.expires_at,
            });
            Some(self.event(org, EventKind::IntegrationRefreshed, &detail))
        };
        let Some((_, event)) = self.settle(renewing, renewed, event).await? else {
            self.abandon(renewing, version, new).await?;
            return Ok(Renewal::Moved);
        };
        let id = before.secret_id(org, owner, &manifest.name, alias);
        // With what those brought who vanished and were overtaken.
        let overtaken = before.lapsed.iter().map(|lapsed| version_of(before.generation + 1, lapsed));
        for old in once(before.version.clone()).chain(overtaken.filter(|overtaken| overtaken != version)) {
            if let Err(error) = self.ports.vault.delete_version(&id, &old).await {
                // Nothing refers to it any more, and it is sealed; disconnecting removes it.
                tracing::error!(%org, error = %causes(&error), "a token that was renewed stays in the vault");
            }
        }
        if let Some(event) = event {
            self.publish(event).await;
        }
        Ok(Renewal::Done)
    }

    /// Clears away new tokens that came too late: the account was disconnected, connected anew, or renewed by another.
    async fn abandon(&self, renewing: &Renewing<'_>, version: &str, new: &Credential) -> Result<(), Error> {
        let Renewing { org, manifest, owner, alias, account: before, .. } = renewing;
        let item = self.ports.table.get(&keys::integrations(org, owner, &manifest.name), Read::Consistent).await?;
        let accounts = accounts_in(item.as_ref(), owner, &manifest.name)?;
        let standing = accounts.by_alias.get(alias);
        let same = standing.filter(|account| account.secret == before.secret);
        // While the generation is the same somebody may be about to roll it forward.
        if same.is_some_and(|account| account.generation == before.generation || account.version == *version) {
            return Ok(());
        }
        let id = before.secret_id(org, owner, &manifest.name, alias);
        let cleared = match same {
            Some(_) => self.ports.vault.delete_version(&id, version).await,
            // No record names the secret any more, and storing the version may have made it anew.
            None => self.ports.vault.delete(&id).await,
        };
        if let Err(error) = cleared {
            tracing::error!(%org, error = %causes(&error), "new tokens that came too late stay in the vault");
        }
        if standing.is_none() {
            let given_back = self.revoke_tokens(org, manifest, before, new).await;
            tracing::info!(%org, plugin = %manifest.name, %alias, ?given_back, "an account was disconnected while it was renewed");
        }
        Ok(())
    }

    /// Renewing failed for now.
    async fn fail(&self, renewing: &Renewing<'_>, refusal: &TokenError) -> Result<Renewal, Error> {
        let now = self.ports.clock.now();
        let code = match refusal {
            TokenError::Refused(code) => code.clone(),
            TokenError::InvalidGrant => "invalid_grant".to_owned(),
            TokenError::Unavailable(_) | TokenError::Unknown(_) => "unavailable".to_owned(),
        };
        let failing = |account: &mut Account| {
            // A failure of long ago that nobody met again says nothing about the time since.
            let before = account.trouble.take().filter(|trouble| now.duration_since(trouble.retry_at) <= SERIES_GAP);
            let count = before.as_ref().map_or(1, |trouble| trouble.count.saturating_add(1));
            let since = before.map_or(now, |trouble| trouble.since);
            let pause = BACK_OFF.0 * 2_i32.saturating_pow(count.saturating_sub(1).min(16));
            account.trouble = Some(RefreshBackoff { since, count, retry_at: now + pause.min(BACK_OFF.1) });
            account.interrupted |= matches!(refusal, TokenError::Unknown(_));
            account.last_error = Some(LastError { code: code.clone(), message: refusal.to_string(), at: now });
            if now.duration_since(since) >= FAILING_MAX {
                account.becomes(State::Expired, Some(Reason::RefreshFailed), now);
            } else {
                account.becomes(State::Error, Some(Reason::RefreshFailing), now);
            }
        };
        // Not each time, but the first and when it is given up.
        let event = |account: &Account| {
            let first = account.trouble.as_ref().is_some_and(|trouble| trouble.count == 1);
            (first || account.state == State::Expired).then(|| self.failed_event(renewing, account))
        };
        let Some((account, event)) = self.settle(renewing, failing, event).await? else { return Ok(Renewal::Moved) };
        let Some(trouble) = &account.trouble else { return Ok(Renewal::Moved) };
        let Renewing { org, manifest, alias, .. } = renewing;
        tracing::warn!(%org, plugin = %manifest.name, %alias, count = trouble.count, error = %causes(refusal), "a token was not renewed");
        if let Some(event) = event {
            self.publish(event).await;
        }
        if account.state == State::Expired {
            return Ok(Renewal::Failed(connect_again(manifest, alias, Reason::RefreshFailed)));
        }
        Ok(Renewal::Failed(in_trouble(manifest, &account, trouble, now)))
    }

    /// Renewing will never succeed again.
    async fn give_up(&self, renewing: &Renewing<'_>, state: State, reason: Reason) -> Result<Renewal, Error> {
        let now = self.ports.clock.now();
        let given_up = |account: &mut Account| {
            account.trouble = None;
            let code = serde_json::to_value(reason).unwrap_or_default();
            let code = code.as_str().unwrap_or_default().to_owned();
            let message = format!("the account {}", reason.what());
            account.last_error = Some(LastError { code, message, at: now });
            account.becomes(state, Some(reason), now);
        };
        let event = |account: &Account| Some(self.failed_event(renewing, account));
        let Some((_, event)) = self.settle(renewing, given_up, event).await? else { return Ok(Renewal::Moved) };
        if let Some(event) = event {
            self.publish(event).await;
        }
        Ok(Renewal::Failed(connect_again(renewing.manifest, renewing.alias, reason)))
    }

    fn failed_event(&self, renewing: &Renewing<'_>, account: &Account) -> Event {
        let Renewing { org, manifest, owner, alias, .. } = renewing;
        let (owner, user) = OwnerKind::of(owner, &account.connected_by);
        let detail = json!({
            "plugin": manifest.name, "alias": alias, "owner": owner, "userId": user, "state": account.state,
            "reason": account.reason, "lastError": account.last_error,
        });
        self.event(org, EventKind::IntegrationFailed, &detail)
    }

    /// Changes the account and gives the lease back, if it is still the one that the lease was taken for. What `event` says
    /// of that is written with it.
    async fn settle(
        &self,
        renewing: &Renewing<'_>,
        change: impl Fn(&mut Account),
        event: impl Fn(&Account) -> Option<Event>,
    ) -> Result<Option<(Account, Option<Event>)>, Error> {
        let Renewing { org, manifest, owner, alias, account: before, me } = renewing;
        self.change_accounts(org, owner, &manifest.name, |accounts| {
            let account = accounts.by_alias.get_mut(alias).filter(|account| {
                let same = (&account.secret, account.generation) == (&before.secret, before.generation);
                same && account.lease.as_ref().is_some_and(|lease| lease.owner == *me)
            });
            let Some(account) = account else { return Ok(Change::Nothing(None)) };
            account.lease = None;
            change(account);
            Ok(match event(account) {
                Some(event) => Change::Tell(Some((account.clone(), Some(event.clone()))), event),
                None => Change::Write(Some((account.clone(), None))),
            })
        })
        .await
    }
}

/// The name of a version: whoever reads a record finds by it what exactly this writer wrote.
pub(super) fn version_of(generation: u64, writer: &str) -> String {
    format!("{generation}-{writer}")
}

/// What a provider gave, as it is kept. `asked_at` is before the provider counted its seconds.
pub(super) fn credential_of(tokens: Tokens, asked_at: Timestamp, before: Option<&Credential>) -> Credential {
    let expires_at = tokens.expires_in_s.and_then(|s| asked_at.checked_add(SignedDuration::from_secs(s)).ok());
    Credential {
        token: tokens.access,
        username: None,
        // Without a new one the old one goes on (RFC 6749, 6).
        refresh_token: tokens.refresh.or_else(|| before.and_then(|before| before.refresh_token.clone())),
        expires_at,
        scopes: tokens.scopes.or_else(|| before.and_then(|before| before.scopes.clone())),
    }
}

fn in_trouble(manifest: &Manifest, account: &Account, trouble: &RefreshBackoff, now: Timestamp) -> Failure {
    let said = account.last_error.as_ref().map(|error| format!(" ({})", error.message)).unwrap_or_default();
    let name = &manifest.display_name;
    let message = format!("{name}'s token ran out and cannot be renewed at the moment{said}; it is tried again");
    let wait = trouble.retry_at.duration_since(now).as_secs().max(1);
    let retry_after_s = u64::try_from(wait).ok();
    Failure { retry_after_s, ..Failure::new(OutcomeCode::Unavailable, message, true) }
}
