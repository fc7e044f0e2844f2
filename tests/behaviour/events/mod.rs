//! What Overseer tells others: webhooks and the event bus.

pub mod bus;
pub mod webhooks;
