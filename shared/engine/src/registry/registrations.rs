//! Registered plugins as administrators and operators see them.

use semver::Version;
use serde::Serialize;
use tracing::debug_span;
use tracing::field::Empty;

use super::lookup::VersionId;
use super::record::RegisteredPlugin;
use super::{Lifecycle, LifecycleState, RegisteredVersion, RegistryScope};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{OrgId, PluginName};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{Cursor, Page, Query, Read, TableError};
use crate::storage::keys;

/// A registered plugin.
#[derive(Debug, Clone, Serialize)]
pub struct Registration {
    /// The name that intents use.
    pub name: PluginName,
    /// Who can use it.
    pub scope: RegistryScope,
    /// Its state in the caller's organization; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<Lifecycle>,
    /// Its versions, the latest first.
    pub versions: Vec<RegisteredVersion>,
}

/// One version of a registered plugin, with its text.
#[derive(Debug, Clone, Serialize)]
pub struct RegistrationText {
    /// The name that intents use.
    pub name: PluginName,
    /// Who can use it.
    pub scope: RegistryScope,
    /// The version.
    #[serde(flatten)]
    pub version: RegisteredVersion,
    /// The manifest as it was registered.
    pub manifest: String,
}

impl Registration {
    /// As this caller may see it, without its lifecycle.
    pub(super) fn of(registered: RegisteredPlugin, scope: RegistryScope, principal: &Principal) -> Self {
        let latest_first = registered.versions.into_values().rev();
        let versions = latest_first.map(|entry| entry.view.redacted_for(principal, scope)).collect();
        Self { name: registered.name, scope, life: None, versions }
    }
}

impl Engine {
    /// The plugins registered in one scope, by name.
    pub async fn registrations(
        &self,
        principal: &Principal,
        scope: RegistryScope,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<Registration>, Error> {
        let span = debug_span!("registrations", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let partition = keys::all_registered(scope.owner_org(&principal.org));
            let query = Query { cursor, ..Query::partition(partition, limit) };
            let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
            let entries = page.entries.iter().map(|item| Ok(Registration::of(item.record()?, scope, principal)));
            Ok(Page { entries: entries.collect::<Result<_, TableError>>()?, next: page.next })
        })
        .await
    }

    /// A registered plugin. Without `scope`, the organization's registration, or else the global one.
    pub async fn registration(
        &self,
        principal: &Principal,
        name: &str,
        scope: Option<RegistryScope>,
    ) -> Result<Registration, Error> {
        let span = debug_span!("registration", org = %principal.org, plugin = name, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let (registered, scope) = self.find_registered(&principal.org, name, scope).await?;
            let lifecycle = self.lifecycle_of(&principal.org, name, &registered, scope).await?;
            Ok(Registration { life: Some(lifecycle), ..Registration::of(registered, scope, principal) })
        })
        .await
    }

    async fn lifecycle_of(
        &self,
        org: &OrgId,
        name: &str,
        registered: &RegisteredPlugin,
        scope: RegistryScope,
    ) -> Result<Lifecycle, Error> {
        match self.plugin_and_instance(org, name).await {
            Ok((plugin, seen)) => {
                let uses_this = seen.instance.installed.as_ref().is_some_and(|installed| installed.scope == scope);
                if uses_this {
                    return Ok(seen.instance.lifecycle(&plugin, self.ports.clock.now()));
                }
                // The organization uses another plugin of that name.
                Ok(Lifecycle::of(LifecycleState::Discovered))
            }
            Err(Error::UnknownPlugin { .. }) => {
                let mut latest_first = registered.versions.values().rev();
                let Some(entry) = latest_first.find(|entry| entry.view.is_active) else {
                    return Ok(Lifecycle::of(LifecycleState::Unloaded));
                };
                let owner = scope.owner_org(org).cloned();
                let id = VersionId { owner, plugin: registered.name.clone(), digest: entry.digest.clone() };
                self.lifecycle_before_enabling(org, self.plugin_cache.version(&id)).await
            }
            Err(error) => Err(error),
        }
    }

    /// A version of a registered plugin, with its text. Without `scope` as for [`Self::registration`].
    pub async fn registration_text(
        &self,
        principal: &Principal,
        name: &str,
        version: &Version,
        scope: Option<RegistryScope>,
    ) -> Result<RegistrationText, Error> {
        let span = debug_span!("registration_text", org = %principal.org, plugin = name, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let (registered, scope) = self.find_registered(&principal.org, name, scope).await?;
            let entry = registered.versions.get(version).ok_or(Error::NotFound("version of this plugin"))?;
            let manifest = self.manifest_text(&principal.org, scope, &registered.name, version).await?;
            let version = entry.view.clone().redacted_for(principal, scope);
            Ok(RegistrationText { name: registered.name, scope, version, manifest })
        })
        .await
    }

    /// The stored record of a registered plugin, and its scope. Without `scope`, the organization's registration, or else
    /// the global one.
    pub(super) async fn find_registered(
        &self,
        org: &OrgId,
        name: &str,
        scope: Option<RegistryScope>,
    ) -> Result<(RegisteredPlugin, RegistryScope), Error> {
        let unknown = || Error::unknown_plugin(name);
        let parsed = PluginName::parse(name).map_err(|_| unknown())?;
        let scopes = match scope {
            Some(scope) => vec![scope],
            None => vec![RegistryScope::Organization, RegistryScope::Global],
        };
        let keys: Vec<_> = scopes.iter().map(|scope| keys::registered(scope.owner_org(org), &parsed)).collect();
        let items = self.ports.table.batch_get(&keys, Read::Consistent).await?;
        let mut found = scopes.into_iter().zip(items).filter_map(|(scope, item)| Some((scope, item?)));
        let (scope, item) = found.next().ok_or_else(unknown)?;
        Ok((item.record()?, scope))
    }
}
