//! Whose hooks an organization has: one item, written in one transaction with each change of a plugin that concerns it, so
//! that an intent finds all of them in its one read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::HOOKED_MAX;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::engine::Engine;
use crate::events::signing::Signing;
use crate::plugin::manifest::{DeclaredHook, Hook, Manifest, OnFailure, Runtime};
use crate::ports::table::{Condition, Item, NewItem, Read, TableError, Write};
use crate::registry::instances::{Installed, Instance};
use crate::storage::keys;

/// Every plugin of an organization whose hooks are asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HookIndex {
    pub plugins: BTreeMap<PluginName, HookedPlugin>,
}

/// One of them, as the organization has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HookedPlugin {
    /// Which version of a registered plugin; the catalog's have none.
    pub installed: Option<Installed>,
    /// What the organization set, without secrets.
    pub config: Map<String, Value>,
    /// What signs, where it is asked over HTTP.
    pub secret: Option<Signing>,
}

/// Whether a hook is asked, of a plugin that is in use: it has what it needs, and an administrator granted that.
pub(crate) fn is_asked(
    manifest: &Manifest,
    hook: &DeclaredHook,
    (installed, secret): (Option<&Installed>, Option<&Signing>),
) -> bool {
    match manifest.runtime {
        Runtime::Http { .. } if secret.is_none() => return false,
        Runtime::Http { .. } | Runtime::Native => {}
        Runtime::Container(_) | Runtime::Module(_) => return false,
    }
    // What the operator brought has all that it asks for.
    installed.is_none_or(|installed| manifest.needed_by(hook).all(|needed| installed.permissions.contains(&needed)))
}

impl HookedPlugin {
    /// The hooks that are asked, each with its place in the manifest.
    pub(crate) fn asked<'a>(&self, manifest: &'a Manifest) -> impl Iterator<Item = (usize, &'a DeclaredHook)> {
        let by = (self.installed.as_ref(), self.secret.as_ref());
        manifest.hooks.iter().enumerate().filter(move |(_, hook)| is_asked(manifest, hook, by))
    }
}

impl Instance {
    /// Says whether it is to stand in the list of its organization's hooks: its manifest may be another than when that was
    /// last said.
    pub(crate) fn note_hooks(&mut self, manifest: &Manifest) {
        let by = (self.installed.as_ref(), self.hook_secret.as_ref());
        let in_use = self.was_enabled() && !self.is_disabled();
        self.has_hooks = in_use && manifest.hooks.iter().any(|hook| is_asked(manifest, hook, by));
    }

    /// What stands of it in the list of hooks, if anything does.
    fn hooked(&self) -> Option<HookedPlugin> {
        self.has_hooks.then(|| HookedPlugin {
            installed: self.installed.clone(),
            config: self.config.clone(),
            secret: self.hook_secret.clone(),
        })
    }

    /// What its hooks are about.
    fn about_hooks(&self) -> impl PartialEq + '_ {
        let in_use = (self.was_enabled(), self.is_disabled());
        (&self.installed, &self.config, &self.hook_secret, in_use, self.has_hooks)
    }
}

/// What a change of an instance, or its end, changes in the list of its organization's hooks.
pub(crate) async fn changed(
    engine: &Engine,
    org: &OrgId,
    manifest: Option<&Manifest>,
    (name, before, after): (&PluginName, &Instance, Option<&mut Instance>),
) -> Result<Option<Write>, Error> {
    let wanted = match (manifest, after) {
        (Some(manifest), Some(after)) => {
            if after.about_hooks() == before.about_hooks() {
                return Ok(None);
            }
            after.note_hooks(manifest);
            after.hooked()
        }
        (None, _) | (_, None) => None,
    };
    if wanted.is_none() && !before.has_hooks {
        return Ok(None);
    }
    let key = keys::hooks(org);
    let item = engine.ports.table.get(&key, Read::Consistent).await?;
    let mut hooked = hooked_in(item.as_ref())?;
    let standing = match &wanted {
        Some(wanted) => hooked.plugins.insert(name.clone(), wanted.clone()),
        None => hooked.plugins.remove(name),
    };
    if standing == wanted {
        return Ok(None);
    }
    if hooked.plugins.len() > HOOKED_MAX {
        return Err(Error::Conflict(format!(
            "hooks of {HOOKED_MAX} plugins are asked already, which is the most; disable one of them first"
        )));
    }
    let condition = item.map_or(Condition::Absent, |item| Condition::Version(item.version));
    Ok(Some(if hooked.plugins.is_empty() {
        Write::Delete(key, condition)
    } else {
        Write::Put(NewItem::new(key, &hooked)?, condition)
    }))
}

fn hooked_in(item: Option<&Item>) -> Result<HookIndex, TableError> {
    item.map_or_else(|| Ok(HookIndex::default()), Item::record)
}

/// A hook as administrators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookView {
    /// At which moment.
    pub on: Hook,
    /// Its place among all hooks of the organization, the smaller first.
    pub priority: u32,
    /// The time that it has, in milliseconds.
    pub timeout_ms: u32,
    /// What it means that it failed.
    pub on_failure: OnFailure,
    /// For which tools it is; for all where there are none.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<String>,
    /// Whether it is asked: the plugin is in use, has a secret to sign with if it needs one, and was granted what it needs.
    pub asked: bool,
}
