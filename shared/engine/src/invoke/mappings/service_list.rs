//! The lists of names and ids that services return, cached in memory. Concurrent requests for one list share one fetch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;

use super::lookup::{KindLookup, LookupError};
use super::names::NameRef;
use crate::core::error::causes;
use crate::core::ids::{ExternalId, MappingKind, MappingName, OrgId, PluginName, UserId};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::core::suggest::nearest;
use crate::engine::Engine;
use crate::invoke::call::{RETRIES_MAX, RetryLimits};
use crate::outbound::runtime::{Call, CallError};
use crate::plugin::manifest::{Lookup, NameKind};
use crate::plugin::template::{Context, TemplateError, text_of};

/// How long a process uses a cached list.
const LIST_LIFETIME: SignedDuration = SignedDuration::from_secs(60);
/// How long a cached list counts as evidence that a name is not in it.
const ABSENCE_LIFETIME: SignedDuration = SignedDuration::from_secs(5);
/// The most that all cached lists weigh together, in bytes of their names and ids.
const LISTS_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// About how many lists that is; an estimate for the cache.
const LISTS_ESTIMATE: usize = 1_000;

/// Everything that a list depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ServiceListKey {
    org: OrgId,
    user: UserId,
    plugin: PluginName,
    account: Option<String>,
    kind: MappingKind,
    /// The parameters of the lookup action, as JSON.
    parameters: String,
}

impl ServiceListKey {
    pub(super) fn of(at: &KindLookup<'_>, kind: &MappingKind, parameters: &Map<String, Value>) -> Self {
        let context = at.context;
        Self {
            org: context.org.clone(),
            user: context.user.clone(),
            plugin: context.manifest().name.clone(),
            account: context.cache_scope.clone(),
            kind: kind.clone(),
            parameters: Value::Object(parameters.clone()).to_string(),
        }
    }
}

/// A list that a service returned.
#[derive(Debug)]
pub(super) struct ServiceList {
    at: Timestamp,
    pub entries: Vec<ServiceListEntry>,
}

#[derive(Debug)]
pub(super) struct ServiceListEntry {
    pub name: MappingName,
    /// The name in the form in which names are compared.
    pub compared: String,
    id: ExternalId,
}

impl ServiceList {
    /// Whether the list may still be used to look up this name. A list without the name ages sooner.
    pub(super) fn is_fresh_for(&self, names: &NameKind, wanted: &NameRef, now: Timestamp) -> bool {
        let age = now.duration_since(self.at);
        let fresh = (SignedDuration::ZERO..LIST_LIFETIME).contains(&age);
        fresh && (!self.matching(names, wanted).is_empty() || age <= ABSENCE_LIFETIME)
    }

    /// The entries with that name, each id once. Where only the list can tell what an id is, the id itself matches as well.
    pub(super) fn matching(&self, names: &NameKind, wanted: &NameRef) -> BTreeMap<&ExternalId, &ServiceListEntry> {
        let is_match = |entry: &&ServiceListEntry| {
            let is_name = wanted.compared.as_ref() == Some(&entry.compared);
            is_name || (names.id.is_none() && entry.id.as_str() == wanted.given)
        };
        self.entries.iter().filter(is_match).map(|entry| (&entry.id, entry)).collect()
    }
}

/// Weighs a list by its bytes.
#[derive(Debug, Clone)]
struct ByteWeighter;

impl Weighter<ServiceListKey, Arc<ServiceList>> for ByteWeighter {
    fn weight(&self, key: &ServiceListKey, list: &Arc<ServiceList>) -> u64 {
        let of_entry = |entry: &ServiceListEntry| {
            entry.name.as_str().len() + entry.compared.len() + entry.id.as_str().len() + size_of::<ServiceListEntry>()
        };
        let entries = list.entries.iter().map(of_entry).sum::<usize>();
        u64::try_from(key.parameters.len() + size_of::<ServiceListKey>() + entries).unwrap_or(u64::MAX)
    }
}

/// A fetch in flight, and its result for everyone who waits for it.
type Flight = Arc<OnceCell<Result<Arc<ServiceList>, Failure>>>;

/// The lists that this process has cached or is fetching.
pub(crate) struct LookupState {
    lists: Cache<ServiceListKey, Arc<ServiceList>, ByteWeighter>,
    flights: Mutex<HashMap<ServiceListKey, Flight>>,
}

impl Default for LookupState {
    fn default() -> Self {
        Self { lists: Cache::with_weighter(LISTS_ESTIMATE, LISTS_MAX_BYTES, ByteWeighter), flights: Mutex::default() }
    }
}

impl LookupState {
    /// The cached list, if it is usable. An unusable one is dropped from the cache.
    pub(super) fn cached(
        &self,
        key: &ServiceListKey,
        is_usable: impl Fn(&ServiceList) -> bool,
    ) -> Option<Arc<ServiceList>> {
        let list = self.lists.get(key)?;
        if is_usable(&list) {
            return Some(list);
        }
        self.lists.remove_if(key, |current| Arc::ptr_eq(current, &list));
        // Another request may have fetched a new list just now.
        self.lists.get(key)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<ServiceListKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Joins the fetch of a list that is in flight, or starts it. Everyone who joins gets the same result.
    pub(super) async fn join_or_fetch_list(
        &self,
        at: &KindLookup<'_>,
        key: &ServiceListKey,
        parameters: Map<String, Value>,
    ) -> Result<Arc<ServiceList>, Failure> {
        let flight = Arc::clone(self.lookup_state.flights().entry(key.clone()).or_default());
        let fetch = async || {
            let now = self.ports.clock.now();
            let entries = match Box::pin(self.fetch_list(at, parameters.clone())).await {
                Ok(entries) => entries,
                Err(LookupError::Failed(failure)) => return Err(failure),
                Err(LookupError::Other(error)) => {
                    tracing::error!(org = %at.context.org, error = %causes(&error), "failed to look up names");
                    return Err(Failure::new(OutcomeCode::Unavailable, error.to_string(), true));
                }
            };
            let list = Arc::new(ServiceList { at: now, entries });
            self.lookup_state.lists.insert(key.clone(), Arc::clone(&list));
            Ok(list)
        };
        let result = flight.get_or_init(fetch).await.clone();
        let mut flights = self.lookup_state.flights();
        if flights.get(key).is_some_and(|current| Arc::ptr_eq(current, &flight)) {
            flights.remove(key);
        }
        result
    }

    /// Calls the plugin's lookup action, and reads the list that it returns.
    async fn fetch_list(
        &self,
        at: &KindLookup<'_>,
        parameters: Map<String, Value>,
    ) -> Result<Vec<ServiceListEntry>, LookupError> {
        let (context, lookup) = (at.context, at.lookup);
        let found = context.plugin.action(lookup.action.as_str())?;
        let parameters = found.check(parameters).map_err(|error| plugin_at_fault(&error.to_string()))?;
        let (manifest, user, now) = (context.manifest(), context.user, self.ports.clock.now());
        let (action, config) = (found.action, context.config);
        let call = Call { manifest, action, parameters: &parameters, config, user, now, key: None, until: None };
        // The account's use is recorded with the intent's own call.
        let mut account = context.account.cloned();
        let limits = RetryLimits { deadline: at.deadline, retries: RETRIES_MAX };
        let report = self.call_with_retry(context.org, &call, &mut account, context.alias, limits).await?;
        context.called.fetch_or(report.attempts > 0, Ordering::Relaxed);
        let data = report.result.map_err(CallError::into_failure)?.data;
        let entries = read_entries(at.names, lookup, &data).map_err(|error| plugin_at_fault(&error.to_string()))?;
        let no_list = || plugin_at_fault(&format!("what {} returns has no list where its lookup says", lookup.action));
        Ok(entries.ok_or_else(no_list)?)
    }
}

/// The failure of a lookup whose declaration in the plugin is wrong.
fn plugin_at_fault(reason: &str) -> Failure {
    Failure::new(OutcomeCode::Unavailable, format!("the plugin is at fault: {reason}"), false)
}

/// Reads a list, if there is one; entries without a valid name and id are left out.
fn read_entries(
    names: &NameKind,
    lookup: &Lookup,
    data: &Value,
) -> Result<Option<Vec<ServiceListEntry>>, TemplateError> {
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

/// The names nearest to `given`, as people write them.
pub(super) fn suggestions<'a>(names: &NameKind, given: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let known: BTreeSet<&str> = known.map(|name| names.bare(name)).collect();
    nearest(names.bare(given), known.into_iter()).iter().map(|name| names.written(name)).collect()
}
