//! Builds an agent from the configuration of its channel: instructions, tools and data routing. A plugin that cannot be
//! part of the agent is listed as left out; the others are built without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::adapters;
use super::names::{AgentTool, RenamedTool, name_tools};
use crate::access::channel::{Assignment, Channel, INSTRUCTIONS_MAX_BYTES};
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::core::outcome::cut;
use crate::engine::Engine;
use crate::invoke::snapshot::unavailable_reason;
use crate::plugin::breaker::ActionClass;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::Manifest;
use crate::plugin::template::Context;
use crate::ports::ids::sha256;
use crate::ports::table::{Item, Read, TableError};
use crate::registry::instances::{Instance, LoadedInstance};
use crate::storage::keys;

/// Separates the instructions of two plugins.
const SEPARATOR: &str = "\n\n---\n\n";
/// The longest message about an excluded plugin, in characters.
const MESSAGE_MAX: usize = 500;

/// An agent as its channel configures it. Locking stores it in this form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Build {
    /// The SHA-256 of what the agent gets, in hexadecimal digits. Equal configurations have equal hashes.
    pub hash: String,
    pub instructions: String,
    pub tools: Vec<AgentTool>,
    pub renamed: Vec<RenamedTool>,
    pub data_routing: BTreeMap<PluginName, Value>,
    pub plugins: Vec<PluginUsed>,
    pub left_out: Vec<ExcludedPlugin>,
}

/// A plugin that an agent has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginUsed {
    /// Its name.
    pub name: PluginName,
    /// The installed version.
    pub version: String,
}

/// A plugin of the channel that the agent does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExcludedPlugin {
    /// Its name.
    pub plugin: PluginName,
    /// Why it is excluded, for programs.
    pub reason: ExclusionReason,
    /// Why it is excluded and what brings it back, for people.
    pub message: String,
}

/// Why a plugin is excluded from an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExclusionReason {
    /// The channel has it switched off.
    SwitchedOff,
    /// The organization does not use it.
    NotThere,
    /// It needs another version of Overseer, or this Overseer cannot run its kind.
    CannotRun,
    /// An administrator disabled it.
    Disabled,
    /// It lacks permissions that its calls need.
    NotGranted,
    /// Its manifest, its adapter or its instructions cannot be used.
    Failed,
}

/// A problem of a plugin that the agent has nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The plugin.
    pub plugin: PluginName,
    /// The problem, for people.
    pub message: String,
}

/// What one plugin contributes to an agent.
struct Part {
    plugin: Arc<Plugin>,
    instructions: String,
    adapter: Option<Value>,
    warning: Option<String>,
}

/// Why an assignment contributes nothing.
enum PartError {
    /// The agent is built without this plugin.
    Excluded(Exclusion),
    /// Nothing is built: the plugin may be fine, but the store could not be read.
    Failed(Error),
}

/// Why a plugin is excluded, for programs and for people.
struct Exclusion {
    reason: ExclusionReason,
    message: String,
}

impl Exclusion {
    fn new(reason: ExclusionReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<Exclusion> for PartError {
    fn from(exclusion: Exclusion) -> Self {
        Self::Excluded(exclusion)
    }
}

impl Build {
    /// Puts the parts together.
    fn assemble(channel: &Channel, parts: &[Part], left_out: Vec<ExcludedPlugin>) -> Self {
        let (tools, renamed) = name_tools(parts.iter().map(|part| &part.plugin.manifest));
        let name = |part: &Part| part.plugin.manifest.name.clone();
        let used = |part: &Part| PluginUsed { name: name(part), version: part.plugin.manifest.version.to_string() };
        Self {
            hash: String::new(),
            instructions: channel.instructions.clone().unwrap_or_else(|| joined_instructions(parts)),
            tools,
            renamed,
            data_routing: parts.iter().filter_map(|part| Some((name(part), part.adapter.clone()?))).collect(),
            plugins: parts.iter().map(used).collect(),
            left_out,
        }
        .with_hash()
    }

    fn with_hash(mut self) -> Self {
        // Exclusions and new names are not hashed: they follow from the rest, or do not concern the agent. serde_json orders
        // the fields of an object by name, so this text is canonical.
        let canonical = json!([self.instructions, self.tools, self.data_routing, self.plugins]);
        self.hash = sha256(canonical.to_string().as_bytes());
        self
    }
}

fn joined_instructions(parts: &[Part]) -> String {
    let texts: Vec<&str> = parts.iter().map(|part| part.instructions.trim()).filter(|text| !text.is_empty()).collect();
    texts.join(SEPARATOR)
}

impl Engine {
    /// Builds the agent of a channel. Costs one read, and one for each manifest that this process has not cached.
    pub(super) async fn build(&self, org: &OrgId, channel: &Channel) -> Result<(Build, Vec<Warning>), Error> {
        let keys: Vec<_> = channel.assignments.iter().map(|one| keys::instance(org, &one.plugin)).collect();
        let items =
            if keys.is_empty() { Vec::new() } else { self.ports.table.batch_get(&keys, Read::Consistent).await? };
        let with_instructions = channel.instructions.is_none();
        let (mut parts, mut left_out, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for (assignment, item) in channel.assignments.iter().zip(items) {
            let plugin = assignment.plugin.clone();
            match self.part(org, assignment, item, with_instructions).await {
                Ok(part) => {
                    warnings.extend(part.warning.clone().map(|message| Warning { plugin, message }));
                    parts.push(part);
                }
                Err(PartError::Excluded(Exclusion { reason, message })) => {
                    left_out.push(ExcludedPlugin { plugin, reason, message: cut(&message, MESSAGE_MAX) });
                }
                Err(PartError::Failed(error)) => return Err(error),
            }
        }
        Ok((Build::assemble(channel, &parts, left_out), warnings))
    }

    /// What one assignment contributes: load the plugin, check that it is usable, choose its adapter, render its
    /// instructions.
    async fn part(
        &self,
        org: &OrgId,
        assignment: &Assignment,
        item: Option<Item>,
        with_instructions: bool,
    ) -> Result<Part, PartError> {
        let name = &assignment.plugin;
        if !assignment.enabled {
            let message = format!("{name} is switched off in this channel");
            return Err(Exclusion::new(ExclusionReason::SwitchedOff, message).into());
        }
        let (plugin, instance) = self.load_assigned(org, name, item).await?;
        let manifest = &plugin.manifest;
        let warning = self.check_usable(&plugin, &instance)?;
        let failed = |problem: String| Exclusion::new(ExclusionReason::Failed, format!("{name}: {problem}"));
        let adapter = adapters::resolve(manifest, assignment.data_adapter.as_ref())
            .map_err(|message| failed(format!("data_adapter {message}")))?;
        let instructions =
            if with_instructions { instructions(manifest, &instance).map_err(failed)? } else { String::new() };
        Ok(Part { plugin, instructions, adapter, warning })
    }

    /// Loads the plugin of an assignment with its instance. A plugin that cannot be loaded is excluded, unless it was the
    /// store that failed.
    async fn load_assigned(
        &self,
        org: &OrgId,
        name: &PluginName,
        item: Option<Item>,
    ) -> Result<(Arc<Plugin>, Instance), PartError> {
        let loaded = match LoadedInstance::of(item) {
            Ok(LoadedInstance { instance, .. }) => {
                self.assigned(org, name, &instance).await.map(|plugin| (plugin, instance))
            }
            Err(error) => Err(error.into()),
        };
        match loaded {
            Ok((Some(plugin), instance)) => Ok((plugin, instance)),
            Ok((None, _)) => {
                let message =
                    format!("the organization does not use {name}; enable it with POST /api/v1/plugins/{name}/enable");
                Err(Exclusion::new(ExclusionReason::NotThere, message).into())
            }
            Err(error @ Error::Table(TableError::Store(_))) => Err(PartError::Failed(error)),
            Err(error) => {
                tracing::error!(%org, plugin = %name, error = %causes(&error), "plugin excluded from agent");
                Err(Exclusion::new(ExclusionReason::Failed, error.to_string()).into())
            }
        }
    }

    /// The plugin of that name: a built-in one, or the version that the organization installed; `None` if it has neither.
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

    /// Checks that agents may use a plugin now. Returns a warning where only a circuit breaker prevents calls: it closes
    /// again by itself.
    fn check_usable(&self, plugin: &Plugin, instance: &Instance) -> Result<Option<String>, Exclusion> {
        let (manifest, now) = (&plugin.manifest, self.ports.clock.now());
        if let Some(reason) = manifest.cannot_run() {
            return Err(Exclusion::new(ExclusionReason::CannotRun, reason));
        }
        if !manifest.is_compatible() {
            let range = manifest.compatible_versions.as_ref().map(ToString::to_string).unwrap_or_default();
            let message = format!("it requires Overseer {range}; this is {}", env!("CARGO_PKG_VERSION"));
            return Err(Exclusion::new(ExclusionReason::CannotRun, message));
        }
        let unavailable = |class| unavailable_reason(manifest, &instance.in_use(manifest, class, now), now);
        let failure = unavailable(ActionClass::Read).or_else(|| unavailable(ActionClass::Write));
        let warning = failure.map(|failure| failure.message);
        if !instance.is_enabled(manifest)
            && let Some(message) = warning
        {
            return Err(Exclusion::new(ExclusionReason::Disabled, message));
        }
        instance
            .must_be_granted(plugin)
            .map_err(|error| Exclusion::new(ExclusionReason::NotGranted, error.to_string()))?;
        Ok(warning)
    }
}

/// A plugin's instructions for its configuration; the error is a message.
fn instructions(manifest: &Manifest, instance: &Instance) -> Result<String, String> {
    let Some(template) = &manifest.instruction_template else { return Ok(String::new()) };
    let context = Context::default().with("config", &instance.effective_config(manifest));
    let text = template
        .render(&context)
        .map_err(|error| format!("its instructions cannot be rendered with this configuration ({error})"))?;
    if text.len() > INSTRUCTIONS_MAX_BYTES {
        let bytes = text.len();
        return Err(format!("its instructions have {bytes} bytes, more than the {INSTRUCTIONS_MAX_BYTES} allowed"));
    }
    Ok(text)
}
