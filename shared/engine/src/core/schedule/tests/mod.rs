//! Unit tests of schedules: helpers, and the tests of rates and of the JSON form.

mod clock_changes;
mod cron_fields;
mod problems;

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde_json::json;

use super::zone::zone;
use super::{CatchUp, Schedule};

/// A Friday.
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

/// The first `count` times after `after`, in the schedule's zone.
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
fn rate_counts_from_start_or_creation() {
    let (hour, every) = ("2025-03-30T00:20:00Z", rate("rate(90 minutes)"));
    assert_eq!(times(&every, hour, 2), ["2025-03-30T01:50+00:00", "2025-03-30T03:20+00:00"]);
    for text in ["1 day", "24 hours", " 1440  Minutes "] {
        assert_eq!(times(&rate(text), hour, 1), ["2025-03-31T00:20+00:00"], "{text}");
    }
    let past = Schedule { start: Some(at("2025-03-01T09:00:00Z")), ..rate("14 days") };
    assert_eq!(times(&past, hour, 2), ["2025-04-12T09:00+00:00", "2025-04-26T09:00+00:00"]);
    let later = Schedule { start: Some(at("2025-04-01T09:00:00Z")), ..rate("2 days") };
    assert_eq!(times(&later, hour, 2), ["2025-04-01T09:00+00:00", "2025-04-03T09:00+00:00"]);
    // The result does not depend on the query's time: it does not drift.
    let timetable = later.check(at(hour)).unwrap();
    assert_eq!(timetable.next_after(at("2025-04-02T23:59:59.5Z")), Some(at("2025-04-03T09:00:00Z")));
}

#[test]
fn start_and_end_are_inclusive() {
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
fn timetable_stays_the_same_when_runs_are_past() {
    let schedule = cron("0 6 1 3 ? 2025", "UTC");
    let timetable = schedule.check(at(NOW)).unwrap();
    assert_eq!(timetable.next_after(at(NOW)), Some(at("2025-03-01T06:00:00Z")));
    assert_eq!(timetable.next_after(at("2025-03-01T06:00:00Z")), None);
    assert_eq!(timetable.next_after(Timestamp::MAX), None);
    assert_eq!(timetable.next_after(Timestamp::MIN), Some(at("2025-03-01T06:00:00Z")));
    assert!(schedule.check(at("2025-03-01T06:00:00Z")).is_err());
}

#[test]
fn json_refuses_unknown_fields_or_local_times() {
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
