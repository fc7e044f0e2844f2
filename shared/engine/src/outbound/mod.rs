//! Outbound calls: the only HTTP client, the addresses that it may reach, the host that adds a credential, and the runtimes
//! that execute actions.

pub mod address;
pub mod client;
pub mod config;
pub(crate) mod credential;
pub mod host;
pub(crate) mod oauth;
pub(crate) mod runtime;
