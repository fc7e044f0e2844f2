//! One call of a service: with an account whose credential is good, again where that cannot do anything twice, and with
//! nothing of the credential in what comes back.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::accounts::{AccountRequest, AccountResolution, AuthorizedAccount};
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId};
use crate::core::outcome::{Failure, OutcomeCode, Success};
use crate::core::redactor::Redactor;
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::outbound::host::Host;
use crate::outbound::runtime;
use crate::outbound::runtime::{Call, CallError, CallResult};
use crate::plugin::manifest::Runtime;

/// How often a call is tried once more while somebody waits.
pub(crate) const RETRIES_MAX: u32 = 2;
/// With less time than this nothing is begun that has an effect, and nothing is tried again.
const MIN_REMAINING: Duration = Duration::from_secs(1);
/// The longest pause before the first of these, in milliseconds; twice as long before the second.
const PAUSE_MS: f64 = 400.0;

impl Engine {
    /// Runs one call with an account: once more with a newer credential where the service refused the first, and again, at
    /// most `retries` times, where that cannot do anything twice. Says also how often the service was called.
    pub(crate) async fn call_recording_use(
        &self,
        org: &OrgId,
        call: &Call<'_>,
        mut held: Option<AuthorizedAccount>,
        alias: Option<&Alias>,
        (deadline, retries): (Instant, u32),
    ) -> Result<(CallResult, u32), Error> {
        let (returned, attempts) = self.call_with_retry(org, call, &mut held, alias, (deadline, retries)).await?;
        if let Some(held) = &held {
            match &returned {
                Ok(_) => self.note_use(org, held, None).await,
                Err(CallError::Failed(failure)) => self.note_use(org, held, Some(failure)).await,
                Err(CallError::Parameter(_)) => {}
            }
        }
        Ok((returned, attempts))
    }

    /// As [`Self::call_recording_use`], but that the use of the account is not noted. `held` is renewed where the call renews it.
    pub(crate) async fn call_with_retry(
        &self,
        org: &OrgId,
        call: &Call<'_>,
        held: &mut Option<AuthorizedAccount>,
        alias: Option<&Alias>,
        (deadline, retries): (Instant, u32),
    ) -> Result<(CallResult, u32), Error> {
        let (mut attempts, mut tries, mut renewed) = (0, 0, false);
        // What an earlier try may have done is not undone by a later one that surely did nothing.
        let mut before: Option<Failure> = None;
        let mut last: Option<Failure> = None;
        let returned = loop {
            // Whoever was frozen must not send what another may have judged already.
            let too_late = call.until.is_some_and(|until| until <= self.ports.clock.now());
            if let Some(last) = last.take_if(|_| too_late) {
                break Err(last.into());
            }
            let credential = held.as_ref().map(|held| held.credential.as_ref());
            let (returned, called) = self.call(call, credential, deadline).await;
            attempts += u32::from(called);
            let failure = match returned {
                Err(CallError::Failed(failure)) => failure,
                Ok(_) | Err(CallError::Parameter(_)) => break returned,
            };
            let failure = merge_prior_failure(failure, before.as_ref(), call);
            if failure.unclear {
                before = Some(failure.clone());
            }
            last = Some(failure.clone());
            // Whoever refuses the credential has done nothing.
            if failure.credential_refused
                && !renewed
                && let Some(refused) = held.as_ref()
            {
                renewed = true;
                let renewable = refused.can_be_renewed(self.ports.clock.now());
                let (user, manifest) = (call.user, call.manifest);
                let request = AccountRequest { org, user, manifest, alias, refused: Some(refused), deadline };
                match self.resolve_account(&request, None).await {
                    Ok(AccountResolution::Ready(newer)) if newer.differs_from(refused) => {
                        *held = Some(*newer);
                        continue;
                    }
                    Ok(AccountResolution::Unusable(failure)) if renewable => {
                        break Err(merge_prior_failure(failure, before.as_ref(), call).into());
                    }
                    // What the service said is all there is to say.
                    Ok(_) => break Err(failure.into()),
                    Err(error) if before.is_some() => {
                        tracing::error!(%org, error = %causes(&error), "an account cannot be looked at again");
                        break Err(failure.into());
                    }
                    Err(error) => return Err(error),
                }
            }
            match self.pause(&failure, tries, deadline) {
                Some(pause) if tries < retries => sleep(pause).await,
                Some(_) | None => break Err(failure.into()),
            }
            tries += 1;
        };
        Ok((returned, attempts))
    }

    /// How long to wait before trying once more, if that may be done and there is the time: what the service asks for, or a
    /// random time.
    fn pause(&self, failure: &Failure, tries: u32, deadline: Instant) -> Option<Duration> {
        if !failure.try_again {
            return None;
        }
        let pause = match failure.retry_after_s {
            Some(seconds) => Duration::from_secs(seconds),
            None => Duration::from_secs_f64(PAUSE_MS / 1_000.0 * f64::from(1 << tries.min(8)) * self.jitter()),
        };
        let begins = Instant::now().checked_add(pause)?;
        self.is_time_enough(begins, deadline).then_some(pause)
    }

    /// Whether there is time for a call that begins then.
    pub(crate) fn is_time_enough(&self, begins: Instant, deadline: Instant) -> bool {
        deadline.saturating_duration_since(begins) >= MIN_REMAINING.min(self.config.limits.budget / 10)
    }

    /// Runs one call through its runtime, and takes the credential out of whatever comes back. Says also whether the service
    /// was called.
    pub(crate) async fn call(
        &self,
        call: &Call<'_>,
        credential: Option<&Credential>,
        deadline: Instant,
    ) -> (CallResult, bool) {
        let secrets = credential.map(Credential::secrets).unwrap_or_default();
        let striker = Redactor::new(&secrets);
        let Runtime::Http { base_url } = &call.manifest.runtime else { return (Err(cannot_run(call)), false) };
        let base = self.config.stand_ins.get(&call.manifest.name).map_or(base_url, |stand_in| &stand_in.base_url);
        let limit = self.config.limits.answer_max_bytes;
        let host = Host::new(&self.outbound, call.manifest, base, credential, &striker, deadline, limit);
        // The host keeps to the deadline itself; this is for whatever else a runtime may be busy with.
        let returned = timeout_at(deadline, runtime::http::run(call, &host)).await;
        let returned = returned.unwrap_or_else(|_| Err(runtime::out_of_time(call)));
        let clean = match returned {
            Ok(Success { message, data, external_id }) => Ok(Success {
                message: striker.text(message),
                data: striker.value(data),
                external_id: external_id.map(|id| striker.text(id)),
            }),
            Err(CallError::Failed(failure)) => {
                Err(Failure { message: striker.text(failure.message), ..failure }.into())
            }
            Err(parameter @ CallError::Parameter(_)) => Err(parameter),
        };
        (clean, host.called())
    }
}

/// The failure of a call of a plugin that is registered, and runs elsewhere.
fn cannot_run(call: &Call<'_>) -> CallError {
    let reason = call.manifest.cannot_run().unwrap_or_default();
    Failure::new(OutcomeCode::Disabled, format!("{} cannot run here: {reason}", call.manifest.display_name), false)
        .into()
}

/// A failure of a try, after what an earlier one may have done.
fn merge_prior_failure(failure: Failure, before: Option<&Failure>, call: &Call<'_>) -> Failure {
    let Some(before) = before.filter(|_| !failure.unclear) else { return failure };
    if !before.may_have_happened {
        return Failure { unclear: true, ..failure };
    }
    let of_caller = call.key.as_ref().is_some_and(|key| key.of_caller);
    let message = format!("{}; and before that: {}", failure.message, before.message);
    let retryable = of_caller && (failure.retryable || failure.try_again);
    Failure { message, may_have_happened: true, unclear: true, retryable, ..failure }
}
