//! Callers: API keys, roles, and the isolation of organizations.

pub mod keys;
pub mod roles;
pub mod two_organizations;
