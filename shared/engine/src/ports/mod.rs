//! What the engine needs from its environment. Each port is one small trait with an embedded implementation (`shared/local`)
//! and one on AWS (`shared/aws`).

pub mod clock;
pub mod cursor;
pub mod events;
pub mod ids;
pub mod table;
pub mod timer;
pub(crate) mod traced;
pub mod vault;

pub use clock::{Clock, SystemClock};
pub use events::{Event, EventBus};
pub use ids::{Ids, RandomIds};
pub use table::Table;
pub use timer::{Timer, Work, WorkKind};
pub use vault::Vault;
