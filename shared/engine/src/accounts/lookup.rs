//! The account that an intent is to use, with a credential that is good.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use quick_cache::sync::Cache;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Integration;
use super::record::{Account, Accounts, LastError};
use super::refresh::Renewal;
use super::state::{Reason, State};
use crate::accounts::record::AccountLookup;
use crate::accounts::state::connect_again;
use crate::core::backoff::PollBackoff;
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId, UserId};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::plugin::manifest::Manifest;
use crate::ports::table::{Read, TableError};
use crate::ports::vault::{SecretId, VaultError};

/// How long a token has to be in use before a service that refuses it is believed to mean its age.
const FRESH: SignedDuration = SignedDuration::from_secs(60);
/// How often the use of an account is written down.
const USE_NOTED_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// The most credentials that a process keeps in memory.
const CREDENTIALS_CACHED_MAX: usize = 1_000;

/// An account with its credential.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizedAccount {
    found: AccountLookup,
    pub credential: Arc<Credential>,
}

impl AuthorizedAccount {
    /// Tells this connection from every other; renewing its credential changes nothing.
    pub(crate) fn identity(&self) -> &str {
        self.found.identity()
    }

    /// Whether another credential may help where the service refused this one.
    pub(crate) fn can_be_renewed(&self, now: Timestamp) -> bool {
        may_be_too_old(&self.found.account, now)
    }

    /// Whether `other` has another credential.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        self.found.account.credential() != other.found.account.credential()
    }
}

/// Whether an account can be used now.
enum Readiness {
    With(Arc<Credential>),
    Not(Failure),
    /// The record is no longer as it was found.
    LookAgain,
    /// There is a new credential.
    Renewed,
    /// The vault does not have what the record names.
    Gone,
    /// Somebody else is renewing, and the token is no longer good.
    Wait,
}

/// The credentials that this process has opened, by secret and version. A version never changes, so an entry is never stale.
pub(crate) struct CredentialCache(Cache<(SecretId, String), Arc<Credential>>);

impl Default for CredentialCache {
    fn default() -> Self {
        Self(Cache::new(CREDENTIALS_CACHED_MAX))
    }
}

impl CredentialCache {
    /// Drops a version that is deleted.
    pub(super) fn remove(&self, id: &SecretId, version: String) {
        self.0.remove(&(id.clone(), version));
    }
}

impl Engine {
    /// The account that is meant by `alias`, or by its absence. One read.
    pub(crate) async fn find(
        &self,
        org: &OrgId,
        user: &UserId,
        manifest: &Manifest,
        alias: Option<&Alias>,
    ) -> Result<Option<AccountLookup>, Error> {
        let items =
            self.ports.table.batch_get(&AccountLookup::keys(org, user, &manifest.name), Read::Consistent).await?;
        Ok(AccountLookup::among(items, alias)?)
    }

    /// The account that an intent is to use, or why there is none. `seen` is what was found just now, and
    /// `refused` what the service has just refused. With the first it costs no read while the process is warm and the token
    /// good.
    pub(crate) async fn resolve_account(
        &self,
        org: &OrgId,
        user: &UserId,
        manifest: &Manifest,
        alias: Option<&Alias>,
        (mut seen, refused): (Option<AccountLookup>, Option<&AuthorizedAccount>),
        deadline: Instant,
    ) -> Result<Result<AuthorizedAccount, Failure>, Error> {
        let mut backoff = PollBackoff::default();
        let (mut gone, mut renewed) = (None, false);
        loop {
            let found = if seen.is_some() {
                seen.take()
            } else if let Ok(found) = timeout_at(deadline, self.find(org, user, manifest, alias)).await {
                found?
            } else {
                let message = "there was no time left to look for the account; try again".to_owned();
                return Ok(Err(Failure::new(OutcomeCode::Timeout, message, true)));
            };
            let Some(found) = found else { return Ok(Err(not_connected(manifest, user, alias))) };
            match self.ensure_fresh(org, manifest, &found, refused, (deadline, renewed)).await? {
                Readiness::With(credential) => return Ok(Ok(AuthorizedAccount { found, credential })),
                Readiness::Not(failure) => return Ok(Err(failure)),
                Readiness::LookAgain => {}
                Readiness::Renewed => renewed = true,
                // Once it may have been replaced between the two reads; twice it is lost.
                Readiness::Gone if gone.as_ref() == Some(&found.version) => {
                    return Ok(Err(connect_again(manifest, &found.alias, Reason::CredentialLost)));
                }
                Readiness::Gone => gone = Some(found.version),
                Readiness::Wait => {
                    let next = Instant::now() + backoff.next_pause();
                    if next >= deadline {
                        let message = format!("{}'s token is being renewed; try again", manifest.display_name);
                        return Ok(Err(Failure::new(OutcomeCode::Unavailable, message, true)));
                    }
                    sleep_until(next).await;
                }
            }
        }
    }

    /// What an account is good for. `renewed` says that this caller has renewed it just now: what came of that is used
    /// as it is, however short its life.
    async fn ensure_fresh(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        found: &AccountLookup,
        refused: Option<&AuthorizedAccount>,
        (deadline, renewed): (Instant, bool),
    ) -> Result<Readiness, Error> {
        let (account, now) = (&found.account, self.ports.clock.now());
        if let Some(reason) = self.unusable_reason(manifest, account, now) {
            return Ok(Readiness::Not(connect_again(manifest, &found.alias, reason)));
        }
        let opened = self.open(org, &found.accounts, &found.alias, account, &account.version);
        let Ok(opened) = timeout_at(deadline, opened).await else {
            let message = "there was no time left to read the account's credential; try again".to_owned();
            return Ok(Readiness::Not(Failure::new(OutcomeCode::Timeout, message, true)));
        };
        let credential = match opened {
            Ok(Some(credential)) => credential,
            Ok(None) => return Ok(Readiness::Gone),
            Err(VaultError::DoesNotOpen) => {
                tracing::error!(%org, plugin = %manifest.name, alias = %found.alias, "a credential does not open with the vault's key");
                return Ok(Readiness::Not(connect_again(manifest, &found.alias, Reason::VaultKey)));
            }
            Err(error) => return Err(error.into()),
        };
        let refused = refused.is_some_and(|held| held.found.account.credential() == account.credential());
        if refused && !may_be_too_old(account, now) {
            return Ok(Readiness::Not(connect_again(manifest, &found.alias, Reason::Refused)));
        }
        let due = account.refreshable && !renewed && is_due(manifest, account, now);
        if !refused && !due {
            return Ok(Readiness::With(credential));
        }
        let good = !refused && account.expires_at.is_none_or(|at| now < at);
        match self.renew(org, manifest, found, deadline).await {
            Ok(Renewal::Done) => Ok(Readiness::Renewed),
            Ok(Renewal::Moved) => Ok(Readiness::LookAgain),
            Ok(Renewal::Busy) if !good => Ok(Readiness::Wait),
            Ok(Renewal::Failed(failure)) if !good => Ok(Readiness::Not(failure)),
            Ok(Renewal::Busy | Renewal::Failed(_)) => Ok(Readiness::With(credential)),
            Err(error) if good => {
                tracing::error!(%org, plugin = %manifest.name, error = %causes(&error), "a token was not renewed; the old one is good");
                Ok(Readiness::With(credential))
            }
            Err(error) => Err(error),
        }
    }

    /// Why an account can surely not be used, if it cannot.
    pub(super) fn unusable_reason(&self, manifest: &Manifest, account: &Account, now: Timestamp) -> Option<Reason> {
        if account.bound_to != self.audience(manifest) {
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

    /// The account as it is shown.
    pub(crate) fn account_shown(&self, manifest: &Manifest, found: &AccountLookup) -> Integration {
        self.shown(Some(manifest), &found.accounts, &found.alias, &found.account)
    }

    /// What is said of an account that surely cannot be used now.
    pub(crate) fn cannot_serve(&self, manifest: &Manifest, found: &AccountLookup, now: Timestamp) -> Option<Failure> {
        self.unusable_reason(manifest, &found.account, now).map(|reason| connect_again(manifest, &found.alias, reason))
    }

    /// Why an account can surely not be used at `at`, as far as that can be told now.
    pub(crate) fn will_be_unfit(&self, manifest: &Manifest, found: &AccountLookup, at: Timestamp) -> Option<Reason> {
        let account = &found.account;
        let ends = !account.refreshable && account.expires_at.is_some_and(|end| end <= at);
        self.unusable_reason(manifest, account, self.ports.clock.now()).or(ends.then_some(Reason::TokenExpired))
    }

    /// A version of an account's credential, from the vault once and then from memory: a version never changes.
    pub(super) async fn open(
        &self,
        org: &OrgId,
        accounts: &Accounts,
        alias: &Alias,
        account: &Account,
        version: &str,
    ) -> Result<Option<Arc<Credential>>, VaultError> {
        let named = (account.secret_id(org, &accounts.owner, &accounts.plugin, alias), version.to_owned());
        if let Some(credential) = self.credential_cache.0.get(&named) {
            return Ok(Some(credential));
        }
        let Some(text) = self.ports.vault.get(&named.0, version).await? else { return Ok(None) };
        let credential = Arc::new(Credential::from_sealed_form(&text).ok_or(VaultError::DoesNotOpen)?);
        self.credential_cache.0.insert(named, Arc::clone(&credential));
        Ok(Some(credential))
    }

    /// Writes down that an account was used, at most once an hour, or that the service refused its credential. Whoever
    /// changes the record at the same moment knows more: then this is left out.
    pub(crate) async fn note_use(&self, org: &OrgId, held: &AuthorizedAccount, failure: Option<&Failure>) {
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
                // Without an end there is no renewal that would tell that all is well.
                let untold = before.state == State::Error && before.expires_at.is_none();
                if before.reason == Some(Reason::Refused) || untold {
                    account.trouble = None;
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
        accounts.by_alias.insert(held.found.alias.clone(), account);
        match self.put_accounts(org, &accounts, Some(held.found.version.clone()), (None, None)).await {
            Ok(()) | Err(TableError::Condition { .. }) => {}
            Err(error) => tracing::error!(%org, error = %causes(&error), "the use of an account was not written down"),
        }
    }
}

/// Whether a credential that the service refuses may be refused for its age, and can be replaced. A negative age comes of
/// a clock that was wrong.
fn may_be_too_old(account: &Account, now: Timestamp) -> bool {
    account.refreshable && !(SignedDuration::ZERO..FRESH).contains(&now.duration_since(account.issued_at))
}

/// Whether the token is to be replaced: before its end, but not in the first half of its life.
fn is_due(manifest: &Manifest, account: &Account, now: Timestamp) -> bool {
    let Some(expires_at) = account.expires_at else { return false };
    let margin = manifest.auth.provider().map_or(0, |provider| i64::from(provider.refresh_margin_s));
    let life = expires_at.duration_since(account.issued_at);
    expires_at.duration_since(now) <= SignedDuration::from_secs(margin).min(life / 2)
}

pub(crate) fn not_connected(manifest: &Manifest, user: &UserId, alias: Option<&Alias>) -> Failure {
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
