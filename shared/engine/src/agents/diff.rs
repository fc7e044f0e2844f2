//! How locking a channel anew would change its agent.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::build::{Build, ExcludedPlugin, Warning};
use super::names::AgentTool;
use crate::access::channel::Lock;
use crate::core::ids::{ActionName, ChannelName, PluginName};

/// The difference between a channel's lock and what its configuration gives now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentDiff {
    /// The channel.
    pub channel: ChannelName,
    /// The lock in force.
    pub locked: Lock,
    /// The content hash of what the configuration gives now.
    pub hash: String,
    /// Whether both are equal.
    pub same: bool,
    /// The instructions, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<InstructionsChanged>,
    /// Tools that the agent would gain.
    pub tools_added: Vec<AgentTool>,
    /// Tools that the agent would lose.
    pub tools_removed: Vec<AgentTool>,
    /// Tools that would change.
    pub tools_changed: Vec<ToolChanged>,
    /// Whether the tools that both have are in another order.
    pub order_changed: bool,
    /// Plugins that would be added or removed, or change their version.
    pub plugins: Vec<PluginChanged>,
    /// Plugins whose data adapter would change.
    pub data_routing: Vec<RoutingChanged>,
    /// Plugins of the channel that the agent would not have.
    pub left_out: Vec<ExcludedPlugin>,
    /// Problems of the plugins that the agent would have.
    pub warnings: Vec<Warning>,
}

/// Instructions that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstructionsChanged {
    /// The text of the lock.
    pub old: String,
    /// The text of the configuration.
    pub new: String,
}

/// A tool that would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolChanged {
    /// Its plugin.
    pub plugin: PluginName,
    /// Its action.
    pub action: ActionName,
    /// The names of the fields that differ.
    pub fields: Vec<&'static str>,
    /// The tool of the lock.
    pub old: AgentTool,
    /// The tool of the configuration.
    pub new: AgentTool,
}

/// A plugin that would be added or removed, or change its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginChanged {
    /// Its name.
    pub name: PluginName,
    /// The version in the lock; none if the plugin would be added.
    pub old: Option<String>,
    /// The version in the configuration; none if the plugin would be removed.
    pub new: Option<String>,
}

/// A plugin whose data adapter would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoutingChanged {
    /// The plugin.
    pub plugin: PluginName,
    /// The adapter in the lock, if any.
    pub old: Option<Value>,
    /// The adapter in the configuration, if any.
    pub new: Option<Value>,
}

/// What identifies a tool, whatever its name.
fn id(tool: &AgentTool) -> (&PluginName, &ActionName) {
    (&tool.plugin, &tool.action)
}

impl AgentDiff {
    /// Compares a channel's lock, `old`, with what its configuration gives now, `new`.
    pub(super) fn between(channel: ChannelName, locked: Lock, old: &Build, new: Build, warnings: Vec<Warning>) -> Self {
        let old_tools: BTreeMap<_, _> = old.tools.iter().map(|tool| (id(tool), tool)).collect();
        let new_tools: BTreeMap<_, _> = new.tools.iter().map(|tool| (id(tool), tool)).collect();
        let order_of_common = |tools: &[AgentTool]| -> Vec<(PluginName, ActionName)> {
            let common = tools.iter().map(id).filter(|id| old_tools.contains_key(id) && new_tools.contains_key(id));
            common.map(|(plugin, action)| (plugin.clone(), action.clone())).collect()
        };
        let changed = |tool: &AgentTool| tool_changed(old_tools.get(&id(tool))?, tool);
        let instructions = (old.instructions != new.instructions)
            .then(|| InstructionsChanged { old: old.instructions.clone(), new: new.instructions.clone() });
        Self {
            channel,
            locked,
            same: old.hash == new.hash,
            instructions,
            tools_added: new.tools.iter().filter(|tool| !old_tools.contains_key(&id(tool))).cloned().collect(),
            tools_removed: old.tools.iter().filter(|tool| !new_tools.contains_key(&id(tool))).cloned().collect(),
            tools_changed: new.tools.iter().filter_map(changed).collect(),
            order_changed: order_of_common(&old.tools) != order_of_common(&new.tools),
            plugins: plugins_changed(old, &new),
            data_routing: routing_changed(old, &new),
            hash: new.hash,
            left_out: new.left_out,
            warnings,
        }
    }
}

/// The change of one tool; none if it stays as it is.
fn tool_changed(old: &AgentTool, new: &AgentTool) -> Option<ToolChanged> {
    let fields = [
        ("name", old.name == new.name),
        ("title", old.title == new.title),
        ("description", old.description == new.description),
        ("effect", old.effect == new.effect),
        ("parameters", old.parameters == new.parameters),
    ];
    let fields: Vec<_> = fields.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect();
    let (plugin, action) = (new.plugin.clone(), new.action.clone());
    (!fields.is_empty()).then(|| ToolChanged { plugin, action, fields, old: old.clone(), new: new.clone() })
}

fn plugins_changed(old: &Build, new: &Build) -> Vec<PluginChanged> {
    let versions = |build: &Build| -> BTreeMap<PluginName, String> {
        build.plugins.iter().map(|used| (used.name.clone(), used.version.clone())).collect()
    };
    let (old, new) = (versions(old), versions(new));
    let all: BTreeSet<&PluginName> = old.keys().chain(new.keys()).collect();
    let changes = all.into_iter().map(|name| PluginChanged {
        name: name.clone(),
        old: old.get(name).cloned(),
        new: new.get(name).cloned(),
    });
    changes.filter(|change| change.old != change.new).collect()
}

fn routing_changed(old: &Build, new: &Build) -> Vec<RoutingChanged> {
    let all: BTreeSet<&PluginName> = old.data_routing.keys().chain(new.data_routing.keys()).collect();
    let changes = all.into_iter().map(|plugin| RoutingChanged {
        plugin: plugin.clone(),
        old: old.data_routing.get(plugin).cloned(),
        new: new.data_routing.get(plugin).cloned(),
    });
    changes.filter(|change| change.old != change.new).collect()
}
