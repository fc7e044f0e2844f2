//! A [`Vault`](crate::ports::vault::Vault) in the table, and the keys that protect it.

mod envelope;
mod wrap;

pub use envelope::{EnvelopeVault, Rewrapped};
pub use wrap::{MASTER_KEY_BYTES, MasterKey, MasterKeys, Wrap};

pub use crate::storage::seal::Sealed;
