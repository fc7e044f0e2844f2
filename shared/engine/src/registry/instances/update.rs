//! Changes of the record, by whomever: by compare and set, with the event that a change is, and with what it means for the
//! organization's hooks.

use jiff::Timestamp;
use serde_json::json;

use super::record::{InUse, Instance, SeenInstance};
use crate::core::error::{Error, causes};
use crate::core::ids::OrgId;
use crate::engine::Engine;
use crate::plugin::breaker::{ActionClass, BreakerTransition, HealthSignal};
use crate::plugin::manifest::Manifest;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Read, TableError, Write};
use crate::registry::hooks::hooks_changed;
use crate::storage::keys;

/// How often a change is tried while others change the same record. Each time that it fails, another was written: of
/// failures at most a hundred for each breaker, which is then open and counts no more.
const TRIES: usize = 250;

/// The right to try a plugin that is out of use, for one caller: until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trial(Timestamp);

impl Engine {
    /// Changes an instance by compare and set, beginning with what was `seen`. `change` may be called several times; where
    /// it changes nothing, nothing is written. Gives the instance as it is then, and whether it was written; what `event`
    /// says of that is written with it, and published.
    pub(super) async fn change_instance<T: Send>(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: Option<SeenInstance>,
        change: impl Fn(&mut Instance) -> T + Send,
        event: impl Fn(&Instance, &T) -> Option<Event> + Send,
    ) -> Result<(Instance, T, bool), Error> {
        let key = keys::instance(org, &manifest.name);
        let mut seen = match seen {
            Some(seen) => seen,
            None => SeenInstance::of(self.ports.table.get(&key, Read::Consistent).await?)?,
        };
        for _ in 0..TRIES {
            let mut instance = seen.instance.clone();
            let said = change(&mut instance);
            if instance == seen.instance {
                return Ok((instance, said, false));
            }
            let condition = seen.version.clone().map_or(Condition::Absent, Condition::Version);
            let hooks = (&manifest.name, &seen.instance, Some(&mut instance));
            let hooks = hooks_changed(self, org, Some(manifest), hooks).await?;
            let event = event(&instance, &said);
            let put = Write::Put(instance.item(org, manifest)?, condition);
            match self.transact_with([put].into_iter().chain(hooks).collect(), event.as_ref()).await {
                Ok(_) => {
                    if let Some(event) = event {
                        self.publish(event).await;
                    }
                    return Ok((instance, said, true));
                }
                Err(TableError::Condition { index: 0, standing }) => {
                    seen = SeenInstance::of(standing.map(|item| *item))?;
                }
                // Somebody else changed the list of hooks.
                Err(TableError::Condition { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Conflict(format!("the plugin {} changes all the time; try again", manifest.name)))
    }

    /// Takes the right to try a plugin that is out of use; or says how it is, where that is not to be had.
    pub(crate) async fn begin_trial(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: SeenInstance,
        class: ActionClass,
        until: Timestamp,
    ) -> Result<Result<Trial, InUse>, Error> {
        let now = self.ports.clock.now();
        let try_it = |instance: &mut Instance| {
            let in_use = instance.in_use(manifest, class, now);
            if in_use == InUse::OnTrial {
                instance.circuit_mut(class).begin_trial(until);
            }
            in_use
        };
        let begun = self.change_instance(org, manifest, Some(seen), try_it, |_, _| None);
        Ok(match begun.await? {
            (_, InUse::OnTrial, true) => Ok(Trial(until)),
            (_, in_use, _) => Err(in_use),
        })
    }

    /// Counts what a call showed. Nothing is written for a success, unless it is a trial's. What cannot be counted is logged.
    pub(crate) async fn record_health(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: SeenInstance,
        (class, trial): (ActionClass, Option<Trial>),
        shown: HealthSignal,
    ) {
        if shown != HealthSignal::Fails && trial.is_none() {
            return;
        }
        // What was read before the call is of no use for a trial: it was changed by its beginning.
        let seen = Some(seen).filter(|_| trial.is_none());
        let now = self.ports.clock.now();
        let note = |instance: &mut Instance| {
            let limits = instance.limits(manifest);
            let circuit = instance.circuit_mut(class);
            let on_trial = trial.is_some_and(|Trial(until)| circuit.is_trial(until));
            if trial.is_some() && !on_trial {
                return BreakerTransition::Nothing;
            }
            circuit.note(shown, on_trial, limits, now)
        };
        let event = |instance: &Instance, turned: &BreakerTransition| {
            let kind = match turned {
                BreakerTransition::Nothing => return None,
                BreakerTransition::Opened => EventKind::BreakerOpened,
                BreakerTransition::Closed => EventKind::BreakerClosed,
            };
            let breaker = instance.breaker(class, manifest, now);
            let detail = json!({ "tool": manifest.name, "class": class, "retryAt": breaker.retry_at });
            Some(self.event(org, kind, &detail))
        };
        if let Err(error) = self.change_instance(org, manifest, seen, note, event).await {
            tracing::error!(%org, plugin = %manifest.name, error = %causes(&error), "the breaker was not told");
        }
    }
}
