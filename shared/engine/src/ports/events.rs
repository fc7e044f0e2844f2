//! What others may want to know of: published to EventBridge, or to whoever listens in the local process.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::core::ids::OrgId;

/// Something that happened. A plain success of an intent publishes nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Whose event it is.
    pub org: OrgId,
    /// What happened, such as `integration.connected`.
    pub kind: &'static str,
    /// When.
    pub time: Timestamp,
    /// What it happened to; never a credential.
    pub detail: Value,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// What an event is about: a closed set, part of the public surface.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum EventKind {
            $($(#[$doc])* $name,)*
        }

        impl EventKind {
            /// All of them, by their names in the alphabet.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind as it is written.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// An agent was pinned as its channel's configuration had it.
    AgentLocked: "agent.locked",
    /// An agent went back to an earlier lock.
    AgentRolledBack: "agent.rolled_back",
    /// An agent follows its channel's configuration again.
    AgentUnlocked: "agent.unlocked",
    /// An API key was made.
    ApiKeyCreated: "api_key.created",
    /// An API key was revoked.
    ApiKeyRevoked: "api_key.revoked",
    /// A plugin's breaker closed: calls go again.
    BreakerClosed: "breaker.closed",
    /// A plugin's breaker opened: calls are answered at once.
    BreakerOpened: "breaker.opened",
    /// What a channel's agent has was changed, or the channel removed.
    ChannelChanged: "channel.changed",
    /// An account was connected.
    IntegrationConnected: "integration.connected",
    /// An account was disconnected.
    IntegrationDisconnected: "integration.disconnected",
    /// An account's credential could not be renewed.
    IntegrationFailed: "integration.failed",
    /// An account's credential was renewed.
    IntegrationRefreshed: "integration.refreshed",
    /// An administrator set something of a plugin.
    PluginConfigured: "plugin.configured",
    /// An administrator took a plugin out of use.
    PluginDisabled: "plugin.disabled",
    /// An administrator brought a plugin back into use.
    PluginEnabled: "plugin.enabled",
    /// A version of a plugin can be enabled again.
    PluginLoaded: "plugin.loaded",
    /// A version of a plugin was registered.
    PluginRegistered: "plugin.registered",
    /// An administrator closed a plugin's breakers.
    PluginReset: "plugin.reset",
    /// An administrator went back to the version of a plugin that was in use before.
    PluginRolledBack: "plugin.rolled_back",
    /// An administrator ended the use of a plugin.
    PluginStopped: "plugin.stopped",
    /// A version of a plugin can no longer be enabled.
    PluginUnloaded: "plugin.unloaded",
    /// An administrator changed to another version of a plugin.
    PluginUpgraded: "plugin.upgraded",
    /// A task, or a run of one, failed for good.
    TaskFailed: "task.failed",
    /// Whether a task's run happened is not known.
    TaskOutcomeUnknown: "task.outcome_unknown",
    /// A task was paused after too many failures.
    TaskPaused: "task.paused",
    /// Overseer stopped sending to a webhook.
    WebhookDeactivated: "webhook.deactivated",
}

/// The bus could not take the events.
#[derive(Debug, thiserror::Error)]
#[error("the event bus did not take the events")]
pub struct EventBusError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Publishes events.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Publishes all of `events`, in order.
    async fn publish(&self, events: Vec<Event>) -> Result<(), EventBusError>;
}
