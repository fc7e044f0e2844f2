//! How records are stored: their keys, the compare-and-set helper, sealing, and the vault in the table.

pub(crate) mod compare_and_set;
pub(crate) mod keys;
pub(crate) mod seal;
pub mod vault;
