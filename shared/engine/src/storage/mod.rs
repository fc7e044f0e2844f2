//! How records are stored: their keys, the compare-and-set helper, the outbox of events, sealing, and the vault in the table.

pub(crate) mod compare_and_set;
pub(crate) mod keys;
pub(crate) mod outbox;
pub(crate) mod seal;
pub mod vault;
