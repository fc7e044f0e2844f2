//! What is wrong with a schedule.

use super::{NOW, at, cron, problems, rate};
use crate::core::schedule::Schedule;
use crate::core::schedule::definition::TEXT_MAX_BYTES;
use crate::core::schedule::rate::RATE_FORM;

#[test]
fn schedule_that_never_runs_is_refused() {
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
fn problem_names_the_field_with_a_remedy() {
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
        ("* * ? * 2#1,3#1 *", "day-of-week: # cannot be in a list"),
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
    for text in ["", "5", "minutes", "0 minutes", "-5 minutes", "1.5 hours", "1 week", "1 hour 30 minutes", "5minutes"]
    {
        let problems = problems(&rate(text));
        let expected = format!("must be {RATE_FORM}");
        assert_eq!(problems, [("/schedule/rate".to_owned(), expected)], "{text}");
    }
}

#[test]
fn unknown_zone_gets_a_near_name() {
    let zone_problem = |name| problems(&cron("0 0 * * ? *", name)).swap_remove(0);
    for (name, near) in [("Europe/Berln", "Europe/Berlin"), ("new_york", "America/New_York"), ("", "Europe/Berlin")] {
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
fn check_returns_every_problem_at_once() {
    let schedule = Schedule {
        cron: Some("60 24 * 13 * *".into()),
        rate: Some("0 days".into()),
        timezone: Some("Nowhere".into()),
        end: Some(at(NOW)),
        ..Schedule::default()
    };
    let pointers = problems(&schedule).into_iter().map(|(pointer, _)| pointer).collect::<Vec<_>>().join(" ");
    let cron = ["/schedule/cron"; 4].join(" ");
    assert_eq!(
        pointers,
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
fn malformed_text_is_refused_quickly() {
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
    // A text that is too long is not parsed at all.
    let long = format!("0 0 * * ? {}*", " ".repeat(TEXT_MAX_BYTES));
    let too_long =
        Schedule { cron: Some(long.clone()), rate: Some(long.clone()), timezone: Some(long), ..Schedule::default() };
    let problems = problems(&too_long);
    let too_long = problems.iter().filter(|(_, message)| message.starts_with("is longer than 256 bytes"));
    let pointers: Vec<_> = too_long.map(|(pointer, _)| pointer.as_str()).collect();
    assert_eq!(pointers, ["/schedule/cron", "/schedule/rate", "/schedule/timezone"]);
}
