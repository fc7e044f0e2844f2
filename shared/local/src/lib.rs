//! The engine's ports embedded in one process: a table in one redb file, alarms in memory, events for local subscribers.

pub mod embedded;
pub mod events;
mod files;
pub mod folder;
pub mod table;
pub mod timer;

pub use events::LocalEvents;
pub use table::{OpenError, RedbTable};
pub use timer::LocalTimer;
