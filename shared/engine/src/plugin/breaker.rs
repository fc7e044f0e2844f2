//! The circuit breaker: disables a failing plugin for a while, and enables it again after one successful trial call. Pure rules
//! over a record that `registry` changes by compare-and-set; this module does no I/O.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::effect::Effect;
use crate::core::outcome::{Failure, OutcomeCode};

/// When repeated failures disable a plugin, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct BreakerLimits {
    /// How many failures within the window: 1 to 100; 5 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failures: Option<u16>,
    /// The window, in seconds: 1 to 86,400; 300 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub window_s: Option<u32>,
    /// How long the plugin is disabled at first, in seconds: 1 to 86,400; 60 if left out. Each failed trial doubles it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub open_s: Option<u32>,
    /// How long it is disabled at most, in seconds: 1 to 86,400, and not less than `open_s`; 1,800 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub open_max_s: Option<u32>,
}

impl BreakerLimits {
    /// The limits if neither the organization nor the plugin sets them.
    pub(crate) const USUAL: Self =
        Self { failures: Some(5), window_s: Some(300), open_s: Some(60), open_max_s: Some(1_800) };

    /// These limits, completed with `others`.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            failures: self.failures.or(others.failures),
            window_s: self.window_s.or(others.window_s),
            open_s: self.open_s.or(others.open_s),
            open_max_s: self.open_max_s.or(others.open_max_s),
        }
    }

    /// Every problem of the limits, each with its field.
    pub(crate) fn problems(self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.failures.is_some_and(|failures| !(1..=100).contains(&failures)) {
            problems.push(("failures", "must be 1 to 100".to_owned()));
        }
        for (name, value) in [("window_s", self.window_s), ("open_s", self.open_s), ("open_max_s", self.open_max_s)] {
            if value.is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
                problems.push((name, "must be 1 to 86400 seconds".to_owned()));
            }
        }
        if self.or(Self::USUAL).open_max() < self.or(Self::USUAL).open() {
            problems.push(("open_max_s", "must not be less than open_s".to_owned()));
        }
        problems
    }

    fn failures(self) -> usize {
        self.failures.map_or(usize::MAX, usize::from)
    }

    fn window(self) -> SignedDuration {
        SignedDuration::from_secs(self.window_s.map_or(0, i64::from))
    }

    fn open(self) -> SignedDuration {
        SignedDuration::from_secs(self.open_s.map_or(0, i64::from))
    }

    fn open_max(self) -> SignedDuration {
        SignedDuration::from_secs(self.open_max_s.map_or(0, i64::from))
    }
}

/// The class of an action. Each class has its own circuit: a service that cannot write may still read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionClass {
    /// Changes nothing.
    Read,
    /// Has an effect.
    Write,
}

impl From<Effect> for ActionClass {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Read => Self::Read,
            Effect::Idempotent | Effect::Keyed | Effect::Unsafe => Self::Write,
        }
    }
}

/// The circuit of one class of actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Circuit {
    /// The times of failures within the window, the latest last.
    #[serde(default)]
    failures: Vec<Timestamp>,
    /// Set while the plugin is disabled or on trial.
    #[serde(default)]
    open: Option<OpenCircuit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OpenCircuit {
    since: Timestamp,
    until: Timestamp,
    /// How often it was opened without being closed in between.
    times: u32,
    /// The end of the lease of the trial call, if one is in flight.
    trial: Option<Timestamp>,
}

/// Whether a call is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Allowed.
    Closed,
    /// Allowed as the trial.
    HalfOpen,
    /// Refused until that time.
    Open(Timestamp),
    /// Refused, since a trial is in flight.
    TrialInProgress,
}

/// What a call says about the plugin's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthSignal {
    /// The plugin works.
    Works,
    /// The plugin or its service failed.
    Fails,
    /// Nothing: the service was not called, or the failure has another cause.
    Nothing,
}

impl HealthSignal {
    /// What an outcome showed. `called` says whether the service was called.
    pub(crate) fn of(failure: Option<&Failure>, called: bool) -> Self {
        let Some(failure) = failure else { return Self::Works };
        if failure.of_caller {
            return Self::Nothing;
        }
        match failure.code {
            OutcomeCode::Timeout | OutcomeCode::Unavailable | OutcomeCode::OutcomeUnknown if called => Self::Fails,
            // The service works: it understood the request and refused it.
            OutcomeCode::Rejected | OutcomeCode::RateLimited if called => Self::Works,
            OutcomeCode::Timeout
            | OutcomeCode::Unavailable
            | OutcomeCode::OutcomeUnknown
            | OutcomeCode::Rejected
            | OutcomeCode::RateLimited
            | OutcomeCode::NotConnected
            | OutcomeCode::ReconnectRequired
            | OutcomeCode::Disabled
            | OutcomeCode::Vetoed => Self::Nothing,
        }
    }
}

/// How a call changed a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerTransition {
    /// Not at all, except for the counted failures.
    Nothing,
    Opened,
    Closed,
}

impl Circuit {
    pub(crate) fn gate(&self, now: Timestamp) -> Gate {
        match &self.open {
            None => Gate::Closed,
            Some(open) if now < open.until => Gate::Open(open.until),
            Some(open) => match open.trial {
                Some(until) if now < until => Gate::TrialInProgress,
                Some(_) | None => Gate::HalfOpen,
            },
        }
    }

    /// The number of failures within the window at `now`.
    pub(crate) fn counted(&self, limits: BreakerLimits, now: Timestamp) -> usize {
        self.failures.iter().filter(|at| now.duration_since(**at) < limits.window()).count()
    }

    /// The time at which it was opened, if it is open.
    pub(crate) fn open_since(&self) -> Option<Timestamp> {
        self.open.as_ref().map(|open| open.since)
    }

    /// The time until which the circuit has to be stored.
    pub(crate) fn remembered_until(&self, limits: BreakerLimits) -> Option<Timestamp> {
        let failures = self.failures.last().map(|at| *at + limits.window());
        let open = self.open.as_ref().map(|open| open.until.max(open.trial.unwrap_or(open.until)) + limits.open_max());
        failures.max(open)
    }

    /// Starts a trial with a lease until `until`.
    pub(crate) fn begin_trial(&mut self, until: Timestamp) {
        if let Some(open) = &mut self.open {
            open.trial = Some(until);
        }
    }

    /// Whether the trial with the lease until `until` is still in flight.
    pub(crate) fn is_trial(&self, until: Timestamp) -> bool {
        self.open.as_ref().is_some_and(|open| open.trial == Some(until))
    }

    /// Records the result of a call; `on_trial` if it was the trial.
    pub(crate) fn note(
        &mut self,
        signal: HealthSignal,
        on_trial: bool,
        limits: BreakerLimits,
        now: Timestamp,
    ) -> BreakerTransition {
        match (signal, &mut self.open) {
            (HealthSignal::Works, Some(_)) if on_trial => {
                *self = Self::default();
                BreakerTransition::Closed
            }
            (HealthSignal::Nothing, Some(open)) if on_trial => {
                open.trial = None;
                BreakerTransition::Nothing
            }
            (HealthSignal::Fails, Some(open)) if on_trial => {
                let times = open.times.saturating_add(1);
                self.open_until(times, limits, now);
                BreakerTransition::Opened
            }
            // The call started before the circuit opened, or the circuit is closed.
            (HealthSignal::Fails, None) => {
                self.failures.push(now);
                self.failures.retain(|at| now.duration_since(*at) < limits.window());
                if self.failures.len() < limits.failures() {
                    return BreakerTransition::Nothing;
                }
                self.open_until(1, limits, now);
                BreakerTransition::Opened
            }
            (HealthSignal::Works | HealthSignal::Nothing | HealthSignal::Fails, _) => BreakerTransition::Nothing,
        }
    }

    fn open_until(&mut self, times: u32, limits: BreakerLimits, now: Timestamp) {
        let doubled = limits.open() * 2_i32.saturating_pow(times.saturating_sub(1).min(20));
        let until = now + doubled.min(limits.open_max());
        self.failures.clear();
        self.open = Some(OpenCircuit { since: now, until, times, trial: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerLimits = BreakerLimits::USUAL;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn opened() -> Circuit {
        let mut circuit = Circuit::default();
        for second in 0..5 {
            assert_eq!(circuit.gate(at(second)), Gate::Closed);
            circuit.note(HealthSignal::Fails, false, LIMITS, at(second));
        }
        circuit
    }

    #[test]
    fn five_failures_in_five_minutes_open_the_circuit() {
        assert_eq!(opened().gate(at(4)), Gate::Open(at(64)));
        for (seconds, open) in [([0, 1, 2, 3, 299], true), ([0, 1, 2, 3, 300], false)] {
            let mut circuit = Circuit::default();
            let transitions = seconds.map(|second| circuit.note(HealthSignal::Fails, false, LIMITS, at(second)));
            assert_eq!(transitions[4] == BreakerTransition::Opened, open, "{seconds:?}");
        }
        let mut circuit = Circuit::default();
        for signal in [HealthSignal::Works, HealthSignal::Nothing] {
            for _ in 0..10 {
                assert_eq!(circuit.note(signal, false, LIMITS, at(0)), BreakerTransition::Nothing);
            }
        }
        assert_eq!(circuit, Circuit::default());
    }

    #[test]
    fn failed_trials_double_the_time_up_to_half_an_hour() {
        let mut circuit = opened();
        let mut now = 64;
        for (open_s, next) in [(60, 120), (120, 240), (240, 480), (480, 960), (960, 1800), (1800, 1800)] {
            assert_eq!(circuit.gate(at(now - 1)), Gate::Open(at(now)), "{open_s}");
            assert_eq!(circuit.gate(at(now)), Gate::HalfOpen);
            circuit.begin_trial(at(now + 50));
            assert_eq!(circuit.gate(at(now)), Gate::TrialInProgress, "one at a time");
            assert_eq!(circuit.gate(at(now + 50)), Gate::HalfOpen, "the lease of the trial expired");
            assert_eq!(
                circuit.note(HealthSignal::Fails, false, LIMITS, at(now)),
                BreakerTransition::Nothing,
                "a call from before the circuit opened"
            );
            assert_eq!(circuit.note(HealthSignal::Fails, true, LIMITS, at(now)), BreakerTransition::Opened);
            assert_eq!(circuit.gate(at(now)), Gate::Open(at(now + next)));
            now += next;
        }
        circuit.begin_trial(at(now + 50));
        assert_eq!(circuit.note(HealthSignal::Nothing, true, LIMITS, at(now)), BreakerTransition::Nothing);
        assert_eq!(circuit.gate(at(now)), Gate::HalfOpen, "a trial without a signal frees the slot");
        circuit.begin_trial(at(now + 50));
        assert_eq!(circuit.note(HealthSignal::Works, true, LIMITS, at(now)), BreakerTransition::Closed);
        assert_eq!(circuit, Circuit::default());
    }

    #[test]
    fn limits_hold_at_their_edges() {
        let limits = |failures, window_s, open_s, open_max_s| BreakerLimits {
            failures: Some(failures),
            window_s: Some(window_s),
            open_s: Some(open_s),
            open_max_s: Some(open_max_s),
        };
        for good in [limits(1, 1, 1, 1), limits(100, 86_400, 86_400, 86_400)] {
            assert_eq!(good.problems(), []);
        }
        let fields = |limits: BreakerLimits| limits.problems().into_iter().map(|(field, _)| field).collect::<Vec<_>>();
        assert_eq!(fields(limits(0, 0, 0, 0)), ["failures", "window_s", "open_s", "open_max_s"]);
        assert_eq!(fields(limits(101, 86_401, 86_401, 86_401)), ["failures", "window_s", "open_s", "open_max_s"]);
        assert_eq!(fields(limits(5, 1, 2, 1)), ["open_max_s"]);
    }
}
