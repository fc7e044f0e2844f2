//! What an agent that is locked would become.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::build::{Build, ExcludedPlugin, Warning};
use super::names::AgentTool;
use crate::access::channel::Lock;
use crate::core::ids::{ActionName, ChannelName, PluginName};

/// What locking the channel anew would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentDiff {
    /// The channel.
    pub channel: ChannelName,
    /// What it is locked to.
    pub locked: Lock,
    /// The content hash of what the configuration gives now.
    pub hash: String,
    /// Whether nothing would change.
    pub same: bool,
    /// The instructions, if they are others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<AgentText>,
    /// Tools that the agent would have besides.
    pub tools_added: Vec<AgentTool>,
    /// Tools that it would have no more.
    pub tools_removed: Vec<AgentTool>,
    /// Tools that would be otherwise.
    pub tools_changed: Vec<ToolChanged>,
    /// Whether the tools that stay would stand in another order.
    pub order_changed: bool,
    /// Plugins that would come, go or have another version.
    pub plugins: Vec<PluginChanged>,
    /// Plugins whose data would be elsewhere.
    pub data_routing: Vec<RoutingChanged>,
    /// Plugins of the channel that the agent would not have.
    pub left_out: Vec<ExcludedPlugin>,
    /// What there is to know of those that it would have.
    pub warnings: Vec<Warning>,
}

/// A text that would be another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentText {
    /// What it is.
    pub old: String,
    /// What it would be.
    pub new: String,
}

/// A tool that would be otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolChanged {
    /// The plugin.
    pub plugin: PluginName,
    /// The action.
    pub action: ActionName,
    /// Which of its fields.
    pub fields: Vec<&'static str>,
    /// What it is.
    pub old: AgentTool,
    /// What it would be.
    pub new: AgentTool,
}

/// A plugin that would come, go or have another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginChanged {
    /// The plugin.
    pub name: PluginName,
    /// The version that the agent has, if it has the plugin.
    pub old: Option<String>,
    /// The version that it would have, if it would have the plugin.
    pub new: Option<String>,
}

/// A plugin whose data would be elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoutingChanged {
    /// The plugin.
    pub plugin: PluginName,
    /// Where it is.
    pub old: Option<Value>,
    /// Where it would be.
    pub new: Option<Value>,
}

/// What tells a tool from others, whatever it is called.
fn id(tool: &AgentTool) -> (&PluginName, &ActionName) {
    (&tool.plugin, &tool.action)
}

/// What of `old` would become `new`.
pub(super) fn compared(
    channel: ChannelName,
    locked: Lock,
    old: &Build,
    new: Build,
    warnings: Vec<Warning>,
) -> AgentDiff {
    let before: BTreeMap<_, _> = old.tools.iter().map(|tool| (id(tool), tool)).collect();
    let after: BTreeMap<_, _> = new.tools.iter().map(|tool| (id(tool), tool)).collect();
    let order = |tools: &[AgentTool]| -> Vec<(PluginName, ActionName)> {
        let both = tools.iter().map(id).filter(|id| before.contains_key(id) && after.contains_key(id));
        both.map(|(plugin, action)| (plugin.clone(), action.clone())).collect()
    };
    let changed = |tool: &AgentTool| {
        let old = *before.get(&id(tool))?;
        let fields = fields_changed(old, tool);
        let (plugin, action) = (tool.plugin.clone(), tool.action.clone());
        (!fields.is_empty()).then(|| ToolChanged { plugin, action, fields, old: old.clone(), new: tool.clone() })
    };
    let instructions = (old.instructions != new.instructions)
        .then(|| AgentText { old: old.instructions.clone(), new: new.instructions.clone() });
    AgentDiff {
        channel,
        locked,
        same: old.hash == new.hash,
        instructions,
        tools_added: new.tools.iter().filter(|tool| !before.contains_key(&id(tool))).cloned().collect(),
        tools_removed: old.tools.iter().filter(|tool| !after.contains_key(&id(tool))).cloned().collect(),
        tools_changed: new.tools.iter().filter_map(changed).collect(),
        order_changed: order(&old.tools) != order(&new.tools),
        plugins: plugins_changed(old, &new),
        data_routing: routing_changed(old, &new),
        hash: new.hash,
        left_out: new.left_out,
        warnings,
    }
}

fn fields_changed(old: &AgentTool, new: &AgentTool) -> Vec<&'static str> {
    let fields = [
        ("name", old.name == new.name),
        ("title", old.title == new.title),
        ("description", old.description == new.description),
        ("effect", old.effect == new.effect),
        ("parameters", old.parameters == new.parameters),
    ];
    fields.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect()
}

fn plugins_changed(old: &Build, new: &Build) -> Vec<PluginChanged> {
    let versions = |build: &Build| -> BTreeMap<PluginName, String> {
        build.plugins.iter().map(|used| (used.name.clone(), used.version.clone())).collect()
    };
    let (old, new) = (versions(old), versions(new));
    let all: BTreeSet<&PluginName> = old.keys().chain(new.keys()).collect();
    let each = all.into_iter().map(|name| PluginChanged {
        name: name.clone(),
        old: old.get(name).cloned(),
        new: new.get(name).cloned(),
    });
    each.filter(|one| one.old != one.new).collect()
}

fn routing_changed(old: &Build, new: &Build) -> Vec<RoutingChanged> {
    let all: BTreeSet<&PluginName> = old.data_routing.keys().chain(new.data_routing.keys()).collect();
    let each = all.into_iter().map(|plugin| RoutingChanged {
        plugin: plugin.clone(),
        old: old.data_routing.get(plugin).cloned(),
        new: new.data_routing.get(plugin).cloned(),
    });
    each.filter(|one| one.old != one.new).collect()
}
