//! The days and times that cron fields name.

use super::{NOW, cron, days, times};

#[test]
fn cron_field_takes_values_lists_ranges_steps_or_names() {
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
fn cron_special_days_match_their_dates() {
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
fn cron_finds_rare_days() {
    assert_eq!(days("29 2 ? *", 2), ["2028-02-29", "2032-02-29"]);
    assert_eq!(days("29 2 ? 2096/2", 2), ["2096-02-29", "2104-02-29"], "2100 is no leap year");
    // The fifth Monday of a February is the 29th.
    assert_eq!(days("? 2 MON#5 *", 3), ["2044-02-29", "2072-02-29", "2112-02-29"]);
    assert_eq!(
        times(&cron("59 23 31 12 ? *", "Asia/Kolkata"), "2025-12-31T18:29:00Z", 2),
        ["2026-12-31T23:59+05:30", "2027-12-31T23:59+05:30"]
    );
}
