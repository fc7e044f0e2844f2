//! How records are stored: the conformance suite of tables, and vaults.

pub mod table;
pub mod vault;
