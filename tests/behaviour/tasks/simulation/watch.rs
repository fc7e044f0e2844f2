//! The observer of a simulation: checks every write of a task, every call and every effect against the rules.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use overseer_engine::tasks::FAILURES_MAX;
use serde_json::Value;

use super::world::{Act, Change};

#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub firings: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub stops: u64,
    pub crashes: u64,
    pub store_failures: u64,
    pub changes: u64,
    pub calls: u64,
    pub effects: u64,
    /// Tasks by their last state.
    pub states: BTreeMap<String, u64>,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.firings += other.firings;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.stops += other.stops;
        self.crashes += other.crashes;
        self.store_failures += other.store_failures;
        self.changes += other.changes;
        self.calls += other.calls;
        self.effects += other.effects;
        for (state, tasks) in other.states {
            *self.states.entry(state).or_default() += tasks;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { firings, lost, duplicates, stops, crashes, store_failures, changes, calls, effects, states } = self;
        write!(
            formatter,
            "{states:?}; {firings} firings, {duplicates} alarms twice, {lost} lost; {changes} changes, {stops} stops, \
             {crashes} crashes, {store_failures} failures of the store; {calls} calls, {effects} effects"
        )
    }
}

/// What the observer knows of a task.
#[derive(Default)]
pub struct Seen {
    /// As it was last stored.
    pub record: Value,
    /// How often a caller retried it after its end.
    by_hand: u64,
    /// A retry has not started yet.
    owed: bool,
    paused_by_hand: bool,
    /// By run and attempt.
    calls: BTreeMap<(u64, u64), u64>,
    /// By run.
    effects: BTreeMap<u64, u64>,
    /// Runs and attempts that another worker fenced before they started.
    fenced: HashSet<(u64, u64)>,
    log: Vec<String>,
}

impl Seen {
    pub fn state(&self) -> &str {
        self.record["state"].as_str().unwrap_or("absent")
    }

    pub fn is_unsafe(&self) -> bool {
        self.record["action"] == "add"
    }

    pub fn recurs(&self) -> bool {
        !self.record["schedule"].is_null()
    }

    pub fn edition(&self) -> u64 {
        number(&self.record["parameters"]["edition"])
    }

    /// Its history, for the message of a violation.
    fn story(&self) -> String {
        self.log.iter().fold(String::new(), |story, line| story + "\n  " + line)
    }

    fn max_runs(&self) -> u64 {
        self.record["schedule"]["maxRuns"].as_u64().unwrap_or(u64::MAX)
    }
}

/// A claim that a worker stored.
struct Claimed {
    number: u64,
    run: u64,
    attempt: u64,
    edition: u64,
    worker: Value,
}

#[derive(Default)]
pub struct Watch {
    pub counts: Counts,
    pub tasks: BTreeMap<u64, Seen>,
    /// The first violation of a rule.
    pub wrong: Option<String>,
    /// Whether to keep each task's history, which costs memory.
    pub keeps_logs: bool,
    /// A hash of all events in order.
    pub trace: u64,
    acts: HashMap<u64, Act>,
    claims: HashMap<u64, Claimed>,
    doomed: HashSet<u64>,
    /// Actors that still have to publish that a task's outcome is unknown.
    to_say: HashMap<u64, u64>,
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

pub fn is_final(state: &str) -> bool {
    matches!(state, "succeeded" | "failed" | "cancelled" | "outcome_unknown")
}

impl Watch {
    pub fn began(&mut self, actor: u64, act: Act) {
        self.note(None, &format!("{actor} begins {act:?}"));
        match &act {
            Act::Fire(_) => self.counts.firings += 1,
            Act::Change(..) => self.counts.changes += 1,
            Act::Make(_) | Act::Sweep => {}
        }
        self.acts.insert(actor, act);
    }

    pub fn ended(&mut self, actor: u64) {
        if let Some(task) = self.to_say.remove(&actor) {
            self.violated(task, "its outcome became unknown, and no event was published");
        }
        self.forget(actor);
    }

    pub fn crashed(&mut self, actor: u64, place: &str) {
        self.counts.crashes += 1;
        let task = self.task_of(actor);
        self.note(task, &format!("{actor} crashes: {place}"));
        self.forget(actor);
    }

    fn forget(&mut self, actor: u64) {
        self.acts.remove(&actor);
        self.claims.remove(&actor);
        self.doomed.remove(&actor);
        self.to_say.remove(&actor);
    }

    pub fn store_failed(&mut self, actor: u64, place: &str) {
        self.counts.store_failures += 1;
        let task = self.task_of(actor);
        self.note(task, &format!("the store fails {actor}: {place}"));
        // An actor that does not know whether its write succeeded cannot publish it.
        self.to_say.remove(&actor);
    }

    /// Makes an actor crash during its call: it never returns to the store.
    pub fn doom(&mut self, actor: u64) {
        self.doomed.insert(actor);
    }

    pub fn is_doomed(&self, actor: u64) -> bool {
        self.doomed.contains(&actor)
    }

    pub fn published(&mut self, actor: u64, kind: &str) {
        self.note(None, kind);
        if kind == "task.outcome_unknown" || kind == "task.paused" {
            self.to_say.remove(&actor);
        }
    }

    /// The task of an actor.
    pub fn task_of(&self, actor: u64) -> Option<u64> {
        match self.acts.get(&actor)? {
            Act::Make(task) | Act::Change(task, _) => Some(*task),
            // Users are named after their task's number, so an alarm identifies its task.
            Act::Fire(work) => work.id.rsplit_once('-')?.1.parse().ok(),
            Act::Sweep => None,
        }
    }

    fn note(&mut self, task: Option<u64>, what: &str) {
        for byte in what.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(task) = task.filter(|_| self.keeps_logs) {
            self.tasks.entry(task).or_default().log.push(what.to_owned());
        }
    }

    /// Only the first violation is kept: later ones may follow from it.
    pub fn violated(&mut self, task: u64, what: &str) {
        let seen = self.tasks.entry(task).or_default();
        self.wrong.get_or_insert_with(|| format!("task {task}: {what}\n  {}{}", seen.record, seen.story()));
    }

    /// A task was stored.
    pub fn wrote(&mut self, actor: u64, body: &str, now: Timestamp) {
        let new: Value = serde_json::from_str(body).unwrap();
        let Some(task) = new["parameters"]["number"].as_u64() else { return };
        let seen = self.tasks.entry(task).or_default();
        let state = |record: &Value| record["state"].as_str().unwrap_or("absent").to_owned();
        let old = std::mem::replace(&mut seen.record, new);
        let (from, to) = (state(&old), state(&seen.record));
        let new = seen.record.clone();
        let run = number(&new["runs"]);
        self.note(
            Some(task),
            &format!("{now} {actor} writes {from} -> {to}, run {run}.{}, {}", new["attempt"], new["next_at"]),
        );
        let Some(act) = self.acts.get(&actor).cloned() else { return self.violated(task, "a ghost wrote") };
        let seen = self.tasks.entry(task).or_default();
        let story = seen.story();
        let mut wrong = |holds: bool, what: &str| {
            if !holds {
                self.wrong.get_or_insert_with(|| {
                    format!("task {task}: {what}: {act:?} wrote {from} -> {to}\n  {old}\n  {new}{story}")
                });
            }
        };
        match (&act, from.as_str(), to.as_str()) {
            (Act::Fire(_), "scheduled" | "retrying", "running") => {
                wrong(time(&old["next_at"]) <= now, "a claim before its time");
                // A cancelled task that a caller retries runs once and does not continue.
                wrong(new["cancel_requested"] == false || seen.by_hand > 0, "a claim of what was cancelled");
                wrong(run == number(&old["runs"]) + u64::from(from == "scheduled"), "runs are miscounted");
                wrong(number(&new["attempt"]) <= number(&new["attempts_max"]), "an attempt too many");
                wrong(run <= seen.max_runs().saturating_add(seen.by_hand), "a run too many");
                let (attempt, edition) = (number(&new["attempt"]), number(&new["parameters"]["edition"]));
                let worker = new["claim"]["worker"].clone();
                self.claims.insert(actor, Claimed { number: task, run, attempt, edition, worker });
                seen.owed = false;
            }
            // A missed run is skipped.
            (Act::Fire(_), "scheduled", "scheduled" | "succeeded" | "cancelled") => {
                wrong(new["schedule"]["catchUp"] == "skip", "a run left out");
                let ends = if new["result"].is_null() { "cancelled" } else { "succeeded" };
                wrong(to == "scheduled" || to == ends, "a run left out ended the task as something else");
                wrong(!seen.owed, "a run that was requested by hand was skipped");
            }
            (
                Act::Fire(_),
                "running" | "outcome_unknown",
                "scheduled" | "retrying" | "paused" | "succeeded" | "failed" | "cancelled" | "outcome_unknown",
            ) => {
                let mine = self.claims.get(&actor).is_some_and(|claimed| claimed.worker == old["claim"]["worker"]);
                if !mine {
                    wrong(from == "running", "another worker's result was changed");
                    wrong(
                        time(&old["claim"]["until"]) <= now,
                        "a claim was settled by another worker before it expired",
                    );
                    let of_run = (number(&old["runs"]), number(&old["attempt"]));
                    let effects = seen.effects.get(&of_run.0).copied().unwrap_or_default();
                    wrong(!(seen.is_unsafe() && to == "retrying" && effects > 0), "an unsafe action is to be repeated");
                    // A fenced attempt must never start.
                    let said =
                        new["attempts"].as_array().and_then(|attempts| attempts.last()).map(|last| &last["outcome"]);
                    if seen.is_unsafe()
                        && !seen.calls.contains_key(&of_run)
                        && said.is_some_and(|said| said == "failed")
                    {
                        seen.fenced.insert(of_run);
                    }
                }
                wrong(!(to == "retrying" && old["cancel_requested"] == true), "a cancelled task goes on");
                let last = new["attempts"].as_array().and_then(|attempts| attempts.last());
                if seen.is_unsafe() && last.is_some_and(|attempt| attempt["outcome"] == "unknown") {
                    self.to_say.insert(actor, task);
                }
                if to == "paused" {
                    wrong(number(&new["failures_in_row"]) >= u64::from(FAILURES_MAX), "paused for nothing");
                }
            }
            (Act::Change(_, Change::Cancel), "running", "running") => {
                wrong(new["cancel_requested"] == true && new["claim"] == old["claim"], "a cancel did something else");
            }
            (Act::Change(_, Change::Retry), "failed" | "cancelled" | "outcome_unknown", "scheduled") => {
                seen.by_hand += 1;
                seen.owed = true;
            }
            (Act::Change(_, Change::Pause), "scheduled" | "retrying", "paused") => {
                seen.paused_by_hand = true;
                seen.owed = false;
            }
            (Act::Change(_, Change::Cancel), "scheduled" | "retrying" | "paused", "cancelled") => seen.owed = false,
            (Act::Make(_), "absent", "scheduled")
            | (Act::Change(_, Change::Resume), "paused", "scheduled")
            | (Act::Change(_, Change::Retry), "retrying", "retrying") => {}
            (Act::Change(_, Change::Cancel), from, to) if from == to && is_final(from) => {}
            (Act::Change(_, Change::Edit), "scheduled" | "paused", _) => {
                wrong(from == to, "an edit did something else");
                // An edit also moves a run that was requested by hand.
                seen.owed &= new["occurrence"] == old["occurrence"];
            }
            _ => wrong(false, "no such step"),
        }
    }

    /// The service was called.
    pub fn called(&mut self, actor: u64, task: u64, edition: u64) {
        self.counts.calls += 1;
        self.note(Some(task), &format!("{actor} calls"));
        let Some(claimed) = self.claims.get(&actor).filter(|claimed| claimed.number == task) else {
            return self.violated(task, "a call without a claim");
        };
        let (run, attempt, claimed_edition) = (claimed.run, claimed.attempt, claimed.edition);
        if claimed_edition != edition {
            self.violated(task, "a call with other parameters than were claimed");
        }
        let seen = self.tasks.entry(task).or_default();
        let fenced = seen.fenced.contains(&(run, attempt));
        let calls = seen.calls.entry((run, attempt)).or_default();
        *calls += 1;
        let calls = *calls;
        if fenced {
            self.violated(task, "a call after another worker had fenced the attempt");
        }
        if calls > 1 {
            self.violated(task, "two calls for one attempt");
        }
    }

    /// The action had its effect at the service.
    pub fn effect(&mut self, actor: u64, task: u64) {
        self.counts.effects += 1;
        self.note(Some(task), &format!("{actor} has its effect"));
        let Some(claimed) = self.claims.get(&actor) else { return };
        let run = claimed.run;
        let seen = self.tasks.entry(task).or_default();
        let effects = seen.effects.entry(run).or_default();
        *effects += 1;
        if *effects > 1 && seen.is_unsafe() {
            self.violated(task, "an unsafe action twice in one run");
        }
    }

    /// Checks the rules that hold once every actor has ended.
    pub fn close(&mut self, now: Timestamp) {
        let tasks: Vec<u64> = self.tasks.keys().copied().collect();
        for task in tasks {
            let seen = &self.tasks[&task];
            let state = seen.state().to_owned();
            if state == "absent" {
                continue;
            }
            *self.counts.states.entry(state.clone()).or_default() += 1;
            for what in problems_at_the_end(seen, now) {
                self.violated(task, &what);
            }
            self.note(None, &state);
        }
    }
}

fn problems_at_the_end(seen: &Seen, now: Timestamp) -> Vec<String> {
    let record = &seen.record;
    let mut problems = Vec::new();
    // A task that became due after the last sweep waits for the next.
    let waits = time(&record["next_at"]) > now - SignedDuration::from_mins(2);
    match seen.state() {
        "paused" if seen.paused_by_hand || number(&record["failures_in_row"]) >= u64::from(FAILURES_MAX) => {}
        "scheduled" | "retrying" if seen.recurs() && waits => {}
        state if is_final(state) => {}
        state => problems.push(format!("forgotten: {state} at the end, {now}")),
    }
    if seen.owed {
        problems.push("a run that was requested by hand never started".to_owned());
    }
    // The recorded outcome of each run: that of its last attempt.
    let mut said: BTreeMap<u64, &Value> = BTreeMap::new();
    for attempt in record["attempts"].as_array().into_iter().flatten() {
        said.insert(number(&attempt["run"]), &attempt["outcome"]);
    }
    for (run, outcome) in said {
        let effects = seen.effects.get(&run).copied().unwrap_or_default();
        let honest = match outcome.as_str() {
            Some("succeeded") => effects > 0,
            Some("failed") => effects == 0 || !seen.is_unsafe(),
            _ => true,
        };
        if !honest {
            problems.push(format!("run {run} is said to have {outcome}, and had {effects} effects"));
        }
    }
    if !seen.recurs() {
        let effects: u64 = seen.effects.values().sum();
        match seen.state() {
            "succeeded" if effects == 0 => problems.push("succeeded without an effect".to_owned()),
            _ if seen.is_unsafe() && effects > 1 + seen.by_hand => problems.push(format!("{effects} effects")),
            _ => {}
        }
    }
    problems
}
