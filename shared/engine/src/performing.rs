//! One action, done: everything that an intent needs is read at once, what may happen is put on record before it can, and
//! what came of it is written down.

use std::time::Duration;

use futures_util::future::join;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout_at};

use crate::breaker::{ActionClass, Shown};
use crate::calling::RETRIES_MAX;
use crate::catalog::{ActionOf, Plugin};
use crate::engine::Engine;
use crate::error::Error;
use crate::failures::{Failed, redacted, removed};
use crate::ids::{AgentId, Alias, OrgId, RequestId, RunId, TaskId, UserId};
use crate::instances::{InUse, SeenInstance, Trial};
use crate::integrations::{Found, Held, not_connected};
use crate::keys;
use crate::manifest::{Action, Auth, Effect, Manifest};
use crate::mappings::{Asking, Naming};
use crate::outcome::{Failure, Metadata, Outcome, OutcomeCode, Success};
use crate::ports::table::{Condition, Item, Read, Version};
use crate::principal::Principal;
use crate::runs::{Answered, Begun, Claim, Judged, Keyed, Resolve, Run, RunState, Verdict, in_progress, lost};
use crate::runtime::{Call, Returned, ServiceKey, Stopped};
use crate::secrets::Striker;
use crate::tasks as task;

/// The time that a service must have had before it counts as failing that it did not answer.
const ENOUGH: Duration = Duration::from_secs(5);
/// How much longer than a call may take its place in the ledger is held.
const LEASE_MARGIN: SignedDuration = SignedDuration::from_secs(30);
/// The first pause between two looks at an earlier request that is still running, and the longest.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// One action that is to be done.
pub(crate) struct Doing<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    pub plugin: &'a str,
    pub action: &'a str,
    pub integration: Option<&'a Alias>,
    pub parameters: Map<String, Value>,
    pub source: Source<'a>,
    /// When it has to be done.
    pub deadline: Instant,
}

/// What has an action done.
pub(crate) enum Source<'a> {
    /// Somebody waits for the answer.
    Intent { principal: &'a Principal, request: Option<&'a RequestId>, keyed: Option<&'a Keyed> },
    /// An attempt of a task, with the entry that it is to have in the ledger.
    Task { id: &'a TaskId, claim: &'a task::Claim, number: u32 },
}

/// Everything that an intent needs of the table.
pub(crate) struct Seen {
    pub account: Option<Found>,
    pub instance: SeenInstance,
    pub judged: Judged,
    /// What stands for the names among the parameters.
    pub names: Vec<Option<Item>>,
}

/// Everything that a call needs.
struct Ready {
    parameters: Map<String, Value>,
    /// The same, as far as it may be kept.
    to_keep: Map<String, Value>,
    held: Option<Held>,
    instance: SeenInstance,
    trial: Option<Trial>,
    now: Timestamp,
    until: Timestamp,
}

/// What an attempt came to.
enum Came {
    /// An outcome.
    To(Outcome),
    /// Somebody else was faster under the same key: look again.
    Late,
}

/// What is to be done, once it is known what that is.
pub(crate) struct What<'a> {
    pub doing: &'a Doing<'a>,
    pub plugin: &'a Plugin,
    pub manifest: &'a Manifest,
    pub found: ActionOf<'a>,
    pub action: &'a Action,
    pub started: Instant,
}

impl What<'_> {
    fn metadata(&self, attempts: u32, run: Option<RunId>) -> Metadata {
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

    fn keyed(&self) -> Option<&Keyed> {
        match &self.doing.source {
            Source::Intent { keyed, .. } => *keyed,
            Source::Task { .. } => None,
        }
    }

    /// Whether what stands under the key may be done again or given up now: because the caller says so, or because the
    /// service knows a repetition. Only what was decided about first is meant.
    fn may_decide(&self, run: &RunId, decided: Option<&RunId>) -> bool {
        let wanted = self.keyed().is_some_and(|keyed| keyed.resolve.is_some()) || self.action.effect == Effect::Keyed;
        wanted && decided.is_none_or(|decided| decided == run)
    }

    fn failed(&self, failure: Failure) -> Outcome {
        Outcome { result: Err(failure), metadata: self.metadata(0, None) }
    }
}

impl Engine {
    /// Does one action, and says what came of it.
    pub(crate) async fn perform(&self, doing: Doing<'_>) -> Result<Answered<Outcome>, Error> {
        let started = Instant::now();
        let plugin = self.catalog.plugin(doing.plugin)?;
        let found = plugin.action(doing.action)?;
        let (manifest, action) = (&plugin.manifest, found.action);
        let what = What { doing: &doing, plugin, manifest, found, action, started };
        let checked = found.check(doing.parameters.clone());
        let checked = checked.and_then(|checked| Ok((Naming::of(manifest, action, &checked)?, checked)));
        let (naming, parameters) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.refused(&what, &doing.parameters, error).await.map(Answered::anew),
        };
        let mut pause = LOOK_AGAIN.0;
        // What a caller decides is about the run that they know of, and about no later one.
        let mut decided: Option<RunId> = None;
        loop {
            let Ok(seen) = timeout_at(doing.deadline, self.see(&what, &naming)).await else {
                let message = "there was no time left to look for the account; try again".to_owned();
                return Ok(Answered::anew(what.failed(Failure::new(OutcomeCode::Timeout, message, true))));
            };
            let mut seen = seen?;
            let claim = match std::mem::replace(&mut seen.judged, Judged::Free) {
                Judged::Free => what.keyed().map(|keyed| (keyed, Condition::Absent, None)),
                Judged::Busy => {
                    let until = what.keyed().map_or(started, |keyed| started + keyed.wait).min(doing.deadline);
                    if Instant::now() + pause > until {
                        return Err(in_progress());
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LOOK_AGAIN.1);
                    continue;
                }
                // A task is made of other words than an outcome.
                Judged::Task(..) => return Err(Error::KeyReused),
                Judged::Ended(run, answer, _) if !answer.is_open() || !what.may_decide(&run, decided.as_ref()) => {
                    return Ok(self.replayed(&what, answer.outcome()).await);
                }
                Judged::Lost(run, began, _) if !what.may_decide(&run, decided.as_ref()) => {
                    let metadata = what.metadata(0, Some(run.clone()));
                    return Ok(self.replayed(&what, Outcome { result: Err(lost(&run, began)), metadata }).await);
                }
                Judged::Ended(run, _, version) | Judged::Lost(run, _, version) => {
                    decided = Some(run.clone());
                    match self.decide(&what, run, version).await? {
                        Decided::Given(outcome) => return Ok(Answered::anew(outcome)),
                        Decided::Again => continue,
                        Decided::Do(condition, run) => what.keyed().map(|keyed| (keyed, condition, Some(run))),
                    }
                }
            };
            match Box::pin(self.try_once(&what, (&parameters, naming.clone()), seen, claim)).await? {
                Came::To(outcome) => return Ok(Answered::anew(outcome)),
                Came::Late => {}
            }
        }
    }

    /// What an earlier request with the same key came to.
    async fn replayed(&self, what: &What<'_>, mut outcome: Outcome) -> Answered<Outcome> {
        if let Err(failure) = &mut outcome.result {
            failure.fallback = Some(self.fallback(what.doing.org, what.doing.agent, what.manifest, failure).await);
        }
        Answered { answer: outcome, replayed: true }
    }

    /// What is wrong with an intent is told to whoever sent it; where that was a task, some time ago, it is a failure.
    async fn refused(&self, what: &What<'_>, parameters: &Map<String, Value>, error: Error) -> Result<Outcome, Error> {
        match (&what.doing.source, &error) {
            (Source::Task { .. }, Error::Invalid(_)) => {
                let failure = Failure::new(OutcomeCode::Rejected, error.to_string(), false);
                Ok(self.conclude(what, parameters, Err(failure), 0, None).await)
            }
            (Source::Intent { .. } | Source::Task { .. }, _) => Err(error),
        }
    }

    /// Everything that is needed, in one read.
    pub(crate) async fn see(&self, what: &What<'_>, naming: &Naming) -> Result<Seen, Error> {
        let Doing { org, user, agent, integration, .. } = what.doing;
        let mut wanted = vec![keys::instance(org, &what.manifest.name)];
        wanted.extend(what.keyed().map(|keyed| keys::idempotency(org, user, &keyed.key)));
        let with_account = !matches!(what.manifest.auth, Auth::None);
        if with_account {
            wanted.extend(Found::keys(org, user, &what.manifest.name));
        }
        wanted.extend(naming.keys(org, user, *agent, *integration));
        let mut items = self.ports.table.batch_get(&wanted, Read::Consistent).await?.into_iter();
        let instance = SeenInstance::of(items.next().flatten())?;
        let judged = match what.keyed() {
            Some(keyed) => Judged::of(items.next().flatten(), &keyed.payload, self.ports.clock.now())?,
            None => Judged::Free,
        };
        let accounts: Vec<_> = items.by_ref().take(if with_account { 2 } else { 0 }).collect();
        let account = Found::among(accounts, *integration)?;
        Ok(Seen { account, instance, judged, names: items.collect() })
    }

    /// Does it once, unless something stands in the way. `claim` is the key to do it under, what has to stand there, and the
    /// run that this one is in the place of.
    async fn try_once(
        &self,
        what: &What<'_>,
        (parameters, mut naming): (&Map<String, Value>, Naming),
        seen: Seen,
        claim: Option<(&Keyed, Condition, Option<RunId>)>,
    ) -> Result<Came, Error> {
        let Doing { org, user, integration: alias, deadline, .. } = *what.doing;
        let Seen { account, instance, names, .. } = seen;
        let now = self.ports.clock.now();
        let in_use = instance.instance.in_use(what.class(), now);
        let held = match (out_of_use(what.manifest, &in_use, now), &what.manifest.auth, account) {
            (Some(failure), _, _) => Err(failure),
            (None, Auth::None, _) => Ok(None),
            (None, _, None) => Err(not_connected(what.manifest, user, alias)),
            (None, _, found) => self.account(org, user, what.manifest, alias, (found, None), deadline).await?.map(Some),
        };
        let held = match held {
            Ok(held) => held,
            Err(failure) => return Ok(Came::To(self.conclude(what, parameters, Err(failure), 0, None).await)),
        };
        // What is kept of the parameters never has the account's token in it, should the caller have put it there.
        let secrets = held.as_ref().map(|held| held.credential.secrets()).unwrap_or_default();
        let striker = Striker::new(&secrets);
        let given = struck(&striker, parameters);
        let until = match &what.doing.source {
            Source::Intent { .. } => now + self.longest() + LEASE_MARGIN,
            Source::Task { claim, .. } => claim.until,
        };
        let trial = match self.may_go(what, in_use, &instance, what.class(), until).await? {
            Ok(trial) => trial,
            Err(failure) => return Ok(Came::To(self.conclude(what, &given, Err(failure), 0, None).await)),
        };
        naming.read(names, held.as_ref().map(Held::identity))?;
        let named = self.without_names(what, parameters, naming, held.as_ref(), (&instance, trial, until)).await;
        let failed = match named {
            Ok(Ok(parameters)) => {
                let to_keep = struck(&striker, &parameters);
                let ready = Ready { parameters, to_keep, held, instance, trial, now, until };
                return self.do_it(what, ready, claim).await;
            }
            Ok(Err(failure)) => Ok(failure),
            Err(error) => Err(error),
        };
        self.note_shown(org, what.manifest, instance, (what.class(), trial), Shown::Nothing).await;
        match failed {
            Ok(failure) => Ok(Came::To(self.conclude(what, &given, Err(failure), 0, None).await)),
            Err(error) => self.refused(what, &given, error).await.map(Came::To),
        }
    }

    /// The right to go: nothing, a trial, or why not.
    async fn may_go(
        &self,
        what: &What<'_>,
        in_use: InUse,
        instance: &SeenInstance,
        class: ActionClass,
        until: Timestamp,
    ) -> Result<Result<Option<Trial>, Failure>, Error> {
        if in_use != InUse::OnTrial {
            return Ok(out_of_use(what.manifest, &in_use, self.ports.clock.now()).map_or(Ok(None), Err));
        }
        match self.begin_trial(what.doing.org, what.manifest, instance.clone(), class, until).await? {
            Ok(trial) => Ok(Ok(Some(trial))),
            // It was brought back in the meantime.
            Err(InUse::Yes) => Ok(Ok(None)),
            Err(in_use) => {
                let failure = out_of_use(what.manifest, &in_use, self.ports.clock.now());
                Ok(Err(failure.unwrap_or_else(|| being_tried(what.manifest))))
            }
        }
    }

    /// Puts it on record, does it, and writes down what came of it.
    async fn do_it(
        &self,
        what: &What<'_>,
        ready: Ready,
        claim: Option<(&Keyed, Condition, Option<RunId>)>,
    ) -> Result<Came, Error> {
        let Ready { parameters, to_keep, held, instance, trial, now, until } = ready;
        let (org, manifest) = (what.doing.org, what.manifest);
        let recorded = what.action.effect != Effect::Read || claim.is_some() || instance.instance.records_reads();
        let mut begun = None;
        if recorded {
            let put = self.put_on_record(what, &to_keep, claim, (now, until)).await;
            if !matches!(put, Ok(Some(_))) {
                self.note_shown(org, manifest, instance.clone(), (what.class(), trial), Shown::Nothing).await;
            }
            begun = put?;
            if begun.is_none() {
                return match what.doing.source {
                    Source::Intent { .. } => Ok(Came::Late),
                    // Whoever looked for this worker has declared the run as never begun.
                    Source::Task { .. } => Ok(Came::To(what.failed(too_late()))),
                };
            }
        }
        // A worker that was frozen must not begin what another may have judged already.
        let late = begun.as_ref().is_some_and(|begun| begun.until() <= self.ports.clock.now());
        let called_at = Instant::now();
        let came = if late {
            Ok((Err(too_late().into()), 0))
        } else {
            self.call_for(what, &parameters, held, begun.as_ref(), now).await
        };
        let (result, attempts, error) = match came {
            Ok((Ok(success), attempts)) => (Ok(success), attempts, None),
            Ok((Err(Stopped::Failed(failure)), attempts)) => (Err(failure), attempts, None),
            // Nothing was sent, and the key is free for what is right.
            Ok((Err(Stopped::Parameter(problem)), attempts)) => {
                let failure = Failure::new(OutcomeCode::Unavailable, problem.message.clone(), false);
                (Err(failure), attempts, Some(Error::Invalid(vec![problem])))
            }
            // Nothing more was sent, and what was sent was refused.
            Err(error) => (Err(Failure::new(OutcomeCode::Unavailable, error.to_string(), true)), 0, Some(error)),
        };
        // A service may say what it was sent, and what it says is kept.
        let result = without_secrets(what, &parameters, result);
        let had_time = what.doing.deadline.duration_since(called_at) >= ENOUGH.min(self.config.limits.budget / 2);
        let shown = Shown::of(result.as_ref().err(), attempts > 0 && had_time);
        let noted = self.note_shown(org, manifest, instance, (what.class(), trial), shown);
        let Some(error) = error else {
            let (outcome, ()) = join(self.conclude(what, &to_keep, result, attempts, begun), noted).await;
            return Ok(Came::To(outcome));
        };
        let metadata = what.metadata(attempts, begun.as_ref().map(|begun| begun.id().clone()));
        let ended = async {
            if let Some(begun) = begun {
                self.end_run(begun, &result, &metadata).await;
            }
        };
        join(ended, noted).await;
        self.refused(what, &to_keep, error).await.map(Came::To)
    }

    /// The entry in the ledger, if nobody was faster.
    async fn put_on_record(
        &self,
        what: &What<'_>,
        to_keep: &Map<String, Value>,
        claim: Option<(&Keyed, Condition, Option<RunId>)>,
        (now, until): (Timestamp, Timestamp),
    ) -> Result<Option<Begun>, Error> {
        let (claim, before) = match claim {
            Some((keyed, condition, before)) => {
                let claim = Claim { key: keyed.key.clone(), payload: keyed.payload.clone(), condition };
                (Some(claim), before)
            }
            None => (None, None),
        };
        let run = self.run_of(what, to_keep, claim.as_ref(), now, until)?;
        let begun = self.begin_run(run, claim).await?;
        if let (Some(_), Some(before), Source::Intent { principal, .. }) = (&begun, before, &what.doing.source) {
            self.note_decision(principal, what.doing.user, &before, Verdict::Retried, now).await;
        }
        Ok(begun)
    }

    /// The call itself.
    async fn call_for(
        &self,
        what: &What<'_>,
        parameters: &Map<String, Value>,
        held: Option<Held>,
        begun: Option<&Begun>,
        now: Timestamp,
    ) -> Result<(Returned, u32), Error> {
        let Doing { org, user, integration: alias, deadline, .. } = *what.doing;
        let (key, until) = (service_key(what, begun), begun.map(Begun::until));
        let call = Call { manifest: what.manifest, action: what.action, parameters, user, now, key, until };
        let retries = match what.doing.source {
            Source::Intent { .. } => RETRIES_MAX,
            // A task is tried again by its own rules.
            Source::Task { .. } => 0,
        };
        self.call_with(org, &call, held, alias, (deadline, retries)).await
    }

    /// The parameters with ids in the place of names. A service that is left alone is not asked what they stand for; what
    /// asking showed of it is counted.
    async fn without_names(
        &self,
        what: &What<'_>,
        parameters: &Map<String, Value>,
        mut naming: Naming,
        held: Option<&Held>,
        (instance, trial, until): (&SeenInstance, Option<Trial>, Timestamp),
    ) -> Result<Result<Map<String, Value>, Failure>, Error> {
        if naming.is_open() {
            let Doing { org, user, agent, integration: alias, deadline, .. } = *what.doing;
            let in_use = instance.instance.in_use(ActionClass::Read, self.ports.clock.now());
            // What reads is on trial already.
            let own = match (what.class(), trial) {
                (ActionClass::Read, Some(_)) => None,
                (ActionClass::Read | ActionClass::Write, _) => {
                    match self.may_go(what, in_use, instance, ActionClass::Read, until).await? {
                        Ok(trial) => trial,
                        Err(failure) => return Ok(Err(failure)),
                    }
                }
            };
            let asking = Asking { org, user, agent, plugin: what.plugin, action: what.action, held, alias };
            let asked = self.look_up(&asking, &mut naming, deadline).await;
            let shown = match &asked {
                Ok(Ok(())) | Err(Error::Invalid(_)) => Shown::Works,
                Ok(Err(failure)) => Shown::of(Some(failure), true),
                Err(_) => Shown::Nothing,
            };
            self.note_shown(org, what.manifest, instance.clone(), (ActionClass::Read, own), shown).await;
            if let Err(failure) = asked? {
                return Ok(Err(failure));
            }
        }
        let replaced = naming.replaces();
        let parameters = naming.apply(parameters.clone());
        if replaced { what.found.check(parameters).map(Ok) } else { Ok(Ok(parameters)) }
    }

    /// Writes down what came of it.
    async fn conclude(
        &self,
        what: &What<'_>,
        parameters: &Map<String, Value>,
        mut result: Result<Success, Failure>,
        attempts: u32,
        begun: Option<Begun>,
    ) -> Outcome {
        let metadata = what.metadata(attempts, begun.as_ref().map(|begun| begun.id().clone()));
        let ended = async {
            if let Some(begun) = begun {
                self.end_run(begun, &result, &metadata).await;
            }
        };
        let noted = async {
            let failure = result.as_ref().err()?;
            let (request, task) = match &what.doing.source {
                Source::Intent { request, .. } => (*request, None),
                Source::Task { id, .. } => (None, Some(*id)),
            };
            let Doing { org, user, agent, .. } = *what.doing;
            let (manifest, action, run) = (what.manifest, what.action, metadata.run.as_ref());
            let failed =
                Failed { org, user, agent, manifest, action, parameters, failure, attempts, request, task, run };
            Some(self.note_failure(&failed).await)
        };
        let ((), fallback) = join(ended, noted).await;
        if let Err(failure) = &mut result {
            failure.fallback = fallback;
        }
        let code = result.as_ref().err().map(|failure: &Failure| tracing::field::debug(failure.code));
        tracing::info!(
            org = %what.doing.org, user = %what.doing.user, agent = what.doing.agent.map(tracing::field::display),
            plugin = %metadata.plugin, action = %metadata.action, code, duration_ms = metadata.duration_ms,
            "intent {}.{} {}", metadata.plugin, metadata.action, if result.is_ok() { "succeeded" } else { "failed" },
        );
        Outcome { result, metadata }
    }

    /// What follows for a key whose outcome is not known.
    async fn decide(&self, what: &What<'_>, run: RunId, version: Version) -> Result<Decided, Error> {
        let (Some(keyed), Source::Intent { principal, .. }) = (what.keyed(), &what.doing.source) else {
            return Ok(Decided::Again);
        };
        match keyed.resolve {
            // Without a decision only what the service knows as a repetition gets here.
            Some(Resolve::Retry) | None => Ok(Decided::Do(Condition::Version(version), run)),
            Some(Resolve::Abandon) => {
                let metadata = what.metadata(0, Some(run.clone()));
                let given = self.leave_unknown(principal, what.doing.user, keyed, (&run, version), metadata).await?;
                Ok(given.map_or(Decided::Again, Decided::Given))
            }
        }
    }

    /// The entry in the ledger.
    fn run_of(
        &self,
        what: &What<'_>,
        parameters: &Map<String, Value>,
        claim: Option<&Claim>,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Run, Error> {
        let Doing { org, user, agent, integration, .. } = what.doing;
        let (id, task, request) = match &what.doing.source {
            Source::Intent { request, .. } => (RunId::parse(self.id_at(now)), None, *request),
            Source::Task { id, claim, .. } => (claim.run_id(), Some(*id), None),
        };
        Ok(Run {
            id: id.map_err(|error| Error::field("", error.to_string()))?,
            org: (*org).clone(),
            user: (*user).clone(),
            agent: agent.cloned(),
            plugin: what.manifest.name.clone(),
            version: what.manifest.version.to_string(),
            action: what.action.name.clone(),
            effect: what.action.effect,
            integration: integration.cloned(),
            parameters: redacted(&what.action.parameters, parameters),
            key: claim.map(|claim| claim.key.clone()),
            task: task.cloned(),
            request: request.cloned(),
            state: RunState::Started,
            started_at: now,
            until,
            ended_at: None,
            attempts: 0,
            code: None,
            message: None,
            external_id: None,
            try_again: false,
            retry_after_s: None,
            resolved: None,
        })
    }

    /// The longest that an intent may take.
    fn longest(&self) -> SignedDuration {
        SignedDuration::try_from(self.config.limits.budget).unwrap_or(SignedDuration::from_mins(15))
    }
}

/// What came of a decision.
enum Decided {
    /// This is the answer.
    Given(Outcome),
    /// Somebody else decided: look again.
    Again,
    /// It is to be done, if this still stands under the key, in the place of that run.
    Do(Condition, RunId),
}

/// Parameters without the account's own token.
fn struck(striker: &Striker, parameters: &Map<String, Value>) -> Map<String, Value> {
    let each = parameters.iter().map(|(name, value)| (striker.text(name.clone()), striker.value(value.clone())));
    each.collect()
}

/// What came of it, without the values that are not kept of the parameters. All that comes of a task is kept; of an
/// intent, the data goes to whoever sent those values.
fn without_secrets(
    what: &What<'_>,
    parameters: &Map<String, Value>,
    result: Result<Success, Failure>,
) -> Result<Success, Failure> {
    let secrets = removed(&what.action.parameters, parameters);
    if secrets.is_empty() {
        return result;
    }
    let striker = Striker::new(&secrets);
    let all = matches!(what.doing.source, Source::Task { .. }) || what.keyed().is_some();
    match result {
        Ok(Success { message, data, external_id }) => Ok(Success {
            message: striker.text(message),
            data: if all { striker.value(data) } else { data },
            external_id: external_id.map(|id| striker.text(id)),
        }),
        Err(failure) => Err(Failure { message: striker.text(failure.message), ..failure }),
    }
}

/// By what the service is to know a repetition: of the caller's key, else of what would be repeated.
fn service_key(what: &What<'_>, begun: Option<&Begun>) -> Option<ServiceKey> {
    if what.action.effect != Effect::Keyed {
        return None;
    }
    let (org, user) = (what.doing.org.as_str(), what.doing.user.as_str());
    match (&what.doing.source, what.keyed()) {
        (_, Some(keyed)) => Some(ServiceKey::of_caller(what.doing.org, what.doing.user, keyed)),
        (Source::Task { id, number, .. }, None) => {
            Some(ServiceKey::of(&["task", org, user, id.as_str(), &number.to_string()], true))
        }
        (Source::Intent { .. }, None) => begun.map(|begun| ServiceKey::of(&["run", org, begun.id().as_str()], false)),
    }
}

/// Why a plugin cannot be used now, if it cannot.
pub(crate) fn out_of_use(manifest: &Manifest, in_use: &InUse, now: Timestamp) -> Option<Failure> {
    let name = &manifest.display_name;
    match in_use {
        InUse::Yes | InUse::OnTrial => None,
        InUse::Disabled(reason) => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let message = format!("{name} was taken out of use by an administrator{reason}");
            Some(Failure::new(OutcomeCode::Disabled, message, false))
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

fn being_tried(manifest: &Manifest) -> Failure {
    let message = format!("{} failed too often, and is just being tried again", manifest.display_name);
    Failure { retry_after_s: Some(5), ..Failure::new(OutcomeCode::Disabled, message, true) }
}

fn too_late() -> Failure {
    let message = "it was begun too late, so that it was not done".to_owned();
    Failure::new(OutcomeCode::Unavailable, message, true)
}
