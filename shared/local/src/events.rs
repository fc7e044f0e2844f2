//! Events within one process: whoever subscribed hears them, and nobody needs to.

use async_trait::async_trait;
use overseer_engine::ports::events::{Event, EventBus, EventBusError};
use tokio::sync::broadcast;

/// How many events a listener may be behind before it misses the oldest.
const BACKLOG: usize = 1024;

/// An event bus for listeners in the same process.
#[derive(Debug)]
pub struct LocalEvents {
    sender: broadcast::Sender<Event>,
}

impl LocalEvents {
    /// A bus that nobody listens to yet.
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG) }
    }

    /// Hears every event from now on. A listener that falls more than 1,024 events behind is told how many it missed.
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
            // Fails only where nobody listens.
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
    async fn listeners_hear_all_events_in_order() {
        let bus = LocalEvents::new();
        bus.publish(vec![event(0)]).await.unwrap();
        let (mut one, mut other) = (bus.subscribe(), bus.subscribe());
        bus.publish(vec![event(1), event(2)]).await.unwrap();
        for listener in [&mut one, &mut other] {
            assert_eq!(listener.recv().await.unwrap(), event(1));
            assert_eq!(listener.recv().await.unwrap(), event(2));
            assert!(listener.is_empty());
        }
    }
}
