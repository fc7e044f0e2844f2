//! The engine's ports on AWS.

mod backoff;
mod failure;
mod json;

pub mod events;
pub mod settings;
pub mod table;
pub mod timer;
pub mod vault;

use std::sync::LazyLock;

pub use events::AwsEvents;
pub use settings::{Settings, load, ports, secret_variables};
pub use table::DynamoTable;
pub use timer::AwsTimer;
pub use vault::{KmsKeys, SecretsManagerVault};

/// A client that is made on first use: most processes never use it, and start faster without it.
type Lazy<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;
