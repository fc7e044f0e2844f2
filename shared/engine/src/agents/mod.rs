//! Agents built from configuration: a channel says which plugins an agent has, and what it is comes of them, or of what an
//! administrator locked it to.

mod adapters;
mod admitting;
mod assigning;
mod building;
mod comparing;
mod locking;
mod naming;
mod record;
mod showing;

pub(crate) use admitting::must_admit;
pub use assigning::{ChannelView, SetChannel};
pub use building::{LeftOut, PluginUsed, Reason, Warning};
pub use comparing::{AgentDiff, AgentText, PluginChanged, RoutingChanged, ToolChanged};
pub use locking::{LockAgent, Locks, RollBackAgent};
pub use naming::{AgentTool, Renamed};
pub use record::{
    ASSIGNMENTS_MAX, Assignment, BUILD_MAX_BYTES, CHANNEL_MAX_BYTES, INSTRUCTIONS_MAX_BYTES, LOCKS_MAX, Lock,
};
pub use showing::AgentView;
