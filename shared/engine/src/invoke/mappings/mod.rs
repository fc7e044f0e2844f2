//! Friendly names for what services call by ids: written down for an agent, a user or all of the organization, or found by
//! asking the service. In an intent a name stands where the plugin says so (`x-mapping`).

mod list;
mod lookup;
mod names;
mod record;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
pub use list::{LookedUp, NameToLookUp, WhichMappings};
pub(crate) use lookup::{LookupContext, LookupState};
pub(crate) use names::Naming;
pub use names::{NAMES_MAX, NameResolution, NameResolvedBy};
use record::Mapping;
pub use record::{MappingView, Provenance, ScopeName};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{AgentId, ExternalId, MappingKind, MappingName, OrgId, PluginName, Scope, UserId};
use crate::core::problem::FieldProblem;
use crate::core::suggest::nearest;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::NameKind;
use crate::ports::table::{BATCH_MAX, Condition, NewItem, Read, Write};
use crate::storage::keys;

/// The largest metadata of a name, in bytes of JSON.
pub const METADATA_MAX_BYTES: usize = 4096;
/// The most names that are written at once.
pub const BULK_MAX: usize = BATCH_MAX;

/// A name and what it stands for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewMapping {
    /// The plugin.
    pub tool: PluginName,
    /// What it is a name of, such as `channel`.
    pub kind: MappingKind,
    /// The name.
    pub name: MappingName,
    /// What the service calls it.
    pub external_id: ExternalId,
    /// The user that it is for.
    pub user_id: Option<UserId>,
    /// The agent that it is for. Without user and agent it is for all of the organization.
    pub agent_id: Option<AgentId>,
    /// What is kept with it: at most 4096 bytes of JSON.
    pub metadata: Option<Map<String, Value>>,
    /// From when on it no longer counts (RFC 3339).
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
}

/// Several names: all of them are written, or none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewMappings {
    /// The names, 1 to 100.
    #[schemars(length(min = 1, max = 100))]
    pub mappings: Vec<NewMapping>,
}

/// Which name.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WhichMapping {
    /// The plugin.
    pub tool: PluginName,
    /// What it is a name of.
    pub kind: MappingKind,
    /// The name.
    pub name: MappingName,
    /// The user that it is for.
    pub user_id: Option<UserId>,
    /// The agent that it is for.
    pub agent_id: Option<AgentId>,
}

impl Engine {
    /// Writes one name, in the place of one that is there.
    pub async fn put_mapping(self: &Arc<Self>, principal: &Principal, new: NewMapping) -> Result<MappingView, Error> {
        let (item, view) = self.checked(principal, new, "").await?.map_err(Error::Invalid)?;
        let engine = Arc::clone(self);
        self.run_to_completion(async move { Ok(engine.ports.table.put(item, Condition::Any).await?) }).await?;
        Ok(view)
    }

    /// Writes names, each in the place of one that is there. All or none.
    pub async fn put_mappings(
        self: &Arc<Self>,
        principal: &Principal,
        new: NewMappings,
    ) -> Result<Vec<MappingView>, Error> {
        let (mut problems, mut seen) = (Vec::new(), HashSet::new());
        let (mut writes, mut views) = (Vec::new(), Vec::new());
        for (index, new) in new.mappings.into_iter().enumerate() {
            let place = format!("/mappings/{index}");
            match self.checked(principal, new, &place).await? {
                Err(wrong) => problems.extend(wrong),
                Ok((item, _)) if !seen.insert(item.key.clone()) => {
                    problems.push(FieldProblem::new(format!("{place}/name"), "is there twice; leave one of them out"));
                }
                Ok((item, view)) => {
                    writes.push(Write::Put(item, Condition::Any));
                    views.push(view);
                }
            }
        }
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let engine = Arc::clone(self);
        self.run_to_completion(async move { Ok(engine.ports.table.transact(writes).await?) }).await?;
        Ok(views)
    }

    /// A name as it is to be stored, or everything that is wrong with it.
    async fn checked(
        &self,
        principal: &Principal,
        new: NewMapping,
        place: &str,
    ) -> Result<Result<(NewItem, MappingView), Vec<FieldProblem>>, Error> {
        let now = self.ports.clock.now();
        let scope = scope(new.user_id.as_ref(), new.agent_id.as_ref(), place);
        if let Ok(scope) = &scope {
            principal.may_write(scope)?;
        }
        let problem = |field: &str, message: &str| FieldProblem::new(format!("{place}/{field}"), message);
        let compared = self.kind(&principal.org, &new.tool, &new.kind, place).await?.and_then(|(_, names)| {
            let compared = names.compared(new.name.as_str());
            compared.ok_or_else(|| problem("name", "has nothing in it but a prefix and spaces"))
        });
        let mut wrong = Vec::new();
        let metadata = new.metadata.as_ref().and_then(|metadata| serde_json::to_vec(metadata).ok());
        let bytes = metadata.map_or(0, |json| json.len());
        if bytes > METADATA_MAX_BYTES {
            let message = format!("has {bytes} bytes of JSON, more than the {METADATA_MAX_BYTES} allowed");
            wrong.push(problem("metadata", &message));
        }
        if new.expires_at.is_some_and(|end| end <= now) {
            wrong.push(problem("expiresAt", "is not in the future"));
        }
        let (scope, compared) = match (scope, compared) {
            (Ok(scope), Ok(compared)) if wrong.is_empty() => (scope, compared),
            (scope, compared) => {
                return Ok(Err(compared.err().into_iter().chain(scope.err()).chain(wrong).collect()));
            }
        };
        let key = keys::mapping(&principal.org, &scope, &new.tool, &new.kind, &compared);
        let mapping = Mapping {
            plugin: new.tool,
            kind: new.kind,
            name: new.name,
            external_id: new.external_id,
            metadata: new.metadata,
            expires_at: new.expires_at,
            updated_at: now,
        };
        let item = NewItem { expires_at: mapping.expires_at, ..NewItem::new(key, &mapping)? };
        Ok(Ok((item, mapping.view(&scope))))
    }

    /// Takes a name out, and for a user also what it was found to be. Gives what was taken out.
    pub async fn delete_mapping(
        self: &Arc<Self>,
        principal: &Principal,
        which: WhichMapping,
    ) -> Result<Vec<MappingView>, Error> {
        let scope = scope(which.user_id.as_ref(), which.agent_id.as_ref(), "");
        if let Ok(scope) = &scope {
            principal.may_write(scope)?;
        }
        let (scope, names) = match (scope, self.kind(&principal.org, &which.tool, &which.kind, "").await?) {
            (Ok(scope), Ok((_, names))) => (scope, names),
            (scope, kind) => return Err(Error::Invalid(scope.err().into_iter().chain(kind.err()).collect())),
        };
        let unknown = || Error::NotFound("name");
        let compared = names.compared(which.name.as_str()).ok_or_else(unknown)?;
        let (engine, org) = (Arc::clone(self), principal.org.clone());
        self.run_to_completion(async move {
            let key = keys::mapping(&org, &scope, &which.tool, &which.kind, &compared);
            let mut items: Vec<_> = engine.ports.table.get(&key, Read::Consistent).await?.into_iter().collect();
            let mut views = Vec::new();
            for item in &items {
                views.push(item.record::<Mapping>()?.view(&scope));
            }
            if let Scope::User(user) = &scope {
                for (found, item) in engine.found_names(&org, user, &which.tool, &which.kind).await? {
                    // Whatever name it was found by: the alias is not said, so that all of that name go.
                    let by = keys::found_name(&org, user, &which.tool, found.alias.as_ref(), &which.kind, &compared);
                    if by == item.stored.key {
                        views.push(found.view(user));
                        items.push(item);
                    }
                }
            }
            if items.is_empty() {
                return Err(unknown());
            }
            for items in items.chunks(BATCH_MAX) {
                let writes = items.iter().map(|item| Write::Delete(item.stored.key.clone(), Condition::Any));
                engine.ports.table.transact(writes.collect()).await?;
            }
            Ok(views)
        })
        .await
    }

    /// A kind of names of a plugin, or what is wrong with the fields that say which. Pointers begin with `place`.
    async fn kind(
        &self,
        org: &OrgId,
        tool: &PluginName,
        kind: &MappingKind,
        place: &str,
    ) -> Result<Result<(Arc<Plugin>, NameKind), FieldProblem>, Error> {
        let plugin = match self.mapped_plugin(org, tool, place).await? {
            Ok(plugin) => plugin,
            Err(problem) => return Ok(Err(problem)),
        };
        let known = &plugin.manifest.mappings;
        let unknown = || {
            let near = nearest(kind.as_str(), known.keys().map(MappingKind::as_str));
            let all: Vec<&str> = known.keys().map(MappingKind::as_str).collect();
            let remedy = match (near.is_empty(), all.is_empty()) {
                (false, _) => format!("did you mean {}?", near.join(" or ")),
                (true, false) => format!("there are {}", all.join(", ")),
                (true, true) => "its parameters take no names".to_owned(),
            };
            FieldProblem::new(format!("{place}/kind"), format!("is not a kind of names that {tool} has; {remedy}"))
        };
        let names = known.get(kind).cloned().ok_or_else(unknown);
        Ok(names.map(|names| (plugin, names)))
    }

    async fn mapped_plugin(
        &self,
        org: &OrgId,
        tool: &PluginName,
        place: &str,
    ) -> Result<Result<Arc<Plugin>, FieldProblem>, Error> {
        match self.plugin(org, tool.as_str()).await {
            Ok(plugin) => Ok(Ok(plugin)),
            // What is wrong with a field is said in one way here, also of a plugin that is not there.
            Err(error @ Error::UnknownPlugin { .. }) => {
                Ok(Err(FieldProblem::new(format!("{place}/tool"), error.to_string())))
            }
            Err(error) => Err(error),
        }
    }
}

/// For whom a name is, by the fields that say so.
fn scope(user: Option<&UserId>, agent: Option<&AgentId>, place: &str) -> Result<Scope, FieldProblem> {
    match (user, agent) {
        (Some(_), Some(_)) => {
            let message = "is of no use beside userId: a name is for a user or for an agent";
            Err(FieldProblem::new(format!("{place}/agentId"), message))
        }
        (Some(user), None) => Ok(Scope::User(user.clone())),
        (None, Some(agent)) => Ok(Scope::Agent(agent.clone())),
        (None, None) => Ok(Scope::Organization),
    }
}

impl Principal {
    fn may_write(&self, scope: &Scope) -> Result<(), Error> {
        let whose = match scope {
            Scope::User(_) => return self.may_read(scope),
            Scope::Agent(_) => "an agent's names count for the whole organization",
            Scope::Organization => "without userId a name is the whole organization's",
        };
        if self.acts_for_all() {
            return Ok(());
        }
        Err(Error::Forbidden(format!(
            "{whose}, which needs the API key of an administrator or a service; say userId to write your own"
        )))
    }

    fn may_read(&self, scope: &Scope) -> Result<(), Error> {
        match scope {
            Scope::User(user) => self.resolve_user(Some(user.clone())).map(drop),
            Scope::Agent(_) | Scope::Organization => Ok(()),
        }
    }
}
