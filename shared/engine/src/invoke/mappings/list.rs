//! Listing the names of one scope: its mappings, and for a user then the cached lookups.

use tracing::debug_span;
use tracing::field::Empty;

use super::record::{CachedName, Mapping, MappingView};
use super::update::{MappingError, scope};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{AgentId, MappingKind, OrgId, PluginName, Scope, UserId};
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{BATCH_MAX, Cursor, Item, Page, Query, Range, Read, TableError};
use crate::storage::keys;

/// The most queries for one page, or for all cached lookups of a kind.
const QUERIES_MAX: usize = 10;

/// Which names to list: those of one scope.
#[derive(Debug, Clone, Default)]
pub struct WhichMappings {
    /// Of which plugin.
    pub tool: Option<PluginName>,
    /// Of which kind.
    pub kind: Option<MappingKind>,
    /// For which user.
    pub user_id: Option<UserId>,
    /// For which agent.
    pub agent_id: Option<AgentId>,
}

/// The two lists that a user's names come from. A cursor begins with the letter of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameSource {
    Mapped,
    Cached,
}

/// Where a listing goes on: in which of the lists, and at which cursor of it.
struct ListPosition {
    source: NameSource,
    cursor: Option<Cursor>,
}

impl ListPosition {
    /// Reads a cursor. The cached lookups belong to users only.
    fn parse(cursor: Option<&Cursor>, scope: &Scope) -> Result<Self, Error> {
        let Some(Cursor(cursor)) = cursor else { return Ok(Self { source: NameSource::Mapped, cursor: None }) };
        let mut letters = cursor.chars();
        let source = match (letters.next(), scope) {
            (Some('w'), _) => NameSource::Mapped,
            (Some('f'), Scope::User(_)) => NameSource::Cached,
            _ => return Err(Error::of_cursor(TableError::Request("a cursor of another list"))),
        };
        let rest = letters.as_str();
        Ok(Self { source, cursor: (!rest.is_empty()).then(|| Cursor(rest.to_owned())) })
    }

    fn into_cursor(self) -> Cursor {
        let letter = match self.source {
            NameSource::Mapped => 'w',
            NameSource::Cached => 'f',
        };
        let rest = self.cursor.map(|Cursor(cursor)| cursor).unwrap_or_default();
        Cursor(format!("{letter}{rest}"))
    }
}

impl Engine {
    /// Lists the names of one scope; after a user's mappings come the cached lookups. A page may have fewer than `limit` and
    /// still not be the last.
    pub async fn list_mappings(
        &self,
        principal: &Principal,
        which: &WhichMappings,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<MappingView>, Error> {
        let span = debug_span!("list_mappings", org = %principal.org, outcome = Empty);
        traced(span, async {
            let scope = self.check_listing(principal, which).await?;
            let mut position = ListPosition::parse(cursor.as_ref(), &scope)?;
            let mut entries = Vec::new();
            for _ in 0..QUERIES_MAX {
                let page = self
                    .query_names(&principal.org, which, &scope, position.source, limit - entries.len(), position.cursor)
                    .await?;
                entries.extend(page.entries);
                position.cursor = page.next;
                if position.cursor.is_none() {
                    let cached_follow = position.source == NameSource::Mapped && matches!(scope, Scope::User(_));
                    if !cached_follow {
                        return Ok(Page { entries, next: None });
                    }
                    position.source = NameSource::Cached;
                }
                if entries.len() >= limit {
                    break;
                }
            }
            Ok(Page { entries, next: Some(position.into_cursor()) })
        })
        .await
    }

    /// The scope of a listing. `Invalid` has every wrong field; `Forbidden` if the caller may not read the scope.
    async fn check_listing(&self, principal: &Principal, which: &WhichMappings) -> Result<Scope, Error> {
        let WhichMappings { tool, kind, user_id, agent_id } = which;
        let mut problems = Vec::new();
        let scope = scope(user_id.as_ref(), agent_id.as_ref(), "");
        if let Ok(scope) = &scope {
            principal.may_read(scope)?;
        }
        let scope = scope.map_err(|problem| problems.push(problem)).ok();
        let known = match (tool, kind) {
            (Some(tool), Some(kind)) => self.name_kind(&principal.org, tool, kind, "").await.map(drop),
            (Some(tool), None) => self.mapped_plugin(&principal.org, tool, "").await.map(drop),
            (None, None) => Ok(()),
            (None, Some(_)) => {
                Err(FieldProblem::new("/tool", "is required with kind, which belongs to a plugin").into())
            }
        };
        MappingError::gather(known, &mut problems)?;
        scope.filter(|_| problems.is_empty()).ok_or(Error::Invalid(problems))
    }

    /// One query of one of the lists.
    async fn query_names(
        &self,
        org: &OrgId,
        which: &WhichMappings,
        scope: &Scope,
        source: NameSource,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<MappingView>, Error> {
        let WhichMappings { tool, kind, .. } = which;
        let (partition, prefix) = match (source, scope) {
            (NameSource::Cached, Scope::User(user)) => keys::cached_names(org, user, tool.as_ref()),
            (NameSource::Mapped | NameSource::Cached, scope) => {
                keys::mappings(org, scope, tool.as_ref().map(|tool| (tool, kind.as_ref())))
            }
        };
        let query = Query { range: Range::Prefix(prefix), cursor, ..Query::partition(partition, limit) };
        let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
        let mut entries = Vec::new();
        for item in page.entries {
            match (source, scope) {
                (NameSource::Cached, Scope::User(user)) => {
                    let cached: CachedName = item.record()?;
                    if kind.as_ref().is_none_or(|kind| cached.kind == *kind) {
                        entries.push(cached.view(user));
                    }
                }
                (NameSource::Mapped | NameSource::Cached, scope) => entries.push(item.record::<Mapping>()?.view(scope)),
            }
        }
        Ok(Page { entries, next: page.next })
    }

    /// The first hundred mapped names of a kind, in each scope that counts for a user and an agent.
    pub(super) async fn mapped_names(
        &self,
        org: &OrgId,
        user: &UserId,
        agent: Option<&AgentId>,
        plugin: &PluginName,
        kind: &MappingKind,
    ) -> Result<Vec<String>, TableError> {
        let scopes = [agent.cloned().map(Scope::Agent), Some(Scope::User(user.clone())), Some(Scope::Organization)];
        let mut names = Vec::new();
        for scope in scopes.into_iter().flatten() {
            let (partition, prefix) = keys::mappings(org, &scope, Some((plugin, Some(kind))));
            let query =
                Query { range: Range::Prefix(prefix), read: Read::Eventual, ..Query::partition(partition, BATCH_MAX) };
            for item in self.ports.table.query(query).await?.entries {
                names.push(item.record::<Mapping>()?.name.into());
            }
        }
        Ok(names)
    }

    /// A user's cached lookups of a kind, among the first thousand of the plugin's.
    pub(super) async fn cached_names(
        &self,
        org: &OrgId,
        user: &UserId,
        plugin: &PluginName,
        kind: &MappingKind,
    ) -> Result<Vec<(CachedName, Item)>, TableError> {
        let (partition, prefix) = keys::cached_names(org, user, Some(plugin));
        let (mut names, mut cursor) = (Vec::new(), None);
        for _ in 0..QUERIES_MAX {
            let range = Range::Prefix(prefix.clone());
            let query = Query { range, cursor, ..Query::partition(partition.clone(), BATCH_MAX) };
            let page = self.ports.table.query(query).await?;
            for item in page.entries {
                let cached: CachedName = item.record()?;
                if cached.kind == *kind {
                    names.push((cached, item));
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(names)
    }
}
