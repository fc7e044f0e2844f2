//! Counting failures of calls in the instance's breakers, and the trial by which an open breaker closes.

use jiff::Timestamp;
use serde_json::json;

use super::record::{Availability, Instance, LoadedInstance};
use super::update::InstanceChange;
use crate::core::error::{Error, causes};
use crate::core::ids::OrgId;
use crate::engine::Engine;
use crate::plugin::breaker::{ActionClass, BreakerTransition, HealthSignal};
use crate::plugin::manifest::Manifest;
use crate::ports::events::EventKind;

/// One call's right to try a plugin whose breaker is open, until this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trial(Timestamp);

/// The result of asking for a trial.
#[derive(Debug)]
pub(crate) enum TrialStart {
    /// The caller has the trial.
    Acquired(Trial),
    /// The breaker gives no trial now. It may be closed by now ([`Availability::Available`]), or another call has the trial.
    Unavailable(Availability),
}

impl Engine {
    /// Acquires the trial of a breaker that may be tried, until `until`.
    pub(crate) async fn begin_trial(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: LoadedInstance,
        class: ActionClass,
        until: Timestamp,
    ) -> Result<TrialStart, Error> {
        let now = self.ports.clock.now();
        let acquire = |instance: &mut Instance| {
            let in_use = instance.in_use(manifest, class, now);
            if in_use == Availability::OnTrial {
                instance.circuit_mut(class).begin_trial(until);
            }
            Ok(in_use)
        };
        let changed = self.change_instance(org, manifest, Some(seen), acquire, |_, _| None).await?;
        Ok(match changed {
            InstanceChange { value: Availability::OnTrial, written: true, .. } => TrialStart::Acquired(Trial(until)),
            InstanceChange { value: in_use, .. } => TrialStart::Unavailable(in_use),
        })
    }

    /// Counts in its breaker whether a call worked, and ends its trial. A call without a trial is written only if it failed.
    /// A count that cannot be written is logged.
    pub(crate) async fn record_health(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: LoadedInstance,
        class: ActionClass,
        trial: Option<Trial>,
        signal: HealthSignal,
    ) {
        if signal != HealthSignal::Fails && trial.is_none() {
            return;
        }
        let now = self.ports.clock.now();
        let count = |instance: &mut Instance| {
            let limits = instance.limits(manifest);
            let circuit = instance.circuit_mut(class);
            let on_trial = match trial {
                None => false,
                Some(Trial(until)) if circuit.is_trial(until) => true,
                // The trial ended: its time is over, or an administrator reset the breaker.
                Some(_) => return Ok(BreakerTransition::Nothing),
            };
            Ok(circuit.note(signal, on_trial, limits, now))
        };
        let event = |instance: &Instance, transition: &BreakerTransition| {
            let kind = match transition {
                BreakerTransition::Nothing => return None,
                BreakerTransition::Opened => EventKind::BreakerOpened,
                BreakerTransition::Closed => EventKind::BreakerClosed,
            };
            let breaker = instance.breaker(class, manifest, now);
            let detail = json!({ "tool": manifest.name, "class": class, "retryAt": breaker.retry_at });
            Some(self.event(org, kind, &detail))
        };
        // Beginning the trial changed the instance, so what the caller read before is stale.
        let seen = if trial.is_none() { Some(seen) } else { None };
        if let Err(error) = self.change_instance(org, manifest, seen, count, event).await {
            tracing::error!(%org, plugin = %manifest.name, error = %causes(&error), "breaker update failed");
        }
    }
}
