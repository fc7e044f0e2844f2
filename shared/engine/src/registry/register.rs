//! Takes manifests in, and shows what was registered.

use std::collections::BTreeMap;
use std::sync::Arc;

use semver::Version;
use serde::Serialize;
use serde_json::json;

use super::record::{ManifestText, Registered, RegistryEntry};
use super::{Lifecycle, LifecycleState, RegisteredVersion, RegistryScope};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::plugin::digest::Digest;
use crate::plugin::manifest::{Manifest, ManifestError, Permission};
use crate::ports::Ids;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Cursor, Item, Page, Query, Read, TableError, Write};
use crate::storage::keys;

/// The most versions of one plugin.
pub const VERSIONS_MAX: usize = 100;
/// How often registering is tried while others register versions of the same plugin.
const TRIES: usize = 20;
/// Letters and digits of ids.
const ID_DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A manifest to register.
#[derive(Debug, Clone)]
pub struct Register {
    /// Its text, YAML or JSON.
    pub text: String,
    /// Where in the request it was, as a JSON pointer, for what is wrong with it.
    pub pointer: &'static str,
    /// For whom.
    pub scope: RegistryScope,
}

/// A registered plugin.
#[derive(Debug, Clone, Serialize)]
pub struct Registration {
    /// What intents call it.
    pub name: PluginName,
    /// For whom it is.
    pub scope: RegistryScope,
    /// Where it is in its life in the organization; not in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<Lifecycle>,
    /// Its versions, the latest first.
    pub versions: Vec<RegisteredVersion>,
}

/// One version of a registered plugin, with its text.
#[derive(Debug, Clone, Serialize)]
pub struct RegistrationText {
    /// What intents call it.
    pub name: PluginName,
    /// For whom it is.
    pub scope: RegistryScope,
    /// The version.
    #[serde(flatten)]
    pub version: RegisteredVersion,
    /// The text as it was given.
    pub manifest: String,
}

impl Engine {
    /// Registers a version of a plugin. The same text under the same version again changes nothing; another text is
    /// refused, since a version that was read is what was approved.
    pub async fn register(self: &Arc<Self>, principal: &Principal, asked: Register) -> Result<RegistrationText, Error> {
        asked.scope.must_be_administered_by(principal)?;
        let Register { text, pointer, scope } = asked;
        let manifest = Manifest::parse_external(&text).map_err(|error| problems(error, pointer))?;
        let missing: Vec<_> = manifest.needed().filter(|needed| !manifest.permissions.contains(needed)).collect();
        if !missing.is_empty() {
            let problem = |needed: Permission| format!("permissions: add {needed}, where requests for tokens go");
            return Err(problems(ManifestError(missing.into_iter().map(problem).collect()), pointer));
        }
        if self.catalog.has(&manifest.name) {
            let taken = format!("{} is the name of a plugin that comes with Overseer; choose another", manifest.name);
            return Err(Error::Conflict(taken));
        }
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move { engine.keep_version(&principal, &manifest, text, scope).await }).await
    }

    async fn keep_version(
        &self,
        principal: &Principal,
        manifest: &Manifest,
        text: String,
        scope: RegistryScope,
    ) -> Result<RegistrationText, Error> {
        let (name, whose) = (&manifest.name, scope.owner_org(&principal.org));
        let digest = Digest::of(&text);
        let key = keys::registered(whose, name);
        let shown = |version: RegisteredVersion, manifest: String| RegistrationText {
            name: name.clone(),
            scope,
            version,
            manifest,
        };
        for _ in 0..TRIES {
            let standing = self.ports.table.get(&key, Read::Consistent).await?;
            let condition =
                standing.as_ref().map_or(Condition::Absent, |item| Condition::Version(item.version.clone()));
            let mut registered = match standing.as_ref().map(Item::record::<Registered>).transpose()? {
                Some(registered) => registered,
                None => Registered { name: name.clone(), versions: BTreeMap::new() },
            };
            if let Some(before) = registered.versions.get(&manifest.version) {
                if before.digest == digest {
                    return Ok(shown(before.view.clone(), text));
                }
                let version = &manifest.version;
                return Err(Error::Conflict(format!(
                    "{name} {version} is registered with another text, and never changes; register a new version"
                )));
            }
            if registered.versions.len() >= VERSIONS_MAX {
                return Err(Error::Conflict(format!(
                    "{name} has {VERSIONS_MAX} versions, which is the most; register it under another name"
                )));
            }
            let view = self.new_version(principal, manifest);
            let entry = RegistryEntry { digest: digest.clone(), view: view.clone() };
            registered.versions.insert(manifest.version.clone(), entry);
            let text_key = keys::manifest_text(whose, name, &manifest.version);
            let writes = vec![
                Write::Put(registered.item(whose)?, condition),
                Write::Put(ManifestText::item(text_key, &text)?, Condition::Any),
            ];
            let said = json!({ "tool": name, "version": view.version, "scope": scope, "id": view.id,
                               "key": principal.key, "userId": principal.user });
            let event = self.event(&principal.org, EventKind::PluginRegistered, &said);
            match self.transact_with(writes, Some(&event)).await {
                Ok(_) => {
                    self.publish(event).await;
                    return Ok(shown(view, text));
                }
                Err(TableError::Condition { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Conflict(format!("others register versions of {name} all the time; try again")))
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

    /// What is registered for the organization, by name, or, in the global scope, for all.
    pub async fn registrations(
        &self,
        principal: &Principal,
        scope: RegistryScope,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<Registration>, Error> {
        principal.must_operate()?;
        let partition = keys::all_registered(scope.owner_org(&principal.org));
        let query = Query { cursor, ..Query::partition(partition, limit) };
        let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
        let entries = page.entries.iter().map(|item| Ok(shown(principal, item.record()?, scope)));
        Ok(Page { entries: entries.collect::<Result<_, TableError>>()?, next: page.next })
    }

    /// A plugin that is registered in that scope; where none is said, for the organization, or else for all.
    pub async fn registration(
        &self,
        principal: &Principal,
        name: &str,
        scope: Option<RegistryScope>,
    ) -> Result<Registration, Error> {
        principal.must_operate()?;
        let org = &principal.org;
        let (registered, scope) = self.find_registered(org, name, scope).await?;
        let life = match self.plugin_and_instance(org, name).await {
            Ok((plugin, seen)) if seen.instance.installed.as_ref().is_some_and(|used| used.scope == scope) => {
                seen.instance.life(&plugin, self.ports.clock.now())
            }
            // Another by that name is in use.
            Ok(_) => Lifecycle { state: LifecycleState::Discovered, since: None, reason: None },
            Err(Error::UnknownPlugin { .. }) => {
                match registered.versions.values().rev().find(|entry| entry.view.is_active) {
                    Some(RegistryEntry { digest, .. }) => {
                        let whose = scope.owner_org(org).cloned();
                        let read = self.plugin_cache.version(&(whose, registered.name.clone(), digest.clone()));
                        self.life_before(org, read).await?
                    }
                    None => Lifecycle { state: LifecycleState::Unloaded, since: None, reason: None },
                }
            }
            Err(error) => return Err(error),
        };
        Ok(Registration { life: Some(life), ..shown(principal, registered, scope) })
    }

    /// A version of a registered plugin, with its text; `scope` as for [`Self::registration`].
    pub async fn registration_text(
        &self,
        principal: &Principal,
        (name, version): (&str, &Version),
        scope: Option<RegistryScope>,
    ) -> Result<RegistrationText, Error> {
        principal.must_operate()?;
        let (registered, scope) = self.find_registered(&principal.org, name, scope).await?;
        let entry = registered.versions.get(version).ok_or(Error::NotFound("version of this plugin"))?;
        let manifest = self.manifest_text(&principal.org, scope, &registered.name, version).await?;
        Ok(RegistrationText {
            name: registered.name.clone(),
            scope,
            version: entry.view.clone().redacted_for(principal, scope),
            manifest,
        })
    }

    /// What is registered under a name: in the scope that is asked for, or for the organization before all.
    pub(super) async fn find_registered(
        &self,
        org: &OrgId,
        name: &str,
        scope: Option<RegistryScope>,
    ) -> Result<(Registered, RegistryScope), Error> {
        let unknown = || Error::unknown_plugin(name);
        let parsed = PluginName::parse(name).map_err(|_| unknown())?;
        let scopes = match scope {
            Some(scope) => vec![scope],
            None => vec![RegistryScope::Organization, RegistryScope::Global],
        };
        let wanted: Vec<_> = scopes.iter().map(|scope| keys::registered(scope.owner_org(org), &parsed)).collect();
        let found = self.ports.table.batch_get(&wanted, Read::Consistent).await?;
        let mut found = scopes.into_iter().zip(found).filter_map(|(scope, item)| Some((scope, item?)));
        let (scope, item) = found.next().ok_or_else(unknown)?;
        Ok((item.record()?, scope))
    }

    /// Whether a version can be enabled from now on. Where it is in use it stays in use.
    pub async fn set_version_active(
        self: &Arc<Self>,
        principal: &Principal,
        scope: RegistryScope,
        (name, version): (&str, &Version),
        is_active: bool,
    ) -> Result<Registration, Error> {
        scope.must_be_administered_by(principal)?;
        let parsed = PluginName::parse(name).map_err(|_| Error::unknown_plugin(name))?;
        let (engine, principal, version) = (Arc::clone(self), principal.clone(), version.clone());
        self.run_to_completion(
            async move { engine.keep_active(&principal, scope, (&parsed, &version), is_active).await },
        )
        .await
    }

    async fn keep_active(
        &self,
        principal: &Principal,
        scope: RegistryScope,
        (name, version): (&PluginName, &Version),
        is_active: bool,
    ) -> Result<Registration, Error> {
        let key = keys::registered(scope.owner_org(&principal.org), name);
        let kind = if is_active { EventKind::PluginLoaded } else { EventKind::PluginUnloaded };
        let said = json!({ "tool": name, "version": version, "scope": scope, "key": principal.key,
                           "userId": principal.user });
        for _ in 0..TRIES {
            let item = self.ports.table.get(&key, Read::Consistent).await?;
            let item = item.ok_or_else(|| Error::unknown_plugin(name.as_str()))?;
            let mut registered: Registered = item.record()?;
            let now = self.ports.clock.now();
            let entry = registered.versions.get_mut(version).ok_or(Error::NotFound("version of this plugin"))?;
            if entry.view.is_active == is_active {
                return Ok(shown(principal, registered, scope));
            }
            (entry.view.is_active, entry.view.updated_at) = (is_active, now);
            let changed = registered.item(scope.owner_org(&principal.org))?;
            let event = self.event(&principal.org, kind, &said);
            match self.put_with(changed, Condition::Version(item.version), Some(&event)).await {
                Ok(()) => {
                    self.publish(event).await;
                    return Ok(shown(principal, registered, scope));
                }
                Err(TableError::Condition { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Conflict(format!("others change {name} all the time; try again")))
    }
}

/// What is wrong with a manifest, at its place in the request.
fn problems(ManifestError(problems): ManifestError, pointer: &str) -> Error {
    Error::Invalid(problems.into_iter().map(|problem| FieldProblem::new(pointer, problem)).collect())
}

fn shown(principal: &Principal, registered: Registered, scope: RegistryScope) -> Registration {
    let versions =
        registered.versions.into_values().rev().map(|entry| entry.view.redacted_for(principal, scope)).collect();
    Registration { name: registered.name, scope, life: None, versions }
}

/// 24 small letters and digits, the first a letter.
fn new_id(ids: &dyn Ids) -> String {
    let mut random = [0; 24];
    ids.fill(&mut random);
    let digit = |(place, byte): (usize, &u8)| {
        // Some are a little likelier than others: 24 of them still are more than 120 random bits.
        let of = if place == 0 { 26 } else { ID_DIGITS.len() };
        char::from(*ID_DIGITS.get(usize::from(*byte) % of).unwrap_or(&b'a'))
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
