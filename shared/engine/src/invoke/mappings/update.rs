//! Writing and deleting mappings.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::debug_span;
use tracing::field::Empty;

use super::record::{Mapping, MappingView};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{AgentId, ExternalId, MappingKind, MappingName, OrgId, PluginName, Scope, UserId};
use crate::core::problem::FieldProblem;
use crate::core::suggest::nearest;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::NameKind;
use crate::ports::table::{BATCH_MAX, Condition, Item, NewItem, Read, TableError, Write};
use crate::storage::keys;

/// The largest metadata of a mapping, in bytes of JSON.
pub const METADATA_MAX_BYTES: usize = 4096;
/// The most mappings that one request writes.
pub const BULK_MAX: usize = BATCH_MAX;

/// A name and the id that it maps to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewMapping {
    /// The plugin's name.
    pub tool: PluginName,
    /// The kind of name, such as `channel`.
    pub kind: MappingKind,
    /// The name.
    pub name: MappingName,
    /// The service's id.
    pub external_id: ExternalId,
    /// Maps the name for this user.
    pub user_id: Option<UserId>,
    /// Maps the name for this agent. Without user and agent the mapping is for the whole organization.
    pub agent_id: Option<AgentId>,
    /// Anything to store with it: at most 4096 bytes of JSON.
    pub metadata: Option<Map<String, Value>>,
    /// When the mapping expires (RFC 3339).
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
}

/// Several mappings: all of them are written, or none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewMappings {
    /// The mappings, 1 to 100.
    #[schemars(length(min = 1, max = 100))]
    pub mappings: Vec<NewMapping>,
}

/// The mapping to delete.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WhichMapping {
    /// The plugin's name.
    pub tool: PluginName,
    /// The kind of name.
    pub kind: MappingKind,
    /// The name.
    pub name: MappingName,
    /// The user that it is mapped for.
    pub user_id: Option<UserId>,
    /// The agent that it is mapped for.
    pub agent_id: Option<AgentId>,
}

/// Why a mapping was not accepted.
pub(super) enum MappingError {
    /// Fields of the request are wrong.
    Problems(Vec<FieldProblem>),
    /// Anything else, such as a caller without the right to write it.
    Other(Error),
}

impl From<FieldProblem> for MappingError {
    fn from(problem: FieldProblem) -> Self {
        Self::Problems(vec![problem])
    }
}

impl From<Error> for MappingError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<TableError> for MappingError {
    fn from(error: TableError) -> Self {
        Self::Other(error.into())
    }
}

impl From<MappingError> for Error {
    fn from(error: MappingError) -> Self {
        match error {
            MappingError::Problems(problems) => Self::Invalid(problems),
            MappingError::Other(error) => error,
        }
    }
}

impl MappingError {
    /// Adds the field problems of another check. Errors that are no field problems are returned at once.
    pub(super) fn gather<T>(checked: Result<T, Self>, problems: &mut Vec<FieldProblem>) -> Result<Option<T>, Error> {
        match checked {
            Ok(value) => Ok(Some(value)),
            Err(Self::Problems(more)) => {
                problems.extend(more);
                Ok(None)
            }
            Err(Self::Other(error)) => Err(error),
        }
    }
}

/// A mapping that passed every check, ready to be written.
struct CheckedMapping {
    item: NewItem,
    view: MappingView,
}

impl Engine {
    /// Writes one mapping, and replaces the one of the same name.
    pub async fn put_mapping(self: &Arc<Self>, principal: &Principal, new: NewMapping) -> Result<MappingView, Error> {
        let span = debug_span!("put_mapping", org = %principal.org, outcome = Empty);
        traced(span, async {
            let CheckedMapping { item, view } = self.check_mapping(principal, new, "").await?;
            let engine = Arc::clone(self);
            self.run_to_completion(
                async move { engine.ports.table.put(item, Condition::Any).await.map_err(Error::from) },
            )
            .await?;
            Ok(view)
        })
        .await
    }

    /// Writes mappings, and replaces those of the same names. All or none: `Invalid` has the problems of all of them.
    pub async fn put_mappings(
        self: &Arc<Self>,
        principal: &Principal,
        new: NewMappings,
    ) -> Result<Vec<MappingView>, Error> {
        let span = debug_span!("put_mappings", org = %principal.org, outcome = Empty);
        traced(span, async {
            let (mut problems, mut seen) = (Vec::new(), HashSet::new());
            let (mut writes, mut views) = (Vec::new(), Vec::new());
            for (index, new) in new.mappings.into_iter().enumerate() {
                let pointer = format!("/mappings/{index}");
                let checked = self.check_mapping(principal, new, &pointer).await;
                let Some(CheckedMapping { item, view }) = MappingError::gather(checked, &mut problems)? else {
                    continue;
                };
                if !seen.insert(item.key.clone()) {
                    problems
                        .push(FieldProblem::new(format!("{pointer}/name"), "is a duplicate; leave one of them out"));
                    continue;
                }
                writes.push(Write::Put(item, Condition::Any));
                views.push(view);
            }
            if !problems.is_empty() {
                return Err(Error::Invalid(problems));
            }
            let engine = Arc::clone(self);
            self.run_to_completion(async move { engine.ports.table.transact(writes).await.map_err(Error::from) })
                .await?;
            Ok(views)
        })
        .await
    }

    /// Checks a mapping, and finds every problem of its fields. Their pointers begin with `pointer`.
    async fn check_mapping(
        &self,
        principal: &Principal,
        new: NewMapping,
        pointer: &str,
    ) -> Result<CheckedMapping, MappingError> {
        let now = self.ports.clock.now();
        let scope = scope(new.user_id.as_ref(), new.agent_id.as_ref(), pointer);
        if let Ok(scope) = &scope {
            principal.may_write(scope)?;
        }
        let problem = |field: &str, message: &str| FieldProblem::new(format!("{pointer}/{field}"), message);
        let mut problems = Vec::new();
        let kind = self.name_kind(&principal.org, &new.tool, &new.kind, pointer).await;
        let compared = MappingError::gather(kind, &mut problems)?.and_then(|(_, names)| {
            let compared = names.compared(new.name.as_str());
            if compared.is_none() {
                problems.push(problem("name", "is empty apart from a prefix and spaces"));
            }
            compared
        });
        let scope = scope.map_err(|wrong| problems.push(wrong)).ok();
        let metadata = new.metadata.as_ref().and_then(|metadata| serde_json::to_vec(metadata).ok());
        let bytes = metadata.map_or(0, |json| json.len());
        if bytes > METADATA_MAX_BYTES {
            let message = format!("has {bytes} bytes of JSON, more than the {METADATA_MAX_BYTES} allowed");
            problems.push(problem("metadata", &message));
        }
        if new.expires_at.is_some_and(|end| end <= now) {
            problems.push(problem("expiresAt", "must be in the future"));
        }
        let (Some(scope), Some(compared), true) = (scope, compared, problems.is_empty()) else {
            return Err(MappingError::Problems(problems));
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
        Ok(CheckedMapping { item, view: mapping.view(&scope) })
    }

    /// Deletes a mapping; for a user also the cached lookups of that name. Returns what it deleted.
    pub async fn delete_mapping(
        self: &Arc<Self>,
        principal: &Principal,
        which: WhichMapping,
    ) -> Result<Vec<MappingView>, Error> {
        let span = debug_span!("delete_mapping", org = %principal.org, outcome = Empty);
        traced(span, async {
            let mut problems = Vec::new();
            let scope = scope(which.user_id.as_ref(), which.agent_id.as_ref(), "");
            if let Ok(scope) = &scope {
                principal.may_write(scope)?;
            }
            let scope = scope.map_err(|problem| problems.push(problem)).ok();
            let kind = self.name_kind(&principal.org, &which.tool, &which.kind, "").await;
            let kind = MappingError::gather(kind, &mut problems)?;
            let (Some(scope), Some((_, names))) = (scope, kind) else { return Err(Error::Invalid(problems)) };
            let unknown = || Error::NotFound("name");
            let compared = names.compared(which.name.as_str()).ok_or_else(unknown)?;
            let (engine, org) = (Arc::clone(self), principal.org.clone());
            self.run_to_completion(async move {
                let (items, views) = engine.stored_under_name(&org, &scope, &which, &compared).await?;
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
        })
        .await
    }

    /// The mapping of a name in a scope, and a user's cached lookups of it through every account.
    async fn stored_under_name(
        &self,
        org: &OrgId,
        scope: &Scope,
        which: &WhichMapping,
        compared: &str,
    ) -> Result<(Vec<Item>, Vec<MappingView>), TableError> {
        let key = keys::mapping(org, scope, &which.tool, &which.kind, compared);
        let mut items: Vec<Item> = self.ports.table.get(&key, Read::Consistent).await?.into_iter().collect();
        let mut views = Vec::new();
        for item in &items {
            views.push(item.record::<Mapping>()?.view(scope));
        }
        if let Scope::User(user) = scope {
            for (cached, item) in self.cached_names(org, user, &which.tool, &which.kind).await? {
                // The request names no account alias, so a lookup through any of them goes.
                let key = keys::cached_name(org, user, &which.tool, cached.alias.as_ref(), &which.kind, compared);
                if key == item.stored.key {
                    views.push(cached.view(user));
                    items.push(item);
                }
            }
        }
        Ok((items, views))
    }

    /// A plugin's kind of names. Pointers of problems begin with `pointer`.
    pub(super) async fn name_kind(
        &self,
        org: &OrgId,
        tool: &PluginName,
        kind: &MappingKind,
        pointer: &str,
    ) -> Result<(Arc<Plugin>, NameKind), MappingError> {
        let plugin = self.mapped_plugin(org, tool, pointer).await?;
        let kinds = &plugin.manifest.mappings;
        if let Some(names) = kinds.get(kind).cloned() {
            return Ok((plugin, names));
        }
        let near = nearest(kind.as_str(), kinds.keys().map(MappingKind::as_str));
        let all: Vec<&str> = kinds.keys().map(MappingKind::as_str).collect();
        let remedy = match (near.is_empty(), all.is_empty()) {
            (false, _) => format!("did you mean {}?", near.join(" or ")),
            (true, false) => format!("there are {}", all.join(", ")),
            (true, true) => "its parameters take no names".to_owned(),
        };
        let message = format!("is not a kind of names that {tool} has; {remedy}");
        Err(FieldProblem::new(format!("{pointer}/kind"), message).into())
    }

    /// The plugin of a mapping. An unknown plugin is a problem of the field `tool`, like every other here.
    pub(super) async fn mapped_plugin(
        &self,
        org: &OrgId,
        tool: &PluginName,
        pointer: &str,
    ) -> Result<Arc<Plugin>, MappingError> {
        match self.plugin(org, tool.as_str()).await {
            Ok(plugin) => Ok(plugin),
            Err(error @ Error::UnknownPlugin { .. }) => {
                Err(FieldProblem::new(format!("{pointer}/tool"), error.to_string()).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The scope that `userId` and `agentId` name.
pub(super) fn scope(user: Option<&UserId>, agent: Option<&AgentId>, pointer: &str) -> Result<Scope, FieldProblem> {
    match (user, agent) {
        (Some(_), Some(_)) => {
            let message = "cannot be combined with userId: a name is for a user or for an agent";
            Err(FieldProblem::new(format!("{pointer}/agentId"), message))
        }
        (Some(user), None) => Ok(Scope::User(user.clone())),
        (None, Some(agent)) => Ok(Scope::Agent(agent.clone())),
        (None, None) => Ok(Scope::Organization),
    }
}

impl Principal {
    fn may_write(&self, scope: &Scope) -> Result<(), Error> {
        let reason = match scope {
            Scope::User(_) => return self.may_read(scope),
            Scope::Agent(_) => "an agent's names count for the whole organization",
            Scope::Organization => "without userId a name counts for the whole organization",
        };
        if self.acts_for_all() {
            return Ok(());
        }
        Err(Error::Forbidden(format!(
            "{reason}, which needs the API key of an administrator or a service; say userId to write your own"
        )))
    }

    pub(super) fn may_read(&self, scope: &Scope) -> Result<(), Error> {
        match scope {
            Scope::User(user) => self.resolve_user(Some(user.clone())).map(drop),
            Scope::Agent(_) | Scope::Organization => Ok(()),
        }
    }
}
