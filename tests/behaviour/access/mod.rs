//! Who calls: API keys, roles, and organizations that are kept apart.

pub mod keys;
pub mod roles;
pub mod two_organizations;
