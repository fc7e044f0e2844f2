//! Who calls, and what they may do: principals, API keys, organizations, and the channels of agents.

pub(crate) mod admission;
pub mod api_keys;
pub(crate) mod channel;
pub(crate) mod listing;
pub mod organizations;
pub mod principal;
mod role_names;
