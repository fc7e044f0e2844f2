//! The counts of one pass over due work.

use jiff::Timestamp;
use serde::Serialize;

/// What was done about what is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WorkReport {
    /// Found to be due.
    pub due: usize,
    /// Handed to whoever runs it.
    pub enqueued: usize,
    /// Taken to be run.
    pub claimed: usize,
    /// Done.
    pub succeeded: usize,
    /// Not done, whether or not it is tried again.
    pub failed: usize,
    /// Due and left for the next time.
    pub left: usize,
    /// The earliest time of what was found to be due. Not shown.
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
