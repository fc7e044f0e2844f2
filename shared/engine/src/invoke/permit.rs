//! The breaker's permission to call a plugin. It is taken before the call and finished with what the call showed of the
//! plugin's health, so that a trial frees its slot on every path.

use jiff::Timestamp;

use super::request::Invocation;
use super::snapshot::unavailable_reason;
use crate::core::error::Error;
use crate::core::outcome::Failure;
use crate::engine::Engine;
use crate::plugin::breaker::{ActionClass, HealthSignal};
use crate::registry::instances::{Availability, LoadedInstance, Trial, TrialStart};

/// Why an action is not called.
pub(super) enum NotCalled {
    /// The caller gets this failure as the outcome.
    Failed(Failure),
    /// The request is wrong, or Overseer failed.
    Error(Error),
}

impl From<Failure> for NotCalled {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for NotCalled {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The permission for one call of a class of actions. [`CallPermit::finish`] consumes it; a permit that is dropped instead
/// is a bug, and is logged: its trial would block the plugin until the lease expires.
#[must_use = "finish the permit with what the call showed of the plugin"]
pub(super) struct CallPermit<'a> {
    engine: &'a Engine,
    invocation: &'a Invocation<'a>,
    class: ActionClass,
    instance: LoadedInstance,
    /// The breaker's trial, if the plugin is half-open.
    trial: Option<Trial>,
    finished: bool,
}

impl CallPermit<'_> {
    /// The plugin's instance as it was read before the call.
    pub(super) fn instance(&self) -> &LoadedInstance {
        &self.instance
    }

    /// Whether the call is the breaker's trial.
    pub(super) fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Tells the breaker what the call showed. Only a failure of the plugin and the result of a trial are written.
    pub(super) async fn finish(mut self, signal: HealthSignal) {
        self.finished = true;
        let (org, manifest) = (self.invocation.request.org, self.invocation.manifest);
        let instance = std::mem::take(&mut self.instance);
        self.engine.record_health(org, manifest, instance, self.class, self.trial, signal).await;
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let (org, plugin) = (self.invocation.request.org, &self.invocation.manifest.name);
            tracing::error!(%org, %plugin, trial = self.is_trial(), "breaker permit dropped without a health signal");
        }
    }
}

impl Engine {
    /// Takes the permission to call a class of actions. `in_use` is the state by the snapshot; a half-open breaker lets one
    /// caller through as its trial, until `lease_until` at the longest.
    pub(super) async fn acquire_permit<'a>(
        &'a self,
        invocation: &'a Invocation<'a>,
        instance: LoadedInstance,
        class: ActionClass,
        in_use: Availability,
        lease_until: Timestamp,
    ) -> Result<CallPermit<'a>, NotCalled> {
        let (org, manifest) = (invocation.request.org, invocation.manifest);
        let (in_use, trial) = if in_use == Availability::OnTrial {
            match self.begin_trial(org, manifest, instance.clone(), class, lease_until).await? {
                TrialStart::Acquired(trial) => (in_use, Some(trial)),
                // `Yes` here: the breaker has closed since the snapshot.
                TrialStart::Unavailable(in_use) => (in_use, None),
            }
        } else {
            (in_use, None)
        };
        match unavailable_reason(manifest, &in_use, self.ports.clock.now()) {
            Some(failure) => Err(failure.into()),
            None => Ok(CallPermit { engine: self, invocation, class, instance, trial, finished: false }),
        }
    }
}
