//! The domain of Overseer and the ports it needs: an agent's intent comes in, a service is called, and one shape of
//! outcome goes out.
//!
//! [`engine::Engine`] is where an intent begins. The [`ports`] are all that the engine asks of the world; it knows no
//! cloud, no HTTP server and no database. [`manifest`] is the format in which plugins are written, [`template`] what
//! stands in it, and [`host`] the only way by which a plugin's call gets out.

pub mod agents;
pub mod api_keys;
pub mod breaker;
mod calling;
pub mod catalog;
pub mod config;
pub mod engine;
pub mod error;
pub mod explaining;
pub mod failures;
pub mod hooks;
pub mod host;
pub mod ids;
pub mod instances;
pub mod integrations;
pub mod intent;
mod keys;
mod listing;
pub mod manifest;
pub mod mappings;
mod oauth;
pub mod organizations;
pub mod outbound;
pub mod outcome;
mod performing;
pub mod ports;
pub mod principal;
pub mod registry;
pub mod runs;
mod runtime;
pub mod schedule;
pub mod schema;
mod seal;
pub mod secrets;
pub mod tasks;
pub mod template;
pub mod tools;
pub mod vault;
pub mod webhooks;
