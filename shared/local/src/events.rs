//! Events within one process, for any number of subscribers.

use async_trait::async_trait;
use overseer_engine::ports::events::{Event, EventBus, EventBusError};
use tokio::sync::broadcast;

/// How many events a subscriber may be behind before it misses the oldest.
const BACKLOG: usize = 1024;

/// An event bus for subscribers in the same process.
#[derive(Debug)]
pub struct LocalEvents {
    sender: broadcast::Sender<Event>,
}

impl LocalEvents {
    /// A bus without subscribers.
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG) }
    }

    /// Receives every event from now on. A subscriber that falls more than 1,024 events behind receives an error with the
    /// number of events that it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
}

impl Default for LocalEvents {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl EventBus for LocalEvents {
    async fn publish(&self, events: Vec<Event>) -> Result<(), EventBusError> {
        for event in events {
            // Fails only without subscribers.
            let _ = self.sender.send(event);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use overseer_engine::core::ids::OrgId;
    use serde_json::json;

    use super::*;

    fn event(number: i64) -> Event {
        Event {
            org: OrgId::parse("acme").unwrap(),
            kind: "integration.connected",
            time: Timestamp::UNIX_EPOCH,
            detail: json!({ "number": number }),
        }
    }

    #[tokio::test]
    async fn subscribers_receive_all_events_in_order() {
        let bus = LocalEvents::new();
        bus.publish(vec![event(0)]).await.unwrap();
        let (mut first, mut second) = (bus.subscribe(), bus.subscribe());
        bus.publish(vec![event(1), event(2)]).await.unwrap();
        for subscriber in [&mut first, &mut second] {
            assert_eq!(subscriber.recv().await.unwrap(), event(1));
            assert_eq!(subscriber.recv().await.unwrap(), event(2));
            assert!(subscriber.is_empty());
        }
    }
}
