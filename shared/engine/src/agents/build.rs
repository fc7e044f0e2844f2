//! What an agent is by the configuration of its channel. A plugin that cannot be part of it is left out, and said to be; it
//! never takes the others with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::adapters;
use super::names::{AgentTool, Renamed, tools};
use crate::access::channel::{Assignment, Channel, INSTRUCTIONS_MAX_BYTES};
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::core::outcome::cut;
use crate::engine::Engine;
use crate::invoke::snapshot::unavailable_reason;
use crate::plugin::breaker::ActionClass;
use crate::plugin::catalog::Plugin;
use crate::plugin::template::Context;
use crate::ports::ids::sha256;
use crate::ports::table::{Item, Read, TableError};
use crate::registry::instances::{Instance, SeenInstance};
use crate::storage::keys;

/// What stands between the instructions of two plugins.
const SEPARATOR: &str = "\n\n---\n\n";
/// The longest reason for leaving a plugin out, in characters.
const MESSAGE_MAX: usize = 500;

/// What was built of a channel. It is stored as it is when it is locked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Build {
    /// The SHA-256 of what an agent gets, in hexadecimal digits: the same wherever the same is configured.
    pub hash: String,
    pub instructions: String,
    pub tools: Vec<AgentTool>,
    pub renamed: Vec<Renamed>,
    pub data_routing: BTreeMap<PluginName, Value>,
    pub plugins: Vec<PluginUsed>,
    pub left_out: Vec<ExcludedPlugin>,
}

/// A plugin that an agent has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginUsed {
    /// The plugin.
    pub name: PluginName,
    /// Its version.
    pub version: String,
}

/// A plugin of the channel that the agent does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExcludedPlugin {
    /// The plugin.
    pub plugin: PluginName,
    /// Why.
    pub reason: ExclusionReason,
    /// Why, for a person to read, and what would bring it back.
    pub message: String,
}

/// Why a plugin is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExclusionReason {
    /// It is switched off in the channel.
    SwitchedOff,
    /// The organization does not use it.
    NotThere,
    /// It is for another Overseer, or of a kind that is not run here.
    CannotRun,
    /// An administrator took it out of use.
    Disabled,
    /// It was not granted what its calls need.
    NotGranted,
    /// Its part of the agent cannot be made.
    Failed,
}

/// Something to know of a plugin that the agent has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The plugin.
    pub plugin: PluginName,
    /// For a person to read.
    pub message: String,
}

/// A plugin's part of an agent.
struct Part {
    plugin: Arc<Plugin>,
    instructions: String,
    adapter: Option<Value>,
    warning: Option<String>,
}

impl Build {
    fn hashed(mut self) -> Self {
        // What is left out, and what was renamed, follows from the rest or is of no concern to the agent. serde_json keeps
        // the fields of an object in the order of their names, so that this is canonical.
        let whole = json!([self.instructions, self.tools, self.data_routing, self.plugins]);
        self.hash = sha256(whole.to_string().as_bytes());
        self
    }
}

impl Engine {
    /// Builds the agent of a channel. One read, beside the manifests that this process has not seen.
    pub(super) async fn build(&self, org: &OrgId, channel: &Channel) -> Result<(Build, Vec<Warning>), Error> {
        let wanted: Vec<_> = channel.assignments.iter().map(|one| keys::instance(org, &one.plugin)).collect();
        let items =
            if wanted.is_empty() { Vec::new() } else { self.ports.table.batch_get(&wanted, Read::Consistent).await? };
        let (mut parts, mut left_out, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for (assignment, item) in channel.assignments.iter().zip(items) {
            match self.part(org, assignment, item, channel.instructions.is_none()).await? {
                Ok(part) => {
                    let plugin = &assignment.plugin;
                    warnings.extend(part.warning.clone().map(|message| Warning { plugin: plugin.clone(), message }));
                    parts.push(part);
                }
                Err((reason, message)) => {
                    let message = cut(&message, MESSAGE_MAX);
                    left_out.push(ExcludedPlugin { plugin: assignment.plugin.clone(), reason, message });
                }
            }
        }
        let (tools, renamed) = tools(parts.iter().map(|part| &part.plugin.manifest));
        let joined = || {
            let each: Vec<&str> =
                parts.iter().map(|part| part.instructions.trim()).filter(|one| !one.is_empty()).collect();
            each.join(SEPARATOR)
        };
        let name = |part: &Part| part.plugin.manifest.name.clone();
        let build = Build {
            hash: String::new(),
            instructions: channel.instructions.clone().unwrap_or_else(joined),
            tools,
            renamed,
            data_routing: parts.iter().filter_map(|part| Some((name(part), part.adapter.clone()?))).collect(),
            plugins: parts
                .iter()
                .map(|part| PluginUsed { name: name(part), version: part.plugin.manifest.version.to_string() })
                .collect(),
            left_out,
        };
        Ok((build.hashed(), warnings))
    }

    /// A plugin's part, or why it has none. An error is the store's: what cannot be read now is not left out.
    async fn part(
        &self,
        org: &OrgId,
        assignment: &Assignment,
        item: Option<Item>,
        with_instructions: bool,
    ) -> Result<Result<Part, (ExclusionReason, String)>, Error> {
        let name = &assignment.plugin;
        if !assignment.enabled {
            return Ok(Err((ExclusionReason::SwitchedOff, format!("{name} is switched off in this channel"))));
        }
        let read = match SeenInstance::of(item) {
            Ok(seen) => self.assigned(org, name, &seen.instance).await.map(|found| (found, seen.instance)),
            Err(error) => Err(error.into()),
        };
        let (plugin, instance) = match read {
            Ok((Some(plugin), instance)) => (plugin, instance),
            Ok((None, _)) => {
                let message =
                    format!("the organization does not use {name}; POST /api/v1/plugins/{name}/enable changes that");
                return Ok(Err((ExclusionReason::NotThere, message)));
            }
            Err(error @ Error::Table(TableError::Store(_))) => return Err(error),
            Err(error) => {
                tracing::error!(%org, plugin = %name, error = %causes(&error), "a plugin is left out of an agent");
                return Ok(Err((ExclusionReason::Failed, error.to_string())));
            }
        };
        Ok(self.part_of(assignment, plugin, &instance, with_instructions))
    }

    /// The plugin that an organization means by a name, if it has one, by its instance.
    pub(super) async fn assigned(
        &self,
        org: &OrgId,
        name: &PluginName,
        instance: &Instance,
    ) -> Result<Option<Arc<Plugin>>, Error> {
        if let Ok(plugin) = self.catalog.plugin(name.as_str()) {
            return Ok(Some(plugin));
        }
        match &instance.installed {
            Some(installed) => self.loaded(org, name, installed).await.map(Some),
            None => Ok(None),
        }
    }

    fn part_of(
        &self,
        assignment: &Assignment,
        plugin: Arc<Plugin>,
        instance: &Instance,
        with_instructions: bool,
    ) -> Result<Part, (ExclusionReason, String)> {
        let (name, manifest, now) = (&assignment.plugin, &plugin.manifest, self.ports.clock.now());
        if let Some(why) = manifest.cannot_run() {
            return Err((ExclusionReason::CannotRun, why));
        }
        if !manifest.is_compatible() {
            let range = manifest.compatible_versions.as_ref().map(ToString::to_string).unwrap_or_default();
            let message = format!("it is for Overseer {range}, and this is {}", env!("CARGO_PKG_VERSION"));
            return Err((ExclusionReason::CannotRun, message));
        }
        let in_use = |class| unavailable_reason(manifest, &instance.in_use(manifest, class, now), now);
        let unusable = in_use(ActionClass::Read).or_else(|| in_use(ActionClass::Write));
        // What the breaker leaves alone is tried again by itself.
        if let Some(failure) = unusable.as_ref().filter(|_| !instance.is_enabled(manifest)) {
            return Err((ExclusionReason::Disabled, failure.message.clone()));
        }
        instance.must_be_granted(&plugin).map_err(|error| (ExclusionReason::NotGranted, error.to_string()))?;
        let failed = |what: String| (ExclusionReason::Failed, format!("{name}: {what}"));
        let adapter = adapters::chosen(manifest, assignment.data_adapter.as_ref());
        let adapter = adapter.map_err(|message| failed(format!("data_adapter {message}")))?;
        let mut instructions = String::new();
        if let Some(template) = manifest.instruction_template.as_ref().filter(|_| with_instructions) {
            let context = Context::default().with("config", &instance.effective_config(manifest));
            instructions = template.render(&context).map_err(|error| {
                failed(format!("its instructions cannot be written with this configuration ({error})"))
            })?;
            if instructions.len() > INSTRUCTIONS_MAX_BYTES {
                let bytes = instructions.len();
                let message =
                    format!("its instructions have {bytes} bytes, more than the {INSTRUCTIONS_MAX_BYTES} allowed");
                return Err(failed(message));
            }
        }
        Ok(Part { instructions, adapter, warning: unusable.map(|failure| failure.message), plugin })
    }
}
