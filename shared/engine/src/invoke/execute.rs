//! One action, done: everything that an intent needs is read at once, what may happen is put on record before it can, and
//! what came of it is written down.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout_at};

use crate::access::admission::must_admit;
use crate::access::principal::Principal;
use crate::accounts::AccountLookup;
use crate::core::backoff::PollBackoff;
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::{AgentId, Alias, ChannelName, OrgId, RequestId, RunId, TaskId, UserId};
use crate::core::outcome::{Failure, Metadata, Outcome, OutcomeCode};
use crate::engine::Engine;
use crate::invoke::mappings::Naming;
use crate::invoke::runs::{IdempotencyRequest, IdempotencyState, Replayable, Resolve, in_progress, lost};
use crate::plugin::breaker::ActionClass;
use crate::plugin::catalog::{ActionOf, Plugin};
use crate::plugin::manifest::{Action, Auth, Manifest};
use crate::ports::table::{Condition, Item, Read, Version};
use crate::registry::instances::{InUse, SeenInstance};
use crate::storage::keys;

/// How much longer than anything may take its place is held: a task's claim, and a run's in the ledger.
const LEASE_MARGIN: SignedDuration = SignedDuration::from_secs(30);
/// What a caller is told to wait while another's call tries a plugin, in seconds.
const TRIED_S: u64 = 5;

/// One action that is to be done.
pub(crate) struct ActionRequest<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    /// The channel in which the plugin has to be enabled.
    pub channel: Option<&'a ChannelName>,
    pub plugin: &'a Plugin,
    pub action: &'a str,
    pub integration: Option<&'a Alias>,
    pub parameters: &'a Map<String, Value>,
    pub source: Origin<'a>,
    /// When it has to be done.
    pub deadline: Instant,
}

/// What has an action done.
pub(crate) enum Origin<'a> {
    /// Somebody waits for the answer.
    Intent { principal: &'a Principal, request: Option<&'a RequestId>, keyed: Option<&'a IdempotencyRequest> },
    /// An attempt of a task, with the entry that it is to have in the ledger.
    Task {
        id: &'a TaskId,
        /// The entry that the attempt is to have in the ledger.
        run: &'a RunId,
        /// When the worker's claim runs out.
        until: Timestamp,
        /// The number of the task's run.
        number: u32,
    },
}

/// Everything that an intent needs of the table.
pub(crate) struct Snapshot {
    pub account: Option<AccountLookup>,
    pub instance: SeenInstance,
    pub judged: IdempotencyState,
    /// What stands for the names among the parameters.
    pub names: Vec<Option<Item>>,
    /// What is asked before the call, and after it.
    pub hooks: Option<Item>,
}

/// What an attempt came to.
pub(super) enum Attempt {
    /// An outcome.
    To(Outcome),
    /// Somebody else was faster under the same key: look again.
    Late,
}

/// What is to be done, once it is known what that is.
pub(crate) struct Invocation<'a> {
    pub doing: &'a ActionRequest<'a>,
    pub plugin: &'a Plugin,
    pub manifest: &'a Manifest,
    pub found: ActionOf<'a>,
    pub action: &'a Action,
    pub started: Instant,
}

impl Invocation<'_> {
    pub(super) fn metadata(&self, attempts: u32, run: Option<RunId>) -> Metadata {
        Metadata {
            plugin: self.manifest.name.clone(),
            version: self.manifest.version.to_string(),
            action: self.action.name.clone(),
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            attempts,
            run,
        }
    }

    pub(crate) fn class(&self) -> ActionClass {
        self.action.effect.into()
    }

    pub(crate) fn keyed(&self) -> Option<&IdempotencyRequest> {
        match &self.doing.source {
            Origin::Intent { keyed, .. } => *keyed,
            Origin::Task { .. } => None,
        }
    }

    /// Whether the service knows what that version of the plugin did by the key: another may not have told it.
    pub(crate) fn is_known_by_key(&self, by: &str) -> bool {
        self.action.effect == Effect::Keyed && self.manifest.version.to_string() == by
    }

    /// Whether what stands under the key, and was done by that version of the plugin, may be done again or given up now:
    /// because the caller says so, or because the service knows a repetition.
    fn may_decide(&self, run: &RunId, by: &str, met: &KeyObservation) -> bool {
        let wanted = self.keyed().is_some_and(|keyed| keyed.resolve.is_some()) || self.is_known_by_key(by);
        wanted
            && match met {
                KeyObservation::Nobody => true,
                KeyObservation::Another => false,
                KeyObservation::Decided(decided) => decided == run,
            }
    }

    pub(super) fn failed(&self, failure: Failure) -> Outcome {
        Outcome { result: Err(failure), metadata: self.metadata(0, None) }
    }
}

impl Engine {
    /// Does one action, and says what came of it. Nothing was done, and there is nothing to say, where the organization uses
    /// another version of the plugin by now.
    pub(crate) async fn perform(&self, doing: ActionRequest<'_>) -> Result<Option<Replayable<Outcome>>, Error> {
        let started = Instant::now();
        let plugin = doing.plugin;
        let _under_way = self.track_in_flight(doing.org, plugin);
        let found = plugin.action(doing.action)?;
        let (manifest, action) = (&plugin.manifest, found.action);
        let what = Invocation { doing: &doing, plugin, manifest, found, action, started };
        let checked = found.check(doing.parameters.clone());
        let checked = checked.and_then(|checked| Ok((Naming::of(manifest, action, &checked)?, checked)));
        let (naming, parameters) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                return self.refused(&what, doing.parameters, error).await.map(|said| Some(Replayable::anew(said)));
            }
        };
        let mut backoff = PollBackoff::default();
        // What a caller decides is about what they know of, and about nothing that began since.
        let mut met = KeyObservation::Nobody;
        loop {
            let Ok(seen) = timeout_at(doing.deadline, self.load_snapshot(&what, &naming)).await else {
                let message = "there was no time left to look for the account; try again".to_owned();
                let failure = Failure::new(OutcomeCode::Timeout, message, true);
                return Ok(Some(Replayable::anew(what.failed(failure))));
            };
            let Some(mut seen) = seen? else { return Ok(None) };
            let claim = match std::mem::replace(&mut seen.judged, IdempotencyState::Free) {
                IdempotencyState::Free if what.keyed().is_some_and(|keyed| keyed.resolve == Some(Resolve::Abandon)) => {
                    let message =
                        "nothing stands under this key, so that there is nothing to abandon; nothing was done";
                    return Err(Error::Conflict(message.to_owned()));
                }
                IdempotencyState::Free => what.keyed().map(|keyed| (keyed, Condition::Absent, None)),
                IdempotencyState::Busy => {
                    met = KeyObservation::Another;
                    let until = what.keyed().map_or(started, |keyed| started + keyed.wait).min(doing.deadline);
                    let pause = backoff.next_pause();
                    if Instant::now() + pause > until {
                        return Err(in_progress());
                    }
                    sleep(pause).await;
                    continue;
                }
                // A task is made of other words than an outcome.
                IdempotencyState::Task(..) => return Err(Error::KeyReused),
                IdempotencyState::Ended(run, answer, _)
                    if !answer.is_open() || !what.may_decide(&run, &answer.metadata.version, &met) =>
                {
                    return self.replayed(&what, seen.hooks, answer.outcome()).await.map(Some);
                }
                IdempotencyState::Lost(run, (began, by), _) if !what.may_decide(&run, &by, &met) => {
                    let metadata = what.metadata(0, Some(run.clone()));
                    let outcome = Outcome { result: Err(lost(&run, began)), metadata };
                    return self.replayed(&what, seen.hooks, outcome).await.map(Some);
                }
                IdempotencyState::Ended(run, _, version) | IdempotencyState::Lost(run, _, version) => {
                    met = KeyObservation::Decided(run.clone());
                    match self.resolve_unknown(&what, run, version).await? {
                        UnknownResolution::Given(outcome) => {
                            let Replayable { answer, .. } = self.replayed(&what, seen.hooks, outcome).await?;
                            return Ok(Some(Replayable::anew(answer)));
                        }
                        UnknownResolution::Again => continue,
                        UnknownResolution::Do(condition, run) => {
                            what.keyed().map(|keyed| (keyed, condition, Some(run)))
                        }
                    }
                }
            };
            seen.instance.instance.must_be_granted(plugin)?;
            let hooks = self.hooks_in(doing.org, seen.hooks.take().as_ref()).await?;
            let once = (seen, hooks.clone());
            match Box::pin(self.attempt(&what, (&parameters, naming.clone()), once, claim)).await? {
                Attempt::To(outcome) => {
                    let outcome = Box::pin(self.after_failure(&what, &hooks, outcome)).await;
                    return Ok(Some(Replayable::anew(outcome)));
                }
                Attempt::Late => {}
            }
        }
    }

    /// What an earlier request with the same key came to. What hooks made of a success was kept; what they have the agent told
    /// of a failure was not, so that they are asked again.
    async fn replayed(
        &self,
        what: &Invocation<'_>,
        hooks: Option<Item>,
        mut outcome: Outcome,
    ) -> Result<Replayable<Outcome>, Error> {
        if let Err(failure) = &mut outcome.result {
            failure.fallback = Some(self.fallback(what.doing.org, what.doing.agent, what.manifest, failure).await);
            let hooks = self.hooks_in(what.doing.org, hooks.as_ref()).await?;
            outcome = Box::pin(self.after_failure(what, &hooks, outcome)).await;
        }
        Ok(Replayable { answer: outcome, replayed: true })
    }

    /// What is wrong with an intent is told to whoever sent it; where that was a task, some time ago, it is a failure.
    pub(super) async fn refused(
        &self,
        what: &Invocation<'_>,
        parameters: &Map<String, Value>,
        error: Error,
    ) -> Result<Outcome, Error> {
        match (&what.doing.source, &error) {
            (Origin::Task { .. }, Error::Invalid(_)) => {
                let failure = Failure::new(OutcomeCode::Rejected, error.to_string(), false);
                Ok(self.finalize(what, parameters, Err(failure), 0, None).await)
            }
            (Origin::Intent { .. } | Origin::Task { .. }, _) => Err(error),
        }
    }

    /// Everything that is needed, in one read; nothing where the organization uses another version of the plugin by now.
    pub(crate) async fn load_snapshot(
        &self,
        what: &Invocation<'_>,
        naming: &Naming,
    ) -> Result<Option<Snapshot>, Error> {
        let ActionRequest { org, user, agent, channel, integration, .. } = what.doing;
        let mut wanted = vec![keys::instance(org, &what.manifest.name), keys::hooks(org)];
        wanted.extend(channel.map(|channel| keys::channel(org, channel)));
        wanted.extend(what.keyed().map(|keyed| keys::idempotency(org, user, &keyed.key)));
        let with_account = !matches!(what.manifest.auth, Auth::None);
        if with_account {
            wanted.extend(AccountLookup::keys(org, user, &what.manifest.name));
        }
        wanted.extend(naming.keys(org, user, *agent, *integration));
        let mut items = self.ports.table.batch_get(&wanted, Read::Consistent).await?.into_iter();
        let instance = SeenInstance::of(items.next().flatten())?;
        let hooks = items.next().flatten();
        if let Some(channel) = channel {
            must_admit(channel, items.next().flatten().as_ref(), &what.manifest.name, Some(&what.action.name))?;
        }
        if !instance.instance.uses(what.plugin) {
            return Ok(None);
        }
        let judged = match what.keyed() {
            Some(keyed) => IdempotencyState::of(items.next().flatten(), &keyed.payload, self.ports.clock.now())?,
            None => IdempotencyState::Free,
        };
        let accounts: Vec<_> = items.by_ref().take(if with_account { 2 } else { 0 }).collect();
        let account = AccountLookup::among(accounts, *integration)?;
        Ok(Some(Snapshot { account, instance, judged, names: items.collect(), hooks }))
    }

    /// What follows for a key whose outcome is not known.
    async fn resolve_unknown(
        &self,
        what: &Invocation<'_>,
        run: RunId,
        version: Version,
    ) -> Result<UnknownResolution, Error> {
        let (Some(keyed), Origin::Intent { principal, .. }) = (what.keyed(), &what.doing.source) else {
            return Ok(UnknownResolution::Again);
        };
        match keyed.resolve {
            // Without a decision only what the service knows as a repetition gets here.
            Some(Resolve::Retry) | None => Ok(UnknownResolution::Do(Condition::Version(version), run)),
            Some(Resolve::Abandon) => {
                let metadata = what.metadata(0, Some(run.clone()));
                let given = self.abandon_key(principal, what.doing.user, keyed, &run, version, metadata).await?;
                Ok(given.map_or(UnknownResolution::Again, UnknownResolution::Given))
            }
        }
    }
}

/// How long a place is held for what may take `budget`.
pub(crate) fn lease(budget: Duration) -> SignedDuration {
    SignedDuration::try_from(budget).unwrap_or(SignedDuration::from_mins(15)) + LEASE_MARGIN
}

/// What a request has met under its key so far.
enum KeyObservation {
    Nobody,
    /// Another request that was under way.
    Another,
    /// This run, about which it has decided.
    Decided(RunId),
}

/// What came of a decision.
enum UnknownResolution {
    /// This is the answer.
    Given(Outcome),
    /// Somebody else decided: look again.
    Again,
    /// It is to be done, if this still stands under the key, in the place of that run.
    Do(Condition, RunId),
}

/// Why a plugin cannot be used now, if it cannot.
pub(crate) fn unavailable_reason(manifest: &Manifest, in_use: &InUse, now: Timestamp) -> Option<Failure> {
    let name = &manifest.display_name;
    match in_use {
        InUse::Yes | InUse::OnTrial => None,
        InUse::Disabled(reason) => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let message =
                format!("{name} was taken out of use by an administrator{reason}; an administrator can bring it back");
            Some(Failure::new(OutcomeCode::Disabled, message, false))
        }
        InUse::Off => {
            let message = format!("{name} is not in use; an administrator brings it into use");
            Some(Failure::new(OutcomeCode::Disabled, message, false))
        }
        InUse::TrialInProgress => {
            let message = format!("{name} failed too often, and is just being tried again");
            let failure = Failure::new(OutcomeCode::Disabled, message, true);
            Some(Failure { retry_after_s: Some(TRIED_S), ..failure })
        }
        InUse::OpenUntil(until) => {
            let left = until.duration_since(now);
            let seconds = u64::try_from(left.as_secs()).unwrap_or_default() + u64::from(left.subsec_nanos() > 0);
            let message = format!("{name} failed too often and is out of use; it is tried again at {until}");
            let failure = Failure::new(OutcomeCode::Disabled, message, true);
            Some(Failure { retry_after_s: Some(seconds), ..failure })
        }
    }
}
