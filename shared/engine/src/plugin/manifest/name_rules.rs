//! Where a manifest says that parameters are names, and the problems of that.

use serde_json::{Map, Value};

use super::names::{LIFETIME_S, MARK};
use super::{Action, Lookup, Manifest, NameKind};
use crate::core::effect::Effect;
use crate::core::ids::MappingKind;
use crate::core::schema;
use crate::plugin::template::Names;

impl Manifest {
    /// The kind of names that a parameter takes, if it takes names. The kind may depend on the value of another parameter.
    pub(crate) fn kind_of(
        &self,
        property: &Value,
        parameters: &Map<String, Value>,
    ) -> Option<(&MappingKind, &NameKind)> {
        let mark = property.get(MARK)?;
        let kind = match mark.as_str() {
            Some(kind) => kind,
            None => parameters.get(mark.get("parameter")?.as_str()?)?.as_str()?,
        };
        self.mappings.iter().find(|(known, _)| known.as_str() == kind)
    }

    /// Every problem of the kinds of names and the parameters that take them.
    pub(super) fn name_problems(&self) -> Vec<String> {
        let kinds = self.mappings.iter().flat_map(|(kind, names)| {
            let problems = names.problems(self).into_iter();
            problems.map(move |problem| format!("mappings.{kind}.{problem}"))
        });
        let actions = self.actions.iter().flat_map(|action| {
            let problems = self.mark_problems(action).into_iter();
            problems.map(|problem| format!("actions.{}.parameters{problem}", action.name))
        });
        kinds.chain(actions).collect()
    }

    fn mark_problems(&self, action: &Action) -> Vec<String> {
        let properties = action.parameters.get("properties").and_then(Value::as_object);
        let declared = |kind: &str| self.mappings.keys().any(|known| known.as_str() == kind);
        let mut at_top = Vec::new();
        let mut problems = Vec::new();
        for (name, property) in properties.into_iter().flatten() {
            let Some(mark) = property.get(MARK) else { continue };
            let pointer = format!("/properties/{name}");
            if !takes_texts(property) {
                problems.push(format!("{pointer}: {MARK} is for a string or an array of strings"));
            }
            match kinds_of(mark, properties) {
                Ok(kinds) => {
                    let unknown = kinds.into_iter().filter(|kind| !kind.as_str().is_some_and(declared));
                    problems.extend(unknown.map(|kind| format!("{pointer}: the kind {kind} is not in mappings")));
                }
                Err(problem) => problems.push(format!("{pointer}: {problem}")),
            }
            at_top.push(pointer);
        }
        for pointer in schema::pointers_of(&action.parameters, MARK) {
            if !at_top.contains(&pointer) {
                problems.push(format!("{pointer}: {MARK} is only for properties at the top"));
            }
        }
        problems
    }
}

/// Whether a property is a string or an array of strings.
fn takes_texts(property: &Value) -> bool {
    let has_type = |schema: &Value, name: &str| schema.get("type").is_some_and(|kind| kind == name);
    let items_are_texts = || property.get("items").is_some_and(|items| has_type(items, "string"));
    has_type(property, "string") || has_type(property, "array") && items_are_texts()
}

/// The kinds that a mark names: one, or those in the enum of the parameter that it refers to.
fn kinds_of<'a>(mark: &'a Value, properties: Option<&'a Map<String, Value>>) -> Result<Vec<&'a Value>, String> {
    if mark.is_string() {
        return Ok(vec![mark]);
    }
    let reference = mark.as_object().filter(|mark| mark.len() == 1).and_then(|mark| mark.get("parameter")?.as_str());
    let Some(parameter) = reference else {
        return Err(format!("{MARK} is a kind, or {{parameter: the name of the parameter with the kind}}"));
    };
    let kinds = properties.and_then(|properties| properties.get(parameter)?.get("enum")?.as_array());
    match kinds {
        Some(kinds) => Ok(kinds.iter().collect()),
        None => Err(format!("{MARK} names {parameter}, which is not a parameter with an enum")),
    }
}

impl NameKind {
    fn problems(&self, manifest: &Manifest) -> Vec<String> {
        let wrong_prefix = self.prefix.as_ref().is_some_and(|prefix| prefix.trim() != prefix || prefix.is_empty());
        let prefix = wrong_prefix.then(|| "prefix: must not be empty or have spaces around it".to_owned());
        let id = self.id.as_ref().and_then(|id| id.validator().err()).map(|problem| format!("id: {problem}"));
        let lookup = self.lookup.iter().flat_map(|lookup| lookup.problems(manifest));
        prefix.into_iter().chain(id).chain(lookup.map(|problem| format!("lookup.{problem}"))).collect()
    }
}

impl Lookup {
    fn problems(&self, manifest: &Manifest) -> Vec<String> {
        let mut problems = Vec::new();
        match manifest.actions.iter().find(|action| action.name == self.action) {
            None => problems.push(format!("action: there is no action {}", self.action)),
            Some(action) if action.effect != Effect::Read => {
                problems.push(format!("action: {} is not of effect read", self.action));
            }
            Some(action) => {
                let parameters = Value::Object(action.with_defaults(self.parameters_for("name")));
                // A schema that does not compile is reported with its action.
                if let Ok(validator) = schema::compile(&action.parameters) {
                    let parameter_problems = schema::problems_of(&validator, &action.parameters, &parameters, "");
                    problems.extend(parameter_problems.into_iter().map(|problem| {
                        format!("parameters{} of {}: {}", problem.pointer, self.action, problem.message)
                    }));
                }
            }
        }
        if self.name_parameter.as_ref().is_some_and(|name| self.parameters.contains_key(name)) {
            problems.push("name_parameter: is also in parameters; remove it there".to_owned());
        }
        let item_names = Names::from(["item"]);
        problems.extend(self.items.problems(&Names::from(["data"])));
        problems.extend([&self.name, &self.id].into_iter().flat_map(|expression| expression.problems(&item_names)));
        if !LIFETIME_S.contains(&self.lifetime_s) {
            problems.push(format!("lifetime_s: must be {} to {}", LIFETIME_S.start(), LIFETIME_S.end()));
        }
        problems
    }
}
