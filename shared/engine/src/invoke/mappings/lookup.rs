//! Names that nobody wrote down: the service is asked what they stand for, and what it says is remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::names::{NameRef, NameResolvedBy, Naming, Resolved};
use super::record::CachedName;
use crate::accounts::AuthorizedAccount;
use crate::core::error::{Error, causes};
use crate::core::ids::{AgentId, Alias, ExternalId, MappingKind, MappingName, OrgId, PluginName, UserId};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::core::problem::FieldProblem;
use crate::core::suggest::nearest;
use crate::engine::Engine;
use crate::invoke::call::{CallReport, RETRIES_MAX, RetryLimits};
use crate::outbound::runtime::{Call, CallError};
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{Action, Lookup, Manifest, NameKind};
use crate::plugin::template::{Context, TemplateError, text_of};
use crate::ports::table::{Condition, NewItem, TableError, Write};
use crate::storage::keys;

/// How long a process remembers a list.
const SEEN_FOR: SignedDuration = SignedDuration::from_secs(60);
/// How long it believes a list that a name is not in it.
const NOT_SEEN_FOR: SignedDuration = SignedDuration::from_secs(5);
/// What remembered lists may weigh together, in bytes of their names and ids.
const SEEN_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// About how many lists that will be.
const SEEN_LISTS: usize = 1_000;
/// The most candidates that a message names.
const CANDIDATES_MAX: usize = 5;

/// What a list depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ListOf {
    org: OrgId,
    user: UserId,
    plugin: PluginName,
    account: Option<String>,
    kind: MappingKind,
    /// The parameters, as JSON.
    parameters: String,
}

/// What a service listed.
#[derive(Debug)]
pub(crate) struct ServiceList {
    at: Timestamp,
    entries: Vec<ServiceListEntry>,
}

#[derive(Debug)]
struct ServiceListEntry {
    name: MappingName,
    /// The name as names are compared.
    compared: String,
    id: ExternalId,
}

/// Lists that this process remembers.
type ServiceLists = Cache<ListOf, Arc<ServiceList>, ByBytes>;

/// Weighs lists by what they take.
#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<ListOf, Arc<ServiceList>> for ByBytes {
    fn weight(&self, key: &ListOf, listed: &Arc<ServiceList>) -> u64 {
        let of_entry = |entry: &ServiceListEntry| {
            entry.name.as_str().len() + entry.compared.len() + entry.id.as_str().len() + size_of::<ServiceListEntry>()
        };
        let bytes = key.parameters.len() + size_of::<ListOf>() + listed.entries.iter().map(of_entry).sum::<usize>();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// What this process knows of the names at services.
pub(crate) struct LookupState {
    /// Lists that services answered with.
    lists: ServiceLists,
    /// Lists that a caller is fetching at the moment.
    flights: Mutex<HashMap<ListOf, Flight>>,
}

impl Default for LookupState {
    fn default() -> Self {
        Self { lists: Cache::with_weighter(SEEN_LISTS, SEEN_MAX_BYTES, ByBytes), flights: Mutex::default() }
    }
}

/// Who asks, and through which account.
pub(crate) struct LookupContext<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    pub plugin: &'a Plugin,
    /// The plugin's configuration in the organization.
    pub config: &'a Map<String, Value>,
    /// What the names that are found count for: [`Instance::names_seen_by`](crate::registry::instances::Instance::names_seen_by).
    pub seen_by: Option<String>,
    /// The action that is intended.
    pub action: &'a Action,
    pub held: Option<&'a AuthorizedAccount>,
    /// The account that the intent names.
    pub alias: Option<&'a Alias>,
    /// Whether the service was called in this caller's name.
    pub called: &'a AtomicBool,
}

impl LookupContext<'_> {
    fn manifest(&self) -> &Manifest {
        &self.plugin.manifest
    }

    fn account(&self) -> Option<&str> {
        self.seen_by.as_deref()
    }
}

/// A list that somebody is asking for.
pub(crate) type Flight = Arc<OnceCell<Result<Arc<ServiceList>, Failure>>>;

/// Why a name was not resolved.
enum LookupMiss {
    /// Several things are called so.
    Several(Vec<(MappingName, ExternalId)>),
    /// Nothing is; these are the names that there are.
    Nothing(Arc<ServiceList>),
}

impl Engine {
    /// Asks the plugin's lookup action about the names that are open, and remembers what it found. `Invalid` names the
    /// candidates, or the nearest names; a failure is one of the lookup itself, and says which name it was for.
    pub(crate) async fn look_up(
        &self,
        asking: &LookupContext<'_>,
        naming: &mut Naming,
        deadline: Instant,
    ) -> Result<Result<(), Failure>, Error> {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        let mut failed = None;
        for wanted in naming.names.iter_mut().filter(|wanted| wanted.resolved.is_none()) {
            let declared = asking.manifest().mappings.get(&wanted.kind);
            let Some((names, lookup)) = declared.and_then(|names| Some((names, names.lookup.as_ref()?))) else {
                continue;
            };
            let entry = match self.found(asking, wanted, (names, lookup), deadline).await? {
                Ok(Ok(entry)) => entry,
                Ok(Err(open)) => {
                    problems.extend(self.problems(asking, wanted, (names, lookup), &open).await?);
                    continue;
                }
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            };
            wanted.resolved = Some(Resolved {
                id: entry.external_id.as_str().to_owned(),
                how: NameResolvedBy::Lookup,
                expires_at: Some(entry.expires_at),
            });
            found.push((wanted.compared.clone().unwrap_or_default(), entry));
        }
        self.remember(asking, found).await;
        match failed {
            Some(failure) => Ok(Err(failure)),
            None if problems.is_empty() => Ok(Ok(())),
            None => Err(Error::Invalid(problems)),
        }
    }

    /// What one name is found to be.
    async fn found(
        &self,
        asking: &LookupContext<'_>,
        wanted: &NameRef,
        (names, lookup): (&NameKind, &Lookup),
        deadline: Instant,
    ) -> Result<Result<Result<CachedName, LookupMiss>, Failure>, Error> {
        let parameters = lookup.parameters_for(names.bare(&wanted.given));
        let list = ListOf {
            org: asking.org.clone(),
            user: asking.user.clone(),
            plugin: asking.manifest().name.clone(),
            account: asking.account().map(str::to_owned),
            kind: wanted.kind.clone(),
            parameters: Value::Object(parameters.clone()).to_string(),
        };
        let now = self.ports.clock.now();
        let usable = |listed: &ServiceList| {
            let age = now.duration_since(listed.at);
            let fresh = (SignedDuration::ZERO..SEEN_FOR).contains(&age);
            fresh && (!matching(listed, names, wanted).is_empty() || age <= NOT_SEEN_FOR)
        };
        if let Some(old) = self.lookup_state.lists.get(&list).filter(|listed| !usable(listed)) {
            self.lookup_state.lists.remove_if(&list, |listed| Arc::ptr_eq(listed, &old));
        }
        let too_slow = || {
            let message = format!("there was no time left to look up the name at {}", wanted.first_pointer());
            Failure::new(OutcomeCode::Timeout, message, true)
        };
        let listed = match self.lookup_state.lists.get(&list) {
            Some(listed) => Ok(listed),
            None => {
                match timeout_at(deadline, self.list_once(asking, (names, lookup), &list, parameters, deadline)).await {
                    Ok(listed) => listed,
                    Err(_) => Err(too_slow()),
                }
            }
        };
        let listed = match listed {
            Ok(listed) => listed,
            Err(failure) => {
                let which = wanted.first_pointer();
                let message = format!("the name at {which} could not be looked up: {}", failure.message);
                return Ok(Err(Failure { message, ..failure }));
            }
        };
        let candidates = matching(&listed, names, wanted);
        let mut each = candidates.iter();
        let (Some((id, entry)), None) = (each.next(), each.next()) else {
            let several =
                candidates.into_iter().map(|(id, entry)| (entry.name.clone(), id.clone())).collect::<Vec<_>>();
            return Ok(Ok(Err(if several.is_empty() {
                LookupMiss::Nothing(listed)
            } else {
                LookupMiss::Several(several)
            })));
        };
        let exact = wanted.compared.as_ref() != Some(&entry.compared);
        let lifetime = SignedDuration::from_secs(i64::from(lookup.lifetime_s));
        Ok(Ok(Ok(CachedName {
            plugin: asking.manifest().name.clone(),
            kind: wanted.kind.clone(),
            name: if exact {
                MappingName::parse((*id).as_str()).unwrap_or(entry.name.clone())
            } else {
                entry.name.clone()
            },
            external_id: (*id).clone(),
            alias: asking.alias.cloned(),
            account: asking.account().map(str::to_owned),
            exact,
            at: now,
            expires_at: now.saturating_add(lifetime).unwrap_or(now),
        })))
    }

    /// The list; who comes for the same one at the same time waits, and takes what the first came to.
    async fn list_once(
        &self,
        asking: &LookupContext<'_>,
        declared: (&NameKind, &Lookup),
        list: &ListOf,
        parameters: Map<String, Value>,
        deadline: Instant,
    ) -> Result<Arc<ServiceList>, Failure> {
        let flight = Arc::clone(self.flights().entry(list.clone()).or_default());
        let ask = async || {
            let now = self.ports.clock.now();
            let entries = match Box::pin(self.ask(asking, declared, parameters.clone(), deadline)).await {
                Ok(entries) => entries?,
                Err(error) => {
                    tracing::error!(org = %asking.org, error = %causes(&error), "names cannot be looked up");
                    return Err(Failure::new(OutcomeCode::Unavailable, error.to_string(), true));
                }
            };
            let listed = Arc::new(ServiceList { at: now, entries });
            self.lookup_state.lists.insert(list.clone(), Arc::clone(&listed));
            Ok(listed)
        };
        let came = flight.get_or_init(ask).await.clone();
        let mut flights = self.flights();
        if flights.get(list).is_some_and(|current| Arc::ptr_eq(current, &flight)) {
            flights.remove(list);
        }
        came
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<ListOf, Flight>> {
        self.lookup_state.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the plugin list what there is.
    async fn ask(
        &self,
        asking: &LookupContext<'_>,
        (names, lookup): (&NameKind, &Lookup),
        parameters: Map<String, Value>,
        deadline: Instant,
    ) -> Result<Result<Vec<ServiceListEntry>, Failure>, Error> {
        let found = asking.plugin.action(lookup.action.as_str())?;
        let at_fault = |what: &str| {
            let message = format!("the plugin is at fault: {what}");
            Ok(Err(Failure::new(OutcomeCode::Unavailable, message, false)))
        };
        let parameters = match found.check(parameters) {
            Ok(parameters) => parameters,
            Err(error) => return at_fault(&error.to_string()),
        };
        let now = self.ports.clock.now();
        let (manifest, user) = (asking.manifest(), asking.user);
        let (action, config) = (found.action, asking.config);
        let call = Call { manifest, action, parameters: &parameters, config, user, now, key: None, until: None };
        let mut held = asking.held.cloned();
        // Its use is noted with the intent's own.
        let limits = RetryLimits { deadline, retries: RETRIES_MAX };
        let report = self.call_with_retry(asking.org, &call, &mut held, asking.alias, limits).await?;
        let CallReport { result: returned, attempts } = report;
        asking.called.fetch_or(attempts > 0, Ordering::Relaxed);
        let data = match returned.map_err(CallError::into_failure) {
            Ok(success) => success.data,
            Err(failure) => return Ok(Err(failure)),
        };
        match entries(names, lookup, &data) {
            Ok(Some(entries)) => Ok(Ok(entries)),
            Ok(None) => at_fault(&format!("what {} returns has no list where its lookup says", lookup.action)),
            Err(error) => at_fault(&error.to_string()),
        }
    }

    /// Writes down what was found. What is not written down is looked up again.
    async fn remember(&self, asking: &LookupContext<'_>, found: Vec<(String, CachedName)>) {
        let mut items = BTreeMap::new();
        for (compared, found) in found {
            let name = (&found.kind, compared.as_str());
            let key = keys::found_name(asking.org, asking.user, &found.plugin, asking.alias, name);
            match NewItem::new(key.clone(), &found) {
                Ok(item) => items.insert(key, NewItem { expires_at: Some(found.expires_at), ..item }),
                Err(error) => return tracing::error!(error = %causes(&error), "a name that was found is not kept"),
            };
        }
        if items.is_empty() {
            return;
        }
        let writes = items.into_values().map(|item| Write::Put(item, Condition::Any)).collect();
        if let Err(error) = self.ports.table.transact(writes).await {
            tracing::error!(org = %asking.org, error = %causes(&error), "names that were found are not kept");
        }
    }

    /// Says why a name was not resolved, and what may have been meant. What was given is not repeated: like any other
    /// parameter it may be a secret in the wrong place.
    async fn problems(
        &self,
        asking: &LookupContext<'_>,
        wanted: &NameRef,
        (names, lookup): (&NameKind, &Lookup),
        open: &LookupMiss,
    ) -> Result<Vec<FieldProblem>, TableError> {
        let kind = &wanted.kind;
        let message = match open {
            LookupMiss::Several(candidates) => {
                let more = candidates.len().saturating_sub(CANDIDATES_MAX);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                let each = candidates.iter().take(CANDIDATES_MAX);
                let each = each.map(|(name, id)| format!("{:?} ({id})", names.written(name.as_str())));
                let each = each.collect::<Vec<_>>().join(", ");
                format!("is the name of more than one {kind}: {each}{more}; give the id of the one that is meant")
            }
            LookupMiss::Nothing(listed) => {
                let (org, plugin) = (asking.org, &asking.manifest().name);
                let stored = self.written_names(org, (Some(asking.user), asking.agent), plugin, kind).await?;
                let there = listed.entries.iter().map(|entry| entry.name.as_str());
                let near = near(names, &wanted.given, there.chain(stored.iter().map(String::as_str)));
                let near = if near.is_empty() {
                    format!("; {} lists those there are", lookup.action)
                } else {
                    format!("; did you mean {}?", near.join(" or "))
                };
                format!("is neither the id nor the name of a {kind}{near}")
            }
        };
        // What the author says of the parameter tells also what an id looks like.
        let property = asking.action.parameters.get("properties").and_then(|all| all.get(wanted.parameter()));
        let described = property.and_then(|property| property.get("description")?.as_str());
        let stop = if message.ends_with('?') { "" } else { "." };
        let message = described.map_or_else(|| message.clone(), |text| format!("{message}{stop} {text}"));
        Ok(wanted.pointers().map(|pointer| FieldProblem::new(pointer, message.clone())).collect())
    }
}

/// Names that may have been meant, as they are written.
pub(super) fn near<'a>(names: &NameKind, given: &str, there: impl Iterator<Item = &'a str>) -> Vec<String> {
    let there: std::collections::BTreeSet<&str> = there.map(|name| names.bare(name)).collect();
    nearest(names.bare(given), there.into_iter()).iter().map(|name| names.written(name)).collect()
}

/// What has that name, or is that id where only a list can tell what an id is: each id once.
fn matching<'a>(
    listed: &'a ServiceList,
    names: &NameKind,
    wanted: &NameRef,
) -> BTreeMap<&'a ExternalId, &'a ServiceListEntry> {
    let is_meant = |entry: &&ServiceListEntry| {
        let is_name = wanted.compared.as_ref() == Some(&entry.compared);
        is_name || (names.id.is_none() && entry.id.as_str() == wanted.given)
    };
    listed.entries.iter().filter(is_meant).map(|entry| (&entry.id, entry)).collect()
}

/// Reads a list; what has no name or no id is left out.
fn entries(names: &NameKind, lookup: &Lookup, data: &Value) -> Result<Option<Vec<ServiceListEntry>>, TemplateError> {
    let items = lookup.items.evaluate(&Context::default().with("data", data))?;
    let Some(Value::Array(items)) = items else { return Ok(None) };
    let mut entries = Vec::with_capacity(items.len());
    for item in items {
        let context = Context::default().with("item", &item);
        let (name, id) = (lookup.name.evaluate(&context)?, lookup.id.evaluate(&context)?);
        let (Some(name), Some(id)) = (name.as_ref().and_then(text_of), id.as_ref().and_then(text_of)) else { continue };
        let Some(compared) = names.compared(&name) else { continue };
        let (Ok(name), Ok(id)) = (MappingName::parse(names.bare(&name)), ExternalId::parse(id)) else { continue };
        entries.push(ServiceListEntry { name, compared, id });
    }
    Ok(Some(entries))
}
