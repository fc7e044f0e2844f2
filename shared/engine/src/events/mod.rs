//! Events told to organizations' own servers. An administrator subscribes with a URL (`managing`); a change that is told is
//! written together with its event (`outbox`), which an alarm, or the sweep, makes a delivery for each webhook that wants
//! it; each is signed (`signing`), sent, and tried again for a day (`delivering`).
//!
//! A receiver may get a delivery more than once, with the same `webhook-id`, and in any order.

mod admin;
mod deliver;
mod deliveries;
mod outbox;
mod record;
pub mod signing;

pub use admin::{ChangeWebhook, MadeWebhook, NewWebhook, WebhookView};
pub use deliveries::{DeliveryState, DeliveryView, SendAttempt};
use jiff::SignedDuration;
pub(crate) use outbox::{EventState, webhook_work};
pub use record::Deactivated;

/// The most webhooks that an organization may have.
pub const WEBHOOKS_MAX: usize = 20;
/// How long the secret that was replaced signs as well.
pub const OLD_SECRET_SIGNS: SignedDuration = SignedDuration::from_hours(24);
/// How long a delivery is tried.
pub const TRIED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// How long a delivery that has ended is listed.
pub const DELIVERIES_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// For how long every delivery of a webhook fails before it is deactivated.
pub const FAILING_MAX: SignedDuration = SignedDuration::from_hours(5 * 24);
