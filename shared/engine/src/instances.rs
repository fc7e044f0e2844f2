//! A plugin as one organization has it: whether it is in use, its breaker, and what the organization set. One record,
//! which an intent reads together with everything else that it needs.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::breaker::{ActionClass, BreakerLimits, Circuit, Gate, Shown, Turned};
use crate::engine::Engine;
use crate::error::{Error, FieldProblem, causes};
use crate::ids::{KeyId, OrgId, PluginName, UserId};
use crate::keys;
use crate::manifest::Manifest;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Item, NewItem, Read, TableError, Version};
use crate::principal::Principal;

/// How often a change is tried while others change the same record. Each time that it fails, another was written: of
/// failures at most a hundred for each breaker, which is then open and counts no more.
const TRIES: usize = 250;
/// The longest reason for taking a plugin out of use, in characters.
pub const REASON_MAX: usize = 500;

/// The stored record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Instance {
    disabled: Option<Disabled>,
    read: Circuit,
    write: Circuit,
    breaker: BreakerLimits,
    record_reads: bool,
}

/// An administrator took the plugin out of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// When.
    pub at: Timestamp,
    /// The administrator, as a user, where the key is bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// With which API key.
    pub key: KeyId,
    /// Why, in the administrator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether a call may go, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InUse {
    Yes,
    /// If it is the one that tries.
    OnTrial,
    /// The breaker is open until then.
    OpenUntil(Timestamp),
    /// Another is trying.
    Tried,
    /// An administrator took it out of use, for this reason.
    Disabled(Option<String>),
}

/// An instance as it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenInstance {
    pub instance: Instance,
    version: Option<Version>,
}

/// The right to try a plugin that is out of use, for one caller: until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trial(Timestamp);

impl SeenInstance {
    pub(crate) fn of(item: Option<Item>) -> Result<Self, TableError> {
        let Some(item) = item else { return Ok(Self::default()) };
        Ok(Self { instance: item.record()?, version: Some(item.version) })
    }
}

impl Instance {
    pub(crate) fn in_use(&self, class: ActionClass, now: Timestamp) -> InUse {
        if let Some(disabled) = &self.disabled {
            return InUse::Disabled(disabled.reason.clone());
        }
        match self.circuit(class).gate(now) {
            Gate::Closed => InUse::Yes,
            Gate::HalfOpen => InUse::OnTrial,
            Gate::Open(until) => InUse::OpenUntil(until),
            Gate::Tried => InUse::Tried,
        }
    }

    /// Whether reads are to be in the ledger as well.
    pub(crate) fn records_reads(&self) -> bool {
        self.record_reads
    }

    fn circuit(&self, class: ActionClass) -> &Circuit {
        match class {
            ActionClass::Read => &self.read,
            ActionClass::Write => &self.write,
        }
    }

    fn circuit_mut(&mut self, class: ActionClass) -> &mut Circuit {
        match class {
            ActionClass::Read => &mut self.read,
            ActionClass::Write => &mut self.write,
        }
    }

    /// The limits that count here: the organization's before the plugin's.
    pub(crate) fn limits(&self, manifest: &Manifest) -> BreakerLimits {
        self.breaker.or(manifest.breaker).or(BreakerLimits::USUAL)
    }

    fn item(&self, org: &OrgId, manifest: &Manifest) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::instance(org, &manifest.name), self)?;
        let set = self.disabled.is_some() || self.record_reads || self.breaker != BreakerLimits::default();
        if !set {
            let limits = self.limits(manifest);
            // What there is nothing to remember of is gone at once.
            let until = self.read.remembered_until(limits).max(self.write.remembered_until(limits));
            item.expires_at = Some(until.unwrap_or(Timestamp::UNIX_EPOCH));
        }
        Ok(item)
    }
}

/// A plugin as it is shown to the organization's administrators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceView {
    /// The plugin.
    pub name: PluginName,
    /// What people call it.
    pub display_name: String,
    /// Its version.
    pub version: String,
    /// Whether it is in use, as far as administrators decide that.
    pub enabled: bool,
    /// Who took it out of use, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// Whether reads are in the ledger as well.
    pub record_reads: bool,
    /// The breaker of the actions that read, and of those that do more.
    pub breaker: Breakers,
}

/// The breakers of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breakers {
    /// Of actions that only read.
    pub read: BreakerView,
    /// Of all other actions.
    pub write: BreakerView,
    /// When they open.
    pub limits: BreakerLimits,
}

/// A breaker as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerView {
    /// Where it is.
    pub state: BreakerState,
    /// The failures that count at the moment.
    pub failures: usize,
    /// Since when it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When one call is let through to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

/// Where a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go.
    Closed,
    /// Calls are answered at once.
    Open,
    /// The next call goes, to try.
    HalfOpen,
}

/// Takes a plugin out of use.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disable {
    /// Why: agents are told. At most 500 characters.
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
}

/// What an organization sets of a plugin. What is left out stays.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetInstance {
    /// When the breaker opens, in the place of all that was set before; where it says nothing, the plugin does.
    pub breaker: Option<BreakerLimits>,
    /// Whether reads are in the ledger as well.
    pub record_reads: Option<bool>,
}

impl Instance {
    fn shown(&self, manifest: &Manifest, now: Timestamp) -> InstanceView {
        let limits = self.limits(manifest);
        let breaker = |circuit: &Circuit| {
            let (state, retry_at) = match circuit.gate(now) {
                Gate::Closed => (BreakerState::Closed, None),
                Gate::HalfOpen | Gate::Tried => (BreakerState::HalfOpen, None),
                Gate::Open(until) => (BreakerState::Open, Some(until)),
            };
            BreakerView { state, failures: circuit.counted(limits, now), since: circuit.open_since(), retry_at }
        };
        InstanceView {
            name: manifest.name.clone(),
            display_name: manifest.display_name.clone(),
            version: manifest.version.to_string(),
            enabled: self.disabled.is_none(),
            disabled: self.disabled.clone(),
            record_reads: self.record_reads,
            breaker: Breakers { read: breaker(&self.read), write: breaker(&self.write), limits },
        }
    }

    /// One of its breakers as it is shown.
    pub(crate) fn breaker(&self, class: ActionClass, manifest: &Manifest, now: Timestamp) -> BreakerView {
        let Breakers { read, write, limits: _ } = self.shown(manifest, now).breaker;
        match class {
            ActionClass::Read => read,
            ActionClass::Write => write,
        }
    }
}

impl Engine {
    /// The plugins as the organization has them.
    pub async fn list_instances(&self, principal: &Principal) -> Result<Vec<InstanceView>, Error> {
        principal.must_administer()?;
        let plugins: Vec<_> = self.catalog.plugins().collect();
        let now = self.ports.clock.now();
        let mut shown = Vec::with_capacity(plugins.len());
        for plugins in plugins.chunks(crate::ports::table::BATCH_MAX) {
            let keys: Vec<_> =
                plugins.iter().map(|plugin| keys::instance(&principal.org, &plugin.manifest.name)).collect();
            let items = self.ports.table.batch_get(&keys, Read::Eventual).await?;
            for (plugin, item) in plugins.iter().zip(items) {
                shown.push(SeenInstance::of(item)?.instance.shown(&plugin.manifest, now));
            }
        }
        Ok(shown)
    }

    /// A plugin as the organization has it.
    pub async fn get_instance(&self, principal: &Principal, plugin: &str) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let manifest = &self.catalog.plugin(plugin)?.manifest;
        let item = self.ports.table.get(&keys::instance(&principal.org, &manifest.name), Read::Consistent).await?;
        Ok(SeenInstance::of(item)?.instance.shown(manifest, self.ports.clock.now()))
    }

    /// Takes a plugin out of use for the organization, until an administrator brings it back.
    pub async fn disable_plugin(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        asked: Disable,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        if asked.reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_MAX) {
            return Err(Error::field("/reason", format!("must have at most {REASON_MAX} characters")));
        }
        let disabled = Disabled {
            at: self.ports.clock.now(),
            by: principal.user.clone(),
            key: principal.key.clone(),
            reason: asked.reason,
        };
        self.administer(principal, plugin, EventKind::PluginDisabled, move |instance| {
            instance.disabled = Some(disabled.clone());
        })
        .await
    }

    /// Brings a plugin back into use, whoever or whatever took it out.
    pub async fn enable_plugin(self: &Arc<Self>, principal: &Principal, plugin: &str) -> Result<InstanceView, Error> {
        self.administer(principal, plugin, EventKind::PluginEnabled, |instance| {
            instance.disabled = None;
            (instance.read, instance.write) = (Circuit::default(), Circuit::default());
        })
        .await
    }

    /// Closes the breakers of a plugin, and forgets its failures.
    pub async fn reset_breaker(self: &Arc<Self>, principal: &Principal, plugin: &str) -> Result<InstanceView, Error> {
        self.administer(principal, plugin, EventKind::PluginReset, |instance| {
            (instance.read, instance.write) = (Circuit::default(), Circuit::default());
        })
        .await
    }

    /// Sets what an organization may set of a plugin.
    pub async fn set_instance(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        asked: SetInstance,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let manifest = &self.catalog.plugin(plugin)?.manifest;
        let together = asked.breaker.unwrap_or_default().or(manifest.breaker);
        let problem = |(field, message)| FieldProblem::new(format!("/breaker/{field}"), message);
        let problems: Vec<_> = together.problems().into_iter().map(problem).collect();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        self.administer(principal, plugin, EventKind::PluginConfigured, move |instance| {
            instance.breaker = asked.breaker.unwrap_or(instance.breaker);
            instance.record_reads = asked.record_reads.unwrap_or(instance.record_reads);
        })
        .await
    }

    /// Changes an instance in an administrator's name, and says so.
    async fn administer(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        kind: EventKind,
        change: impl Fn(&mut Instance) + Send + Sync + 'static,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let plugin = Arc::clone(self.catalog.plugin(plugin)?);
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.to_its_end(async move {
            let manifest = &plugin.manifest;
            let detail = json!({ "tool": manifest.name, "key": principal.key, "userId": principal.user });
            let event = |_: &Instance, (): &()| Some(engine.event(&principal.org, kind, &detail));
            let changed = engine.change_instance(&principal.org, manifest, None, &change, event).await?;
            Ok(changed.0.shown(manifest, engine.ports.clock.now()))
        })
        .await
    }

    /// Changes an instance by compare and set, beginning with what was `seen`. `change` may be called several times; where
    /// it changes nothing, nothing is written. Gives the instance as it is then, and whether it was written; what `event`
    /// says of that is written with it, and published.
    async fn change_instance<T: Send>(
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
            let condition = seen.version.map_or(Condition::Absent, Condition::Version);
            let event = event(&instance, &said);
            match self.put_with(instance.item(org, manifest)?, condition, event.as_ref()).await {
                Ok(()) => {
                    if let Some(event) = event {
                        self.publish(event).await;
                    }
                    return Ok((instance, said, true));
                }
                Err(TableError::Condition { standing, .. }) => {
                    seen = SeenInstance::of(standing.map(|item| *item))?;
                }
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
            let in_use = instance.in_use(class, now);
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
    pub(crate) async fn note_shown(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: SeenInstance,
        (class, trial): (ActionClass, Option<Trial>),
        shown: Shown,
    ) {
        if shown != Shown::Fails && trial.is_none() {
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
                return Turned::Nothing;
            }
            circuit.note(shown, on_trial, limits, now)
        };
        let event = |instance: &Instance, turned: &Turned| {
            let kind = match turned {
                Turned::Nothing => return None,
                Turned::Opened => EventKind::BreakerOpened,
                Turned::Closed => EventKind::BreakerClosed,
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
