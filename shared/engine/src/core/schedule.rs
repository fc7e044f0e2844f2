//! When a recurring task is due: cron as EventBridge Scheduler writes it, or a fixed rate.
//!
//! Our own, since the libraries are for other rules: they take `?` for `*`, ask for no year, and move a time that a
//! clock change skips instead of leaving it out.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase, TimeZoneName};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::problem::FieldProblem;
use crate::core::suggest::nearest;

/// The longest `cron`, `rate` or `timezone`.
const TEXT_MAX_BYTES: usize = 256;

const CRON_FORM: &str =
    "minutes hours day-of-month month day-of-week year, such as 0 9 ? * MON-FRI * for 9:00 on every weekday";
const RATE_FORM: &str = "a whole number from 1 and minutes, hours or days, such as 15 minutes";

/// When a recurring task is due: by `cron` or by `rate`.
///
/// A local time that does not exist, as the clocks go forward, is skipped. One that exists twice, as they go back, is
/// due once: at the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// Six fields, as in EventBridge Scheduler: minutes, hours, day of the month, month, day of the week (1 is SUN) and
    /// year, such as `0 9 ? * MON-FRI *`. One of the two days is `?`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX_BYTES))]
    pub cron: Option<String>,
    /// A number and minutes, hours or days, such as `15 minutes`, counted from `start` or, without it, from when the
    /// schedule was made; the first run is then one rate later. A day is 24 hours, also where the clocks change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX_BYTES))]
    pub rate: Option<String>,
    /// The IANA time zone of `cron`, such as `Europe/Berlin`; left out, UTC. A `rate` has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX_BYTES))]
    pub timezone: Option<String>,
    /// Not due before this time; may be past, to count a `rate` from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// Not due after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// How often it runs at most; left out, without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_runs: Option<NonZeroU32>,
    /// What becomes of times that were missed.
    #[serde(default)]
    pub catch_up: CatchUp,
}

/// What becomes of times that were missed, such as while the server was down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum CatchUp {
    /// They are left out.
    Skip,
    /// One run stands for all of them.
    #[default]
    One,
    /// Each is run.
    All,
}

/// A schedule that was read and makes sense.
#[derive(Debug, Clone)]
pub struct Timetable {
    timing: Timing,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

#[derive(Debug, Clone)]
enum Timing {
    Cron(Cron, TimeZone),
    Rate { first: Timestamp, every_s: i64 },
}

impl Schedule {
    /// Reads the schedule, or says everything that is wrong with it. It counts from when it was `created`, or last
    /// changed: with the same time it reads the same later, when some of its runs are past.
    pub fn check(&self, created: Timestamp) -> Result<Timetable, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let mut wrong = |field: &str, message: String| {
            problems.push(FieldProblem::new(format!("/schedule{field}"), message));
        };
        if self.cron.is_some() == self.rate.is_some() {
            wrong("", format!("needs either cron ({CRON_FORM}) or rate ({RATE_FORM})"));
        }
        let mut read = |field: &str, text: &Option<String>| match text {
            Some(text) if text.len() > TEXT_MAX_BYTES => {
                wrong(field, format!("is longer than {TEXT_MAX_BYTES} bytes; shorten it"));
                None
            }
            text => text.clone(),
        };
        let cron = read("/cron", &self.cron).map(|text| Cron::parse(&text));
        let rate = read("/rate", &self.rate).map(|text| rate_s(&text));
        let zone = read("/timezone", &self.timezone).map(|name| zone(&name));

        let mut timing = None;
        match rate {
            Some(Ok(every_s)) => {
                // None for a rate that leads out of the calendar: it never comes.
                let first = self.start.or_else(|| created.checked_add(SignedDuration::from_secs(every_s)).ok());
                timing = first.map(|first| Timing::Rate { first, every_s });
            }
            Some(Err(message)) => wrong("/rate", message),
            None => {}
        }
        match cron {
            Some(Ok(cron)) => {
                let zone = zone.as_ref().and_then(|zone| zone.as_ref().ok()).cloned();
                timing = Some(Timing::Cron(cron, zone.unwrap_or(TimeZone::UTC)));
            }
            Some(Err(messages)) => messages.into_iter().for_each(|message| wrong("/cron", message)),
            None => {}
        }
        if let Some(Err(message)) = zone {
            wrong("/timezone", message);
        }
        // It would promise a time of day, which a rate does not keep.
        if self.timezone.is_some() && self.rate.is_some() {
            wrong(
                "/timezone",
                "does not go with rate, whose day is 24 hours anywhere; leave it out, or use cron".into(),
            );
        }
        if self.end.is_some_and(|end| end <= self.start.map_or(created, |start| start.max(created))) {
            wrong("/end", "must be later than now and than start; choose a later time".into());
        }

        if !problems.is_empty() {
            return Err(problems);
        }
        let timetable = timing.map(|timing| Timetable { timing, start: self.start, end: self.end });
        timetable.filter(|timetable| timetable.next_after(created).is_some()).ok_or_else(|| {
            let field = if self.cron.is_some() { "/schedule/cron" } else { "/schedule/rate" };
            let message = "would never run: what it names is past, after end or on no calendar; change it or end";
            vec![FieldProblem::new(field, message)]
        })
    }
}

impl Timetable {
    /// The first time later than `after` at which it is due, from `start` to `end`, both included.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let next = match &self.timing {
            Timing::Cron(cron, zone) => cron.next(zone, after, self.start.unwrap_or(Timestamp::MIN)),
            Timing::Rate { first, .. } if after < *first => Some(*first),
            Timing::Rate { first, every_s } => {
                // From the first on, not from the last, so that it does not drift.
                let passed_s = after.duration_since(*first).as_secs();
                let next_s = (passed_s / every_s + 1).checked_mul(*every_s)?;
                first.checked_add(SignedDuration::from_secs(next_s)).ok()
            }
        }?;
        self.end.is_none_or(|end| next <= end).then_some(next)
    }
}

/// The zone of that name, out of the data that is linked in: the same on every machine.
fn zone(name: &str) -> Result<TimeZone, String> {
    let zones = TimeZoneDatabase::bundled();
    match zones.get(name) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => {
            let names: Vec<_> = zones.available().collect();
            let near = nearest(name, names.iter().map(TimeZoneName::as_str)).join(" or ");
            let near = if near.is_empty() { "use one such as Europe/Berlin".into() } else { format!("perhaps {near}") };
            Err(format!("is not an IANA time zone; {near}"))
        }
    }
}

/// The seconds of a rate.
fn rate_s(text: &str) -> Result<i64, String> {
    let text = text.to_ascii_lowercase();
    let read = || {
        let (value, unit) = unwrapped(&text, "rate").split_once(char::is_whitespace)?;
        let unit_s = match unit.trim() {
            "minute" | "minutes" => 60,
            "hour" | "hours" => 60 * 60,
            "day" | "days" => 24 * 60 * 60,
            _ => return None,
        };
        number(value).filter(|value| *value > 0).map(|value| i64::from(value) * unit_s)
    };
    read().ok_or_else(|| format!("must be {RATE_FORM}"))
}

/// What stands in `name(…)`, or else the whole.
fn unwrapped<'a>(text: &'a str, name: &str) -> &'a str {
    let text = text.trim();
    let inner = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('(')?.strip_suffix(')'));
    inner.unwrap_or(text).trim()
}

/// Digits alone: `parse` would take a sign, too.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// One of the six fields.
struct Field {
    name: &'static str,
    min: i16,
    max: i16,
    /// Other names of the values from `min` on.
    names: &'static [&'static str],
}

const MINUTES: Field = Field { name: "minutes", min: 0, max: 59, names: &[] };
const HOURS: Field = Field { name: "hours", min: 0, max: 23, names: &[] };
const DAY_OF_MONTH: Field = Field { name: "day-of-month", min: 1, max: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
const DAY_OF_WEEK: Field =
    Field { name: "day-of-week", min: 1, max: 7, names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] };
const YEAR: Field = Field { name: "year", min: 1970, max: 2199, names: &[] };

impl Field {
    /// A comma-separated list of values, ranges and steps.
    fn list(&self, text: &str) -> Result<BTreeSet<i16>, String> {
        let mut values = BTreeSet::new();
        for item in text.split(',') {
            values.extend(self.item(item)?);
        }
        Ok(values)
    }

    /// `*`, `5`, `5-9`, and each of them with a step: `*/2`, `5/2` (from 5 on), `5-9/2`.
    fn item(&self, text: &str) -> Result<impl Iterator<Item = i16> + use<>, String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let (low, high) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max),
            Some((low, high)) => (self.value(low)?, self.value(high)?),
            None if step.is_some() => (self.value(range)?, self.max),
            None => (self.value(range)?, self.value(range)?),
        };
        if low > high {
            let Self { name, min, max, .. } = self;
            return Err(format!("{name}: {range:?} goes backwards; write {low}-{max},{min}-{high}"));
        }
        let step = match step {
            None => 1,
            Some(text) => {
                let step = number(text).and_then(|step| i16::try_from(step).ok());
                let step = step.filter(|step| (1..=self.max).contains(step));
                step.ok_or_else(|| format!("{}: the step {text:?} must be 1 to {}", self.name, self.max))?
            }
        };
        Ok((low..=high).filter(move |value| (value - low) % step == 0))
    }

    fn value(&self, text: &str) -> Result<i16, String> {
        let by_name = (self.min..).zip(self.names).find(|(_, name)| **name == text).map(|(value, _)| value);
        let value = by_name.or_else(|| number(text).and_then(|value| i16::try_from(value).ok()));
        value.filter(|value| (self.min..=self.max).contains(value)).ok_or_else(|| {
            let Self { name, min, max, names } = self;
            let names = match names {
                [first, .., last] => format!(" or {first} to {last}"),
                _ => String::new(),
            };
            format!("{name}: {text:?} is no value; use {min} to {max}{names}")
        })
    }
}

/// Which days a cron names. It is due on those that any of these means.
#[derive(Debug, Clone)]
enum Days {
    OfMonth(BTreeSet<i16>),
    OfWeek(BTreeSet<i16>),
    /// `L`: the month's last.
    Last,
    /// `15W`: the weekday nearest to that day, in the same month; none where the month has no such day. `LW`, without a
    /// day: the month's last weekday.
    Nearest(Option<i8>),
    /// `2#1`: the month's first Monday; `2L`, as -1: its last.
    Nth(i8, Weekday),
}

impl Days {
    fn of_month(text: &str) -> Result<Self, String> {
        Ok(match text.strip_suffix('W') {
            _ if text == "L" => Self::Last,
            Some("L") => Self::Nearest(None),
            Some(day) => Self::Nearest(i8::try_from(DAY_OF_MONTH.value(day)?).ok()),
            None => Self::OfMonth(DAY_OF_MONTH.item(text)?.collect()),
        })
    }

    fn of_week(text: &str) -> Result<Self, String> {
        let weekday = |text: &str| {
            let value = i8::try_from(DAY_OF_WEEK.value(text)?).map_err(|error| error.to_string())?;
            Weekday::from_sunday_one_offset(value).map_err(|error| error.to_string())
        };
        if let Some((day, nth)) = text.split_once('#') {
            let nth = number(nth).and_then(|nth| i8::try_from(nth).ok()).filter(|nth| (1..=5).contains(nth));
            let nth = nth.ok_or_else(|| format!("day-of-week: {text:?} must end in #1 to #5"))?;
            return Ok(Self::Nth(nth, weekday(day)?));
        }
        Ok(match text.strip_suffix('L') {
            // The week's last day.
            Some("") => Self::OfWeek(BTreeSet::from([DAY_OF_WEEK.max])),
            Some(day) => Self::Nth(-1, weekday(day)?),
            None => Self::OfWeek(DAY_OF_WEEK.item(text)?.collect()),
        })
    }

    fn contain(&self, date: Date) -> bool {
        match self {
            Self::OfMonth(days) => days.contains(&date.day().into()),
            Self::OfWeek(days) => days.contains(&date.weekday().to_sunday_one_offset().into()),
            Self::Last => date.day() == date.days_in_month(),
            Self::Nearest(day) => {
                let last = date.days_in_month();
                let day = day.unwrap_or(last);
                let Ok(named) = Date::new(date.year(), date.month(), day) else { return false };
                let shift = match named.weekday() {
                    Weekday::Saturday => {
                        if day == 1 {
                            2
                        } else {
                            -1
                        }
                    }
                    Weekday::Sunday => {
                        if day == last {
                            -2
                        } else {
                            1
                        }
                    }
                    Weekday::Monday | Weekday::Tuesday | Weekday::Wednesday | Weekday::Thursday | Weekday::Friday => 0,
                };
                date.day() == day + shift
            }
            Self::Nth(nth, weekday) => date.nth_weekday_of_month(*nth, *weekday).is_ok_and(|nth| nth == date),
        }
    }
}

/// A cron, read.
#[derive(Debug, Clone)]
struct Cron {
    /// The times of a day, in order.
    times: Vec<Time>,
    days: Vec<Days>,
    months: BTreeSet<i16>,
    years: BTreeSet<i16>,
}

impl Cron {
    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let text = text.to_ascii_uppercase();
        let fields: Vec<&str> = unwrapped(&text, "CRON").split_whitespace().collect();
        let &[minutes, hours, day_of_month, month, day_of_week, year] = fields.as_slice() else {
            return Err(vec![format!("has {} fields and needs six: {CRON_FORM}", fields.len())]);
        };
        let days = match (day_of_month, day_of_week) {
            ("?", "?") => Err("day-of-month and day-of-week are both ?; write * for one of them".into()),
            (days, "?") => days.split(',').map(Days::of_month).collect(),
            ("?", days) if days.contains('#') && days.contains(',') => {
                Err("day-of-week: # stands alone, without a list; make a schedule for each".into())
            }
            ("?", days) => days.split(',').map(Days::of_week).collect(),
            _ => Err("one of day-of-month and day-of-week must be ?".into()),
        };
        match (MINUTES.list(minutes), HOURS.list(hours), days, MONTH.list(month), YEAR.list(year)) {
            (Ok(minutes), Ok(hours), Ok(days), Ok(months), Ok(years)) => {
                let times = hours.iter().flat_map(|hour| minutes.iter().map(move |minute| (*hour, *minute)));
                let time = |(hour, minute)| Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok();
                Ok(Self { times: times.filter_map(time).collect(), days, months, years })
            }
            (minutes, hours, days, months, years) => {
                let wrong = [minutes.err(), hours.err(), days.err(), months.err(), years.err()];
                Err(wrong.into_iter().flatten().collect())
            }
        }
    }

    /// The first time later than `after` and not before `start`. It looks at each day until the last year at most.
    fn next(&self, zone: &TimeZone, after: Timestamp, start: Timestamp) -> Option<Timestamp> {
        // Of two local times, the later one never comes first: what is before this one is over, and not worth converting.
        let from = zone.to_datetime(after.max(start));
        let months =
            self.years.range(from.year()..).flat_map(|year| self.months.iter().map(move |month| (*year, *month)));
        let firsts = months.filter_map(|(year, month)| Date::new(year, i8::try_from(month).ok()?, 1).ok());
        firsts
            .flat_map(|first| (1..=first.days_in_month()).filter_map(move |day| first.with().day(day).build().ok()))
            .filter(|date| *date >= from.date() && self.days.iter().any(|days| days.contain(*date)))
            .flat_map(|date| self.times.iter().map(move |time| date.to_datetime(*time)))
            .filter(|local| *local >= from)
            .filter_map(|local| instant(zone, local))
            .find(|at| *at > after && *at >= start)
    }
}

/// When it is `local` in a zone: for a time that the clocks skip never, for one that they show twice the first.
fn instant(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    let found = zone.to_ambiguous_timestamp(local);
    if matches!(found.offset(), AmbiguousOffset::Gap { .. }) { None } else { found.earlier().ok() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use jiff::ToSpan;
    use serde_json::json;

    use super::*;

    /// Friday.
    const NOW: &str = "2025-01-31T12:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(cron: &str, timezone: &str) -> Schedule {
        Schedule { cron: Some(cron.into()), timezone: Some(timezone.into()), ..Schedule::default() }
    }

    fn rate(rate: &str) -> Schedule {
        Schedule { rate: Some(rate.into()), ..Schedule::default() }
    }

    /// The first `count` times after `after`, as they are shown in the schedule's zone.
    fn times(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
        let timetable = schedule.check(at(after)).unwrap_or_else(|problems| panic!("{schedule:?}: {problems:?}"));
        let zone = zone(schedule.timezone.as_deref().unwrap_or("UTC")).unwrap();
        let all = std::iter::successors(timetable.next_after(at(after)), |last| timetable.next_after(*last));
        all.take(count).map(|at| at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M%:z").to_string()).collect()
    }

    /// The first `count` days after [`NOW`].
    fn days(fields: &str, count: usize) -> Vec<String> {
        let times = times(&cron(&format!("0 0 {fields}"), "UTC"), NOW, count);
        times.into_iter().map(|time| time.split('T').next().unwrap().to_owned()).collect()
    }

    fn problems(schedule: &Schedule) -> Vec<(String, String)> {
        let problems = schedule.check(at(NOW)).err().unwrap_or_default();
        problems.into_iter().map(|problem| (problem.pointer, problem.message)).collect()
    }

    #[test]
    fn each_field_takes_values_lists_ranges_steps_and_names() {
        let times = |fields, count| times(&cron(fields, "UTC"), NOW, count);
        assert_eq!(times("5 * * * ? *", 2), ["2025-01-31T12:05+00:00", "2025-01-31T13:05+00:00"]);
        assert_eq!(times("cron(0 12 * * ? *)", 1), ["2025-02-01T12:00+00:00"], "12:00 itself is not later");
        assert_eq!(
            times(" 50/5,3-5/2 23 * * ? * ", 4),
            ["2025-01-31T23:03+00:00", "2025-01-31T23:05+00:00", "2025-01-31T23:50+00:00", "2025-01-31T23:55+00:00"]
        );
        assert_eq!(days("1/10 * ? *", 4), ["2025-02-01", "2025-02-11", "2025-02-21", "2025-03-01"]);
        assert_eq!(days("1 mar,11-DEC ? *", 3), ["2025-03-01", "2025-11-01", "2025-12-01"]);
        assert_eq!(days("? * 1 *", 1), ["2025-02-02"], "1 is Sunday");
        assert_eq!(days("? * 7 *", 1), ["2025-02-01"], "7 is Saturday");
        assert_eq!(days("? * MON-WED/2,Fri *", 4), ["2025-02-03", "2025-02-05", "2025-02-07", "2025-02-10"]);
        assert_eq!(days("1 1 ? 2026/100", 3), ["2026-01-01", "2126-01-01"]);
        assert_eq!(days("31 12 ? 2199", 2), ["2199-12-31"]);
    }

    #[test]
    fn l_w_and_nth_find_their_days() {
        assert_eq!(days("L * ? *", 3), ["2025-02-28", "2025-03-31", "2025-04-30"]);
        assert_eq!(days("L 2 ? *", 4), ["2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]);
        // The 15th of February 2025 is a Saturday, that of June a Sunday.
        assert_eq!(days("15W 2,6 ? *", 2), ["2025-02-14", "2025-06-16"]);
        // The 1st of February 2025 is a Saturday, the 31st of August a Sunday: neither leaves its month.
        assert_eq!(days("1W 2 ? *", 1), ["2025-02-03"]);
        assert_eq!(days("31W 8,9,10 ? *", 2), ["2025-08-29", "2025-10-31"], "September has no 31st");
        assert_eq!(days("LW 5,8 ? *", 2), ["2025-05-30", "2025-08-29"]);
        assert_eq!(days("1,LW,L 5 ? *", 3), ["2025-05-01", "2025-05-30", "2025-05-31"]);
        assert_eq!(days("? * 5L *", 2), ["2025-02-27", "2025-03-27"]);
        assert_eq!(days("? * friL *", 1), ["2025-02-28"]);
        assert_eq!(days("? * L *", 1), ["2025-02-01"]);
        assert_eq!(days("? * 2#1 *", 2), ["2025-02-03", "2025-03-03"]);
        assert_eq!(days("? * MON#5 *", 2), ["2025-03-31", "2025-06-30"], "not each month has five");
    }

    #[test]
    fn rare_days_are_found() {
        assert_eq!(days("29 2 ? *", 2), ["2028-02-29", "2032-02-29"]);
        assert_eq!(days("29 2 ? 2096/2", 2), ["2096-02-29", "2104-02-29"], "2100 is no leap year");
        // The fifth Monday of a February is the 29th.
        assert_eq!(days("? 2 MON#5 *", 3), ["2044-02-29", "2072-02-29", "2112-02-29"]);
        assert_eq!(
            times(&cron("59 23 31 12 ? *", "Asia/Kolkata"), "2025-12-31T18:29:00Z", 2),
            ["2026-12-31T23:59+05:30", "2027-12-31T23:59+05:30"]
        );
    }

    #[test]
    fn a_time_that_the_clocks_skip_is_left_out() {
        for (fields, zone, after, expected) in [
            (
                "30 2 * * ? *",
                "Europe/Berlin",
                "2025-03-29T00:00:00Z",
                ["2025-03-29T02:30+01:00", "2025-03-31T02:30+02:00"],
            ),
            (
                "30 2 * * ? *",
                "America/New_York",
                "2025-03-08T00:00:00Z",
                ["2025-03-08T02:30-05:00", "2025-03-10T02:30-04:00"],
            ),
            // Lord Howe Island changes by half an hour.
            (
                "0/15 2 * * ? *",
                "Australia/Lord_Howe",
                "2025-10-04T15:29:00Z",
                ["2025-10-05T02:30+11:00", "2025-10-05T02:45+11:00"],
            ),
            // Morocco goes back for Ramadan, in 2025 until 6 April.
            (
                "59 2 6 4 ? *",
                "Africa/Casablanca",
                "2024-01-01T00:00:00Z",
                ["2024-04-06T02:59+00:00", "2026-04-06T02:59+01:00"],
            ),
            // Samoa crossed the date line, and had no such day.
            (
                "0 12 30 12 ? *",
                "Pacific/Apia",
                "2010-12-01T00:00:00Z",
                ["2010-12-30T12:00-10:00", "2012-12-30T12:00+14:00"],
            ),
        ] {
            assert_eq!(times(&cron(fields, zone), after, 2), expected, "{zone}");
        }
    }

    #[test]
    fn a_time_that_comes_twice_is_due_at_the_first() {
        for (fields, zone, after, expected) in [
            (
                "30 2 * * ? *",
                "Europe/Berlin",
                "2025-10-25T12:00:00Z",
                ["2025-10-26T02:30+02:00", "2025-10-27T02:30+01:00"],
            ),
            (
                "30 1 * * ? *",
                "America/New_York",
                "2025-11-01T12:00:00Z",
                ["2025-11-02T01:30-04:00", "2025-11-03T01:30-05:00"],
            ),
            (
                "45 1 * * ? *",
                "Australia/Lord_Howe",
                "2025-04-05T12:00:00Z",
                ["2025-04-06T01:45+11:00", "2025-04-07T01:45+10:30"],
            ),
            // In the second 2:10 of Berlin, 2:30 has been.
            (
                "0/30 * * * ? *",
                "Europe/Berlin",
                "2025-10-26T01:10:00Z",
                ["2025-10-26T03:00+01:00", "2025-10-26T03:30+01:00"],
            ),
        ] {
            assert_eq!(times(&cron(fields, zone), after, 2), expected, "{zone}");
        }
    }

    /// Walks a year by the clock on the wall, and notes each quarter of an hour when it is first shown.
    #[test]
    fn a_year_is_as_the_clock_on_the_wall_has_it() {
        type DayRule = (&'static str, fn(DateTime) -> bool);
        let rules: [DayRule; 6] = [
            ("0/15 * * * ? *", |_| true),
            ("30 1-3 * * ? *", |t| t.minute() == 30 && (1..=3).contains(&t.hour())),
            ("*/30 2,23 L * ? *", |t| {
                t.minute() % 30 == 0 && [2, 23].contains(&t.hour()) && t.date().tomorrow().unwrap().day() == 1
            }),
            ("0 0/5 ? 3-11 SUN,2 2025", |t| {
                let sunday_or_monday = [Weekday::Sunday, Weekday::Monday].contains(&t.weekday());
                t.minute() == 0
                    && t.hour() % 5 == 0
                    && (3..=11).contains(&t.month())
                    && sunday_or_monday
                    && t.year() == 2025
            }),
            ("45 1 ? * 1#1 *", |t| t.hour() == 1 && t.minute() == 45 && t.weekday() == Weekday::Sunday && t.day() <= 7),
            ("15 2 ? * 1L *", |t| {
                let next = t.date().checked_add(7.days()).unwrap();
                t.hour() == 2 && t.minute() == 15 && t.weekday() == Weekday::Sunday && next.month() != t.month()
            }),
        ];
        let (from, to) = (at("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
        for name in [
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "Asia/Kolkata",
            "Africa/Casablanca",
            "America/Havana",
        ] {
            let zone = zone(name).unwrap();
            let mut shown = HashSet::new();
            let mut walked = vec![Vec::new(); rules.len()];
            for now in from.series(15.minutes()).take_while(|now| *now <= to) {
                let local = zone.to_datetime(now);
                if shown.insert(local) && now > from {
                    let due = rules.iter().zip(&mut walked).filter(|((_, rule), _)| rule(local));
                    due.for_each(|(_, walked)| walked.push(now));
                }
            }
            for ((fields, _), walked) in rules.iter().zip(walked) {
                let timetable = Schedule { end: Some(to), ..cron(fields, name) }.check(from).unwrap();
                let found = std::iter::successors(timetable.next_after(from), |last| timetable.next_after(*last));
                assert!(!walked.is_empty(), "{name} {fields}");
                assert_eq!(found.collect::<Vec<_>>(), walked, "{name} {fields}");
            }
        }
    }

    #[test]
    fn a_rate_counts_from_its_start_or_from_its_making() {
        let (hour, every) = ("2025-03-30T00:20:00Z", rate("rate(90 minutes)"));
        assert_eq!(times(&every, hour, 2), ["2025-03-30T01:50+00:00", "2025-03-30T03:20+00:00"]);
        for text in ["1 day", "24 hours", " 1440  Minutes "] {
            assert_eq!(times(&rate(text), hour, 1), ["2025-03-31T00:20+00:00"], "{text}");
        }
        let past = Schedule { start: Some(at("2025-03-01T09:00:00Z")), ..rate("14 days") };
        assert_eq!(times(&past, hour, 2), ["2025-04-12T09:00+00:00", "2025-04-26T09:00+00:00"]);
        let later = Schedule { start: Some(at("2025-04-01T09:00:00Z")), ..rate("2 days") };
        assert_eq!(times(&later, hour, 2), ["2025-04-01T09:00+00:00", "2025-04-03T09:00+00:00"]);
        // Wherever the last one was looked for: it does not drift.
        let timetable = later.check(at(hour)).unwrap();
        assert_eq!(timetable.next_after(at("2025-04-02T23:59:59.5Z")), Some(at("2025-04-03T09:00:00Z")));
    }

    #[test]
    fn start_and_end_are_included() {
        let (start, end) = (at("2025-02-10T06:00:00Z"), at("2025-02-11T06:00:00Z"));
        for schedule in [cron("0 6 * * ? *", "UTC"), rate("1 day")] {
            let schedule = Schedule { start: Some(start), end: Some(end), ..schedule };
            assert_eq!(times(&schedule, NOW, 9), ["2025-02-10T06:00+00:00", "2025-02-11T06:00+00:00"]);
            let earlier = Schedule { end: Some(at("2025-02-11T05:59:59Z")), ..schedule.clone() };
            assert_eq!(times(&earlier, NOW, 9).len(), 1);
        }
        let late = Schedule { start: Some(at("2025-02-10T06:00:01Z")), ..cron("0 6 * * ? *", "UTC") };
        assert_eq!(times(&late, NOW, 1), ["2025-02-11T06:00+00:00"]);
    }

    #[test]
    fn a_schedule_reads_the_same_when_its_runs_are_past() {
        let schedule = cron("0 6 1 3 ? 2025", "UTC");
        let timetable = schedule.check(at(NOW)).unwrap();
        assert_eq!(timetable.next_after(at(NOW)), Some(at("2025-03-01T06:00:00Z")));
        assert_eq!(timetable.next_after(at("2025-03-01T06:00:00Z")), None);
        assert_eq!(timetable.next_after(Timestamp::MAX), None);
        assert_eq!(timetable.next_after(Timestamp::MIN), Some(at("2025-03-01T06:00:00Z")));
        assert!(schedule.check(at("2025-03-01T06:00:00Z")).is_err());
    }

    #[test]
    fn a_schedule_that_never_runs_is_refused() {
        let (end, start) = (Some(at("2025-02-01T00:00:00Z")), Some(at("2199-12-31T23:59:01Z")));
        for (schedule, pointer) in [
            (cron("0 0 30 2 ? *", "UTC"), "/schedule/cron"),
            (cron("0 0 31 4,6,9,11 ? *", "UTC"), "/schedule/cron"),
            (cron("0 0 30W 2 ? *", "UTC"), "/schedule/cron"),
            (cron("0 0 ? 2 MON#5 2025-2043", "UTC"), "/schedule/cron"),
            (cron("0 0 * * ? 2024", "UTC"), "/schedule/cron"),
            // Every time is in the hour that Berlin skips.
            (cron("* 2 ? 3 1L *", "Europe/Berlin"), "/schedule/cron"),
            (Schedule { end, ..cron("0 6 * * ? *", "UTC") }, "/schedule/cron"),
            (Schedule { start, ..cron("* * * * ? *", "UTC") }, "/schedule/cron"),
            (Schedule { end, ..rate("1 day") }, "/schedule/rate"),
            (rate("4294967295 days"), "/schedule/rate"),
        ] {
            let problems = problems(&schedule);
            assert_eq!(problems.len(), 1, "{schedule:?}: {problems:?}");
            assert_eq!(problems[0].0, pointer);
            assert!(problems[0].1.starts_with("would never run"), "{problems:?}");
        }
        assert!(problems(&cron("* 2 ? 3 1L *", "UTC")).is_empty());
    }

    #[test]
    fn a_bad_field_is_named_with_what_helps() {
        for (fields, message) in [
            ("0 9 * * MON-FRI", "has 5 fields and needs six: minutes"),
            ("60 * * * ? *", "minutes: \"60\" is no value; use 0 to 59"),
            ("-1 * * * ? *", "minutes: \"\" is no value"),
            ("+1 * * * ? *", "minutes: \"+1\" is no value"),
            ("? * * * ? *", "minutes: \"?\" is no value"),
            ("* 24 * * ? *", "hours: \"24\" is no value; use 0 to 23"),
            ("* 22-2 * * ? *", "hours: \"22-2\" goes backwards; write 22-23,0-2"),
            ("* */0 * * ? *", "hours: the step \"0\" must be 1 to 23"),
            ("* */24 * * ? *", "hours: the step \"24\" must be 1 to 23"),
            ("* /5 * * ? *", "hours: \"\" is no value"),
            ("* * 0 * ? *", "day-of-month: \"0\" is no value; use 1 to 31"),
            ("* * L-3 * ? *", "day-of-month: \"L\" is no value"),
            ("* * 32W * ? *", "day-of-month: \"32\" is no value"),
            ("* * 1, * ? *", "day-of-month: \"\" is no value"),
            ("* * * 13 ? *", "month: \"13\" is no value; use 1 to 12 or JAN to DEC"),
            ("* * * MON ? *", "month: \"MON\" is no value"),
            ("* * ? * 0 *", "day-of-week: \"0\" is no value; use 1 to 7 or SUN to SAT"),
            ("* * ? * FRI-MON *", "day-of-week: \"FRI-MON\" goes backwards; write 6-7,1-2"),
            ("* * ? * 2#6 *", "day-of-week: \"2#6\" must end in #1 to #5"),
            ("* * ? * 2#1,3#1 *", "day-of-week: # stands alone"),
            ("* * ? * 15W *", "day-of-week: \"15W\" is no value"),
            ("* * * * * *", "one of day-of-month and day-of-week must be ?"),
            ("* * ? * ? *", "day-of-month and day-of-week are both ?"),
            ("* * * * ? 1969", "year: \"1969\" is no value; use 1970 to 2199"),
            ("* * * * ? 2025-2200", "year: \"2200\" is no value"),
        ] {
            let problems = problems(&cron(fields, "UTC"));
            assert_eq!(problems.len(), 1, "{fields}: {problems:?}");
            assert_eq!(problems[0].0, "/schedule/cron");
            assert!(problems[0].1.starts_with(message), "{fields}: {problems:?}");
        }
        for text in
            ["", "5", "minutes", "0 minutes", "-5 minutes", "1.5 hours", "1 week", "1 hour 30 minutes", "5minutes"]
        {
            let problems = problems(&rate(text));
            let expected = format!("must be {RATE_FORM}");
            assert_eq!(problems, [("/schedule/rate".to_owned(), expected)], "{text}");
        }
    }

    #[test]
    fn a_zone_has_a_near_name() {
        let zone_problem = |name| problems(&cron("0 0 * * ? *", name)).swap_remove(0);
        for (name, near) in [("Europe/Berln", "Europe/Berlin"), ("new_york", "America/New_York"), ("", "Europe/Berlin")]
        {
            let (pointer, message) = zone_problem(name);
            assert_eq!(pointer, "/schedule/timezone");
            assert!(message.starts_with("is not an IANA time zone; ") && message.contains(near), "{name}: {message}");
        }
        for name in ["Etc/Unknown", "../../etc/localtime", "CET-1CEST", "+02:00", "Europe/Berlin\0"] {
            assert_eq!(zone_problem(name).0, "/schedule/timezone", "{name}");
        }
        assert!(problems(&cron("0 0 * * ? *", "europe/berlin")).is_empty());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let schedule = Schedule {
            cron: Some("60 24 * 13 * *".into()),
            rate: Some("0 days".into()),
            timezone: Some("Nowhere".into()),
            end: Some(at(NOW)),
            ..Schedule::default()
        };
        let told = problems(&schedule).into_iter().map(|(pointer, _)| pointer).collect::<Vec<_>>().join(" ");
        let cron = ["/schedule/cron"; 4].join(" ");
        assert_eq!(
            told,
            format!("/schedule /schedule/rate {cron} /schedule/timezone /schedule/timezone /schedule/end")
        );
        assert_eq!(problems(&Schedule::default())[0].0, "/schedule");
        let zoned = Schedule { timezone: Some("Europe/Berlin".into()), ..rate("1 day") };
        assert_eq!(problems(&zoned)[0].0, "/schedule/timezone");
        let start = Some(at("2025-03-01T00:00:00Z"));
        let backwards = Schedule { start, end: start, ..rate("1 day") };
        assert_eq!(problems(&backwards)[0].0, "/schedule/end");
        let over = Schedule { start: Some(at("2020-01-01T00:00:00Z")), end: Some(at(NOW)), ..rate("1 day") };
        assert_eq!(problems(&over)[0].0, "/schedule/end");
    }

    #[test]
    fn nasty_texts_are_refused_in_time() {
        let huge = "9".repeat(200);
        let longest = format!("* * {} 2 ? *", vec!["31W"; 60].join(","));
        for text in [
            "",
            " ",
            "\0",
            "cron(",
            "cron()",
            "cron(cron(* * * * ? *))",
            "rate(",
            "()",
            ")(",
            "* * * * ? * *",
            "🕰 * * * ? *",
            "*/🕰 * * * ? *",
            "٣ * * * ? *",
            ",,,,, * * * ? *",
            "- * * * ? *",
            "1-2-3 * * * ? *",
            "*-* * * * ? *",
            "1/2/3 * * * ? *",
            "*/65537 * * * ? *",
            "0-4294967296 * * * ? *",
            "* * W * ? *",
            "* * WL * ? *",
            "* * LWW * ? *",
            "* * ?,1 * ? *",
            "* * ? * # *",
            "* * ? * #1 *",
            "* * ? * 2# *",
            "* * ? * L#1 *",
            "* * ? * LL *",
            "* * ? * 2#-1 *",
            "ﬀ ß İ ı Ŀ ?",
            "%s %n ${x} {{y}} ? *",
            &huge,
            &format!("*/{huge} * * * ? *"),
            &format!("1-{huge} * * * ? *"),
            &longest,
        ] {
            assert!(!problems(&cron(text, text)).is_empty(), "{text}");
            assert!(!problems(&rate(text)).is_empty(), "{text}");
            assert!(!problems(&rate(&format!("{text} days"))).is_empty(), "{text}");
        }
        // What is too long is not read at all.
        let long = format!("0 0 * * ? {}*", " ".repeat(TEXT_MAX_BYTES));
        let too_long = Schedule {
            cron: Some(long.clone()),
            rate: Some(long.clone()),
            timezone: Some(long),
            ..Schedule::default()
        };
        let told = problems(&too_long);
        let told = told.iter().filter(|(_, message)| message.starts_with("is longer than 256 bytes"));
        let told: Vec<_> = told.map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(told, ["/schedule/cron", "/schedule/rate", "/schedule/timezone"]);
    }

    #[test]
    fn json_has_times_with_their_offset_and_no_other_field() {
        let read = |json: serde_json::Value| crate::core::schema::parse::<Schedule>(json.to_string().as_bytes());
        let schedule = read(json!({
            "cron": "0 9 ? * MON-FRI *", "timezone": "Europe/Berlin", "start": "2025-03-01T00:00:00+01:00", "maxRuns": 3,
            "catchUp": "all",
        }))
        .unwrap();
        assert_eq!(schedule.start, Some(at("2025-02-28T23:00:00Z")));
        assert_eq!((schedule.max_runs, schedule.catch_up), (NonZeroU32::new(3), CatchUp::All));
        assert_eq!(read(serde_json::to_value(&schedule).unwrap()).unwrap(), schedule);
        assert_eq!(read(json!({ "rate": "1 day" })).unwrap(), rate("1 day"));
        for bad in [
            json!({ "rate": "1 day", "maxRuns": 0 }),
            json!({ "rate": "1 day", "start": "2025-03-01T00:00:00" }),
            json!({ "rate": "1 day", "catchUp": "none" }),
            json!({ "rate": "1 day", "cronn": "" }),
            json!({ "rate": "1".repeat(257) }),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
