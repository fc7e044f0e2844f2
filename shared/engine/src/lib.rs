//! The domain of Overseer and its ports: it takes an agent's intent, calls a service, and returns an outcome.
//!
//! The folders are layers, and each uses only those below it; `tests/behaviour/layout.rs` checks it. From the top:
//!
//! - [`engine`] is the facade.
//! - [`agents`] builds and explains what an agent may do; [`tasks`] schedules and runs intents.
//! - `invoke` executes one action.
//! - [`accounts`] has the credentials, [`registry`] the plugins, [`access`] the callers and their rights.
//! - [`events`] delivers webhooks.
//! - `outbound` makes all calls to services.
//! - `storage` stores records and secrets.
//! - [`plugin`] defines what a plugin is.
//! - [`ports`] are the traits for the environment; [`core`] has the types that all layers share.
//!
//! The engine depends on no cloud, no HTTP server and no database.

pub mod access;
pub mod accounts;
pub mod agents;
pub mod core;
pub mod engine;
pub mod events;
pub mod invoke;
pub mod outbound;
pub mod plugin;
pub mod ports;
pub mod registry;
pub mod storage;
pub mod tasks;
