//! The engine's ports on AWS.

mod failure;
mod json;
mod patience;

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

/// A client that is made when it is first needed: most processes never are in need of it, and should start without.
type Lazy<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;
