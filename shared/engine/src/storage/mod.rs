//! How records are stored: the keys of all of them, lists, sealed secrets and the vault over the table.

pub(crate) mod compare_and_set;
pub(crate) mod keys;
pub(crate) mod seal;
pub mod vault;
