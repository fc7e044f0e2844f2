//! What others may want to know of: published to EventBridge, or to whoever listens in the local process.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::ids::OrgId;

/// Something that happened. A plain success of an intent publishes nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Whose event it is.
    pub org: OrgId,
    /// What happened, such as `integration.connected`.
    pub kind: &'static str,
    /// When.
    pub time: Timestamp,
    /// What it happened to; never a credential.
    pub detail: Value,
}

/// The bus could not take the events.
#[derive(Debug, thiserror::Error)]
#[error("the event bus did not take the events")]
pub struct EventBusError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Publishes events.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Publishes all of `events`, in order.
    async fn publish(&self, events: Vec<Event>) -> Result<(), EventBusError>;
}
