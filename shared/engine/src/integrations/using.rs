//! The account that an intent is to use, with a credential that is good: renewed where it has to be, by one caller at a
//! time, so that nothing is lost whoever crashes when (ARCHITECTURE.md, "Renewing a token").

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::credential::Credential;
use super::record::{Account, Accounts, Change, LEASE, LastError, Lease, Trouble};
use super::state::{Reason, State};
use crate::engine::Engine;
use crate::error::{Error, causes};
use crate::ids::{Alias, OrgId, Owner, UserId};
use crate::keys;
use crate::manifest::{Auth, Manifest};
use crate::oauth::{Refusal, Tokens};
use crate::outcome::{Failure, OutcomeCode};
use crate::ports::table::{Read, TableError, Version};
use crate::ports::vault::VaultError;

/// How long a token has to be in use before a service that refuses it is believed to mean its age.
const FRESH: SignedDuration = SignedDuration::from_secs(60);
/// How often the use of an account is written down.
const USE_NOTED_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// The time for one request for tokens.
const RENEWAL_TIME: Duration = Duration::from_secs(15);
/// The first pause between two looks at a renewal that somebody else is at, and the longest.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The pause after the first failure to renew; it doubles with each, up to the longest.
const BACK_OFF: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(30), SignedDuration::from_hours(1));
/// How long renewing may fail before the account counts as expired.
const FAILING_MAX: SignedDuration = SignedDuration::from_hours(4 * 24);
/// How many that vanished at renewing are remembered.
const LAPSED_MAX: usize = 5;
/// How often writing new tokens to the vault is tried: the provider will not give them again.
const KEEP_TRIES: usize = 3;

/// An account as it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub accounts: Accounts,
    pub alias: Alias,
    account: Account,
    version: Version,
}

/// An account with its credential.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    found: Found,
    pub credential: Arc<Credential>,
}

impl Held {
    /// Whether another credential may help where the service refused this one.
    pub(crate) fn can_be_renewed(&self, now: Timestamp) -> bool {
        self.found.account.refreshable && now.duration_since(self.found.account.issued_at) >= FRESH
    }
}

/// Whether an account can be used now.
enum Ready {
    With(Arc<Credential>),
    Not(Failure),
    /// The record is no longer as it was found.
    LookAgain,
    /// The vault does not have what the record names.
    Gone,
    /// Somebody else is renewing, and the token is no longer good.
    Wait,
}

/// What came of renewing.
enum Renewal {
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
    /// The account that is meant by `alias`, or by its absence: the user's own, else the organization's. One read.
    pub(super) async fn find(
        &self,
        org: &OrgId,
        user: &UserId,
        manifest: &Manifest,
        alias: Option<&Alias>,
    ) -> Result<Option<Found>, Error> {
        let owners = [Owner::User(user.clone()), Owner::Organization];
        let keys = owners.map(|owner| keys::integrations(org, &owner, &manifest.name));
        for item in self.ports.table.batch_get(&keys, Read::Consistent).await?.into_iter().flatten() {
            let accounts: Accounts = item.record()?;
            let alias = alias.unwrap_or(&accounts.default).clone();
            if let Some(account) = accounts.accounts.get(&alias).cloned() {
                return Ok(Some(Found { accounts, alias, account, version: item.version }));
            }
        }
        Ok(None)
    }

    /// The account that an intent is to use, or why there is none: one read while the process is warm and the token is
    /// good. `refused` is what the service has just refused.
    pub(crate) async fn account(
        &self,
        org: &OrgId,
        user: &UserId,
        manifest: &Manifest,
        alias: Option<&Alias>,
        refused: Option<&Held>,
        deadline: Instant,
    ) -> Result<Result<Held, Failure>, Error> {
        let mut pause = LOOK_AGAIN.0;
        let mut gone = None;
        loop {
            let found = timeout_at(deadline, self.find(org, user, manifest, alias)).await;
            let Some(found) = found.map_err(TableError::store)?? else {
                return Ok(Err(not_connected(manifest, user, alias)));
            };
            match self.ready(org, manifest, &found, refused, deadline).await? {
                Ready::With(credential) => return Ok(Ok(Held { found, credential })),
                Ready::Not(failure) => return Ok(Err(failure)),
                Ready::LookAgain => {}
                // Once it may have been replaced between the two reads; twice it is lost.
                Ready::Gone if gone.as_ref() == Some(&found.version) => {
                    return Ok(Err(connect_again(manifest, &found.alias, Reason::CredentialLost)));
                }
                Ready::Gone => gone = Some(found.version),
                Ready::Wait => {
                    let next = Instant::now() + pause;
                    if next >= deadline {
                        let message = format!("{}'s token is being renewed; try again", manifest.display_name);
                        return Ok(Err(Failure::new(OutcomeCode::Unavailable, message, true)));
                    }
                    sleep_until(next).await;
                    pause = (pause * 2).min(LOOK_AGAIN.1);
                }
            }
        }
    }

    async fn ready(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        found: &Found,
        refused: Option<&Held>,
        deadline: Instant,
    ) -> Result<Ready, Error> {
        let (account, now) = (&found.account, self.ports.clock.now());
        if let Some(reason) = self.unfit(manifest, account, now) {
            return Ok(Ready::Not(connect_again(manifest, &found.alias, reason)));
        }
        let refused = refused.is_some_and(|held| {
            let before = &held.found.account;
            (&before.secret, before.generation) == (&account.secret, account.generation)
        });
        let good = !refused && account.expires_at.is_none_or(|at| now < at);
        if account.refreshable && (refused || is_due(manifest, account, now)) {
            match self.renew(org, manifest, found, deadline).await? {
                Renewal::Done | Renewal::Moved => return Ok(Ready::LookAgain),
                Renewal::Busy if !good => return Ok(Ready::Wait),
                Renewal::Failed(failure) if !good => return Ok(Ready::Not(failure)),
                Renewal::Busy | Renewal::Failed(_) => {}
            }
        }
        let opened =
            timeout_at(deadline, self.open(org, &found.accounts, &found.alias, account, &account.version)).await;
        match opened.map_err(|error| Error::from(TableError::store(error)))? {
            Ok(Some(credential)) => Ok(Ready::With(credential)),
            Ok(None) => Ok(Ready::Gone),
            Err(VaultError::DoesNotOpen) => {
                tracing::error!(%org, plugin = %manifest.name, alias = %found.alias, "a credential does not open with the vault's key");
                Ok(Ready::Not(connect_again(manifest, &found.alias, Reason::VaultKey)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Why an account can surely not be used, if it cannot.
    pub(super) fn unfit(&self, manifest: &Manifest, account: &Account, now: Timestamp) -> Option<Reason> {
        if account.bound_to != self.bound_to(manifest) {
            return Some(Reason::PluginChanged);
        }
        match (account.state, account.reason) {
            // A service that refuses once may accept again, and trying costs nothing.
            (State::ReconnectRequired, Some(Reason::Refused)) | (State::Active | State::Error, _) => {}
            (State::Pending | State::Expired | State::Revoked | State::ReconnectRequired, reason) => {
                return Some(reason.unwrap_or(Reason::InvalidGrant));
            }
        }
        let ran_out = !account.refreshable && account.expires_at.is_some_and(|at| at <= now);
        ran_out.then_some(Reason::TokenExpired)
    }

    /// A version of an account's credential, from the vault once and then from memory: a version never changes.
    async fn open(
        &self,
        org: &OrgId,
        accounts: &Accounts,
        alias: &Alias,
        account: &Account,
        version: &str,
    ) -> Result<Option<Arc<Credential>>, VaultError> {
        let named = (account.secret_id(org, &accounts.owner, &accounts.plugin, alias), version.to_owned());
        if let Some(credential) = self.seen_credentials.get(&named) {
            return Ok(Some(credential));
        }
        let Some(text) = self.ports.vault.get(&named.0, version).await? else { return Ok(None) };
        let credential = Arc::new(Credential::from_sealed_form(&text).ok_or(VaultError::DoesNotOpen)?);
        self.seen_credentials.insert(named, Arc::clone(&credential));
        Ok(Some(credential))
    }

    /// Takes the lease and renews, unless somebody else is at it or it failed a moment ago.
    async fn renew(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        found: &Found,
        deadline: Instant,
    ) -> Result<Renewal, Error> {
        let now = self.ports.clock.now();
        if let Some(trouble) = found.account.trouble.as_ref().filter(|trouble| trouble.retry_at > now) {
            return Ok(Renewal::Failed(in_trouble(manifest, &found.account, trouble, now)));
        }
        if found.account.lease.as_ref().is_some_and(|lease| lease.until > now) {
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
        accounts.accounts.insert(found.alias.clone(), account.clone());
        match self.put_accounts(org, &accounts, Some(found.version.clone())).await {
            Ok(_) => {}
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
        // Whoever vanished may have come as far as the vault.
        for lapsed in account.lapsed.iter().rev() {
            let version = version_of(account.generation + 1, lapsed);
            if let Some(credential) = self.open(org, accounts, alias, account, &version).await? {
                tracing::warn!(%org, plugin = %manifest.name, %alias, "an interrupted renewal is rolled forward");
                return self.commit(renewing, &version, &credential).await;
            }
        }
        let Some(current) = self.open(org, accounts, alias, account, &account.version).await? else {
            return self.give_up(renewing, State::ReconnectRequired, Reason::CredentialLost).await;
        };
        let Some(client) = self.client(org, manifest).await? else {
            let refusal = Refusal::Refused("no OAuth client is configured any more".to_owned());
            return self.fail(renewing, &refusal).await;
        };
        if account.client_id.as_ref() != Some(&client.id) {
            return self.give_up(renewing, State::ReconnectRequired, Reason::ClientChanged).await;
        }
        let asked_at = self.ports.clock.now();
        let deadline = deadline.min(Instant::now() + RENEWAL_TIME);
        let Some(protocol) = self.protocol(manifest, &client, deadline) else { return Ok(Renewal::Moved) };
        let answer = match (&manifest.auth, &current.refresh_token) {
            (Auth::ClientCredentials(_), _) => protocol.client_credentials(account.wanted(manifest)).await,
            (Auth::Oauth2(_), Some(token)) => protocol.refresh(token).await,
            (Auth::Oauth2(_) | Auth::None | Auth::ApiKey(_) | Auth::Basic(_), _) => Err(Refusal::InvalidGrant),
        };
        match answer {
            Ok(tokens) => {
                let credential = credential_of(tokens, asked_at, Some(&current));
                let version = version_of(account.generation + 1, &renewing.me);
                let id = account.secret_id(org, renewing.owner, &manifest.name, alias);
                self.keep(&id, &version, &credential).await?;
                self.commit(renewing, &version, &credential).await
            }
            Err(Refusal::InvalidGrant) => {
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

    /// Writes new tokens to the vault.
    pub(super) async fn keep(
        &self,
        id: &crate::ports::vault::SecretId,
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
        match self.ports.vault.put(id, version, &form).await {
            // One of the tries that seemed to fail did not.
            Err(VaultError::VersionExists) => Ok(()),
            other => other,
        }
    }

    /// Makes a new version of the credential the one that counts, unless somebody else was faster.
    async fn commit(&self, renewing: &Renewing<'_>, version: &str, new: &Credential) -> Result<Renewal, Error> {
        let now = self.ports.clock.now();
        let committed = self
            .settle(renewing, |account| {
                account.generation += 1;
                version.clone_into(&mut account.version);
                (account.issued_at, account.updated_at) = (now, now);
                account.expires_at = new.expires_at;
                account.granted = new.scopes.clone().or(account.granted.take());
                account.trouble = None;
                account.interrupted = false;
                account.lapsed.clear();
                account.becomes(State::Active, None, now);
            })
            .await?;
        let Some(account) = committed else { return Ok(Renewal::Moved) };
        let Renewing { org, manifest, owner, alias, account: before, .. } = renewing;
        let id = before.secret_id(org, owner, &manifest.name, alias);
        if let Err(error) = self.ports.vault.delete_version(&id, &before.version).await {
            // Nothing refers to it any more, and it is sealed; disconnecting removes it.
            tracing::error!(%org, error = %causes(&error), "a token that was renewed stays in the vault");
        }
        let event = json!({
            "plugin": manifest.name, "alias": alias, "owner": owner, "expiresAt": account.expires_at,
        });
        self.publish(org, "integration.refreshed", &event).await;
        Ok(Renewal::Done)
    }

    /// Renewing failed for now.
    async fn fail(&self, renewing: &Renewing<'_>, refusal: &Refusal) -> Result<Renewal, Error> {
        let now = self.ports.clock.now();
        let code = match refusal {
            Refusal::Refused(code) => code.clone(),
            Refusal::InvalidGrant => "invalid_grant".to_owned(),
            Refusal::Unavailable(_) | Refusal::Unknown(_) => "unavailable".to_owned(),
        };
        let failed = self
            .settle(renewing, |account| {
                let before = account.trouble.take();
                let count = before.as_ref().map_or(1, |trouble| trouble.count.saturating_add(1));
                let since = before.map_or(now, |trouble| trouble.since);
                let pause = BACK_OFF.0 * 2_i32.saturating_pow(count.saturating_sub(1).min(16));
                account.trouble = Some(Trouble { since, count, retry_at: now + pause.min(BACK_OFF.1) });
                account.interrupted |= matches!(refusal, Refusal::Unknown(_));
                account.last_error = Some(LastError { code: code.clone(), message: refusal.to_string(), at: now });
                if now.duration_since(since) >= FAILING_MAX {
                    account.becomes(State::Expired, Some(Reason::RefreshFailed), now);
                } else {
                    account.becomes(State::Error, Some(Reason::RefreshFailing), now);
                }
            })
            .await?;
        let Some(account) = failed else { return Ok(Renewal::Moved) };
        let Some(trouble) = &account.trouble else { return Ok(Renewal::Moved) };
        let Renewing { org, manifest, alias, .. } = renewing;
        tracing::warn!(%org, plugin = %manifest.name, %alias, count = trouble.count, error = %causes(refusal), "a token was not renewed");
        if trouble.count == 1 || account.state == State::Expired {
            self.publish_failed(renewing, &account).await;
        }
        if account.state == State::Expired {
            return Ok(Renewal::Failed(connect_again(manifest, alias, Reason::RefreshFailed)));
        }
        Ok(Renewal::Failed(in_trouble(manifest, &account, trouble, now)))
    }

    /// Renewing will never succeed again.
    async fn give_up(&self, renewing: &Renewing<'_>, state: State, reason: Reason) -> Result<Renewal, Error> {
        let now = self.ports.clock.now();
        let settled = self
            .settle(renewing, |account| {
                account.trouble = None;
                let code = serde_json::to_value(reason).unwrap_or_default();
                let code = code.as_str().unwrap_or_default().to_owned();
                let message = format!("the account {}", reason.what());
                account.last_error = Some(LastError { code, message, at: now });
                account.becomes(state, Some(reason), now);
            })
            .await?;
        let Some(account) = settled else { return Ok(Renewal::Moved) };
        self.publish_failed(renewing, &account).await;
        Ok(Renewal::Failed(connect_again(renewing.manifest, renewing.alias, reason)))
    }

    async fn publish_failed(&self, renewing: &Renewing<'_>, account: &Account) {
        let Renewing { org, manifest, owner, alias, .. } = renewing;
        let event = json!({
            "plugin": manifest.name, "alias": alias, "owner": owner, "state": account.state, "reason": account.reason,
            "lastError": account.last_error,
        });
        self.publish(org, "integration.failed", &event).await;
    }

    /// Changes the account and gives the lease back, if it is still the one that the lease was taken for.
    async fn settle(&self, renewing: &Renewing<'_>, change: impl Fn(&mut Account)) -> Result<Option<Account>, Error> {
        let Renewing { org, manifest, owner, alias, account: before, me } = renewing;
        self.change_accounts(org, owner, &manifest.name, |accounts| {
            let account = accounts.accounts.get_mut(alias).filter(|account| {
                let same = (&account.secret, account.generation) == (&before.secret, before.generation);
                same && account.lease.as_ref().is_some_and(|lease| lease.owner == *me)
            });
            let Some(account) = account else { return Ok(Change::Nothing(None)) };
            account.lease = None;
            change(account);
            Ok(Change::Write(Some(account.clone())))
        })
        .await
    }

    /// Writes down that an account was used, at most once an hour, or that the service refused its credential. Whoever
    /// changes the record at the same moment knows more: then this is left out.
    pub(crate) async fn note_use(&self, org: &OrgId, held: &Held, failure: Option<&Failure>) {
        let now = self.ports.clock.now();
        let before = &held.found.account;
        let mut account = before.clone();
        match failure {
            Some(failure) if failure.credential_refused => {
                let (code, message) = ("credential_refused".to_owned(), failure.message.clone());
                account.last_error = Some(LastError { code, message, at: now });
                account.becomes(State::ReconnectRequired, Some(Reason::Refused), now);
            }
            Some(_) => return,
            None => {
                if before.reason == Some(Reason::Refused) {
                    account.becomes(State::Active, None, now);
                }
            }
        }
        let recently = before.last_used_at.is_some_and(|at| now.duration_since(at) < USE_NOTED_EVERY);
        if (recently || failure.is_some()) && (account.state, account.reason) == (before.state, before.reason) {
            return;
        }
        if failure.is_none() {
            account.last_used_at = Some(now);
        }
        let mut accounts = held.found.accounts.clone();
        accounts.accounts.insert(held.found.alias.clone(), account);
        match self.put_accounts(org, &accounts, Some(held.found.version.clone())).await {
            Ok(_) | Err(TableError::Condition { .. }) => {}
            Err(error) => tracing::error!(%org, error = %causes(&error), "the use of an account was not written down"),
        }
    }
}

/// Whether the token is to be replaced: before its end, but not in the first half of its life.
fn is_due(manifest: &Manifest, account: &Account, now: Timestamp) -> bool {
    let Some(expires_at) = account.expires_at else { return false };
    let margin = manifest.auth.provider().map_or(0, |provider| i64::from(provider.refresh_margin_s));
    let life = expires_at.duration_since(account.issued_at);
    expires_at.duration_since(now) <= SignedDuration::from_secs(margin).min(life / 2)
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

fn not_connected(manifest: &Manifest, user: &UserId, alias: Option<&Alias>) -> Failure {
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

fn connect_again(manifest: &Manifest, alias: &Alias, reason: Reason) -> Failure {
    let name = &manifest.display_name;
    let message = format!("the account \"{alias}\" at {name} {}; {}", reason.what(), reason.remedy());
    Failure::new(OutcomeCode::ReconnectRequired, message, false)
}

fn in_trouble(manifest: &Manifest, account: &Account, trouble: &Trouble, now: Timestamp) -> Failure {
    let said = account.last_error.as_ref().map(|error| format!(" ({})", error.message)).unwrap_or_default();
    let name = &manifest.display_name;
    let message = format!("{name}'s token ran out and cannot be renewed at the moment{said}; it is tried again");
    let wait = trouble.retry_at.duration_since(now).as_secs().max(1);
    let retry_after_s = u64::try_from(wait).ok();
    Failure { retry_after_s, ..Failure::new(OutcomeCode::Unavailable, message, true) }
}
