//! The names in an intent's parameters, and the id that each resolves to.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::record::{CachedName, Mapping};
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, Alias, MappingKind, OrgId, PluginName, Scope, UserId};
use crate::core::problem::pointer_part;
use crate::plugin::manifest::{Action, Manifest, NameKind};
use crate::ports::table::{Item, Key, TableError};
use crate::storage::keys;

/// The most names in one intent: each reads up to four keys, and a batch has a hundred.
pub const NAMES_MAX: usize = 20;

/// How a name was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameResolvedBy {
    /// By the agent's mapping.
    Agent,
    /// By the user's mapping.
    User,
    /// By the organization's mapping.
    Organization,
    /// By a lookup at the service, which was made or is still needed.
    Lookup,
    /// Not at all: the value is an id, or no mapping has it and the plugin has no lookup.
    AsGiven,
}

/// A name and the id that it resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NameResolution {
    /// Its position in the parameters, as a JSON pointer.
    pub pointer: String,
    /// The kind of name.
    pub kind: MappingKind,
    /// The value in the intent.
    pub given: String,
    /// The service's id; absent while a lookup is still needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// How it was resolved.
    pub how: NameResolvedBy,
    /// When the mapping or the cached lookup expires, if ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// The id that a name resolves to.
#[derive(Debug, Clone)]
pub(super) struct ResolvedName {
    pub id: String,
    pub how: NameResolvedBy,
    pub expires_at: Option<Timestamp>,
}

/// The position of a value: its parameter, and its index if that is an array.
#[derive(Debug, Clone)]
struct NamePosition {
    parameter: String,
    index: Option<usize>,
}

impl NamePosition {
    fn pointer(&self) -> String {
        let parameter = pointer_part(&self.parameter);
        self.index.map_or_else(|| format!("/{parameter}"), |index| format!("/{parameter}/{index}"))
    }
}

/// A value that may be a name.
#[derive(Debug, Clone)]
pub(super) struct NameRef {
    pub kind: MappingKind,
    pub given: String,
    /// The form in which names are compared; none if the value cannot be a name.
    pub compared: Option<String>,
    /// Whether it surely is an id.
    is_id: bool,
    /// Whether the plugin declares a lookup for it.
    has_lookup: bool,
    positions: Vec<NamePosition>,
    pub resolved: Option<ResolvedName>,
}

impl NameRef {
    fn new(kind: &MappingKind, names: &NameKind, given: &str) -> Self {
        Self {
            kind: kind.clone(),
            given: given.to_owned(),
            compared: names.compared(given),
            is_id: names.is_id(given),
            has_lookup: names.lookup.is_some(),
            positions: Vec::new(),
            resolved: None,
        }
    }

    /// Its positions in the intent, as JSON pointers.
    pub(super) fn pointers(&self) -> impl Iterator<Item = String> {
        self.positions.iter().map(|position| format!("/context{}", position.pointer()))
    }

    /// Its first position in the intent.
    pub(super) fn first_pointer(&self) -> String {
        self.pointers().next().unwrap_or_default()
    }

    /// The parameter of its first position.
    pub(super) fn parameter(&self) -> &str {
        self.positions.first().map(|position| position.parameter.as_str()).unwrap_or_default()
    }
}

/// The names in an intent's parameters.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    plugin: PluginName,
    pub(super) names: Vec<NameRef>,
}

impl Naming {
    /// Finds the values that may be names.
    pub(crate) fn of(manifest: &Manifest, action: &Action, parameters: &Map<String, Value>) -> Result<Self, Error> {
        let mut naming = Self { plugin: manifest.name.clone(), names: Vec::new() };
        let properties = action.parameters.get("properties").and_then(Value::as_object);
        for (parameter, property) in properties.into_iter().flatten() {
            let Some((kind, names)) = manifest.kind_of(property, parameters) else { continue };
            let values: Vec<(Option<usize>, &str)> = match parameters.get(parameter) {
                Some(Value::String(value)) => vec![(None, value)],
                Some(Value::Array(values)) => {
                    let values = values.iter().enumerate();
                    values.filter_map(|(index, value)| Some((Some(index), value.as_str()?))).collect()
                }
                Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
            };
            for (index, value) in values {
                let position = NamePosition { parameter: parameter.clone(), index };
                let same = naming.names.iter_mut().find(|named| named.kind == *kind && named.given == value);
                if let Some(named) = same {
                    named.positions.push(position);
                    continue;
                }
                if naming.names.len() == NAMES_MAX {
                    let message = format!("is one name too many: an intent may have {NAMES_MAX} different names");
                    return Err(Error::field(format!("/context{}", position.pointer()), message));
                }
                naming.names.push(NameRef { positions: vec![position], ..NameRef::new(kind, names, value) });
            }
        }
        Ok(naming)
    }

    /// No names.
    pub(crate) fn none(manifest: &Manifest) -> Self {
        Self { plugin: manifest.name.clone(), names: Vec::new() }
    }

    /// One name, without an intent.
    pub(super) fn one(plugin: &PluginName, kind: &MappingKind, names: &NameKind, given: &str) -> Self {
        let position = NamePosition { parameter: "name".to_owned(), index: None };
        Self {
            plugin: plugin.clone(),
            names: vec![NameRef { positions: vec![position], ..NameRef::new(kind, names, given) }],
        }
    }

    /// Each name once, in the form in which names are compared.
    fn compared(&self) -> Vec<(&MappingKind, &str)> {
        let mut compared = Vec::new();
        for named in &self.names {
            let Some(name) = &named.compared else { continue };
            let name = (&named.kind, name.as_str());
            if !compared.contains(&name) {
                compared.push(name);
            }
        }
        compared
    }

    /// The keys to read: for each name the agent's, the user's and the organization's mapping, and the cached lookup.
    pub(crate) fn keys(&self, org: &OrgId, user: &UserId, agent: Option<&AgentId>, alias: Option<&Alias>) -> Vec<Key> {
        let agent = agent.map(|agent| Scope::Agent(agent.clone()));
        let scopes: Vec<Scope> = agent.into_iter().chain([Scope::User(user.clone()), Scope::Organization]).collect();
        let each = self.compared().into_iter().flat_map(|(kind, name)| {
            let mapped = scopes.iter().map(move |scope| keys::mapping(org, scope, &self.plugin, kind, name));
            mapped.chain([keys::cached_name(org, user, &self.plugin, alias, kind, name)])
        });
        each.collect()
    }

    /// Resolves names by the items of [`Self::keys`], in that order. `account` is the identity of the account in use; a lookup
    /// that was cached for another does not count.
    pub(crate) fn read(&mut self, items: Vec<Option<Item>>, account: Option<&str>) -> Result<(), TableError> {
        let names: Vec<(MappingKind, String)> =
            self.compared().into_iter().map(|(kind, name)| (kind.clone(), name.to_owned())).collect();
        let each = items.len().checked_div(names.len()).unwrap_or_default();
        if each * names.len() != items.len() || (!names.is_empty() && each == 0) {
            return Err(TableError::Request("the items do not fit the keys of the names"));
        }
        let mut all = items.into_iter();
        for (kind, compared) in names {
            let mut items: Vec<Option<Item>> = all.by_ref().take(each).collect();
            let cached = items.pop().flatten();
            // The user's and the organization's mapping always come; the agent's only if there is one.
            let scopes = [NameResolvedBy::Agent, NameResolvedBy::User, NameResolvedBy::Organization];
            let scopes = scopes.into_iter().skip(scopes.len().saturating_sub(items.len()));
            let mapped = items.into_iter().zip(scopes).find_map(|(item, how)| Some((item?, how)));
            let mapped = mapped.map(|(item, how)| Ok::<_, TableError>((item.record::<Mapping>()?, how)));
            let mapped = mapped.transpose()?.map(|(mapping, how)| ResolvedName {
                id: mapping.external_id.into(),
                how,
                expires_at: mapping.expires_at,
            });
            let cached: Option<CachedName> = cached.as_ref().map(Item::record).transpose()?;
            let cached = cached.filter(|cached| cached.account.as_deref() == account);
            for named in self.names.iter_mut().filter(|named| named.kind == kind) {
                if named.compared.as_ref() == Some(&compared) {
                    named.resolve_from(mapped.clone(), cached.as_ref());
                }
            }
        }
        for named in &mut self.names {
            named.resolve_from(None, None);
        }
        Ok(())
    }

    /// Whether a name is left that needs a lookup at the service.
    pub(crate) fn has_unresolved(&self) -> bool {
        self.names.iter().any(|named| named.resolved.is_none())
    }

    /// The calls that look up the unresolved names, each once: the lookup action and its parameters.
    pub(crate) fn lookup_calls(&self, manifest: &Manifest) -> Vec<(ActionName, Map<String, Value>)> {
        let mut calls = Vec::new();
        for named in self.names.iter().filter(|named| named.resolved.is_none()) {
            let Some(names) = manifest.mappings.get(&named.kind) else { continue };
            let Some(lookup) = &names.lookup else { continue };
            let call = (lookup.action.clone(), lookup.parameters_for(names.bare(&named.given)));
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
        calls
    }

    /// How each name was resolved, at each of its positions.
    pub(crate) fn resolutions(&self) -> Vec<NameResolution> {
        let each = self.names.iter().flat_map(|named| {
            let resolved = named.resolved.as_ref();
            named.positions.iter().map(move |position| NameResolution {
                pointer: position.pointer(),
                kind: named.kind.clone(),
                given: named.given.clone(),
                external_id: resolved.map(|resolved| resolved.id.clone()),
                how: resolved.map_or(NameResolvedBy::Lookup, |resolved| resolved.how),
                expires_at: resolved.and_then(|resolved| resolved.expires_at),
            })
        });
        each.collect()
    }

    /// Whether [`Self::apply`] replaces a name by an id.
    pub(crate) fn replaces(&self) -> bool {
        self.names.iter().any(|named| named.resolved.as_ref().is_some_and(|resolved| resolved.id != named.given))
    }

    /// The parameters with ids instead of names.
    pub(crate) fn apply(&self, mut parameters: Map<String, Value>) -> Map<String, Value> {
        for named in &self.names {
            let Some(resolved) = &named.resolved else { continue };
            for position in &named.positions {
                let value = parameters.get_mut(&position.parameter);
                let value = match position.index {
                    None => value,
                    Some(index) => value.and_then(|values| values.get_mut(index)),
                };
                if let Some(value) = value {
                    *value = resolved.id.as_str().into();
                }
            }
        }
        parameters
    }
}

impl NameRef {
    /// Resolves the name, unless it is resolved: a mapping counts first, then an id as it is, then a cached lookup. A name
    /// without a lookup stays as it is.
    fn resolve_from(&mut self, mapped: Option<ResolvedName>, cached: Option<&CachedName>) {
        if self.resolved.is_some() {
            return;
        }
        let as_given = || ResolvedName { id: self.given.clone(), how: NameResolvedBy::AsGiven, expires_at: None };
        let cached = cached.filter(|cached| !cached.exact || cached.external_id.as_str() == self.given);
        self.resolved = match (mapped, cached) {
            (Some(mapped), _) => Some(mapped),
            (None, _) if self.is_id => Some(as_given()),
            (None, Some(cached)) => Some(ResolvedName {
                id: cached.external_id.as_str().to_owned(),
                how: NameResolvedBy::Lookup,
                expires_at: Some(cached.expires_at),
            }),
            (None, None) if !self.has_lookup => Some(as_given()),
            (None, None) => None,
        };
    }
}
