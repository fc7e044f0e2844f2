//! Events that the engine publishes: to EventBridge, or to the subscribers in the local process.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::core::ids::OrgId;

/// A change or failure to publish. An intent that succeeds publishes no event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// The organization in which it happened.
    pub org: OrgId,
    /// The name of an [`EventKind`], such as `integration.connected`.
    pub kind: &'static str,
    /// When it happened.
    pub time: Timestamp,
    /// The subject of the event, as JSON. Never contains a credential.
    pub detail: Value,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// The kind of an event: a closed set, part of the public API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum EventKind {
            $($(#[$doc])* $name,)*
        }

        impl EventKind {
            /// Every kind, in alphabetical order of the names.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The published name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// An administrator pinned an agent to its channel's current configuration.
    AgentLocked: "agent.locked",
    /// An administrator rolled an agent back to an earlier lock.
    AgentRolledBack: "agent.rolled_back",
    /// An administrator removed an agent's lock: it follows its channel's configuration again.
    AgentUnlocked: "agent.unlocked",
    /// An API key was created.
    ApiKeyCreated: "api_key.created",
    /// An API key was revoked.
    ApiKeyRevoked: "api_key.revoked",
    /// A plugin's breaker closed: calls are sent again.
    BreakerClosed: "breaker.closed",
    /// A plugin's breaker opened: calls fail at once without being sent.
    BreakerOpened: "breaker.opened",
    /// An administrator changed the plugins of a channel, or removed the channel.
    ChannelChanged: "channel.changed",
    /// An account was connected.
    IntegrationConnected: "integration.connected",
    /// An account was disconnected.
    IntegrationDisconnected: "integration.disconnected",
    /// An account's credential could not be refreshed.
    IntegrationFailed: "integration.failed",
    /// An account's credential was refreshed.
    IntegrationRefreshed: "integration.refreshed",
    /// An administrator changed a plugin's configuration.
    PluginConfigured: "plugin.configured",
    /// An administrator disabled a plugin.
    PluginDisabled: "plugin.disabled",
    /// An administrator enabled a plugin.
    PluginEnabled: "plugin.enabled",
    /// A version of a plugin can be enabled again.
    PluginLoaded: "plugin.loaded",
    /// A version of a plugin was registered.
    PluginRegistered: "plugin.registered",
    /// An administrator reset a plugin's breakers to closed.
    PluginReset: "plugin.reset",
    /// An administrator rolled a plugin back to the previous version.
    PluginRolledBack: "plugin.rolled_back",
    /// An administrator stopped a plugin.
    PluginStopped: "plugin.stopped",
    /// A version of a plugin can no longer be enabled.
    PluginUnloaded: "plugin.unloaded",
    /// An administrator upgraded a plugin to another version.
    PluginUpgraded: "plugin.upgraded",
    /// A task, or one run of it, failed and is not retried.
    TaskFailed: "task.failed",
    /// It is unknown whether a task's run had its effect.
    TaskOutcomeUnknown: "task.outcome_unknown",
    /// A task was paused after too many failed runs in a row.
    TaskPaused: "task.paused",
    /// Overseer deactivated a webhook.
    WebhookDeactivated: "webhook.deactivated",
}

/// The event bus did not accept all of the events.
#[derive(Debug, thiserror::Error)]
#[error("the event bus did not take the events")]
pub struct EventBusError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Publishes events.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Publishes `events` in order. Fails if any of them was not published.
    async fn publish(&self, events: Vec<Event>) -> Result<(), EventBusError>;
}
