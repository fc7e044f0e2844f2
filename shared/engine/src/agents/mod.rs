//! Agents built from configuration. A channel says which plugins its agent has. The agent is built from that, or is the
//! build that an administrator locked the channel to.

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
pub use diff::{AgentDiff, InstructionsChanged, PluginChanged, RoutingChanged, ToolChanged};
pub use lock::{LockAgent, Locks, RollBackAgent};
pub use names::{AgentTool, RenamedTool};
pub use view::AgentView;

pub use crate::access::channel::{
    ASSIGNMENTS_MAX, Assignment, BUILD_MAX_BYTES, CHANNEL_MAX_BYTES, INSTRUCTIONS_MAX_BYTES, LOCKS_MAX, Lock,
};
