//! The pauses between two looks at something that another request or worker is doing.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// The pauses of one wait: 50 ms first, each twice as long as the one before, 1 s at most. The caller keeps the deadline.
#[derive(Debug)]
pub(crate) struct PollBackoff {
    next: Duration,
}

impl Default for PollBackoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl PollBackoff {
    /// How long to wait before the next look.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second() {
        let mut backoff = PollBackoff::default();
        let pauses: Vec<_> = (0..7).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000]);
    }
}
