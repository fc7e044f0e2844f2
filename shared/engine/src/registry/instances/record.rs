//! The stored record, and what follows from it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::core::error::Error;
use crate::core::ids::{KeyId, OrgId, UserId};
use crate::events::signing::Signing;
use crate::plugin::breaker::{ActionClass, BreakerLimits, Circuit, Gate};
use crate::plugin::catalog::Plugin;
use crate::plugin::digest::Digest;
use crate::plugin::manifest::{Manifest, Permission};
use crate::ports::ids::sha256;
use crate::ports::table::{Item, NewItem, TableError, Version};
use crate::registry::RegistryScope;
use crate::storage::keys;

/// The stored record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Instance {
    pub(super) disabled: Option<Disabled>,
    pub(super) read: Circuit,
    pub(super) write: Circuit,
    pub(super) breaker: BreakerLimits,
    pub(super) record_reads: bool,
    /// Which version of a registered plugin the organization uses; the catalog's plugins have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<Installed>,
    /// What the organization set in place of the plugin's own configuration, without secrets.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// The secrets of its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<ConfigSecrets>,
    /// What it used before, to go back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<PreviousInstall>,
    /// Whether an administrator brought a plugin of the catalog into use, and not its own `default_enabled`.
    pub(super) enabled: bool,
    /// What signs when its hooks are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_secret: Option<Signing>,
    /// Whether it stands in the list of the organization's hooks.
    pub has_hooks: bool,
}

/// Where the secrets of a configuration are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigSecrets {
    /// Names the secret in the vault, which holds all of them.
    pub id: String,
    /// Which there are.
    pub names: BTreeSet<String>,
}

/// A version that was in use, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreviousInstall {
    pub installed: Installed,
    pub config: Map<String, Value>,
}

/// Which version of a registered plugin an organization uses, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub scope: RegistryScope,
    pub version: semver::Version,
    pub digest: Digest,
    /// What of the manifest's permissions an administrator granted.
    pub permissions: BTreeSet<Permission>,
    /// Since when.
    pub at: Timestamp,
}

/// An administrator took the plugin out of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// When.
    pub at: Timestamp,
    /// The administrator, as a user, where the key is bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// With which API key.
    pub key: KeyId,
    /// Why, in the administrator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether a call may go, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InUse {
    Yes,
    /// If it is the one that tries.
    OnTrial,
    /// The breaker is open until then.
    OpenUntil(Timestamp),
    /// Another is trying.
    TrialInProgress,
    /// An administrator took it out of use, for this reason.
    Disabled(Option<String>),
    /// It is one that is not in use by itself, and nobody brought it into use.
    Off,
}

/// An instance as it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenInstance {
    pub instance: Instance,
    pub version: Option<Version>,
}

impl SeenInstance {
    pub(crate) fn of(item: Option<Item>) -> Result<Self, TableError> {
        let Some(item) = item else { return Ok(Self::default()) };
        Ok(Self { instance: item.record()?, version: Some(item.version) })
    }
}

impl Instance {
    pub(crate) fn in_use(&self, manifest: &Manifest, class: ActionClass, now: Timestamp) -> InUse {
        if let Some(disabled) = &self.disabled {
            return InUse::Disabled(disabled.reason.clone());
        }
        if self.is_off(manifest) {
            return InUse::Off;
        }
        match self.circuit(class).gate(now) {
            Gate::Closed => InUse::Yes,
            Gate::HalfOpen => InUse::OnTrial,
            Gate::Open(until) => InUse::OpenUntil(until),
            Gate::TrialInProgress => InUse::TrialInProgress,
        }
    }

    /// Whether reads are to be in the ledger as well.
    pub(crate) fn records_reads(&self) -> bool {
        self.record_reads
    }

    pub(super) fn circuit(&self, class: ActionClass) -> &Circuit {
        match class {
            ActionClass::Read => &self.read,
            ActionClass::Write => &self.write,
        }
    }

    pub(super) fn circuit_mut(&mut self, class: ActionClass) -> &mut Circuit {
        match class {
            ActionClass::Read => &mut self.read,
            ActionClass::Write => &mut self.write,
        }
    }

    /// The limits that count here: the organization's before the plugin's.
    pub(crate) fn limits(&self, manifest: &Manifest) -> BreakerLimits {
        self.breaker.or(manifest.breaker).or(BreakerLimits::USUAL)
    }

    /// Since when an administrator has taken it out of use, and why.
    pub(crate) fn paused(&self) -> Option<(Timestamp, Option<String>)> {
        self.disabled.as_ref().map(|disabled| (disabled.at, disabled.reason.clone()))
    }

    /// Since when a breaker is open, and what the actions do that it is for.
    pub(crate) fn failed(&self, manifest: &Manifest, now: Timestamp) -> Option<(Timestamp, &'static str)> {
        let open = |class, what| {
            let breaker = self.breaker(class, manifest, now);
            (breaker.state == BreakerState::Open).then_some((breaker.since?, what))
        };
        open(ActionClass::Write, "do something").or_else(|| open(ActionClass::Read, "read"))
    }

    /// Grants these permissions of a plugin, and no other. What is taken away is taken from the version before as well, or
    /// going back would bring it again.
    pub(super) fn grant(&mut self, plugin: &Plugin, permissions: &BTreeSet<Permission>) {
        let Some(installed) = &mut self.installed else { return };
        installed.permissions.clone_from(permissions);
        if let Some(before) = &mut self.before {
            let taken = |permission: &Permission| {
                plugin.manifest.permissions.contains(permission) && !permissions.contains(permission)
            };
            before.installed.permissions.retain(|permission| !taken(permission));
        }
    }

    /// Whether an administrator took it out of use.
    pub(crate) fn is_disabled(&self) -> bool {
        self.disabled.is_some()
    }

    /// Whether it is in use, as far as administrators decide that.
    pub(crate) fn is_enabled(&self, manifest: &Manifest) -> bool {
        !self.is_disabled() && !self.is_off(manifest)
    }

    /// Whether it is not in use because nobody brought it into use.
    pub(crate) fn is_off(&self, manifest: &Manifest) -> bool {
        !manifest.default_enabled && !self.was_enabled()
    }

    /// Whether an administrator brought it into use.
    pub(crate) fn was_enabled(&self) -> bool {
        self.enabled || self.installed.is_some()
    }

    /// Whether this is the plugin that the organization uses by its name. What the operator brought goes before what was
    /// registered, also where that was there first.
    pub(crate) fn uses(&self, plugin: &Plugin) -> bool {
        plugin.digest.is_none() || self.installed.as_ref().map(|installed| &installed.digest) == plugin.digest.as_ref()
    }

    /// What was granted to a plugin that was registered.
    pub(super) fn granted(&self, plugin: &Plugin) -> Option<&BTreeSet<Permission>> {
        let installed = self.installed.as_ref().filter(|_| plugin.digest.is_some());
        installed.map(|installed| &installed.permissions)
    }

    /// The permission that a plugin's calls need and nobody granted. What the operator brought has all that it asks for; of
    /// what was registered, what an administrator granted.
    pub(crate) fn not_granted(&self, plugin: &Plugin) -> Option<Permission> {
        let (granted, manifest) = (self.granted(plugin)?, &plugin.manifest);
        manifest.needed().find(|needed| !granted.contains(needed))
    }

    /// Refuses a plugin whose calls need a permission that nobody granted.
    pub(crate) fn must_be_granted(&self, plugin: &Plugin) -> Result<(), Error> {
        let Some(missing) = self.not_granted(plugin) else { return Ok(()) };
        let name = &plugin.manifest.name;
        Err(Error::Forbidden(format!(
            "{name} was not granted the permission {missing}; an administrator grants it with PATCH /api/v1/plugins/{name}"
        )))
    }

    /// What names that are looked up through an account, or through none, count for: of a plugin that organizations bring,
    /// for its version and configuration alone, which may have it look elsewhere.
    pub(crate) fn names_seen_by(&self, plugin: &Plugin, account: Option<&str>) -> Option<String> {
        let Some(digest) = &plugin.digest else { return account.map(str::to_owned) };
        Some(sha256(json!([digest, self.effective_config(&plugin.manifest), account]).to_string().as_bytes()))
    }

    /// Closes both breakers.
    pub(crate) fn forget_failures(&mut self) {
        (self.read, self.write) = (Circuit::default(), Circuit::default());
    }

    pub(super) fn item(&self, org: &OrgId, manifest: &Manifest) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::instance(org, &manifest.name), self)?;
        let set = self.disabled.is_some()
            || self.record_reads
            || self.breaker != BreakerLimits::default()
            || self.was_enabled()
            || self.hook_secret.is_some()
            || !self.config.is_empty()
            || self.secrets.is_some();
        if !set {
            let limits = self.limits(manifest);
            // What there is nothing to remember of is gone at once.
            let until = self.read.remembered_until(limits).max(self.write.remembered_until(limits));
            item.expires_at = Some(until.unwrap_or(Timestamp::UNIX_EPOCH));
        }
        Ok(item)
    }
}

/// Where a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go.
    Closed,
    /// Calls are answered at once.
    Open,
    /// The next call goes, to try.
    HalfOpen,
}
