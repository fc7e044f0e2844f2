//! The stored records of names: mappings, and cached lookups.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::ids::{AgentId, Alias, ExternalId, MappingKind, MappingName, PluginName, Scope, UserId};

/// A mapping: a name and its id, written by hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mapping {
    pub plugin: PluginName,
    pub kind: MappingKind,
    /// As the caller wrote it.
    pub name: MappingName,
    pub external_id: ExternalId,
    pub metadata: Option<Map<String, Value>>,
    pub expires_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

/// A cached lookup: a name and the id that the service gave for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CachedName {
    pub plugin: PluginName,
    pub kind: MappingKind,
    /// As the service writes it; or the id itself, if the intent gave that.
    pub name: MappingName,
    pub external_id: ExternalId,
    /// The alias that the intent named.
    pub alias: Option<Alias>,
    /// The identity of the account that the lookup used. Another account of the same alias has another identity.
    pub account: Option<String>,
    /// Whether the intent gave the id itself. Ids are compared exactly, names in lower case.
    pub exact: bool,
    /// When it was looked up.
    pub at: Timestamp,
    pub expires_at: Timestamp,
}

/// Where an id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// A mapping.
    Manual,
    /// A lookup at the service.
    Lookup,
    /// The name is an id already.
    AsGiven,
}

/// The scope of a name, as callers read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeName {
    /// An agent.
    Agent,
    /// A user.
    User,
    /// The whole organization.
    Organization,
}

/// A mapping or a cached lookup, as callers read it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MappingView {
    /// The plugin's name.
    pub tool: PluginName,
    /// The kind of name.
    pub kind: MappingKind,
    /// The name.
    pub name: MappingName,
    /// The service's id.
    pub external_id: ExternalId,
    /// Its scope.
    pub scope: ScopeName,
    /// The agent, if the scope is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The user, if the scope is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Whether it was mapped or looked up.
    pub provenance: Provenance,
    /// The account alias that the intent of a lookup named in `integration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration: Option<Alias>,
    /// What the writer of a mapping stored with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// When it was written or looked up.
    pub updated_at: Timestamp,
    /// When it expires, if ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Mapping {
    pub(super) fn view(self, scope: &Scope) -> MappingView {
        let (scope_name, agent_id, user_id) = match scope {
            Scope::Agent(agent) => (ScopeName::Agent, Some(agent.clone()), None),
            Scope::User(user) => (ScopeName::User, None, Some(user.clone())),
            Scope::Organization => (ScopeName::Organization, None, None),
        };
        MappingView {
            tool: self.plugin,
            kind: self.kind,
            name: self.name,
            external_id: self.external_id,
            scope: scope_name,
            agent_id,
            user_id,
            provenance: Provenance::Manual,
            integration: None,
            metadata: self.metadata,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
        }
    }
}

impl CachedName {
    pub(super) fn view(self, user: &UserId) -> MappingView {
        MappingView {
            tool: self.plugin,
            kind: self.kind,
            name: self.name,
            external_id: self.external_id,
            scope: ScopeName::User,
            agent_id: None,
            user_id: Some(user.clone()),
            provenance: Provenance::Lookup,
            integration: self.alias,
            metadata: None,
            updated_at: self.at,
            expires_at: Some(self.expires_at),
        }
    }
}
