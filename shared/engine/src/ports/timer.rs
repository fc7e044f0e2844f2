//! Wakes the engine for work that is due later. One-time only: the engine computes recurrence.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::table::Due;
use crate::core::ids::OrgId;

/// What kind of work an alarm is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum WorkKind {
    /// Run a task.
    Task,
    /// Drop an account that its user never confirmed.
    PendingAccount,
    /// Make deliveries of an event in the outbox.
    Event,
    /// Send a delivery to a webhook.
    Delivery,
    /// A kind that this version of Overseer does not know.
    Unknown(String),
}

impl WorkKind {
    /// The stored name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Task => "task",
            Self::PendingAccount => "pending-account",
            Self::Event => "event",
            Self::Delivery => "delivery",
            Self::Unknown(name) => name,
        }
    }
}

impl From<&str> for WorkKind {
    fn from(name: &str) -> Self {
        match name {
            "task" => Self::Task,
            "pending-account" => Self::PendingAccount,
            "event" => Self::Event,
            "delivery" => Self::Delivery,
            unknown => Self::Unknown(unknown.to_owned()),
        }
    }
}

impl From<String> for WorkKind {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<WorkKind> for String {
    fn from(kind: WorkKind) -> Self {
        kind.as_str().to_owned()
    }
}

/// A queue of the table: its items are ordered by when they are due. The sweep reads every queue for work whose alarm was
/// lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Tasks, for [`WorkKind::Task`].
    Tasks,
    /// Accounts that wait for a confirmation, for [`WorkKind::PendingAccount`].
    PendingAccounts,
    /// Events in the outbox and deliveries, for [`WorkKind::Event`] and [`WorkKind::Delivery`]. They share a queue because
    /// the sweep makes one request for each queue.
    Webhooks,
}

impl Queue {
    /// Every queue, in the order in which the sweep reads them.
    pub(crate) const ALL: [Self; 3] = [Self::Tasks, Self::PendingAccounts, Self::Webhooks];

    /// The stored name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => "task",
            Self::PendingAccounts => "pending-account",
            Self::Webhooks => "webhook",
        }
    }

    /// An item's place in this queue.
    pub(crate) fn due(self, at: Timestamp) -> Due {
        Due { queue: self.as_str().to_owned(), at }
    }
}

/// The work that an alarm is for. The record that it names decides whether anything is due.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Work {
    /// The organization that owns the record.
    pub org: OrgId,
    /// The kind of the record.
    pub kind: WorkKind,
    /// The record's id within its kind.
    pub id: String,
    /// Grows when the work is moved to another time. A stale alarm has a lower revision.
    pub revision: u64,
}

/// The timer did not set or cancel an alarm.
#[derive(Debug, thiserror::Error)]
#[error("the timer did not accept the request")]
pub struct TimerError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Sets and cancels alarms. An alarm is a hint: it may fire late, twice or, after a crash, never.
#[async_trait]
pub trait Timer: Send + Sync {
    /// Fires `work` at `at`, or at once if `at` is past. Setting the same work again moves its alarm.
    async fn set(&self, work: Work, at: Timestamp) -> Result<(), TimerError>;

    /// Cancels the alarm of `work`, if there is one.
    async fn cancel(&self, work: &Work) -> Result<(), TimerError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_kind_keeps_its_stored_name() {
        for name in ["task", "pending-account", "event", "delivery"] {
            let kind = WorkKind::from(name);
            assert!(!matches!(kind, WorkKind::Unknown(_)), "{name}");
            assert_eq!(serde_json::to_value(&kind).unwrap(), name);
        }
    }

    #[test]
    fn unknown_work_kind_round_trips() {
        let kind: WorkKind = serde_json::from_str("\"later\"").unwrap();
        assert_eq!((kind.as_str(), &kind), ("later", &WorkKind::Unknown("later".to_owned())));
        assert_eq!(serde_json::to_string(&kind).unwrap(), "\"later\"");
    }
}
