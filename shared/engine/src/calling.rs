//! One call of a service: with an account whose credential is good, again where that cannot do anything twice, and with
//! nothing of the credential in what comes back.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::engine::Engine;
use crate::error::Error;
use crate::host::Host;
use crate::ids::{Alias, OrgId};
use crate::integrations::{Credential, Held};
use crate::manifest::Runtime;
use crate::outcome::{Failure, Success};
use crate::runtime::{self, Call, Returned, Stopped};
use crate::secrets::Striker;

/// How often a call is tried once more while somebody waits.
pub(crate) const RETRIES_MAX: u32 = 2;
/// The longest pause before the first of these, in milliseconds; twice as long before the second.
const PAUSE_MS: f64 = 400.0;

impl Engine {
    /// Runs one call with an account: once more with a newer credential where the service refused the first, and again, at
    /// most `retries` times, where that cannot do anything twice. Says also how often the service was called.
    pub(crate) async fn call_with(
        &self,
        org: &OrgId,
        call: &Call<'_>,
        mut held: Option<Held>,
        alias: Option<&Alias>,
        (deadline, retries): (Instant, u32),
    ) -> Result<(Returned, u32), Error> {
        let (returned, attempts) = self.call_and_renew(org, call, &mut held, alias, (deadline, retries)).await?;
        if let Some(held) = &held {
            match &returned {
                Ok(_) => self.note_use(org, held, None).await,
                Err(Stopped::Failed(failure)) => self.note_use(org, held, Some(failure)).await,
                Err(Stopped::Parameter(_)) => {}
            }
        }
        Ok((returned, attempts))
    }

    /// As [`Self::call_with`], but that the use of the account is not noted. `held` is renewed where the call renews it.
    pub(crate) async fn call_and_renew(
        &self,
        org: &OrgId,
        call: &Call<'_>,
        held: &mut Option<Held>,
        alias: Option<&Alias>,
        (deadline, retries): (Instant, u32),
    ) -> Result<(Returned, u32), Error> {
        let (mut attempts, mut tries, mut renewed) = (0, 0, false);
        let returned = loop {
            let credential = held.as_ref().map(|held| held.credential.as_ref());
            let (returned, called) = self.call(call, credential, deadline).await;
            attempts += u32::from(called);
            let Err(Stopped::Failed(failure)) = &returned else { break returned };
            // Whoever refuses the credential has done nothing.
            if failure.credential_refused
                && !failure.may_have_happened
                && !renewed
                && let Some(before) = held.as_ref()
            {
                renewed = true;
                let renewable = before.can_be_renewed(self.ports.clock.now());
                let seen = (None, Some(before));
                match self.account(org, call.user, call.manifest, alias, seen, deadline).await? {
                    Ok(newer) if newer.differs_from(before) => {
                        *held = Some(newer);
                        continue;
                    }
                    Err(failure) if renewable => return Ok((Err(failure.into()), attempts)),
                    // What the service said is all there is to say.
                    Ok(_) | Err(_) => break returned,
                }
            }
            match self.pause(failure, tries).filter(|pause| Instant::now() + *pause < deadline) {
                Some(pause) if tries < retries => sleep(pause).await,
                Some(_) | None => break returned,
            }
            tries += 1;
        };
        Ok((returned, attempts))
    }

    /// How long to wait before trying once more, if that may be done: what the service asks for, or a random time.
    fn pause(&self, failure: &Failure, tries: u32) -> Option<Duration> {
        if !failure.try_again {
            return None;
        }
        Some(match failure.retry_after_s {
            Some(seconds) => Duration::from_secs(seconds),
            None => Duration::from_secs_f64(PAUSE_MS / 1_000.0 * f64::from(1 << tries.min(8)) * self.jitter()),
        })
    }

    /// Runs one call through its runtime, and takes the credential out of whatever comes back. Says also whether the service
    /// was called.
    pub(crate) async fn call(
        &self,
        call: &Call<'_>,
        credential: Option<&Credential>,
        deadline: Instant,
    ) -> (Returned, bool) {
        let secrets = credential.map(Credential::secrets).unwrap_or_default();
        let striker = Striker::new(&secrets);
        let base = self.config.stand_ins.get(&call.manifest.name).map(|stand_in| &stand_in.base_url);
        let limit = self.config.limits.answer_max_bytes;
        let host = Host::new(&self.outbound, call.manifest, base, credential, &striker, deadline, limit);
        let Runtime::Http { .. } = call.manifest.runtime;
        // The host keeps to the deadline itself; this is for whatever else a runtime may be busy with.
        let returned = timeout_at(deadline, runtime::http::run(call, &host)).await;
        let returned = returned.unwrap_or_else(|_| Err(runtime::out_of_time(call)));
        let clean = match returned {
            Ok(Success { message, data, external_id }) => Ok(Success {
                message: striker.text(message),
                data: striker.value(data),
                external_id: external_id.map(|id| striker.text(id)),
            }),
            Err(Stopped::Failed(failure)) => Err(Failure { message: striker.text(failure.message), ..failure }.into()),
            Err(parameter @ Stopped::Parameter(_)) => Err(parameter),
        };
        (clean, host.called())
    }
}
