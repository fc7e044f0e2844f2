//! Agents built from configuration: an agent has the plugins that are enabled in its channel, or those that an administrator
//! locked it to.

mod adapters;
mod build;
mod channels;
mod diff;
pub mod explain;
mod lock;
mod names;
mod preview;
pub mod tools;
mod view;

pub use build::{ExcludedPlugin, ExclusionReason, PluginUsed, Warning};
pub use channels::{ChannelView, SetChannel};
pub use diff::{AgentDiff, InstructionsChanged, PluginChanged, RoutingChanged, ToolChanged};
pub use lock::{LockAgent, Locks, RollBackAgent};
pub use names::{AgentTool, RenamedTool};
pub use preview::RequestPreview;
pub use view::AgentView;

pub use crate::access::channel::{
    ASSIGNMENTS_MAX, Assignment, BUILD_MAX_BYTES, CHANNEL_MAX_BYTES, INSTRUCTIONS_MAX_BYTES, LOCKS_MAX, Lock,
};
