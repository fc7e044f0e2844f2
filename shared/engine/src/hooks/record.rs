//! Whose hooks an organization has: one item, written in one transaction with each change of a plugin that concerns it, so
//! that an intent finds all of them in its one read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::HOOKED_MAX;
use crate::engine::Engine;
use crate::error::Error;
use crate::ids::{OrgId, PluginName};
use crate::instances::{Installed, Instance};
use crate::keys;
use crate::manifest::{DeclaredHook, Manifest, Runtime};
use crate::ports::table::{Condition, Item, NewItem, Read, TableError, Write};
use crate::webhooks::signing::Signing;

/// Every plugin of an organization whose hooks are asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Hooked {
    pub plugins: BTreeMap<PluginName, HookedPlugin>,
}

/// One of them, as the organization has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct HookedPlugin {
    /// Which version of a registered plugin; the catalog's have none.
    pub installed: Option<Installed>,
    /// What the organization set, without secrets.
    pub config: Map<String, Value>,
    /// What signs, where it is asked over HTTP.
    pub secret: Option<Signing>,
}

impl HookedPlugin {
    /// Whether a hook is asked: it has what it needs, and an administrator granted that.
    pub(super) fn asks(&self, manifest: &Manifest, hook: &DeclaredHook) -> bool {
        let granted = self.installed.as_ref().map(|installed| &installed.permissions);
        match manifest.runtime {
            Runtime::Http { .. } if self.secret.is_none() => return false,
            Runtime::Http { .. } | Runtime::Native => {}
            Runtime::Container(_) | Runtime::Module(_) => return false,
        }
        // What the operator brought has all that it asks for.
        granted.is_none_or(|granted| manifest.needed_by(hook).all(|needed| granted.contains(&needed)))
    }
}

impl Instance {
    /// Says whether it is to stand in the list of its organization's hooks: its manifest may be another than when that was
    /// last said.
    pub(crate) fn note_hooks(&mut self, manifest: &Manifest) {
        self.has_hooks = self.hooked(manifest).is_some();
    }

    /// What stands of it in the list of hooks, if anything does.
    fn hooked(&self, manifest: &Manifest) -> Option<HookedPlugin> {
        if !self.was_enabled() || self.is_disabled() {
            return None;
        }
        let (installed, config) = (self.installed.clone(), self.config.clone());
        let hooked = HookedPlugin { installed, config, secret: self.hook_secret.clone() };
        manifest.hooks.iter().any(|hook| hooked.asks(manifest, hook)).then_some(hooked)
    }

    /// What its hooks are about.
    fn about_hooks(&self) -> impl PartialEq + '_ {
        (&self.installed, &self.config, &self.hook_secret, self.was_enabled(), self.is_disabled())
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
            if after.about_hooks() == before.about_hooks() && after.has_hooks == before.has_hooks {
                return Ok(None);
            }
            after.note_hooks(manifest);
            after.hooked(manifest)
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

pub(super) fn hooked_in(item: Option<&Item>) -> Result<Hooked, TableError> {
    item.map_or_else(|| Ok(Hooked::default()), Item::record)
}
