//! What a name resolves to from the store alone: mappings and cached lookups. The service is not called.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::debug_span;
use tracing::field::Empty;

use super::names::{NameResolvedBy, Naming};
use super::record::{Provenance, ScopeName};
use super::service_list::suggestions;
use crate::access::principal::Principal;
use crate::accounts::AccountLookup;
use crate::core::error::Error;
use crate::core::ids::{AgentId, Alias, MappingKind, MappingName, PluginName, UserId};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::manifest::Auth;
use crate::ports::table::Read;

/// A name to look up.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NameToLookUp {
    /// The plugin's name.
    pub tool: PluginName,
    /// The kind of name.
    pub kind: MappingKind,
    /// The name.
    pub name: MappingName,
    /// The user of the intent; the one that the API key is bound to if left out.
    pub user_id: Option<UserId>,
    /// The agent of the intent.
    pub agent_id: Option<AgentId>,
    /// The account that the intent names.
    pub integration: Option<Alias>,
}

/// What a name resolves to now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LookedUp {
    /// Whether the name resolves.
    pub found: bool,
    /// The service's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The scope of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeName>,
    /// Where the id comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// When the mapping or the cached lookup expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The nearest stored names, if the name does not resolve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Vec<String>>,
}

impl LookedUp {
    fn found(id: String, resolved_by: NameResolvedBy, expires_at: Option<Timestamp>) -> Self {
        let (scope, provenance) = match resolved_by {
            NameResolvedBy::Agent => (Some(ScopeName::Agent), Provenance::Manual),
            NameResolvedBy::User => (Some(ScopeName::User), Provenance::Manual),
            NameResolvedBy::Organization => (Some(ScopeName::Organization), Provenance::Manual),
            NameResolvedBy::Lookup => (Some(ScopeName::User), Provenance::Lookup),
            NameResolvedBy::AsGiven => (None, Provenance::AsGiven),
        };
        let (external_id, provenance) = (Some(id), Some(provenance));
        Self { found: true, external_id, scope, provenance, expires_at, nearest: None }
    }

    fn not_found(nearest: Vec<String>) -> Self {
        Self {
            found: false,
            external_id: None,
            scope: None,
            provenance: None,
            expires_at: None,
            nearest: Some(nearest),
        }
    }
}

impl Engine {
    /// What a name would resolve to in an intent, as far as that is stored. Calls no service and writes nothing.
    pub async fn look_up_stored(&self, principal: &Principal, query: NameToLookUp) -> Result<LookedUp, Error> {
        let span = debug_span!("look_up_stored", org = %principal.org, outcome = Empty);
        traced(span, async {
            let NameToLookUp { tool, kind, name, user_id, agent_id, integration } = query;
            let user = principal.resolve_user(user_id)?;
            let (plugin, names) = self.name_kind(&principal.org, &tool, &kind, "").await?;
            let manifest = &plugin.manifest;
            let (org, alias) = (&principal.org, integration.as_ref());
            let account = match manifest.auth {
                Auth::None => None,
                Auth::Oauth2(_) | Auth::ClientCredentials(_) | Auth::ApiKey(_) | Auth::Basic(_) => {
                    self.find_account(org, &user, manifest, alias).await?
                }
            };
            let mut naming = Naming::one(&tool, &kind, &names, name.as_str());
            let keys = naming.keys(org, &user, agent_id.as_ref(), alias);
            let items =
                if keys.is_empty() { Vec::new() } else { self.ports.table.batch_get(&keys, Read::Consistent).await? };
            let account = account.as_ref().map(AccountLookup::identity);
            let cache_scope = match plugin.digest {
                None => account.map(str::to_owned),
                Some(_) => {
                    self.plugin_and_instance(org, tool.as_str()).await?.1.instance.name_cache_scope(&plugin, account)
                }
            };
            naming.read(items, cache_scope.as_deref())?;
            if let Some(resolved) = naming.names.pop().and_then(|name| name.resolved) {
                // A value that stays as it is counts only if it surely is an id.
                if resolved.how != NameResolvedBy::AsGiven || names.is_id(&resolved.id) {
                    return Ok(LookedUp::found(resolved.id, resolved.how, resolved.expires_at));
                }
            }
            let mut stored = self.mapped_names(org, &user, agent_id.as_ref(), &tool, &kind).await?;
            let cached = self.cached_names(org, &user, &tool, &kind).await?;
            stored.extend(cached.into_iter().map(|(cached, _)| cached.name.into()));
            Ok(LookedUp::not_found(suggestions(&names, name.as_str(), stored.iter().map(String::as_str))))
        })
        .await
    }
}
