//! Registering versions of plugins, and deciding whether they can be enabled.

use std::collections::BTreeMap;
use std::sync::Arc;

use semver::Version;
use serde_json::json;
use tracing::debug_span;
use tracing::field::Empty;

use super::record::{ManifestText, RegisteredPlugin, RegistryEntry};
use super::{RegisteredVersion, Registration, RegistrationText, RegistryScope};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::PluginName;
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::digest::Digest;
use crate::plugin::manifest::{Manifest, ManifestError};
use crate::ports::Ids;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Item, Read, Write};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// The most versions of one plugin.
pub const VERSIONS_MAX: usize = 100;
/// Letters and digits of ids.
const ID_DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A manifest to register.
#[derive(Debug, Clone)]
pub struct Register {
    /// Its text, YAML or JSON.
    pub text: String,
    /// Its place in the request, as a JSON pointer, for the problems in an error.
    pub pointer: &'static str,
    /// Who can use it.
    pub scope: RegistryScope,
}

/// A manifest that passed every check that needs no read.
struct CheckedManifest {
    manifest: Manifest,
    text: String,
    digest: Digest,
    scope: RegistryScope,
}

impl CheckedManifest {
    /// What registering gives. The text is what the caller sent.
    fn registration(self, version: RegisteredVersion) -> RegistrationText {
        RegistrationText { name: self.manifest.name, scope: self.scope, version, manifest: self.text }
    }

    /// The version if it is registered already with this text; a conflict if it cannot be registered.
    fn registered_in(&self, registered: &RegisteredPlugin) -> Result<Option<RegisteredVersion>, Error> {
        let Manifest { name, version, .. } = &self.manifest;
        match registered.versions.get(version) {
            Some(entry) if entry.digest == self.digest => Ok(Some(entry.view.clone())),
            Some(_) => Err(Error::Conflict(format!(
                "{name} {version} is registered with another text, and never changes; register a new version"
            ))),
            None if registered.versions.len() >= VERSIONS_MAX => Err(Error::Conflict(format!(
                "{name} has {VERSIONS_MAX} versions, which is the most; register it under another name"
            ))),
            None => Ok(None),
        }
    }
}

impl Engine {
    /// Registers a version of a plugin. Registering the same text again changes nothing. Another text for the same version
    /// is refused, because administrators approved the text that they read.
    pub async fn register(
        self: &Arc<Self>,
        principal: &Principal,
        request: Register,
    ) -> Result<RegistrationText, Error> {
        let span = debug_span!("register", org = %principal.org, outcome = Empty);
        traced(span, async {
            request.scope.must_be_administered_by(principal)?;
            let checked = self.check_manifest(request)?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            self.run_to_completion(async move { engine.store_version(&principal, checked).await }).await
        })
        .await
    }

    fn check_manifest(&self, request: Register) -> Result<CheckedManifest, Error> {
        let Register { text, pointer, scope } = request;
        let problems = |ManifestError(problems): ManifestError| {
            Error::Invalid(problems.into_iter().map(|problem| FieldProblem::new(pointer, problem)).collect())
        };
        let manifest = Manifest::parse_external(&text).map_err(problems)?;
        let undeclared = manifest.needed().filter(|needed| !manifest.permissions.contains(needed));
        let undeclared: Vec<_> =
            undeclared.map(|needed| format!("permissions: add {needed}, where requests for tokens go")).collect();
        if !undeclared.is_empty() {
            return Err(problems(ManifestError(undeclared)));
        }
        if self.catalog.has(&manifest.name) {
            let message = format!("{} is the name of a plugin that comes with Overseer; choose another", manifest.name);
            return Err(Error::Conflict(message));
        }
        Ok(CheckedManifest { digest: Digest::of(&text), manifest, text, scope })
    }

    async fn store_version(&self, principal: &Principal, checked: CheckedManifest) -> Result<RegistrationText, Error> {
        let Manifest { name, version, .. } = &checked.manifest;
        let owner = checked.scope.owner_org(&principal.org);
        let key = keys::registered(owner, name);
        let mut race = CompareAndSet::default();
        loop {
            let current = self.ports.table.get(&key, Read::Consistent).await?;
            let condition = current.as_ref().map_or(Condition::Absent, |item| Condition::Version(item.version.clone()));
            let registered = current.as_ref().map(Item::record::<RegisteredPlugin>).transpose()?;
            let mut registered =
                registered.unwrap_or_else(|| RegisteredPlugin { name: name.clone(), versions: BTreeMap::new() });
            if let Some(view) = checked.registered_in(&registered)? {
                return Ok(checked.registration(view));
            }
            let view = self.new_version(principal, &checked.manifest);
            let entry = RegistryEntry { digest: checked.digest.clone(), view: view.clone() };
            registered.versions.insert(version.clone(), entry);
            let text_key = keys::manifest_text(owner, name, version);
            let writes = vec![
                Write::Put(registered.item(owner)?, condition),
                Write::Put(ManifestText::item(text_key, &checked.text)?, Condition::Any),
            ];
            let detail = json!({ "tool": name, "version": view.version, "scope": checked.scope, "id": view.id,
                                 "key": principal.key, "userId": principal.user });
            let event = self.event(&principal.org, EventKind::PluginRegistered, &detail);
            match self.transact_with(writes, Some(&event)).await {
                Ok(_) => {
                    self.publish(event).await;
                    return Ok(checked.registration(view));
                }
                Err(error) => race.after_lost_race(error, format_args!("the list of versions of {name}"))?,
            };
        }
    }

    fn new_version(&self, principal: &Principal, manifest: &Manifest) -> RegisteredVersion {
        let now = self.ports.clock.now();
        let image = manifest.runtime.container().map(|container| &container.image);
        RegisteredVersion {
            id: new_id(&*self.ports.ids),
            version: manifest.version.clone(),
            image_name: image.map(|image| image.name.clone()),
            registry_url: image.map(|image| image.registry.clone()),
            is_active: true,
            created_at: now,
            updated_at: now,
            key: Some(principal.key.clone()),
            by: principal.user.clone(),
        }
    }

    /// Sets whether a version can be enabled. Organizations that use it keep it either way.
    pub async fn set_version_active(
        self: &Arc<Self>,
        principal: &Principal,
        scope: RegistryScope,
        name: &str,
        version: &Version,
        is_active: bool,
    ) -> Result<Registration, Error> {
        let span = debug_span!("set_version_active", org = %principal.org, plugin = name, outcome = Empty);
        traced(span, async {
            scope.must_be_administered_by(principal)?;
            let name = PluginName::parse(name).map_err(|_| Error::unknown_plugin(name))?;
            let (engine, principal, version) = (Arc::clone(self), principal.clone(), version.clone());
            self.run_to_completion(
                async move { engine.store_active(&principal, scope, &name, &version, is_active).await },
            )
            .await
        })
        .await
    }

    async fn store_active(
        &self,
        principal: &Principal,
        scope: RegistryScope,
        name: &PluginName,
        version: &Version,
        is_active: bool,
    ) -> Result<Registration, Error> {
        let owner = scope.owner_org(&principal.org);
        let key = keys::registered(owner, name);
        let kind = if is_active { EventKind::PluginLoaded } else { EventKind::PluginUnloaded };
        let detail = json!({ "tool": name, "version": version, "scope": scope, "key": principal.key,
                             "userId": principal.user });
        let mut race = CompareAndSet::default();
        loop {
            let item = self.ports.table.get(&key, Read::Consistent).await?;
            let item = item.ok_or_else(|| Error::unknown_plugin(name.as_str()))?;
            let mut registered: RegisteredPlugin = item.record()?;
            let now = self.ports.clock.now();
            let entry = registered.versions.get_mut(version).ok_or(Error::NotFound("version of this plugin"))?;
            if entry.view.is_active == is_active {
                return Ok(Registration::of(registered, scope, principal));
            }
            (entry.view.is_active, entry.view.updated_at) = (is_active, now);
            let event = self.event(&principal.org, kind, &detail);
            match self.put_with(registered.item(owner)?, Condition::Version(item.version), Some(&event)).await {
                Ok(()) => {
                    self.publish(event).await;
                    return Ok(Registration::of(registered, scope, principal));
                }
                Err(error) => race.after_lost_race(error, format_args!("the list of versions of {name}"))?,
            };
        }
    }
}

/// 24 lower-case letters and digits, the first a letter.
fn new_id(ids: &dyn Ids) -> String {
    let mut random = [0; 24];
    ids.fill(&mut random);
    let digit = |(index, byte): (usize, &u8)| {
        // The remainder makes some digits a little likelier; 24 of them still have more than 120 random bits.
        let digits = if index == 0 { 26 } else { ID_DIGITS.len() };
        char::from(*ID_DIGITS.get(usize::from(*byte) % digits).unwrap_or(&b'a'))
    };
    random.iter().enumerate().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::RandomIds;

    #[test]
    fn ids_have_the_form_of_a_cuid2() {
        for _ in 0..100 {
            let id = new_id(&RandomIds);
            assert_eq!(id.len(), 24);
            assert!(id.starts_with(|c: char| c.is_ascii_lowercase()), "{id}");
            assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{id}");
        }
        assert_ne!(new_id(&RandomIds), new_id(&RandomIds));
    }
}
