//! The time of day, injected so that tests are exact.

use jiff::Timestamp;

/// Tells the time of day. Deadlines of calls are measured by tokio, not by this.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
