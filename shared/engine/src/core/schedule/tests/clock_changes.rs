//! Cron where local clocks change.

use std::collections::HashSet;

use jiff::ToSpan;
use jiff::civil::{DateTime, Weekday};

use super::{at, cron, times};
use crate::core::schedule::Schedule;
use crate::core::schedule::zone::zone;

#[test]
fn skipped_local_time_is_left_out() {
    for (fields, zone, after, expected) in [
        ("30 2 * * ? *", "Europe/Berlin", "2025-03-29T00:00:00Z", ["2025-03-29T02:30+01:00", "2025-03-31T02:30+02:00"]),
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
fn repeated_local_time_is_due_at_the_first() {
    for (fields, zone, after, expected) in [
        ("30 2 * * ? *", "Europe/Berlin", "2025-10-25T12:00:00Z", ["2025-10-26T02:30+02:00", "2025-10-27T02:30+01:00"]),
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
        // At Berlin's second 2:10, 2:30 is past.
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

/// Walks a year of wall-clock time, and notes each quarter of an hour when the clock first shows it.
#[test]
fn cron_agrees_with_a_wall_clock_over_a_year() {
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
            let computed = std::iter::successors(timetable.next_after(from), |last| timetable.next_after(*last));
            assert!(!walked.is_empty(), "{name} {fields}");
            assert_eq!(computed.collect::<Vec<_>>(), walked, "{name} {fields}");
        }
    }
}
