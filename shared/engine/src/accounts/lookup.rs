//! The account for an intent, with a credential that works.
//!
//! [`Engine::resolve_account`] repeats two steps until one of them gives an answer: find the account's record (one read),
//! and make sure that its credential is fresh, which refreshes it where it is about to expire.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::record::Account;
use super::refresh::RefreshOutcome;
use super::state::{StateReason, not_connected, reconnect_required};
use crate::accounts::record::AccountLookup;
use crate::core::backoff::PollBackoff;
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId, UserId};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::plugin::manifest::Manifest;
use crate::ports::table::Read;
use crate::ports::vault::VaultError;

/// How old a token has to be before a refusal by the service is taken for a sign of its age.
const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// An account with its credential.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizedAccount {
    pub(super) lookup: AccountLookup,
    pub credential: Arc<Credential>,
}

impl AuthorizedAccount {
    /// Identifies this connection. A refresh does not change it.
    pub(crate) fn identity(&self) -> &str {
        self.lookup.identity()
    }

    /// Whether a new token may help after the service refused this one.
    pub(crate) fn can_be_renewed(&self, now: Timestamp) -> bool {
        may_be_too_old(&self.lookup.account, now)
    }

    /// Whether `other` has another credential.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        self.lookup.account.credential_identity() != other.lookup.account.credential_identity()
    }
}

/// Which account an intent needs.
#[derive(Clone, Copy)]
pub(crate) struct AccountRequest<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub manifest: &'a Manifest,
    /// The account's alias; the default account if there is none.
    pub alias: Option<&'a Alias>,
    /// The account whose credential the service has just refused.
    pub refused: Option<&'a AuthorizedAccount>,
    pub deadline: Instant,
}

/// The answer to an [`AccountRequest`].
pub(crate) enum AccountResolution {
    /// The account can be used.
    Ready(Box<AuthorizedAccount>),
    /// There is no account, or it cannot be used now.
    Unusable(Failure),
}

/// Whether the credential of an account that was found can be used.
enum Readiness {
    Ready(Arc<Credential>),
    Unusable(Failure),
    /// The record changed after it was read.
    RecordChanged,
    /// This caller has refreshed the token.
    Refreshed,
    /// The vault does not have the version that the record names.
    CredentialMissing,
    /// Another process is refreshing, and the token has expired.
    RefreshInProgress,
}

/// The result of reading a credential from the vault.
enum CredentialRead {
    Opened(Arc<Credential>),
    Missing,
    Unusable(Failure),
}

impl Engine {
    /// The account with `alias`, or the default account. One read.
    pub(crate) async fn find_account(
        &self,
        org: &OrgId,
        user: &UserId,
        manifest: &Manifest,
        alias: Option<&Alias>,
    ) -> Result<Option<AccountLookup>, Error> {
        let keys = AccountLookup::keys(org, user, &manifest.name);
        let items = self.ports.table.batch_get(&keys, Read::Consistent).await?;
        Ok(AccountLookup::among(items, alias)?)
    }

    /// The account that an intent needs, with a credential that works. `known` is the account that the caller has just read:
    /// with it a process whose cache is warm and whose token is fresh reads nothing.
    pub(crate) async fn resolve_account(
        &self,
        request: &AccountRequest<'_>,
        mut known: Option<AccountLookup>,
    ) -> Result<AccountResolution, Error> {
        let &AccountRequest { org, user, manifest, alias, deadline, .. } = request;
        let mut backoff = PollBackoff::default();
        let (mut missing_version, mut just_refreshed) = (None, false);
        loop {
            let lookup = match known.take() {
                Some(known) => Some(known),
                None => match timeout_at(deadline, self.find_account(org, user, manifest, alias)).await {
                    Ok(found) => found?,
                    Err(_) => return Ok(no_time("look for the account")),
                },
            };
            let Some(lookup) = lookup else {
                return Ok(AccountResolution::Unusable(not_connected(manifest, user, alias)));
            };
            match self.ensure_fresh(request, &lookup, just_refreshed).await? {
                Readiness::Ready(credential) => {
                    let account = AuthorizedAccount { lookup, credential };
                    return Ok(AccountResolution::Ready(Box::new(account)));
                }
                Readiness::Unusable(failure) => return Ok(AccountResolution::Unusable(failure)),
                Readiness::RecordChanged => {}
                Readiness::Refreshed => just_refreshed = true,
                // Missing once: it may have been replaced between the two reads. Missing twice: it is lost.
                Readiness::CredentialMissing if missing_version.as_ref() == Some(&lookup.version) => {
                    let failure = reconnect_required(manifest, &lookup.alias, StateReason::CredentialLost);
                    return Ok(AccountResolution::Unusable(failure));
                }
                Readiness::CredentialMissing => missing_version = Some(lookup.version),
                Readiness::RefreshInProgress => {
                    let next = Instant::now() + backoff.next_pause();
                    if next >= deadline {
                        return Ok(AccountResolution::Unusable(refresh_in_progress(manifest)));
                    }
                    sleep_until(next).await;
                }
            }
        }
    }

    /// Makes sure that the credential of an account can be used, and refreshes it where it is about to expire or the service
    /// refused it. `just_refreshed` says that this caller has refreshed it a moment ago: then it is used as it is, however
    /// short its lifetime.
    async fn ensure_fresh(
        &self,
        request: &AccountRequest<'_>,
        lookup: &AccountLookup,
        just_refreshed: bool,
    ) -> Result<Readiness, Error> {
        let (account, manifest) = (&lookup.account, request.manifest);
        let now = self.ports.clock.now();
        if let Some(failure) = self.unusable_failure(manifest, lookup, now) {
            return Ok(Readiness::Unusable(failure));
        }
        let credential = match self.read_credential(request, lookup).await? {
            CredentialRead::Opened(credential) => credential,
            CredentialRead::Missing => return Ok(Readiness::CredentialMissing),
            CredentialRead::Unusable(failure) => return Ok(Readiness::Unusable(failure)),
        };
        let refused = request
            .refused
            .is_some_and(|refused| refused.lookup.account.credential_identity() == account.credential_identity());
        if refused && !may_be_too_old(account, now) {
            let failure = reconnect_required(manifest, &lookup.alias, StateReason::Refused);
            return Ok(Readiness::Unusable(failure));
        }
        let due = account.refreshable && !just_refreshed && is_refresh_due(manifest, account, now);
        if !refused && !due {
            return Ok(Readiness::Ready(credential));
        }
        let usable = (!refused && account.expires_at.is_none_or(|at| now < at)).then_some(credential);
        self.refresh_or_use(request, lookup, usable).await
    }

    /// Reads the current version of the credential.
    async fn read_credential(
        &self,
        request: &AccountRequest<'_>,
        lookup: &AccountLookup,
    ) -> Result<CredentialRead, Error> {
        let AccountLookup { accounts, alias, account, .. } = lookup;
        let &AccountRequest { org, manifest, deadline, .. } = request;
        let read = self.open_credential(org, accounts, alias, account, &account.version);
        let Ok(read) = timeout_at(deadline, read).await else {
            let message = "there was no time left to read the account's credential; try again".to_owned();
            return Ok(CredentialRead::Unusable(Failure::new(OutcomeCode::Timeout, message, true)));
        };
        match read {
            Ok(Some(credential)) => Ok(CredentialRead::Opened(credential)),
            Ok(None) => Ok(CredentialRead::Missing),
            Err(VaultError::DoesNotOpen) => {
                tracing::error!(%org, plugin = %manifest.name, %alias, "credential does not open with the vault's key");
                Ok(CredentialRead::Unusable(reconnect_required(manifest, alias, StateReason::VaultKey)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Refreshes a token. `usable` is the current credential where it still works: it is used if the refresh fails or is in
    /// progress elsewhere.
    async fn refresh_or_use(
        &self,
        request: &AccountRequest<'_>,
        lookup: &AccountLookup,
        usable: Option<Arc<Credential>>,
    ) -> Result<Readiness, Error> {
        let &AccountRequest { org, manifest, deadline, .. } = request;
        match (self.refresh_account(org, manifest, lookup, deadline).await, usable) {
            (Ok(RefreshOutcome::Refreshed), _) => Ok(Readiness::Refreshed),
            (Ok(RefreshOutcome::RecordChanged), _) => Ok(Readiness::RecordChanged),
            (Ok(RefreshOutcome::InProgress | RefreshOutcome::Failed(_)), Some(credential)) => {
                Ok(Readiness::Ready(credential))
            }
            (Ok(RefreshOutcome::InProgress), None) => Ok(Readiness::RefreshInProgress),
            (Ok(RefreshOutcome::Failed(failure)), None) => Ok(Readiness::Unusable(failure)),
            (Err(error), Some(credential)) => {
                tracing::error!(%org, plugin = %manifest.name, error = %causes(&error), "token refresh failed; the old token still works");
                Ok(Readiness::Ready(credential))
            }
            (Err(error), None) => Err(error),
        }
    }
}

/// Whether a token that the service refuses may be refused for its age, and can be refreshed. A negative age comes from a
/// clock that was wrong.
fn may_be_too_old(account: &Account, now: Timestamp) -> bool {
    account.refreshable && !(SignedDuration::ZERO..FRESH).contains(&now.duration_since(account.issued_at))
}

/// Whether it is time to refresh the token: within the provider's margin before it expires, but not in the first half of
/// its lifetime.
fn is_refresh_due(manifest: &Manifest, account: &Account, now: Timestamp) -> bool {
    let Some(expires_at) = account.expires_at else { return false };
    let margin = manifest.auth.provider().map_or(0, |provider| i64::from(provider.refresh_margin_s));
    let lifetime = expires_at.duration_since(account.issued_at);
    expires_at.duration_since(now) <= SignedDuration::from_secs(margin).min(lifetime / 2)
}

fn no_time(to: &str) -> AccountResolution {
    let message = format!("there was no time left to {to}; try again");
    AccountResolution::Unusable(Failure::new(OutcomeCode::Timeout, message, true))
}

fn refresh_in_progress(manifest: &Manifest) -> Failure {
    let message = format!("{}'s token is being refreshed; try again", manifest.display_name);
    Failure::new(OutcomeCode::Unavailable, message, true)
}
