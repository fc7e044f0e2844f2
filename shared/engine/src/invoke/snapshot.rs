//! The snapshot: everything in the table that an invocation depends on, in one read.

use jiff::Timestamp;

use super::request::Invocation;
use crate::access::admission::must_admit;
use crate::accounts::{AccountLookup, not_connected};
use crate::core::error::Error;
use crate::core::outcome::{Failure, OutcomeCode};
use crate::engine::Engine;
use crate::invoke::mappings::Naming;
use crate::invoke::runs::IdempotencyState;
use crate::plugin::breaker::ActionClass;
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::table::{Item, Read};
use crate::registry::instances::{Availability, LoadedInstance};
use crate::storage::keys;

/// The `Retry-After` of a call that is refused while another call is the breaker's trial, in seconds.
const TRIAL_WAIT_S: u64 = 5;

/// What one read of the table says about an invocation.
pub(crate) struct Snapshot {
    pub account: Option<AccountLookup>,
    pub instance: LoadedInstance,
    /// The state of the caller's idempotency key; free where there is no key.
    pub key_state: IdempotencyState,
    /// The stored meanings of the names among the parameters, in the order of [`Naming::keys`].
    pub names: Vec<Option<Item>>,
    /// The organization's hooks.
    pub hooks: Option<Item>,
}

impl Snapshot {
    /// Why the plugin refuses calls of a class of actions now, if it does.
    pub(crate) fn unavailable(
        &self,
        invocation: &Invocation<'_>,
        class: ActionClass,
        now: Timestamp,
    ) -> Option<Failure> {
        let manifest = invocation.manifest;
        unavailable_reason(manifest, &self.instance.instance.in_use(manifest, class, now), now)
    }

    /// Why the invocation cannot be called, as far as the snapshot alone shows: the plugin is unavailable, or the user has
    /// no account.
    pub(crate) fn obstacle(&self, invocation: &Invocation<'_>, now: Timestamp) -> Option<Failure> {
        if let Some(failure) = self.unavailable(invocation, invocation.class(), now) {
            return Some(failure);
        }
        let needs_account = !matches!(invocation.manifest.auth, Auth::None);
        let missing = needs_account && self.account.is_none();
        missing.then(|| not_connected(invocation.manifest, invocation.request.user, invocation.request.alias))
    }
}

impl Engine {
    /// Reads everything that an invocation depends on, at once. Refuses a plugin that is not enabled in the request's
    /// channel. `None` where the organization uses another version of the plugin by now.
    pub(crate) async fn load_snapshot(
        &self,
        invocation: &Invocation<'_>,
        naming: &Naming,
    ) -> Result<Option<Snapshot>, Error> {
        let (request, manifest) = (invocation.request, invocation.manifest);
        let (org, user) = (request.org, request.user);
        let mut wanted = vec![keys::instance(org, &manifest.name), keys::hooks(org)];
        wanted.extend(request.channel.map(|channel| keys::channel(org, channel)));
        wanted.extend(invocation.idempotency().map(|idempotency| keys::idempotency(org, user, &idempotency.key)));
        let account_keys = if matches!(manifest.auth, Auth::None) {
            Vec::new()
        } else {
            Vec::from(AccountLookup::keys(org, user, &manifest.name))
        };
        let account_items = account_keys.len();
        wanted.extend(account_keys);
        wanted.extend(naming.keys(org, user, request.agent, request.alias));
        // The items come in the order of the keys.
        let mut items = self.ports.table.batch_get(&wanted, Read::Consistent).await?.into_iter();
        let instance = LoadedInstance::of(items.next().flatten())?;
        let hooks = items.next().flatten();
        if let Some(channel) = request.channel {
            let action = Some(&invocation.action.name);
            must_admit(channel, items.next().flatten().as_ref(), &manifest.name, action)?;
        }
        if !instance.instance.uses(request.plugin) {
            return Ok(None);
        }
        let key_state = match invocation.idempotency() {
            Some(idempotency) => {
                let now = self.ports.clock.now();
                IdempotencyState::of(items.next().flatten(), &idempotency.payload, now)?
            }
            None => IdempotencyState::Free,
        };
        let accounts: Vec<_> = items.by_ref().take(account_items).collect();
        let account = AccountLookup::among(accounts, request.alias)?;
        Ok(Some(Snapshot { account, instance, key_state, names: items.collect(), hooks }))
    }
}

/// Why a plugin refuses calls now, if it does.
pub(crate) fn unavailable_reason(manifest: &Manifest, in_use: &Availability, now: Timestamp) -> Option<Failure> {
    let name = &manifest.display_name;
    match in_use {
        Availability::Available | Availability::OnTrial => None,
        Availability::Disabled(reason) => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let message =
                format!("{name} was disabled by an administrator{reason}; an administrator can enable it again");
            Some(Failure::new(OutcomeCode::Disabled, message, false))
        }
        Availability::NotEnabled => {
            let message = format!("{name} is not enabled; an administrator can enable it");
            Some(Failure::new(OutcomeCode::Disabled, message, false))
        }
        Availability::TrialInProgress => {
            let message = format!("{name} failed too often and is out of use; another call is testing it now");
            let failure = Failure::new(OutcomeCode::Disabled, message, true);
            Some(Failure { retry_after_s: Some(TRIAL_WAIT_S), ..failure })
        }
        Availability::OpenUntil(until) => {
            let remaining = until.duration_since(now);
            let seconds =
                u64::try_from(remaining.as_secs()).unwrap_or_default() + u64::from(remaining.subsec_nanos() > 0);
            let message = format!("{name} failed too often and is out of use; it is tried again at {until}");
            let failure = Failure::new(OutcomeCode::Disabled, message, true);
            Some(Failure { retry_after_s: Some(seconds), ..failure })
        }
    }
}
