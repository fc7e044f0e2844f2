//! The engine's ports on AWS.

mod failure;
pub mod table;
pub mod vault;

pub use table::DynamoTable;
pub use vault::{KmsKeys, SecretsManagerVault};
