//! What the use of an account says about it: when it was last used, and whether the service accepts its credential.

use jiff::SignedDuration;

use super::lookup::AuthorizedAccount;
use super::record::{AccountsWrite, LastError};
use super::state::{AccountState, StateReason};
use crate::core::error::causes;
use crate::core::ids::OrgId;
use crate::core::outcome::Failure;
use crate::engine::Engine;
use crate::ports::table::TableError;

/// How often the use of an account is recorded.
const USE_RECORDED_EVERY: SignedDuration = SignedDuration::from_hours(1);

impl Engine {
    /// Records that an account was used, at most once an hour, or that the service refused its credential. A lost
    /// compare-and-set is ignored: the other writer knew more.
    pub(crate) async fn note_use(&self, org: &OrgId, used: &AuthorizedAccount, failure: Option<&Failure>) {
        let now = self.ports.clock.now();
        let lookup = &used.lookup;
        let before = &lookup.account;
        let mut account = before.clone();
        match failure {
            Some(failure) if failure.credential_refused => {
                let (code, message) = ("credential_refused".to_owned(), failure.message.clone());
                account.last_error = Some(LastError { code, message, at: now });
                account.set_state(AccountState::ReconnectRequired, Some(StateReason::Refused), now);
            }
            Some(_) => return,
            None => {
                // A token that never expires is never refreshed, so only its use can show that it works again.
                let unrefreshed_error = before.state == AccountState::Error && before.expires_at.is_none();
                if before.reason == Some(StateReason::Refused) || unrefreshed_error {
                    account.backoff = None;
                    account.set_state(AccountState::Active, None, now);
                }
            }
        }
        let recorded_recently = before.last_used_at.is_some_and(|at| now.duration_since(at) < USE_RECORDED_EVERY);
        let same_state = (account.state, account.reason) == (before.state, before.reason);
        if same_state && (recorded_recently || failure.is_some()) {
            return;
        }
        if failure.is_none() {
            account.last_used_at = Some(now);
        }
        let mut accounts = lookup.accounts.clone();
        accounts.by_alias.insert(lookup.alias.clone(), account);
        let write =
            AccountsWrite { accounts: &accounts, version: Some(lookup.version.clone()), event: None, held: None };
        match self.put_accounts(org, write).await {
            Ok(()) | Err(TableError::Condition { .. }) => {}
            Err(error) => tracing::error!(%org, error = %causes(&error), "failed to record use of account"),
        }
    }
}
