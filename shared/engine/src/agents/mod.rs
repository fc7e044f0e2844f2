//! Agents built from configuration: a channel says which plugins an agent has, and what it is comes of them, or of what an
//! administrator locked it to.

mod adapters;
mod build;
mod channels;
mod diff;
pub mod explain;
mod lock;
mod names;
pub mod tools;
mod view;

pub use build::{ExcludedPlugin, ExclusionReason, PluginUsed, Warning};
pub use channels::{ChannelView, SetChannel};
pub use diff::{AgentDiff, AgentText, PluginChanged, RoutingChanged, ToolChanged};
pub use lock::{LockAgent, Locks, RollBackAgent};
pub use names::{AgentTool, Renamed};
pub use view::AgentView;

pub use crate::access::channel::{
    ASSIGNMENTS_MAX, Assignment, BUILD_MAX_BYTES, CHANNEL_MAX_BYTES, INSTRUCTIONS_MAX_BYTES, LOCKS_MAX, Lock,
};
