//! The list of an organization's plugins whose hooks are called. It is one item, written in one transaction with every
//! change of a plugin that affects it, so a call finds all hooks with one read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::HOOKED_MAX;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::engine::Engine;
use crate::events::signing::Signing;
use crate::plugin::manifest::{DeclaredHook, Hook, Manifest, OnFailure, Runtime};
use crate::ports::table::{Condition, Item, NewItem, Read, Write};
use crate::registry::instances::{Installed, Instance};
use crate::storage::keys;

/// The stored list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HookIndex {
    pub plugins: BTreeMap<PluginName, HookedPlugin>,
}

/// One plugin in the list, as the organization has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HookedPlugin {
    /// The version of a registered plugin; catalog plugins have none.
    pub installed: Option<Installed>,
    /// What the organization set, without secrets.
    pub config: Map<String, Value>,
    /// Signs the requests, if the hooks are called over HTTP.
    pub secret: Option<Signing>,
}

/// A hook as administrators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookView {
    /// When it is called.
    pub on: Hook,
    /// Its order among all hooks of the organization, the smallest first.
    pub priority: u32,
    /// Its time limit, in milliseconds.
    pub timeout_ms: u32,
    /// What its failure means for the agent's work.
    pub on_failure: OnFailure,
    /// The plugins that it covers; all if empty.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<String>,
    /// Whether it is called: the plugin is enabled, has the permissions that the hook needs, and a signing secret if the hook
    /// is called over HTTP.
    pub asked: bool,
}

/// Whether the plugin's hooks are called over HTTP, which needs a secret to sign the requests.
pub(in crate::registry) fn calls_hooks_over_http(manifest: &Manifest) -> bool {
    !manifest.hooks.is_empty() && matches!(manifest.runtime, Runtime::Http { .. })
}

/// Whether a hook of an enabled plugin is called: it has a secret if it needs one, and the permissions that it needs.
fn is_called(
    manifest: &Manifest,
    hook: &DeclaredHook,
    installed: Option<&Installed>,
    secret: Option<&Signing>,
) -> bool {
    match manifest.runtime {
        Runtime::Http { .. } if secret.is_none() => return false,
        Runtime::Http { .. } | Runtime::Native => {}
        Runtime::Container(_) | Runtime::Module(_) => return false,
    }
    // A catalog plugin has every permission that it declares.
    installed.is_none_or(|installed| manifest.needed_by(hook).all(|needed| installed.permissions.contains(&needed)))
}

impl HookedPlugin {
    /// The hooks that are called, each with its index in the manifest.
    pub(crate) fn callable_hooks<'a>(&self, manifest: &'a Manifest) -> impl Iterator<Item = (usize, &'a DeclaredHook)> {
        let (installed, secret) = (self.installed.as_ref(), self.secret.as_ref());
        manifest.hooks.iter().enumerate().filter(move |(_, hook)| is_called(manifest, hook, installed, secret))
    }
}

impl Instance {
    fn calls_hook(&self, manifest: &Manifest, hook: &DeclaredHook) -> bool {
        is_called(manifest, hook, self.installed.as_ref(), self.hook_secret.as_ref())
    }

    /// Recomputes whether the plugin belongs into the list of hooks: its manifest may differ from the one at the last change.
    pub(in crate::registry) fn note_hooks(&mut self, manifest: &Manifest) {
        let enabled = self.was_enabled() && !self.is_disabled();
        self.has_hooks = enabled && manifest.hooks.iter().any(|hook| self.calls_hook(manifest, hook));
    }

    /// The hooks of its plugin, for administrators.
    pub(in crate::registry) fn hook_views(&self, manifest: &Manifest) -> Vec<HookView> {
        let view = |hook: &DeclaredHook| HookView {
            on: hook.on,
            priority: hook.priority,
            timeout_ms: hook.timeout_ms,
            on_failure: hook.on_failure,
            tools: hook.tools.clone(),
            asked: self.has_hooks && self.calls_hook(manifest, hook),
        };
        manifest.hooks.iter().map(view).collect()
    }

    /// Its entry in the list of hooks, if it has one.
    fn index_entry(&self) -> Option<HookedPlugin> {
        self.has_hooks.then(|| HookedPlugin {
            installed: self.installed.clone(),
            config: self.config.clone(),
            secret: self.hook_secret.clone(),
        })
    }

    /// Everything that the entry depends on.
    fn entry_inputs(&self) -> impl PartialEq + '_ {
        let enabled = (self.was_enabled(), self.is_disabled());
        (&self.installed, &self.config, &self.hook_secret, enabled, self.has_hooks)
    }
}

/// What a change of an instance writes to the list of hooks, if anything. Sets `after.has_hooks`.
pub(in crate::registry) async fn index_update(
    engine: &Engine,
    org: &OrgId,
    manifest: &Manifest,
    before: &Instance,
    after: &mut Instance,
) -> Result<Option<Write>, Error> {
    if after.entry_inputs() == before.entry_inputs() {
        return Ok(None);
    }
    after.note_hooks(manifest);
    index_write(engine, org, &manifest.name, before, after.index_entry()).await
}

/// What uninstalling a plugin writes to the list of hooks, if anything.
pub(in crate::registry) async fn index_removal(
    engine: &Engine,
    org: &OrgId,
    name: &PluginName,
    before: &Instance,
) -> Result<Option<Write>, Error> {
    index_write(engine, org, name, before, None).await
}

/// The write after which `entry` is the plugin's entry in the list. The list is not read if it has no entry and needs none.
async fn index_write(
    engine: &Engine,
    org: &OrgId,
    name: &PluginName,
    before: &Instance,
    entry: Option<HookedPlugin>,
) -> Result<Option<Write>, Error> {
    if entry.is_none() && !before.has_hooks {
        return Ok(None);
    }
    let key = keys::hooks(org);
    let item = engine.ports.table.get(&key, Read::Consistent).await?;
    let mut index: HookIndex = item.as_ref().map(Item::record).transpose()?.unwrap_or_default();
    let current = match &entry {
        Some(entry) => index.plugins.insert(name.clone(), entry.clone()),
        None => index.plugins.remove(name),
    };
    if current == entry {
        return Ok(None);
    }
    if index.plugins.len() > HOOKED_MAX {
        return Err(Error::Conflict(format!(
            "{HOOKED_MAX} plugins of the organization have hooks already, which is the most; disable one of them first"
        )));
    }
    let condition = item.map_or(Condition::Absent, |item| Condition::Version(item.version));
    Ok(Some(if index.plugins.is_empty() {
        Write::Delete(key, condition)
    } else {
        Write::Put(NewItem::new(key, &index)?, condition)
    }))
}
