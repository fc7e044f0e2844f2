//! The engine's ports on AWS.

mod failure;
mod json;
mod patience;

pub mod events;
pub mod table;
pub mod timer;

use std::sync::LazyLock;

pub use events::AwsEvents;
pub use table::DynamoTable;
pub use timer::AwsTimer;

/// A client that is made when it is first needed: most processes never are in need of it, and should start without.
type Lazy<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;
