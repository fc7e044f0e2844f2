//! The names in an intent's parameters, and what each of them stands for.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::record::{CachedName, Mapping};
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, Alias, MappingKind, OrgId, PluginName, Scope, UserId};
use crate::plugin::manifest::{Action, Manifest, NameKind};
use crate::ports::table::{Item, Key, TableError};
use crate::storage::keys;

/// The most names in one intent: with each up to four keys are read, and a batch has a hundred.
pub const NAMES_MAX: usize = 20;

/// How it became known what a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameResolvedBy {
    /// The agent's own name.
    Agent,
    /// The user's.
    User,
    /// The organization's.
    Organization,
    /// The service was asked, or is to be.
    Lookup,
    /// It is an id, or nothing is known that would take its place.
    AsGiven,
}

/// A name and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NameResolution {
    /// Where it stands in the parameters, as a JSON pointer.
    pub pointer: String,
    /// What sort of name it is.
    pub kind: MappingKind,
    /// As it was given.
    pub given: String,
    /// What the service calls it; absent while the service itself has to be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// How that is known.
    pub how: NameResolvedBy,
    /// Until when, if not for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub id: String,
    pub how: NameResolvedBy,
    pub expires_at: Option<Timestamp>,
}

/// Where a value stands: the parameter, and the place in its array.
#[derive(Debug, Clone)]
struct Place {
    parameter: String,
    index: Option<usize>,
}

impl Place {
    fn pointer(&self) -> String {
        let parameter = self.parameter.replace('~', "~0").replace('/', "~1");
        self.index.map_or_else(|| format!("/{parameter}"), |index| format!("/{parameter}/{index}"))
    }
}

/// A value that may be a name.
#[derive(Debug, Clone)]
pub(super) struct NameRef {
    pub kind: MappingKind,
    pub given: String,
    /// As names are compared; none where it cannot be a name.
    pub compared: Option<String>,
    /// It is surely an id.
    is_id: bool,
    /// The service can be asked about it.
    has_lookup: bool,
    places: Vec<Place>,
    pub resolved: Option<Resolved>,
}

impl NameRef {
    fn new(kind: &MappingKind, names: &NameKind, given: &str) -> Self {
        Self {
            kind: kind.clone(),
            given: given.to_owned(),
            compared: names.compared(given),
            is_id: names.is_id(given),
            has_lookup: names.lookup.is_some(),
            places: Vec::new(),
            resolved: None,
        }
    }

    /// Where it stands in the intent.
    pub(super) fn pointers(&self) -> impl Iterator<Item = String> {
        self.places.iter().map(|place| format!("/context{}", place.pointer()))
    }

    /// Where it stands first.
    pub(super) fn first_pointer(&self) -> String {
        self.pointers().next().unwrap_or_default()
    }

    /// The parameter that it stands in first.
    pub(super) fn parameter(&self) -> &str {
        self.places.first().map(|place| place.parameter.as_str()).unwrap_or_default()
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
                let place = Place { parameter: parameter.clone(), index };
                let same = naming.names.iter_mut().find(|named| named.kind == *kind && named.given == value);
                if let Some(named) = same {
                    named.places.push(place);
                    continue;
                }
                if naming.names.len() == NAMES_MAX {
                    let message = format!("is a name too many: an intent may have {NAMES_MAX} different ones");
                    return Err(Error::field(format!("/context{}", place.pointer()), message));
                }
                naming.names.push(NameRef { places: vec![place], ..NameRef::new(kind, names, value) });
            }
        }
        Ok(naming)
    }

    /// No names.
    pub(crate) fn none(manifest: &Manifest) -> Self {
        Self { plugin: manifest.name.clone(), names: Vec::new() }
    }

    /// One name by itself.
    pub(super) fn one(plugin: &PluginName, kind: &MappingKind, names: &NameKind, given: &str) -> Self {
        let place = Place { parameter: "name".to_owned(), index: None };
        Self {
            plugin: plugin.clone(),
            names: vec![NameRef { places: vec![place], ..NameRef::new(kind, names, given) }],
        }
    }

    /// Each name once, as names are compared.
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

    /// What to read: for each name the agent's, the user's, the organization's, and what was found before.
    pub(crate) fn keys(&self, org: &OrgId, user: &UserId, agent: Option<&AgentId>, alias: Option<&Alias>) -> Vec<Key> {
        let agent = agent.map(|agent| Scope::Agent(agent.clone()));
        let scopes: Vec<Scope> = agent.into_iter().chain([Scope::User(user.clone()), Scope::Organization]).collect();
        let of_each = self.compared().into_iter().flat_map(|(kind, name)| {
            let written = scopes.iter().map(move |scope| keys::mapping(org, scope, &self.plugin, kind, name));
            written.chain([keys::found_name(org, user, &self.plugin, alias, kind, name)])
        });
        of_each.collect()
    }

    /// Takes what was read, in the order of [`Self::keys`]. `account` is the identity of the account in use.
    pub(crate) fn read(&mut self, items: Vec<Option<Item>>, account: Option<&str>) -> Result<(), TableError> {
        let names: Vec<(MappingKind, String)> =
            self.compared().into_iter().map(|(kind, name)| (kind.clone(), name.to_owned())).collect();
        let each = items.len().checked_div(names.len()).unwrap_or_default();
        if each * names.len() != items.len() || (!names.is_empty() && each == 0) {
            return Err(TableError::Request("what was read is not what names are read from"));
        }
        let mut items = items.into_iter();
        for (kind, compared) in names {
            let mut of_name: Vec<Option<Item>> = items.by_ref().take(each).collect();
            let found = of_name.pop().flatten();
            // An agent is not always there; the others are.
            let hows = [NameResolvedBy::Agent, NameResolvedBy::User, NameResolvedBy::Organization];
            let hows = hows.into_iter().skip(hows.len().saturating_sub(of_name.len()));
            let written = of_name.into_iter().zip(hows).find_map(|(item, how)| Some((item?, how)));
            let written = written.map(|(item, how)| Ok::<_, TableError>((item.record::<Mapping>()?, how)));
            let written = written.transpose()?.map(|(mapping, how)| Resolved {
                id: mapping.external_id.into(),
                how,
                expires_at: mapping.expires_at,
            });
            let found: Option<CachedName> = found.as_ref().map(Item::record).transpose()?;
            let found = found.filter(|found| found.account.as_deref() == account);
            for named in self.names.iter_mut().filter(|named| named.kind == kind) {
                if named.compared.as_ref() == Some(&compared) {
                    named.take(written.clone(), found.as_ref());
                }
            }
        }
        for named in &mut self.names {
            named.take(None, None);
        }
        Ok(())
    }

    /// Whether something is left that the plugin itself has to be asked about.
    pub(crate) fn is_open(&self) -> bool {
        self.names.iter().any(|named| named.resolved.is_none())
    }

    /// The calls by which the service is asked about names that are open, each once.
    pub(crate) fn look_ups(&self, manifest: &Manifest) -> Vec<(ActionName, Map<String, Value>)> {
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

    /// How each was resolved.
    pub(crate) fn shown(&self) -> Vec<NameResolution> {
        let each = self.names.iter().flat_map(|named| {
            let resolved = named.resolved.as_ref();
            named.places.iter().map(move |place| NameResolution {
                pointer: place.pointer(),
                kind: named.kind.clone(),
                given: named.given.clone(),
                external_id: resolved.map(|resolved| resolved.id.clone()),
                how: resolved.map_or(NameResolvedBy::Lookup, |resolved| resolved.how),
                expires_at: resolved.and_then(|resolved| resolved.expires_at),
            })
        });
        each.collect()
    }

    /// Whether an id takes the place of a name.
    pub(crate) fn replaces(&self) -> bool {
        self.names.iter().any(|named| named.resolved.as_ref().is_some_and(|resolved| resolved.id != named.given))
    }

    /// The parameters with ids in the place of names.
    pub(crate) fn apply(&self, mut parameters: Map<String, Value>) -> Map<String, Value> {
        for named in &self.names {
            let Some(resolved) = &named.resolved else { continue };
            for place in &named.places {
                let value = parameters.get_mut(&place.parameter);
                let value = match place.index {
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
    /// Takes what is stored, in the order in which it counts.
    fn take(&mut self, written: Option<Resolved>, found: Option<&CachedName>) {
        if self.resolved.is_some() {
            return;
        }
        let as_given = || Resolved { id: self.given.clone(), how: NameResolvedBy::AsGiven, expires_at: None };
        let found = found.filter(|found| !found.exact || found.external_id.as_str() == self.given);
        self.resolved = match (written, found) {
            (Some(written), _) => Some(written),
            (None, _) if self.is_id => Some(as_given()),
            (None, Some(found)) => Some(Resolved {
                id: found.external_id.as_str().to_owned(),
                how: NameResolvedBy::Lookup,
                expires_at: Some(found.expires_at),
            }),
            (None, None) if !self.has_lookup => Some(as_given()),
            (None, None) => None,
        };
    }
}
