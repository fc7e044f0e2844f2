//! A cron expression, as EventBridge Scheduler writes it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;

use super::field::{DAY_OF_MONTH, DAY_OF_WEEK, HOURS, MINUTES, MONTH, YEAR};
use super::zone::instant;
use super::{number, unwrapped};

pub(super) const CRON_FORM: &str =
    "minutes hours day-of-month month day-of-week year, such as 0 9 ? * MON-FRI * for 9:00 on every weekday";

/// Days that a cron expression names. The cron is due on the days of any of its `Days`.
#[derive(Debug, Clone)]
enum Days {
    OfMonth(BTreeSet<i16>),
    OfWeek(BTreeSet<i16>),
    /// `L`: the last day of the month.
    Last,
    /// `15W`: the weekday nearest to that day in the same month; none if the month has no such day. `LW`, here `None`: the
    /// last weekday of the month.
    Nearest(Option<i8>),
    /// `2#1`: the first Monday of the month. `2L`, here -1: the last Monday.
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
            // `L` alone is the last day of the week.
            Some("") => Self::OfWeek(BTreeSet::from([DAY_OF_WEEK.max])),
            Some(day) => Self::Nth(-1, weekday(day)?),
            None => Self::OfWeek(DAY_OF_WEEK.item(text)?.collect()),
        })
    }

    fn contains(&self, date: Date) -> bool {
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
            Self::Nth(nth, weekday) => date.nth_weekday_of_month(*nth, *weekday).is_ok_and(|named| named == date),
        }
    }
}

/// A parsed cron expression.
#[derive(Debug, Clone)]
pub(super) struct Cron {
    /// The times of day, in ascending order.
    times: Vec<Time>,
    days: Vec<Days>,
    months: BTreeSet<i16>,
    years: BTreeSet<i16>,
}

impl Cron {
    /// Parses a cron expression, or returns what is wrong with each field.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let text = text.to_ascii_uppercase();
        let fields: Vec<&str> = unwrapped(&text, "CRON").split_whitespace().collect();
        let &[minutes, hours, day_of_month, month, day_of_week, year] = fields.as_slice() else {
            return Err(vec![format!("has {} fields and needs six: {CRON_FORM}", fields.len())]);
        };
        let days = match (day_of_month, day_of_week) {
            ("?", "?") => Err("day-of-month and day-of-week are both ?; write * for one of them".into()),
            (days, "?") => days.split(',').map(Days::of_month).collect(),
            ("?", days) if days.contains('#') && days.contains(',') => {
                Err("day-of-week: # cannot be in a list; create a schedule for each".into())
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
                let problems = [minutes.err(), hours.err(), days.err(), months.err(), years.err()];
                Err(problems.into_iter().flatten().collect())
            }
        }
    }

    /// The first time later than `after` and not before `start`. Checks at most each day until the last year.
    pub(super) fn next(&self, zone: &TimeZone, after: Timestamp, start: Timestamp) -> Option<Timestamp> {
        // A later local time never has an earlier instant: skip earlier local times without converting them.
        let from = zone.to_datetime(after.max(start));
        let months =
            self.years.range(from.year()..).flat_map(|year| self.months.iter().map(move |month| (*year, *month)));
        let firsts = months.filter_map(|(year, month)| Date::new(year, i8::try_from(month).ok()?, 1).ok());
        firsts
            .flat_map(|first| (1..=first.days_in_month()).filter_map(move |day| first.with().day(day).build().ok()))
            .filter(|date| *date >= from.date() && self.days.iter().any(|days| days.contains(*date)))
            .flat_map(|date| self.times.iter().map(move |time| date.to_datetime(*time)))
            .filter(|local| *local >= from)
            .filter_map(|local| instant(zone, local))
            .find(|at| *at > after && *at >= start)
    }
}
