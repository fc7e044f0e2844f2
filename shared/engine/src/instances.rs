//! A plugin as one organization has it: whether it is in use, its breaker, and what the organization set. One record,
//! which an intent reads together with everything else that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::breaker::{ActionClass, BreakerLimits, Circuit, Gate, Shown, Turned};
use crate::catalog::Plugin;
use crate::engine::Engine;
use crate::error::{Error, FieldProblem, causes};
use crate::hooks::{HookView, hooks_changed, must_be_signable};
use crate::ids::{KeyId, OrgId, PluginName, UserId};
use crate::keys;
use crate::manifest::{Manifest, Permission};
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, Item, NewItem, Query, Range, Read, TableError, Version, Write};
use crate::principal::Principal;
use crate::registry::{Digest, Install, Life, RegistryScope, check_config, granted, meanwhile};
use crate::webhooks::signing::Signing;

/// How often a change is tried while others change the same record. Each time that it fails, another was written: of
/// failures at most a hundred for each breaker, which is then open and counts no more.
const TRIES: usize = 250;
/// Instances that are read at once.
const PAGE: usize = 100;
/// The longest reason for taking a plugin out of use, in characters.
pub const REASON_MAX: usize = 500;

/// The stored record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Instance {
    disabled: Option<Disabled>,
    read: Circuit,
    write: Circuit,
    breaker: BreakerLimits,
    record_reads: bool,
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
    pub before: Option<Before>,
    /// Whether an administrator brought a plugin of the catalog into use, and not its own `default_enabled`.
    enabled: bool,
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
pub(crate) struct Before {
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
    Tried,
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

/// The right to try a plugin that is out of use, for one caller: until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trial(Timestamp);

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
            Gate::Tried => InUse::Tried,
        }
    }

    /// Whether reads are to be in the ledger as well.
    pub(crate) fn records_reads(&self) -> bool {
        self.record_reads
    }

    fn circuit(&self, class: ActionClass) -> &Circuit {
        match class {
            ActionClass::Read => &self.read,
            ActionClass::Write => &self.write,
        }
    }

    fn circuit_mut(&mut self, class: ActionClass) -> &mut Circuit {
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
    fn grant(&mut self, plugin: &Plugin, permissions: &BTreeSet<Permission>) {
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
    fn granted(&self, plugin: &Plugin) -> Option<&BTreeSet<Permission>> {
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

    fn item(&self, org: &OrgId, manifest: &Manifest) -> Result<NewItem, TableError> {
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

/// A plugin as it is shown to the organization's administrators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceView {
    /// The plugin.
    pub name: PluginName,
    /// What people call it.
    pub display_name: String,
    /// Its version.
    pub version: String,
    /// Whether it is in use, as far as administrators decide that.
    pub enabled: bool,
    /// Where it is in its life.
    pub life: Life,
    /// Who took it out of use, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// Of a registered plugin, for whom it was registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<RegistryScope>,
    /// Of a registered plugin, the permissions that were granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<BTreeSet<Permission>>,
    /// Of a registered plugin, those that it has and that nobody granted: calls that need them are refused.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub to_grant: BTreeSet<Permission>,
    /// The version that it can be rolled back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<String>,
    /// Whether reads are in the ledger as well.
    pub record_reads: bool,
    /// The breaker of the actions that read, and of those that do more.
    pub breaker: Breakers,
    /// The moments at which it is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookView>,
    #[serde(skip)]
    pub(crate) hook_secret: Option<Signing>,
}

/// The breakers of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breakers {
    /// Of actions that only read.
    pub read: BreakerView,
    /// Of all other actions.
    pub write: BreakerView,
    /// When they open.
    pub limits: BreakerLimits,
}

/// A breaker as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerView {
    /// Where it is.
    pub state: BreakerState,
    /// The failures that count at the moment.
    pub failures: usize,
    /// Since when it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When one call is let through to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
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

/// Takes a plugin out of use.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disable {
    /// Why: agents are told. At most 500 characters.
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
}

/// What an organization sets of a plugin. What is left out stays.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetInstance {
    /// When the breaker opens, in the place of all that was set before; where it says nothing, the plugin does.
    pub breaker: Option<BreakerLimits>,
    /// Whether reads are in the ledger as well.
    pub record_reads: Option<bool>,
    /// The permissions that a registered plugin has, in the place of all that were granted before.
    #[schemars(with = "Option<Vec<String>>")]
    pub permissions: Option<BTreeSet<Permission>>,
}

impl Instance {
    fn shown(&self, plugin: &Plugin, now: Timestamp) -> InstanceView {
        let manifest = &plugin.manifest;
        let granted = self.granted(plugin);
        InstanceView {
            scope: self.installed.as_ref().filter(|_| plugin.digest.is_some()).map(|installed| installed.scope),
            to_grant: granted.map(|granted| manifest.not_among(granted)).unwrap_or_default(),
            permissions: granted.cloned(),
            previous_version: self.before.as_ref().map(|before| before.installed.version.to_string()),
            name: manifest.name.clone(),
            display_name: manifest.display_name.clone(),
            version: manifest.version.to_string(),
            life: self.life(plugin, now),
            enabled: !self.is_disabled() && !self.is_off(manifest),
            disabled: self.disabled.clone(),
            record_reads: self.record_reads,
            breaker: self.breakers(manifest, now),
            hooks: self.hooks_shown(manifest),
            hook_secret: self.hook_secret.clone(),
        }
    }

    fn breakers(&self, manifest: &Manifest, now: Timestamp) -> Breakers {
        let limits = self.limits(manifest);
        let breaker = |circuit: &Circuit| {
            let (state, retry_at) = match circuit.gate(now) {
                Gate::Closed => (BreakerState::Closed, None),
                Gate::HalfOpen | Gate::Tried => (BreakerState::HalfOpen, None),
                Gate::Open(until) => (BreakerState::Open, Some(until)),
            };
            BreakerView { state, failures: circuit.counted(limits, now), since: circuit.open_since(), retry_at }
        };
        Breakers { read: breaker(&self.read), write: breaker(&self.write), limits }
    }

    /// One of its breakers as it is shown.
    pub(crate) fn breaker(&self, class: ActionClass, manifest: &Manifest, now: Timestamp) -> BreakerView {
        let Breakers { read, write, limits: _ } = self.breakers(manifest, now);
        match class {
            ActionClass::Read => read,
            ActionClass::Write => write,
        }
    }
}

impl Engine {
    /// The plugins as the organization has them.
    pub async fn list_instances(&self, principal: &Principal) -> Result<Vec<InstanceView>, Error> {
        principal.must_operate()?;
        let now = self.ports.clock.now();
        let plugins = self.plugins_of(&principal.org, Read::Eventual).await?;
        Ok(plugins.iter().map(|(plugin, instance)| instance.shown(plugin, now)).collect())
    }

    /// Every plugin that an organization has, by name, each with its instance: the catalog's, and what it enabled of what is
    /// registered.
    pub(crate) async fn plugins_of(&self, org: &OrgId, read: Read) -> Result<Vec<(Arc<Plugin>, Instance)>, Error> {
        let mut instances = BTreeMap::new();
        let (partition, prefix) = keys::instances(org);
        let mut cursor = None;
        loop {
            let range = Range::Prefix(prefix.to_owned());
            let query = Query { range, cursor, read, ..Query::partition(partition.as_str(), PAGE) };
            let page = self.ports.table.query(query).await?;
            for item in page.entries {
                let name = item.stored.key.sort.strip_prefix(prefix).and_then(|name| PluginName::parse(name).ok());
                if let Some(name) = name {
                    instances.insert(name, SeenInstance::of(Some(item))?.instance);
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let mut plugins = BTreeMap::new();
        for plugin in self.catalog.plugins() {
            let instance = instances.remove(&plugin.manifest.name).unwrap_or_default();
            plugins.insert(plugin.manifest.name.clone(), (plugin, instance));
        }
        for (name, instance) in instances {
            if let Some(installed) = &instance.installed {
                match self.loaded(org, &name, installed).await {
                    Ok(plugin) => {
                        plugins.insert(name, (plugin, instance));
                    }
                    // One that does not read must not hide the others.
                    Err(error) => {
                        tracing::error!(%org, plugin = %name, error = %causes(&error), "a plugin is left out");
                    }
                }
            }
        }
        Ok(plugins.into_values().collect())
    }

    /// Refuses a plugin whose calls need a permission that nobody granted, for whoever has not read its instance.
    pub(crate) async fn must_be_granted(&self, org: &OrgId, plugin: &Plugin) -> Result<(), Error> {
        if plugin.digest.is_none() {
            return Ok(());
        }
        let item = self.ports.table.get(&keys::instance(org, &plugin.manifest.name), Read::Consistent).await?;
        SeenInstance::of(item)?.instance.must_be_granted(plugin)
    }

    /// A plugin as the organization has it.
    pub async fn get_instance(&self, principal: &Principal, plugin: &str) -> Result<InstanceView, Error> {
        principal.must_operate()?;
        let (plugin, seen) = self.plugin_and_instance(&principal.org, plugin).await?;
        Ok(seen.instance.shown(&plugin, self.ports.clock.now()))
    }

    /// Takes a plugin out of use for the organization, until an administrator brings it back.
    pub async fn disable_plugin(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        asked: Disable,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        if asked.reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_MAX) {
            return Err(Error::field("/reason", format!("must have at most {REASON_MAX} characters")));
        }
        let disabled = Disabled {
            at: self.ports.clock.now(),
            by: principal.user.clone(),
            key: principal.key.clone(),
            reason: asked.reason,
        };
        let plugin = self.plugin_now(&principal.org, plugin).await?;
        self.nobody_may_need(&principal.org, &plugin.manifest.name).await?;
        self.administer(principal, plugin, (EventKind::PluginDisabled, json!({})), move |instance| {
            instance.disabled = Some(disabled.clone());
            Ok(())
        })
        .await
    }

    /// Brings a plugin into use: a registered one that the organization does not use yet, or one that was taken out of use,
    /// whoever or whatever did so.
    pub async fn enable_plugin(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        asked: Install,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let (plugin, first) = match self.plugin_now(&principal.org, plugin).await {
            Ok(plugin) => {
                self.must_have_its_way(&principal.org, &plugin.manifest).await?;
                (plugin, None)
            }
            Err(Error::UnknownPlugin { .. }) => {
                let (plugin, first) = self.first_install(principal, plugin, &asked).await?;
                (plugin, Some(first))
            }
            Err(error) => return Err(error),
        };
        let manifest = &plugin.manifest;
        if asked.version.as_ref().is_some_and(|version| *version != manifest.version) {
            return Err(Error::Conflict(if plugin.digest.is_some() {
                format!("{} is in use at {}; POST …/upgrade changes that", manifest.name, manifest.version)
            } else {
                format!("{} comes with Overseer, at {}", manifest.name, manifest.version)
            }));
        }
        if plugin.digest.is_none() && asked.scope.is_some() {
            return Err(Error::field("/scope", format!("{} comes with Overseer; leave it out", manifest.name)));
        }
        if let Some(config) = &asked.config {
            check_config(manifest, config, "/config").map_err(Error::Invalid)?;
        }
        let permissions = granted(&plugin, asked.permissions.as_ref())?;
        let said = json!({ "version": manifest.version });
        // What the operator brought has all that it asks for.
        let brought = plugin.digest.is_none().then(|| manifest.permissions.iter().cloned().collect::<BTreeSet<_>>());
        let of = Arc::clone(&plugin);
        self.administer_any(principal, plugin, (EventKind::PluginEnabled, said), move |instance| {
            if let (standing @ None, Some(first)) = (&mut instance.installed, &first) {
                *standing = Some(first.clone());
            }
            if !instance.uses(&of) {
                return Err(meanwhile());
            }
            if let Some(permissions) = permissions.as_ref().or(brought.as_ref()) {
                must_be_signable(&of.manifest, permissions, instance)?;
            }
            if let (Some(asked), Some(installed)) = (asked.scope, &instance.installed)
                && asked != installed.scope
            {
                return Err(Error::field("/scope", "is another than that of the plugin in use; leave it out"));
            }
            if let Some(permissions) = &permissions {
                instance.grant(of.as_ref(), permissions);
            }
            if let Some(config) = &asked.config {
                instance.config.clone_from(config);
            }
            // Of the catalog's, what is in use by itself and asks nothing of its own needs no record.
            let by_itself = of.manifest.default_enabled && of.manifest.hooks.is_empty();
            instance.enabled = of.digest.is_none() && !by_itself;
            instance.disabled = None;
            instance.forget_failures();
            instance.note_hooks(&of.manifest);
            Ok(())
        })
        .await
    }

    /// Closes the breakers of a plugin, and forgets its failures.
    pub async fn reset_breaker(self: &Arc<Self>, principal: &Principal, plugin: &str) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let plugin = self.plugin_now(&principal.org, plugin).await?;
        self.administer(principal, plugin, (EventKind::PluginReset, json!({})), |instance| {
            instance.forget_failures();
            Ok(())
        })
        .await
    }

    /// Sets what an organization may set of a plugin.
    pub async fn set_instance(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        asked: SetInstance,
    ) -> Result<InstanceView, Error> {
        principal.must_administer()?;
        let found = self.plugin_now(&principal.org, plugin).await?;
        let manifest = &found.manifest;
        let together = asked.breaker.unwrap_or_default().or(manifest.breaker);
        let problem = |(field, message)| FieldProblem::new(format!("/breaker/{field}"), message);
        let problems: Vec<_> = together.problems().into_iter().map(problem).collect();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let permissions = granted(&found, asked.permissions.as_ref())?;
        let of = Arc::clone(&found);
        self.administer(principal, found, (EventKind::PluginConfigured, json!({})), move |instance| {
            instance.breaker = asked.breaker.unwrap_or(instance.breaker);
            instance.record_reads = asked.record_reads.unwrap_or(instance.record_reads);
            if let Some(permissions) = &permissions {
                must_be_signable(&of.manifest, permissions, instance)?;
                instance.grant(&of, permissions);
                instance.note_hooks(&of.manifest);
            }
            Ok(())
        })
        .await
    }

    /// Changes an instance in an administrator's name, and says so: of which kind the event is, and what it says beside the
    /// plugin and who did it. Nothing is changed where `change` fails.
    pub(crate) async fn administer(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        said: (EventKind, Value),
        change: impl Fn(&mut Instance) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<InstanceView, Error> {
        let of = Arc::clone(&plugin);
        self.administer_any(principal, plugin, said, move |instance| {
            // What was decided was decided of the version that was looked at.
            if !instance.uses(&of) {
                return Err(meanwhile());
            }
            change(instance)
        })
        .await
    }

    /// As [`Self::administer`], whichever version is in use.
    pub(crate) async fn administer_any(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        said: (EventKind, Value),
        change: impl Fn(&mut Instance) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<InstanceView, Error> {
        let instance = self.change_as(principal, Arc::clone(&plugin), None, said, change).await?;
        Ok(instance.shown(&plugin, self.ports.clock.now()))
    }

    /// As [`Self::administer`], beginning with what was `seen`. Gives the instance as it is then.
    pub(crate) async fn change_as(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        seen: Option<SeenInstance>,
        (kind, said): (EventKind, Value),
        change: impl Fn(&mut Instance) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<Instance, Error> {
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.to_its_end(async move {
            let manifest = &plugin.manifest;
            let change = |instance: &mut Instance| {
                let mut changed = instance.clone();
                change(&mut changed)?;
                *instance = changed;
                Ok::<(), Error>(())
            };
            let mut detail = json!({ "tool": manifest.name, "key": principal.key, "userId": principal.user });
            if let (Some(detail), Value::Object(said)) = (detail.as_object_mut(), said) {
                detail.extend(said);
            }
            let event = |_: &Instance, _: &Result<(), Error>| Some(engine.event(&principal.org, kind, &detail));
            let changed = engine.change_instance(&principal.org, manifest, seen, change, event).await?;
            let (instance, said_so, _) = changed;
            said_so?;
            engine.remember_installed(&principal.org, &manifest.name, instance.installed.as_ref());
            Ok(instance)
        })
        .await
    }

    /// Changes an instance by compare and set, beginning with what was `seen`. `change` may be called several times; where
    /// it changes nothing, nothing is written. Gives the instance as it is then, and whether it was written; what `event`
    /// says of that is written with it, and published.
    async fn change_instance<T: Send>(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: Option<SeenInstance>,
        change: impl Fn(&mut Instance) -> T + Send,
        event: impl Fn(&Instance, &T) -> Option<Event> + Send,
    ) -> Result<(Instance, T, bool), Error> {
        let key = keys::instance(org, &manifest.name);
        let mut seen = match seen {
            Some(seen) => seen,
            None => SeenInstance::of(self.ports.table.get(&key, Read::Consistent).await?)?,
        };
        for _ in 0..TRIES {
            let mut instance = seen.instance.clone();
            let said = change(&mut instance);
            if instance == seen.instance {
                return Ok((instance, said, false));
            }
            let condition = seen.version.clone().map_or(Condition::Absent, Condition::Version);
            let hooks = (&manifest.name, &seen.instance, Some(&mut instance));
            let hooks = hooks_changed(self, org, Some(manifest), hooks).await?;
            let event = event(&instance, &said);
            let put = Write::Put(instance.item(org, manifest)?, condition);
            match self.transact_with([put].into_iter().chain(hooks).collect(), event.as_ref()).await {
                Ok(_) => {
                    if let Some(event) = event {
                        self.publish(event).await;
                    }
                    return Ok((instance, said, true));
                }
                Err(TableError::Condition { index: 0, standing }) => {
                    seen = SeenInstance::of(standing.map(|item| *item))?;
                }
                // Somebody else changed the list of hooks.
                Err(TableError::Condition { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Conflict(format!("the plugin {} changes all the time; try again", manifest.name)))
    }

    /// Takes the right to try a plugin that is out of use; or says how it is, where that is not to be had.
    pub(crate) async fn begin_trial(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: SeenInstance,
        class: ActionClass,
        until: Timestamp,
    ) -> Result<Result<Trial, InUse>, Error> {
        let now = self.ports.clock.now();
        let try_it = |instance: &mut Instance| {
            let in_use = instance.in_use(manifest, class, now);
            if in_use == InUse::OnTrial {
                instance.circuit_mut(class).begin_trial(until);
            }
            in_use
        };
        let begun = self.change_instance(org, manifest, Some(seen), try_it, |_, _| None);
        Ok(match begun.await? {
            (_, InUse::OnTrial, true) => Ok(Trial(until)),
            (_, in_use, _) => Err(in_use),
        })
    }

    /// Counts what a call showed. Nothing is written for a success, unless it is a trial's. What cannot be counted is logged.
    pub(crate) async fn note_shown(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: SeenInstance,
        (class, trial): (ActionClass, Option<Trial>),
        shown: Shown,
    ) {
        if shown != Shown::Fails && trial.is_none() {
            return;
        }
        // What was read before the call is of no use for a trial: it was changed by its beginning.
        let seen = Some(seen).filter(|_| trial.is_none());
        let now = self.ports.clock.now();
        let note = |instance: &mut Instance| {
            let limits = instance.limits(manifest);
            let circuit = instance.circuit_mut(class);
            let on_trial = trial.is_some_and(|Trial(until)| circuit.is_trial(until));
            if trial.is_some() && !on_trial {
                return Turned::Nothing;
            }
            circuit.note(shown, on_trial, limits, now)
        };
        let event = |instance: &Instance, turned: &Turned| {
            let kind = match turned {
                Turned::Nothing => return None,
                Turned::Opened => EventKind::BreakerOpened,
                Turned::Closed => EventKind::BreakerClosed,
            };
            let breaker = instance.breaker(class, manifest, now);
            let detail = json!({ "tool": manifest.name, "class": class, "retryAt": breaker.retry_at });
            Some(self.event(org, kind, &detail))
        };
        if let Err(error) = self.change_instance(org, manifest, seen, note, event).await {
            tracing::error!(%org, plugin = %manifest.name, error = %causes(&error), "the breaker was not told");
        }
    }
}
