//! Everything that leaves for a service: the one client, the addresses it may reach, the host that adds a credential, and
//! the runtimes that make requests of actions.

pub mod address;
pub mod client;
pub mod config;
pub(crate) mod credential;
pub mod host;
pub(crate) mod oauth;
pub(crate) mod runtime;
