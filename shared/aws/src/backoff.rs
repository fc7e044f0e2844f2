//! Waiting for what AWS refuses for the moment and the SDK does not try again: another transaction on the same item, and
//! what a batch did not get to.

use std::time::Duration;

use overseer_engine::ports::Ids;

/// Three seconds at most.
const TRIES: u32 = 8;
const FIRST: Duration = Duration::from_millis(25);

/// Counts the tries of one call.
#[derive(Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Waits not at all, then twice as long each time and for a random part of that, so that those who collided do not
    /// meet again. False, at once, when it has been long enough.
    pub(crate) async fn wait(&mut self, ids: &dyn Ids) -> bool {
        if self.tries == TRIES {
            return false;
        }
        if let Some(doubled) = self.tries.checked_sub(1) {
            let mut random = [0];
            ids.fill(&mut random);
            let [random] = random;
            let longest = FIRST.saturating_mul(1 << doubled);
            tokio::time::sleep(longest.mul_f64(f64::from(random) / 255.0)).await;
        }
        self.tries += 1;
        true
    }
}
