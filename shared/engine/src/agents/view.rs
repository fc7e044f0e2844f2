//! The agent of a channel as its runtime gets it, also in the formats of models' vendors.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use tracing::debug_span;
use tracing::field::Empty;

use super::build::{Build, ExcludedPlugin, PluginUsed, Warning};
use super::names::{AgentTool, RenamedTool};
use crate::access::channel::{Lock, SeenChannel, parsed};
use crate::access::principal::Principal;
use crate::agents::tools::{Described, ToolFormat};
use crate::core::error::Error;
use crate::core::ids::{ChannelName, OrgId, PluginName};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::Read;
use crate::storage::keys;

/// The agent of a channel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentView {
    /// The channel.
    pub channel: ChannelName,
    /// The SHA-256 of what the agent gets (instructions, tools, data routing, and plugins with their versions), in
    /// hexadecimal digits. Equal configurations have equal hashes.
    pub hash: String,
    /// The lock in force; then this is the locked build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<Lock>,
    /// The agent's system prompt.
    pub instructions: String,
    /// The actions that it can call.
    pub tools: Vec<AgentTool>,
    /// The tools whose names are not those of their actions.
    pub renamed: Vec<RenamedTool>,
    /// The data adapter of each plugin that has one.
    pub data_routing: BTreeMap<PluginName, Value>,
    /// Its plugins, in the order of the channel.
    pub plugins: Vec<PluginUsed>,
    /// The plugins of the channel that it does not have.
    pub left_out: Vec<ExcludedPlugin>,
    /// Problems of the plugins that it has. Empty for a locked build.
    pub warnings: Vec<Warning>,
}

impl AgentView {
    pub(super) fn of(channel: ChannelName, build: Build, locked: Option<Lock>, warnings: Vec<Warning>) -> Self {
        let Build { hash, instructions, tools, renamed, data_routing, plugins, left_out } = build;
        Self { channel, hash, locked, instructions, tools, renamed, data_routing, plugins, left_out, warnings }
    }

    /// The agent in the format of a model's vendor, or in Overseer's own.
    pub fn in_format(&self, format: ToolFormat) -> Value {
        let Some(in_format) = format.of_a_model() else {
            return serde_json::to_value(self).unwrap_or_default();
        };
        let described = |tool: &AgentTool| {
            let AgentTool { name, title, description, parameters, effect, .. } = tool;
            in_format(&Described { name, title, description, parameters, effect: *effect })
        };
        let call = |tool: &AgentTool| (tool.name.clone(), json!({ "tool": tool.plugin, "intent": tool.action }));
        let mut view = json!({
            "channel": self.channel, "hash": self.hash, "instructions": self.instructions,
            "tools": self.tools.iter().map(described).collect::<Vec<_>>(),
            "calls": self.tools.iter().map(call).collect::<serde_json::Map<_, _>>(),
        });
        if let (Some(locked), Some(fields)) = (&self.locked, view.as_object_mut()) {
            fields.insert("locked".to_owned(), json!(locked));
        }
        view
    }
}

impl Engine {
    /// The agent of a channel: the locked build, or what the configuration gives now. Costs two reads.
    pub async fn agent(&self, principal: &Principal, channel: &str) -> Result<AgentView, Error> {
        let span = debug_span!("agent", org = %principal.org, channel, outcome = Empty);
        traced(span, async {
            let name = parsed(channel)?;
            principal.must_see_agent(&name)?;
            let SeenChannel { channel, .. } = self.channel_seen(&principal.org, &name).await?;
            if let Some(pinned) = channel.pinned {
                let build = self.locked_build(&principal.org, &name, &pinned.lock.hash).await?;
                return Ok(AgentView::of(name, build, Some(pinned.lock), Vec::new()));
            }
            let (build, warnings) = self.build(&principal.org, &channel).await?;
            Ok(AgentView::of(name, build, None, warnings))
        })
        .await
    }

    /// The stored build of a lock.
    pub(super) async fn locked_build(&self, org: &OrgId, channel: &ChannelName, hash: &str) -> Result<Build, Error> {
        let item = self.ports.table.get(&keys::build(org, channel, hash), Read::Consistent).await?;
        Ok(item.ok_or(Error::NotFound("lock; it was deleted in the meantime"))?.record()?)
    }
}

impl Principal {
    /// Refuses callers that neither run agents of the organization nor administer or operate them, and agents of other
    /// channels.
    fn must_see_agent(&self, channel: &ChannelName) -> Result<(), Error> {
        if self.agent.is_some() {
            return self.channel(Some(channel)).map(drop);
        }
        if self.acts_for_all() {
            return Ok(());
        }
        Err(Error::Forbidden(
            "this needs the API key of an administrator, an operator, a service or the agent".to_owned(),
        ))
    }
}
