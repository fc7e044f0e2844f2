//! The stored record of an instance, and what follows from it without reading anything else.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

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

/// The stored record. Missing fields and a missing record mean that the organization set nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Instance {
    pub(in crate::registry) disabled: Option<Disabled>,
    pub(super) read: Circuit,
    pub(super) write: Circuit,
    pub(super) breaker: BreakerLimits,
    pub(super) record_reads: bool,
    /// The version of a registered plugin that the organization uses; catalog plugins have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<Installed>,
    /// What the organization set over the plugin's own configuration, without secrets.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// The secrets of the configuration, which are in the vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<ConfigSecrets>,
    /// The version before the present one, for a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<PreviousInstall>,
    /// Whether an administrator enabled a catalog plugin, rather than its own `default_enabled`.
    pub(in crate::registry) enabled: bool,
    /// Signs the requests to its hooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_secret: Option<Signing>,
    /// Whether the plugin is in the organization's list of hooks (`HookIndex`).
    pub has_hooks: bool,
}

/// Names the secrets of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigSecrets {
    /// The vault's id of the one secret that holds all of them as JSON.
    pub id: String,
    /// Their names.
    pub names: BTreeSet<String>,
}

/// The version that was in use before an upgrade or rollback, with its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreviousInstall {
    pub installed: Installed,
    pub config: Map<String, Value>,
}

/// The version of a registered plugin that an organization uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub scope: RegistryScope,
    pub version: semver::Version,
    pub digest: Digest,
    /// The permissions of the manifest that an administrator granted (see `registry::permissions`).
    pub permissions: BTreeSet<Permission>,
    /// Since when the organization uses it.
    pub at: Timestamp,
}

/// An administrator disabled the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// When.
    pub at: Timestamp,
    /// The administrator, if the API key is bound to a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// The administrator's API key.
    pub key: KeyId,
    /// The reason that the administrator gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether calls of one class may use the plugin, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Availability {
    Available,
    /// One call may, as the trial of an open breaker.
    OnTrial,
    /// No: the breaker is open until then.
    OpenUntil(Timestamp),
    /// No: another call has the trial.
    TrialInProgress,
    /// No: an administrator disabled the plugin, for this reason.
    Disabled(Option<String>),
    /// No: the plugin is not enabled by default, and no administrator enabled it.
    NotEnabled,
}

/// An instance with the version of the item that it was read from.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoadedInstance {
    pub instance: Instance,
    pub version: Option<Version>,
}

impl LoadedInstance {
    pub(crate) fn of(item: Option<Item>) -> Result<Self, TableError> {
        let Some(item) = item else { return Ok(Self::default()) };
        Ok(Self { instance: item.record()?, version: Some(item.version) })
    }
}

impl Instance {
    pub(crate) fn in_use(&self, manifest: &Manifest, class: ActionClass, now: Timestamp) -> Availability {
        if let Some(disabled) = &self.disabled {
            return Availability::Disabled(disabled.reason.clone());
        }
        if self.is_off(manifest) {
            return Availability::NotEnabled;
        }
        match self.circuit(class).gate(now) {
            Gate::Closed => Availability::Available,
            Gate::HalfOpen => Availability::OnTrial,
            Gate::Open(until) => Availability::OpenUntil(until),
            Gate::TrialInProgress => Availability::TrialInProgress,
        }
    }

    /// Whether the ledger records reads as well.
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

    /// The breakers' limits: the organization's, then the plugin's, then the usual ones.
    pub(crate) fn limits(&self, manifest: &Manifest) -> BreakerLimits {
        self.breaker.or(manifest.breaker).or(BreakerLimits::USUAL)
    }

    /// Since when an administrator has disabled it, and why.
    pub(crate) fn paused(&self) -> Option<(Timestamp, Option<String>)> {
        self.disabled.as_ref().map(|disabled| (disabled.at, disabled.reason.clone()))
    }

    /// Since when a breaker is open, and what the actions do that it covers.
    pub(crate) fn failed(&self, manifest: &Manifest, now: Timestamp) -> Option<(Timestamp, &'static str)> {
        let open = |class, purpose| {
            let breaker = self.breaker(class, manifest, now);
            (breaker.state == BreakerState::Open).then_some((breaker.since?, purpose))
        };
        open(ActionClass::Write, "do something").or_else(|| open(ActionClass::Read, "read"))
    }

    /// Whether an administrator disabled it.
    pub(crate) fn is_disabled(&self) -> bool {
        self.disabled.is_some()
    }

    /// Whether it is enabled. Its breakers may be open all the same.
    pub(crate) fn is_enabled(&self, manifest: &Manifest) -> bool {
        !self.is_disabled() && !self.is_off(manifest)
    }

    /// Whether it is neither enabled by default nor by an administrator.
    pub(crate) fn is_off(&self, manifest: &Manifest) -> bool {
        !manifest.default_enabled && !self.was_enabled()
    }

    /// Whether an administrator enabled it, now or before disabling it.
    pub(crate) fn was_enabled(&self) -> bool {
        self.enabled || self.installed.is_some()
    }

    /// Whether `plugin` is the version that the organization uses. A catalog plugin takes precedence over a registered plugin
    /// of the same name, even one that was registered first.
    pub(crate) fn uses(&self, plugin: &Plugin) -> bool {
        plugin.digest.is_none() || self.installed.as_ref().map(|installed| &installed.digest) == plugin.digest.as_ref()
    }

    /// The cache scope of names that are looked up through an account, or through none. Another version or configuration of a
    /// registered plugin may look them up elsewhere, so its scope includes both.
    pub(crate) fn name_cache_scope(&self, plugin: &Plugin, account: Option<&str>) -> Option<String> {
        let Some(digest) = &plugin.digest else { return account.map(str::to_owned) };
        Some(sha256(json!([digest, self.effective_config(&plugin.manifest), account]).to_string().as_bytes()))
    }

    /// Closes both breakers.
    pub(crate) fn forget_failures(&mut self) {
        (self.read, self.write) = (Circuit::default(), Circuit::default());
    }

    pub(super) fn item(&self, org: &OrgId, manifest: &Manifest) -> Result<NewItem, TableError> {
        let mut item = NewItem::new(keys::instance(org, &manifest.name), self)?;
        let is_set = self.disabled.is_some()
            || self.record_reads
            || self.breaker != BreakerLimits::default()
            || self.was_enabled()
            || self.hook_secret.is_some()
            || !self.config.is_empty()
            || self.secrets.is_some();
        if !is_set {
            let limits = self.limits(manifest);
            // Without anything to remember the item expires at once.
            let until = self.read.remembered_until(limits).max(self.write.remembered_until(limits));
            item.expires_at = Some(until.unwrap_or(Timestamp::UNIX_EPOCH));
        }
        Ok(item)
    }
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are refused without reaching the service.
    Open,
    /// One call passes as a trial.
    HalfOpen,
}
