//! Counts of one pass over due work.

use jiff::Timestamp;
use serde::Serialize;

/// How many items of due work a sweep or an alarm handled, by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WorkReport {
    /// Items that were due.
    pub due: usize,
    /// Items whose alarm was set, for a worker to run them.
    pub enqueued: usize,
    /// Items that this worker claimed.
    pub claimed: usize,
    /// Attempts that succeeded.
    pub succeeded: usize,
    /// Attempts that failed, whether or not a retry follows.
    pub failed: usize,
    /// Items that were due and are left for the next alarm or sweep.
    pub left: usize,
    /// The earliest due time among the items. Not serialized.
    #[serde(skip)]
    pub oldest_due: Option<Timestamp>,
}

impl std::ops::AddAssign for WorkReport {
    fn add_assign(&mut self, other: Self) {
        self.due += other.due;
        self.enqueued += other.enqueued;
        self.claimed += other.claimed;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.left += other.left;
        self.oldest_due = self.oldest_due.into_iter().chain(other.oldest_due).min();
    }
}
