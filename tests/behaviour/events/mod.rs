//! Outgoing events: webhooks and the event bus.

pub mod bus;
pub mod webhooks;
