//! How records are stored: the keys of all of them, lists, compare-and-set, the outbox of events, sealed secrets and the
//! vault over the table.

pub(crate) mod compare_and_set;
pub(crate) mod keys;
pub(crate) mod outbox;
pub(crate) mod seal;
pub mod vault;
