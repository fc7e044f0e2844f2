//! Webhooks: events delivered to organizations' own servers.
//!
//! An administrator subscribes a URL to kinds of events (`subscriptions`, stored by `webhook`). A change writes its event
//! into the outbox in the same transaction (`storage::outbox`). A timer, or the sweep, fans the event out into one
//! delivery for each webhook that wants it (`fan_out`). Each delivery (`delivery`) is claimed, signed (`signing`), sent, and
//! retried for a day (`send`); administrators list and retry deliveries (`deliveries`).
//!
//! A receiver may get a delivery more than once, with the same `webhook-id`, and in any order.

mod deliveries;
mod delivery;
mod fan_out;
mod send;
pub mod signing;
mod subscriptions;
mod webhook;

pub use deliveries::DeliveryView;
pub(crate) use delivery::webhook_work;
pub use delivery::{DeliveryState, SendAttempt};
use jiff::SignedDuration;
pub(crate) use signing::EventState;
pub use subscriptions::{ChangeWebhook, NewWebhook, WebhookView, WebhookWithSecret};
pub use webhook::Deactivated;

/// The most webhooks that an organization may have.
pub const WEBHOOKS_MAX: usize = 20;
/// How long a replaced secret signs beside the new one.
pub const OLD_SECRET_SIGNS: SignedDuration = SignedDuration::from_hours(24);
/// How long a delivery is retried.
pub const TRIED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// How long a finished delivery is listed.
pub const DELIVERIES_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long every delivery of a webhook must fail before it is deactivated.
pub const FAILING_MAX: SignedDuration = SignedDuration::from_hours(5 * 24);
