//! The stored record of a channel: one small item, which an agent's intent reads with everything else that it needs. Each
//! build that a channel was locked to is a separate item.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::core::error::Error;
use crate::core::ids::{ActionName, ChannelName, KeyId, OrgId, PluginName, UserId};
use crate::engine::Engine;
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, Item, NewItem, Read, TableError, Version};
use crate::storage::keys;

/// The most plugins of a channel.
pub const ASSIGNMENTS_MAX: usize = 50;
/// The longest instructions, in bytes of UTF-8: of a channel, and of one plugin.
pub const INSTRUCTIONS_MAX_BYTES: usize = 32 * 1024;
/// The largest channel, in bytes of JSON.
pub const CHANNEL_MAX_BYTES: usize = 64 * 1024;
/// The most locks that a channel's history keeps.
pub const LOCKS_MAX: usize = 20;
/// The largest build that a channel can be locked to, in bytes of JSON: it has to fit into one item.
pub const BUILD_MAX_BYTES: usize = 384 * 1024;

/// A plugin in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Assignment {
    /// The plugin.
    pub plugin: PluginName,
    /// Whether agents in the channel can use it.
    #[serde(default = "default_true")]
    pub enabled: bool,
    /// Its order among the others, 0 to 1,000, the smallest first. Equal ones are in the order of their names.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: u16,
    /// Where its data is: the name of an adapter that the plugin declares, or an object with a `type`. Left out, it is the
    /// first that the plugin declares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Value")]
    pub data_adapter: Option<Value>,
}

fn default_true() -> bool {
    true
}

/// The locking of a channel to a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The build's content hash.
    pub hash: String,
    /// When the channel was locked.
    pub at: Timestamp,
    /// The user who locked it, if the API key is bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// The API key that locked it.
    pub key: KeyId,
}

/// The build that a channel is locked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pinned {
    #[serde(flatten)]
    pub lock: Lock,
    /// The plugins of the build, each with its actions.
    pub plugins: BTreeMap<PluginName, BTreeSet<ActionName>>,
}

/// The stored record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Channel {
    /// In the order of their priority.
    pub(crate) assignments: Vec<Assignment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instructions: Option<String>,
    pub(crate) updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pinned: Option<Pinned>,
    /// Its history of locks, the latest first.
    #[serde(default)]
    pub(crate) locks: Vec<Lock>,
}

impl Channel {
    /// Whether an agent in the channel may use a plugin, and this action of it. A locked channel admits only actions of the
    /// locked build; later versions of a plugin may have others, which no administrator reviewed.
    pub(crate) fn admits(&self, plugin: &PluginName, action: Option<&ActionName>) -> bool {
        match &self.pinned {
            Some(pinned) => {
                let actions = pinned.plugins.get(plugin);
                actions.is_some_and(|actions| action.is_none_or(|action| actions.contains(action)))
            }
            None => self.assignments.iter().any(|assigned| assigned.enabled && assigned.plugin == *plugin),
        }
    }

    /// Differs whenever the assignments or the instructions do.
    pub(crate) fn etag(&self) -> String {
        sha256(json!([self.assignments, self.instructions]).to_string().as_bytes())
    }

    pub(crate) fn item(&self, org: &OrgId, name: &ChannelName) -> Result<NewItem, TableError> {
        NewItem::new(keys::channel(org, name), self)
    }
}

/// A channel with the version of the item that it was read from.
pub(crate) struct SeenChannel {
    pub channel: Channel,
    pub version: Version,
}

impl SeenChannel {
    pub(crate) fn of(item: Option<&Item>) -> Result<Option<Self>, TableError> {
        let seen = |item: &Item| Ok(Self { channel: item.record()?, version: item.version.clone() });
        item.map(seen).transpose()
    }

    /// The condition that no other request changed it since.
    pub(crate) fn unchanged(&self) -> Condition {
        Condition::Version(self.version.clone())
    }
}

impl Engine {
    /// The channel of that name.
    pub(crate) async fn channel_seen(&self, org: &OrgId, name: &ChannelName) -> Result<SeenChannel, Error> {
        let item = self.ports.table.get(&keys::channel(org, name), Read::Consistent).await?;
        SeenChannel::of(item.as_ref())?.ok_or(Error::NotFound("channel"))
    }
}

/// Parses a channel's name in a path. A name that no channel can have is not found.
pub(crate) fn parsed(name: &str) -> Result<ChannelName, Error> {
    ChannelName::parse(name).map_err(|_| Error::NotFound("channel"))
}
