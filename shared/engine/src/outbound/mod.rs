//! Calls of services: the one outbound client, the addresses that it may reach, the host that adds a credential, and the
//! runtimes that turn an action into requests.

pub mod address;
pub(crate) mod call;
pub mod client;
pub mod config;
pub(crate) mod credential;
pub mod host;
pub(crate) mod oauth;
pub(crate) mod runtime;
