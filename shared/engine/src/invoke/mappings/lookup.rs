//! Looking up names at the service. For each name that is neither mapped nor cached, the plugin's lookup action lists what
//! there is:
//!
//! 1. The list comes from this process's cache, from a fetch in flight, or from a new fetch (`service_list.rs`).
//! 2. Exactly one match resolves the name. Otherwise the caller gets the candidates, or suggestions.
//! 3. What was resolved is cached in the table for as long as the plugin says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::names::{NameRef, NameResolvedBy, Naming, ResolvedName};
use super::record::CachedName;
use super::service_list::{ServiceList, ServiceListEntry, ServiceListKey, suggestions};
use crate::accounts::AuthorizedAccount;
use crate::core::error::{Error, causes};
use crate::core::ids::{AgentId, Alias, ExternalId, MappingName, OrgId, UserId};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{Action, Lookup, Manifest, NameKind};
use crate::ports::table::{Condition, NewItem, TableError, Write};
use crate::storage::keys;

/// The most candidates that a message names.
const CANDIDATES_MAX: usize = 5;

/// The intent that names are looked up for, and the account that is used.
pub(crate) struct LookupContext<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    pub plugin: &'a Plugin,
    /// The plugin's configuration in the organization.
    pub config: &'a Map<String, Value>,
    /// What cached lookups are valid for: [`Instance::name_cache_scope`](crate::registry::instances::Instance::name_cache_scope).
    pub cache_scope: Option<String>,
    /// The action of the intent.
    pub action: &'a Action,
    pub account: Option<&'a AuthorizedAccount>,
    /// The account that the intent names.
    pub alias: Option<&'a Alias>,
    /// Set once the service was called for this intent.
    pub called: &'a AtomicBool,
}

impl LookupContext<'_> {
    pub(super) fn manifest(&self) -> &Manifest {
        &self.plugin.manifest
    }
}

/// The lookup that a plugin declares for a kind of names, within an intent.
pub(super) struct KindLookup<'a> {
    pub context: &'a LookupContext<'a>,
    pub names: &'a NameKind,
    pub lookup: &'a Lookup,
    pub deadline: Instant,
}

/// Why names were not looked up.
pub(crate) enum LookupError {
    /// The lookup action failed.
    Failed(Failure),
    /// Names do not resolve (`Invalid`), or any other error.
    Other(Error),
}

impl From<Failure> for LookupError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for LookupError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Why one name was not resolved.
enum LookupMiss {
    /// Several things have this name.
    Several(Vec<(MappingName, ExternalId)>),
    /// Nothing has it; this is the list of what there is.
    Nothing(Arc<ServiceList>),
    /// There is no list: the lookup action failed, or there was no time left.
    Failed(Failure),
}

impl Engine {
    /// Looks up the names that are unresolved, and caches those that resolve. `Invalid` has a problem for each name that does
    /// not, with its candidates or the nearest names. A failed lookup ends it, and its message says for which name it was.
    pub(crate) async fn look_up(
        &self,
        context: &LookupContext<'_>,
        naming: &mut Naming,
        deadline: Instant,
    ) -> Result<(), LookupError> {
        let (mut resolved, mut problems) = (Vec::new(), Vec::new());
        let mut failed = None;
        for wanted in naming.names.iter_mut().filter(|wanted| wanted.resolved.is_none()) {
            let Some(names) = context.manifest().mappings.get(&wanted.kind) else { continue };
            let Some(lookup) = &names.lookup else { continue };
            let at = KindLookup { context, names, lookup, deadline };
            let cached = match self.look_up_name(&at, wanted).await {
                Ok(cached) => cached,
                Err(LookupMiss::Failed(failure)) => {
                    failed = Some(failure);
                    break;
                }
                Err(LookupMiss::Several(candidates)) => {
                    problems.extend(problems_of(&at, wanted, &several_message(&at, wanted, &candidates)));
                    continue;
                }
                Err(LookupMiss::Nothing(list)) => {
                    let message = self.nothing_message(&at, wanted, &list).await.map_err(Error::from)?;
                    problems.extend(problems_of(&at, wanted, &message));
                    continue;
                }
            };
            wanted.resolved = Some(ResolvedName {
                id: cached.external_id.as_str().to_owned(),
                how: NameResolvedBy::Lookup,
                expires_at: Some(cached.expires_at),
            });
            resolved.push((wanted.compared.clone().unwrap_or_default(), cached));
        }
        self.cache_names(context, resolved).await;
        match failed {
            Some(failure) => Err(failure.into()),
            None if problems.is_empty() => Ok(()),
            None => Err(Error::Invalid(problems).into()),
        }
    }

    /// Looks up one name.
    async fn look_up_name(&self, at: &KindLookup<'_>, wanted: &NameRef) -> Result<CachedName, LookupMiss> {
        let now = self.ports.clock.now();
        let list = self.list_for(at, wanted, now).await.map_err(|failure| {
            let pointer = wanted.first_pointer();
            let message = format!("the name at {pointer} could not be looked up: {}", failure.message);
            LookupMiss::Failed(Failure { message, ..failure })
        })?;
        let candidates = list.matching(at.names, wanted);
        let mut each = candidates.iter();
        match (each.next(), each.next()) {
            (Some((id, entry)), None) => Ok(cached_name(at, wanted, id, entry, now)),
            (None, _) => Err(LookupMiss::Nothing(Arc::clone(&list))),
            (Some(_), Some(_)) => {
                let candidates = candidates.iter().map(|(id, entry)| (entry.name.clone(), (*id).clone()));
                Err(LookupMiss::Several(candidates.collect()))
            }
        }
    }

    /// The list that may have a name: cached, from the fetch in flight, or from a new one.
    async fn list_for(
        &self,
        at: &KindLookup<'_>,
        wanted: &NameRef,
        now: Timestamp,
    ) -> Result<Arc<ServiceList>, Failure> {
        let parameters = at.lookup.parameters_for(at.names.bare(&wanted.given));
        let key = ServiceListKey::of(at, &wanted.kind, &parameters);
        if let Some(list) = self.lookup_state.cached(&key, |list| list.is_fresh_for(at.names, wanted, now)) {
            return Ok(list);
        }
        let list = timeout_at(at.deadline, self.join_or_fetch_list(at, &key, parameters)).await;
        list.unwrap_or_else(|_| {
            let message = format!("there was no time left to look up the name at {}", wanted.first_pointer());
            Err(Failure::new(OutcomeCode::Timeout, message, true))
        })
    }

    /// Caches names in the table. If that fails, the next intent looks them up again.
    async fn cache_names(&self, context: &LookupContext<'_>, names: Vec<(String, CachedName)>) {
        let mut items = BTreeMap::new();
        for (compared, cached) in names {
            let key =
                keys::cached_name(context.org, context.user, &cached.plugin, context.alias, &cached.kind, &compared);
            match NewItem::new(key.clone(), &cached) {
                Ok(item) => items.insert(key, NewItem { expires_at: Some(cached.expires_at), ..item }),
                Err(error) => return tracing::error!(error = %causes(&error), "failed to cache looked-up name"),
            };
        }
        if items.is_empty() {
            return;
        }
        let writes = items.into_values().map(|item| Write::Put(item, Condition::Any)).collect();
        if let Err(error) = self.ports.table.transact(writes).await {
            tracing::error!(org = %context.org, error = %causes(&error), "failed to cache looked-up names");
        }
    }

    /// The problem of a name that nothing has, with suggestions from the list and from the mappings.
    async fn nothing_message(
        &self,
        at: &KindLookup<'_>,
        wanted: &NameRef,
        list: &ServiceList,
    ) -> Result<String, TableError> {
        let (context, kind) = (at.context, &wanted.kind);
        let plugin = &context.manifest().name;
        let mapped = self.mapped_names(context.org, context.user, context.agent, plugin, kind).await?;
        let listed = list.entries.iter().map(|entry| entry.name.as_str());
        let near = suggestions(at.names, &wanted.given, listed.chain(mapped.iter().map(String::as_str)));
        let remedy = if near.is_empty() {
            format!("{} lists those there are", at.lookup.action)
        } else {
            format!("did you mean {}?", near.join(" or "))
        };
        Ok(format!("is neither the id nor the name of a {kind}; {remedy}"))
    }
}

/// The cached lookup of a name that resolved to one entry.
fn cached_name(
    at: &KindLookup<'_>,
    wanted: &NameRef,
    id: &ExternalId,
    entry: &ServiceListEntry,
    now: Timestamp,
) -> CachedName {
    let exact = wanted.compared.as_ref() != Some(&entry.compared);
    let id_as_name = MappingName::parse(id.as_str()).ok().filter(|_| exact);
    let lifetime = SignedDuration::from_secs(i64::from(at.lookup.lifetime_s));
    CachedName {
        plugin: at.context.manifest().name.clone(),
        kind: wanted.kind.clone(),
        name: id_as_name.unwrap_or_else(|| entry.name.clone()),
        external_id: id.clone(),
        alias: at.context.alias.cloned(),
        account: at.context.cache_scope.clone(),
        exact,
        at: now,
        expires_at: now.saturating_add(lifetime).unwrap_or(now),
    }
}

/// The problem of a name that several things have.
fn several_message(at: &KindLookup<'_>, wanted: &NameRef, candidates: &[(MappingName, ExternalId)]) -> String {
    let more = candidates.len().saturating_sub(CANDIDATES_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let first = candidates.iter().take(CANDIDATES_MAX);
    let first = first.map(|(name, id)| format!("{:?} ({id})", at.names.written(name.as_str())));
    let first = first.collect::<Vec<_>>().join(", ");
    format!("is the name of more than one {}: {first}{more}; use the id of the one you mean", wanted.kind)
}

/// A problem for each position of a name that did not resolve. The messages never repeat what was given: like any other
/// parameter it may be a secret in the wrong place.
fn problems_of(at: &KindLookup<'_>, wanted: &NameRef, message: &str) -> Vec<FieldProblem> {
    // The author's description of the parameter also says what an id looks like.
    let property = at.context.action.parameters.get("properties").and_then(|all| all.get(wanted.parameter()));
    let description = property.and_then(|property| property.get("description")?.as_str());
    let stop = if message.ends_with('?') { "" } else { "." };
    let message = description.map_or_else(|| message.to_owned(), |text| format!("{message}{stop} {text}"));
    wanted.pointers().map(|pointer| FieldProblem::new(pointer, message.clone())).collect()
}
