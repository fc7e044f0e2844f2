//! Refreshes that fail: for now, with a backoff, or for good.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::owner::OwnerKind;
use super::record::{Account, LastError, RefreshBackoff};
use super::refresh::{LeasedAccount, RefreshOutcome};
use super::state::{AccountState, StateReason, reconnect_required};
use crate::core::error::{Error, causes};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::engine::Engine;
use crate::outbound::oauth::TokenError;
use crate::plugin::manifest::Manifest;
use crate::ports::Event;
use crate::ports::events::EventKind;

/// The pause after the first failed refresh. It doubles with each failure, up to [`BACKOFF_MAX`].
const BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(30);
/// The longest pause between two refreshes that fail.
pub(super) const BACKOFF_MAX: SignedDuration = SignedDuration::from_hours(1);
/// How long refreshes may fail before the account expires.
const FAILING_MAX: SignedDuration = SignedDuration::from_hours(4 * 24);
/// After this time without a refresh a new failure begins a new series.
const SERIES_GAP: SignedDuration = SignedDuration::from_hours(24);

impl RefreshBackoff {
    /// The series after another failure.
    fn after_failure(previous: Option<Self>, client_version: Option<String>, now: Timestamp) -> Self {
        // A failure of long ago says nothing about the time since: no refresh was tried in between.
        let previous = previous.filter(|backoff| now.duration_since(backoff.retry_at) <= SERIES_GAP);
        let count = previous.as_ref().map_or(1, |backoff| backoff.count.saturating_add(1));
        let since = previous.map_or(now, |backoff| backoff.since);
        let pause = BACKOFF_MIN * 2_i32.saturating_pow(count.saturating_sub(1).min(16));
        Self { since, count, retry_at: now + pause.min(BACKOFF_MAX), client_version }
    }
}

impl Engine {
    /// Records a refresh that failed for now, and releases the lease. After [`FAILING_MAX`] the account expires.
    pub(super) async fn back_off(
        &self,
        leased: &LeasedAccount<'_>,
        client_version: Option<&str>,
        error: &TokenError,
    ) -> Result<RefreshOutcome, Error> {
        let now = self.ports.clock.now();
        let code = error_code(error);
        let failed = |account: &mut Account| {
            let backoff =
                RefreshBackoff::after_failure(account.backoff.take(), client_version.map(ToOwned::to_owned), now);
            let since = backoff.since;
            account.backoff = Some(backoff);
            account.interrupted |= matches!(error, TokenError::Unknown(_));
            account.last_error = Some(LastError { code: code.clone(), message: error.to_string(), at: now });
            if now.duration_since(since) >= FAILING_MAX {
                account.set_state(AccountState::Expired, Some(StateReason::RefreshFailed), now);
            } else {
                account.set_state(AccountState::Error, Some(StateReason::RefreshFailing), now);
            }
        };
        // The first failure of a series and the last are reported.
        let event = |account: &Account| {
            let first = account.backoff.as_ref().is_some_and(|backoff| backoff.count == 1);
            (first || account.state == AccountState::Expired).then(|| self.failed_event(leased, account))
        };
        let Some(settled) = self.settle(leased, failed, event).await? else {
            return Ok(RefreshOutcome::RecordChanged);
        };
        let account = settled.account;
        let Some(backoff) = &account.backoff else { return Ok(RefreshOutcome::RecordChanged) };
        let LeasedAccount { org, manifest, alias, .. } = leased;
        tracing::warn!(%org, plugin = %manifest.name, %alias, count = backoff.count, error = %causes(error), "token refresh failed");
        if let Some(event) = settled.event {
            self.publish(event).await;
        }
        if account.state == AccountState::Expired {
            let failure = reconnect_required(manifest, alias, StateReason::RefreshFailed);
            return Ok(RefreshOutcome::Failed(failure));
        }
        Ok(RefreshOutcome::Failed(backoff_failure(manifest, &account, backoff, now)))
    }

    /// Records that no refresh can succeed any more, and releases the lease.
    pub(super) async fn give_up(
        &self,
        leased: &LeasedAccount<'_>,
        state: AccountState,
        reason: StateReason,
    ) -> Result<RefreshOutcome, Error> {
        let now = self.ports.clock.now();
        let failed = |account: &mut Account| {
            account.backoff = None;
            let code = serde_json::to_value(reason).unwrap_or_default();
            let code = code.as_str().unwrap_or_default().to_owned();
            let message = format!("the account {}", reason.description());
            account.last_error = Some(LastError { code, message, at: now });
            account.set_state(state, Some(reason), now);
        };
        let event = |account: &Account| Some(self.failed_event(leased, account));
        let Some(settled) = self.settle(leased, failed, event).await? else {
            return Ok(RefreshOutcome::RecordChanged);
        };
        if let Some(event) = settled.event {
            self.publish(event).await;
        }
        Ok(RefreshOutcome::Failed(reconnect_required(leased.manifest, leased.alias, reason)))
    }

    fn failed_event(&self, leased: &LeasedAccount<'_>, account: &Account) -> Event {
        let LeasedAccount { org, manifest, owner, alias, .. } = leased;
        let (owner, user) = OwnerKind::of(owner, &account.connected_by);
        let detail = json!({
            "plugin": manifest.name, "alias": alias, "owner": owner, "userId": user, "state": account.state,
            "reason": account.reason, "lastError": account.last_error,
        });
        self.event(org, EventKind::IntegrationFailed, &detail)
    }
}

/// The code of the last error that a failed refresh leaves.
fn error_code(error: &TokenError) -> String {
    match error {
        TokenError::Refused(code) => code.clone(),
        TokenError::InvalidGrant => "invalid_grant".to_owned(),
        TokenError::Unavailable(_) | TokenError::Unknown(_) => "unavailable".to_owned(),
    }
}

/// The failure of an intent whose token expired while refreshes fail.
pub(super) fn backoff_failure(
    manifest: &Manifest,
    account: &Account,
    backoff: &RefreshBackoff,
    now: Timestamp,
) -> Failure {
    let error = account.last_error.as_ref().map(|error| format!(" ({})", error.message)).unwrap_or_default();
    let name = &manifest.display_name;
    let message = format!("{name}'s token expired and cannot be refreshed at the moment{error}; it is tried again");
    let wait = backoff.retry_at.duration_since(now).as_secs().max(1);
    let retry_after_s = u64::try_from(wait).ok();
    Failure { retry_after_s, ..Failure::new(OutcomeCode::Unavailable, message, true) }
}
