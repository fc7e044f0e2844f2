//! The records of names: those that somebody wrote, and what names were found to be.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::ids::{AgentId, Alias, ExternalId, MappingKind, MappingName, PluginName, Scope, UserId};

/// A name that somebody wrote.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mapping {
    pub plugin: PluginName,
    pub kind: MappingKind,
    /// As it was written.
    pub name: MappingName,
    pub external_id: ExternalId,
    pub metadata: Option<Map<String, Value>>,
    pub expires_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

/// What a name was found to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CachedName {
    pub plugin: PluginName,
    pub kind: MappingKind,
    /// As the service has it; or the id itself, where that was given.
    pub name: MappingName,
    pub external_id: ExternalId,
    /// The alias that the intent named.
    pub alias: Option<Alias>,
    /// Tells the account that it was found through from every other, also from a later one of that alias.
    pub account: Option<String>,
    /// The id itself was given. What only looks like it, since names are compared in small letters, is another.
    pub exact: bool,
    /// When.
    pub at: Timestamp,
    pub expires_at: Timestamp,
}

/// How a name came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Somebody wrote it.
    Manual,
    /// The service was asked.
    Lookup,
    /// It is what the service calls it already.
    AsGiven,
}

/// For whom a name is, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeName {
    /// An agent.
    Agent,
    /// A user.
    User,
    /// Everybody in the organization.
    Organization,
}

/// A name as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MappingView {
    /// The plugin.
    pub tool: PluginName,
    /// What it is a name of.
    pub kind: MappingKind,
    /// The name.
    pub name: MappingName,
    /// What the service calls it.
    pub external_id: ExternalId,
    /// For whom it is.
    pub scope: ScopeName,
    /// The agent that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The user that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// How it came to be known.
    pub provenance: Provenance,
    /// The `integration` that the intent named for which it was looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration: Option<Alias>,
    /// What whoever wrote it keeps with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// When it was written or found.
    pub updated_at: Timestamp,
    /// From when on it no longer counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Mapping {
    pub(super) fn view(self, scope: &Scope) -> MappingView {
        let (name_of_scope, agent_id, user_id) = match scope {
            Scope::Agent(agent) => (ScopeName::Agent, Some(agent.clone()), None),
            Scope::User(user) => (ScopeName::User, None, Some(user.clone())),
            Scope::Organization => (ScopeName::Organization, None, None),
        };
        MappingView {
            tool: self.plugin,
            kind: self.kind,
            name: self.name,
            external_id: self.external_id,
            scope: name_of_scope,
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
