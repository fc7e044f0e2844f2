//! The domain of Overseer and the ports it needs: an agent's intent comes in, a service is called, and one shape of
//! outcome goes out.
//!
//! [`engine::Engine`] is where an intent begins. The [`ports`] are all that the engine asks of the world; it knows no
//! cloud, no HTTP server and no database. [`manifest`] is the format in which plugins are written, [`template`] what
//! stands in it, and [`host`] the only way by which a plugin's call gets out.

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
