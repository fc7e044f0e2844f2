//! Who the caller is, and what they may do: principals and roles, API keys, organizations, and the channels that limit
//! which plugins an agent may use.

pub(crate) mod admission;
pub mod api_keys;
pub(crate) mod channel;
pub(crate) mod listing;
pub mod organizations;
pub mod principal;
mod role_names;
