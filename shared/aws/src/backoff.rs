//! Backoff for what the SDK does not retry: an item that another transaction is writing, and the unprocessed rest of a
//! batch.

use std::time::Duration;

use overseer_engine::ports::Ids;

/// About three seconds in total, at most.
const ATTEMPTS: u32 = 8;
const FIRST: Duration = Duration::from_millis(25);

/// Counts the attempts of one call.
#[derive(Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Returns at once for the first attempt. Waits before each later one: a random part of a time that doubles, so that
    /// callers which collided do not collide again. False, at once, when no attempt is left.
    pub(crate) async fn wait(&mut self, ids: &dyn Ids) -> bool {
        if self.attempts == ATTEMPTS {
            return false;
        }
        if let Some(doublings) = self.attempts.checked_sub(1) {
            let mut random = [0];
            ids.fill(&mut random);
            let [random] = random;
            let longest = FIRST.saturating_mul(1 << doublings);
            tokio::time::sleep(longest.mul_f64(f64::from(random) / 255.0)).await;
        }
        self.attempts += 1;
        true
    }
}
