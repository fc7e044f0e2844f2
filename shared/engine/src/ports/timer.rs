//! Wakes the engine for work that is due later. One-time only: recurrence is computed by the engine.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::ids::OrgId;

/// What to look at when the time has come. The record that it names decides whether anything is due.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Work {
    /// Whose work it is.
    pub org: OrgId,
    /// What sort of work, such as `task`.
    pub kind: String,
    /// Which one of that kind.
    pub id: String,
    /// Grows when the work is moved, so that a stale alarm can be told from the right one.
    pub revision: u64,
}

/// The timer could not take the order.
#[derive(Debug, thiserror::Error)]
#[error("the timer did not take the order")]
pub struct TimerError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Sets and cancels alarms. A firing is a hint: it may come late, twice or, after a crash, not at all.
#[async_trait]
pub trait Timer: Send + Sync {
    /// Fires `work` at `at`, or at once where that has passed. Setting the same work again moves its alarm.
    async fn set(&self, work: Work, at: Timestamp) -> Result<(), TimerError>;

    /// Forgets the alarm of `work`, if there is one.
    async fn cancel(&self, work: &Work) -> Result<(), TimerError>;
}
