//! A schedule as callers write it, and the check that turns it into a timetable.

use std::num::NonZeroU32;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cron::{CRON_FORM, Cron};
use super::rate::{RATE_FORM, rate_s};
use super::timetable::{Timetable, Timing};
use super::zone::zone;
use crate::core::problem::FieldProblem;

/// The longest `cron`, `rate` or `timezone`, in bytes.
pub(super) const TEXT_MAX_BYTES: usize = 256;

/// When a recurring task is due: by `cron` or by `rate`.
///
/// A local time that a clock change skips is left out. A local time that occurs twice is due once: at its first occurrence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// Six fields, as in EventBridge Scheduler: minutes, hours, day of the month, month, day of the week (1 is SUN) and
    /// year, such as `0 9 ? * MON-FRI *`. One of the two days is `?`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX_BYTES))]
    pub cron: Option<String>,
    /// A number and minutes, hours or days, such as `15 minutes`, counted from `start`. Without `start` it counts from when
    /// the schedule was created, and the first run is one rate later. A day is always 24 hours, also when the clocks change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX_BYTES))]
    pub rate: Option<String>,
    /// The IANA time zone of `cron`, such as `Europe/Berlin`; left out, UTC. Not allowed with `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX_BYTES))]
    pub timezone: Option<String>,
    /// Not due before this time. A time in the past is allowed, as the start of a `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// Not due after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// The most runs; left out, no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_runs: Option<NonZeroU32>,
    /// What happens to missed times.
    #[serde(default)]
    pub catch_up: CatchUp,
}

/// What happens to times that were missed, such as while the server was down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum CatchUp {
    /// Missed times are skipped.
    Skip,
    /// One run replaces all missed times.
    #[default]
    One,
    /// Each missed time is run.
    All,
}

impl Schedule {
    /// Parses the schedule, or returns everything that is wrong with it. `created` is when the schedule was created or last
    /// changed. With the same `created` it gives the same timetable later, when some of its runs are past.
    pub fn check(&self, created: Timestamp) -> Result<Timetable, Vec<FieldProblem>> {
        let mut problems = Problems(Vec::new());
        if self.cron.is_some() == self.rate.is_some() {
            problems.add("", format!("needs either cron ({CRON_FORM}) or rate ({RATE_FORM})"));
        }
        let cron = problems.short_text("/cron", self.cron.as_deref()).map(Cron::parse);
        let rate = problems.short_text("/rate", self.rate.as_deref()).map(rate_s);
        let zone = problems.short_text("/timezone", self.timezone.as_deref()).map(zone);

        let mut timing = None;
        match rate {
            Some(Ok(every_s)) => {
                // `None` for a rate that exceeds the calendar: it is never due.
                let first = self.start.or_else(|| created.checked_add(SignedDuration::from_secs(every_s)).ok());
                timing = first.map(|first| Timing::Rate { first, every_s });
            }
            Some(Err(message)) => problems.add("/rate", message),
            None => {}
        }
        match cron {
            Some(Ok(cron)) => {
                let zone = zone.as_ref().and_then(|zone| zone.as_ref().ok()).cloned();
                timing = Some(Timing::Cron(cron, zone.unwrap_or(TimeZone::UTC)));
            }
            Some(Err(messages)) => messages.into_iter().for_each(|message| problems.add("/cron", message)),
            None => {}
        }
        if let Some(Err(message)) = zone {
            problems.add("/timezone", message);
        }
        // A time zone would promise a time of day, which a rate does not keep.
        if self.timezone.is_some() && self.rate.is_some() {
            let message = "cannot be combined with rate, whose day is always 24 hours; leave it out, or use cron";
            problems.add("/timezone", message.to_owned());
        }
        if self.end.is_some_and(|end| end <= self.start.map_or(created, |start| start.max(created))) {
            problems.add("/end", "must be later than now and than start; choose a later time".to_owned());
        }

        if !problems.0.is_empty() {
            return Err(problems.0);
        }
        let timetable = timing.map(|timing| Timetable { timing, start: self.start, end: self.end });
        timetable.filter(|timetable| timetable.next_after(created).is_some()).ok_or_else(|| {
            let field = if self.cron.is_some() { "/schedule/cron" } else { "/schedule/rate" };
            let message = "would never run: its times are past, after end or not in the calendar; change it or end";
            vec![FieldProblem::new(field, message)]
        })
    }
}

/// What is wrong with a schedule's fields.
struct Problems(Vec<FieldProblem>);

impl Problems {
    fn add(&mut self, field: &str, message: String) {
        self.0.push(FieldProblem::new(format!("/schedule{field}"), message));
    }

    /// The text, unless it is too long to be parsed.
    fn short_text<'a>(&mut self, field: &str, text: Option<&'a str>) -> Option<&'a str> {
        if text.is_some_and(|text| text.len() > TEXT_MAX_BYTES) {
            self.add(field, format!("is longer than {TEXT_MAX_BYTES} bytes; shorten it"));
            return None;
        }
        text
    }
}
