//! The list of tools that a caller can use, in Overseer's own format and in those of model providers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::debug_span;
use tracing::field::Empty;

use crate::access::principal::Principal;
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::UserId;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::manifest::{Action, Auth, Manifest};
use crate::ports::table::Read;

/// The format of the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolFormat {
    /// Overseer's own: plugins with their actions, in the terms of an intent.
    #[default]
    Overseer,
    /// `tools` of OpenAI chat completions.
    Openai,
    /// `tools` of Anthropic messages.
    Anthropic,
    /// The answer to `tools/list` of the Model Context Protocol.
    Mcp,
}

/// A plugin, in the terms of an intent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tool<'a> {
    #[serde(rename = "tool")]
    name: &'a str,
    display_name: &'a str,
    description: &'a str,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected: Option<bool>,
    actions: Vec<Value>,
}

impl Engine {
    /// The tools that `principal` can use. `connected` is about the accounts of `user`, or of the user that the caller is bound to.
    pub async fn tools(&self, principal: &Principal, user: Option<UserId>, format: ToolFormat) -> Result<Value, Error> {
        let span = debug_span!("tools", org = %principal.org, outcome = Empty);
        traced(span, async {
            let user = match (user, &principal.user) {
                (None, None) => None,
                (user, _) => Some(principal.resolve_user(user)?),
            };
            let mut plugins = self.plugins_of(&principal.org, Read::Eventual).await?;
            // A plugin that only has hooks has nothing to call.
            plugins.retain(|(plugin, instance)| {
                let manifest = &plugin.manifest;
                (!manifest.actions.is_empty() || manifest.hooks.is_empty()) && !instance.is_off(manifest)
            });
            let mut channel = None;
            if let Some(agent) = &principal.agent {
                channel = self.channel_if_any(&principal.org, &agent.channel).await?;
                plugins.retain(|(plugin, _)| {
                    channel.as_ref().is_some_and(|channel| channel.admits(&plugin.manifest.name, None))
                });
            }
            let admits = |manifest: &Manifest, action: &Action| {
                channel.as_ref().is_none_or(|channel| channel.admits(&manifest.name, Some(&action.name)))
            };
            let manifests: Vec<&Manifest> = plugins.iter().map(|(plugin, _)| &plugin.manifest).collect();
            if let Some(write) = format.of_a_model() {
                let actions =
                    manifests.iter().flat_map(|manifest| manifest.actions.iter().map(|action| (*manifest, action)));
                let admitted = actions.filter(|(manifest, action)| admits(manifest, action));
                let tools: Vec<Value> =
                    admitted.map(|(manifest, action)| model_tool(manifest, action, write)).collect();
                return Ok(json!({ "tools": tools }));
            }
            let connected = match &user {
                Some(user) => {
                    self.connected_plugins(&principal.org, user, &manifests).await?.into_iter().map(Some).collect()
                }
                None => vec![None; manifests.len()],
            };
            let tools = manifests.iter().zip(connected);
            let tools: Vec<_> = tools.map(|(manifest, connected)| own_tool(manifest, connected, &admits)).collect();
            Ok(json!({ "tools": tools }))
        })
        .await
    }
}

/// An action in the format of a model.
fn model_tool(manifest: &Manifest, action: &Action, write: fn(&Described<'_>) -> Value) -> Value {
    let (name, title) = (full_name(manifest, action), format!("{}: {}", manifest.display_name, action.name));
    let Action { description, parameters, effect, .. } = action;
    write(&Described { name: &name, title: &title, description, parameters, effect: *effect })
}

/// A plugin in Overseer's own format.
fn own_tool<'a>(
    manifest: &'a Manifest,
    connected: Option<bool>,
    admits: &dyn Fn(&Manifest, &Action) -> bool,
) -> Tool<'a> {
    Tool {
        name: manifest.name.as_str(),
        display_name: &manifest.display_name,
        description: &manifest.description,
        version: manifest.version.to_string(),
        connected: connected.map(|connected| connected || matches!(manifest.auth, Auth::None)),
        actions: manifest
            .actions
            .iter()
            .filter(|action| admits(manifest, action))
            .map(|action| {
                let mut described = json!({
                    "intent": action.name, "aliases": action.aliases, "description": action.description,
                    "effect": action.effect, "parameters": action.parameters,
                });
                if let (Some(returns), Some(described)) = (&action.returns, described.as_object_mut()) {
                    described.insert("returns".to_owned(), returns.clone());
                }
                described
            })
            .collect(),
    }
}

/// One name for the plugin and the action, in the characters that every model provider allows.
pub(crate) fn full_name(manifest: &Manifest, action: &Action) -> String {
    format!("{}__{}", manifest.name, action.name)
}

/// An action as models get it.
pub(crate) struct Described<'a> {
    pub name: &'a str,
    pub title: &'a str,
    pub description: &'a str,
    pub parameters: &'a Value,
    pub effect: Effect,
}

impl ToolFormat {
    /// Writes an action for a model; `None` in Overseer's own format.
    pub(crate) fn of_a_model(self) -> Option<fn(&Described<'_>) -> Value> {
        match self {
            Self::Overseer => None,
            Self::Openai => Some(openai),
            Self::Anthropic => Some(anthropic),
            Self::Mcp => Some(mcp),
        }
    }
}

fn openai(tool: &Described<'_>) -> Value {
    json!({ "type": "function", "function": {
        "name": tool.name, "description": tool.description, "parameters": tool.parameters,
    }})
}

fn anthropic(tool: &Described<'_>) -> Value {
    json!({ "name": tool.name, "description": tool.description, "input_schema": tool.parameters })
}

fn mcp(tool: &Described<'_>) -> Value {
    json!({
        "name": tool.name, "description": tool.description, "inputSchema": tool.parameters,
        "annotations": {
            "title": tool.title, "readOnlyHint": tool.effect == Effect::Read,
            "idempotentHint": tool.effect != Effect::Unsafe, "openWorldHint": true,
        },
    })
}
