//! The times at which a schedule is due.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::cron::Cron;

/// A schedule that [`Schedule::check`](super::Schedule::check) accepted.
#[derive(Debug, Clone)]
pub struct Timetable {
    pub(super) timing: Timing,
    pub(super) start: Option<Timestamp>,
    pub(super) end: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) enum Timing {
    Cron(Cron, TimeZone),
    Rate { first: Timestamp, every_s: i64 },
}

impl Timetable {
    /// The first due time later than `after`, from `start` to `end`, both included.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let next = match &self.timing {
            Timing::Cron(cron, zone) => cron.next(zone, after, self.start.unwrap_or(Timestamp::MIN)),
            Timing::Rate { first, .. } if after < *first => Some(*first),
            Timing::Rate { first, every_s } => {
                // Counted from the first run, not from the last one, so it does not drift.
                let passed_s = after.duration_since(*first).as_secs();
                let next_s = (passed_s / every_s + 1).checked_mul(*every_s)?;
                first.checked_add(SignedDuration::from_secs(next_s)).ok()
            }
        }?;
        self.end.is_none_or(|end| next <= end).then_some(next)
    }
}
