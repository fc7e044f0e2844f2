//! Names in the place of a service's ids: what a plugin says of each kind of them, and which parameters take them.

use std::sync::OnceLock;

use jsonschema::Validator;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Action, Manifest};
use crate::core::effect::Effect;
use crate::core::ids::{ActionName, MappingKind, MappingName};
use crate::core::schema;
use crate::plugin::template::{Expression, Names};

/// The keyword that marks a parameter which takes names.
pub(crate) const MARK: &str = "x-mapping";

/// How long what was looked up is remembered, in seconds, at least and at most.
const LIFETIME_S: std::ops::RangeInclusive<u32> = 60..=30 * 86_400;

/// One kind of names, such as those of channels.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameKind {
    /// May stand before a name, such as `#`, and is not part of it.
    pub prefix: Option<String>,
    /// What an id of the service looks like (a regular expression): such a value is passed on as it is.
    pub id: Option<IdPattern>,
    /// How the service is asked what a name stands for.
    pub lookup: Option<Lookup>,
}

/// Asks the service which ids there are, and what each is called.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// The action that lists them; its effect is `read`.
    pub action: ActionName,
    /// The action's parameters.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// The parameter of the action that takes the name that is looked for, where the service can search.
    pub name_parameter: Option<String>,
    /// Where the list is: an expression over `data`, what the action returns.
    pub items: Expression,
    /// What an element is called: an expression over `item`.
    pub name: Expression,
    /// Its id: an expression over `item`.
    pub id: Expression,
    /// How long what was found is remembered, in seconds: 60 to 2592000 (30 days).
    #[serde(default = "a_day")]
    pub lifetime_s: u32,
}

fn a_day() -> u32 {
    86_400
}

/// A regular expression that runs in linear time. It is compiled when it is first used: how many there may be is known only
/// when the whole manifest is read.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(from = "String")]
#[schemars(with = "String")]
pub struct IdPattern {
    pattern: String,
    validator: OnceLock<Result<Validator, String>>,
}

impl PartialEq for IdPattern {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl From<String> for IdPattern {
    fn from(pattern: String) -> Self {
        Self { pattern, validator: OnceLock::new() }
    }
}

impl IdPattern {
    /// What tells an id, or what is wrong with the pattern.
    fn validator(&self) -> Result<&Validator, &str> {
        let compiled = self.validator.get_or_init(|| {
            let validator = schema::compile(&json!({ "type": "string", "pattern": self.pattern }));
            validator.map_err(|error| error.problem)
        });
        compiled.as_ref().map_err(String::as_str)
    }
}

impl NameKind {
    /// Whether a value is surely an id of the service.
    pub(crate) fn is_id(&self, value: &str) -> bool {
        self.id.as_ref().is_some_and(|id| id.validator().is_ok_and(|validator| validator.is_valid(&value.into())))
    }

    /// A name without what may stand around it.
    pub(crate) fn bare<'a>(&self, name: &'a str) -> &'a str {
        let name = name.trim();
        self.prefix.as_ref().and_then(|prefix| name.strip_prefix(prefix.as_str())).unwrap_or(name).trim()
    }

    /// A name as names are compared; nothing where the value cannot be a name.
    pub(crate) fn compared(&self, name: &str) -> Option<String> {
        let name = MappingName::parse(self.bare(name)).ok()?;
        Some(name.as_str().to_lowercase())
    }

    /// A name as people write it.
    pub(crate) fn written(&self, name: &str) -> String {
        format!("{}{}", self.prefix.as_deref().unwrap_or_default(), self.bare(name))
    }
}

impl Lookup {
    /// The parameters with which a name is looked for.
    pub(crate) fn parameters_for(&self, name: &str) -> Map<String, Value> {
        let mut parameters = self.parameters.clone();
        parameters.extend(self.name_parameter.clone().map(|parameter| (parameter, name.into())));
        parameters
    }
}

impl Manifest {
    /// The kind of names that a parameter takes, if it takes names. Another parameter may say which kind it is.
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

    /// What is wrong with the kinds of names and the parameters that take them.
    pub(super) fn naming_problems(&self) -> Vec<String> {
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
        let mut good = Vec::new();
        let mut problems = Vec::new();
        for (name, property) in properties.into_iter().flatten() {
            let Some(mark) = property.get(MARK) else { continue };
            let place = format!("/properties/{name}");
            let is_text = |schema: &Value| schema.get("type").is_some_and(|kind| kind == "string");
            let is_texts =
                property.get("type").is_some_and(|kind| kind == "array") && property.get("items").is_some_and(is_text);
            if !is_text(property) && !is_texts {
                problems.push(format!("{place}: {MARK} is for a string or an array of strings"));
            }
            let said_by = mark.as_object().filter(|mark| mark.len() == 1).and_then(|mark| mark.get("parameter"));
            let kinds: Vec<&Value> = match (mark, said_by.and_then(Value::as_str)) {
                (Value::String(_), _) => vec![mark],
                (_, Some(other)) => {
                    let values = properties.and_then(|properties| properties.get(other)?.get("enum")?.as_array());
                    if values.is_none() {
                        problems.push(format!("{place}: {MARK} names {other}, which is not a parameter with an enum"));
                    }
                    values.into_iter().flatten().collect()
                }
                (_, None) => {
                    problems.push(format!("{place}: {MARK} is a kind, or {{parameter: the one that says the kind}}"));
                    Vec::new()
                }
            };
            for kind in kinds {
                if !kind.as_str().is_some_and(declared) {
                    problems.push(format!("{place}: the kind {kind} is not in mappings"));
                }
            }
            good.push(place);
        }
        for place in schema::places_of(&action.parameters, MARK) {
            if !good.contains(&place) {
                problems.push(format!("{place}: {MARK} is only for properties at the top"));
            }
        }
        problems
    }
}

impl NameKind {
    fn problems(&self, manifest: &Manifest) -> Vec<String> {
        let empty = self.prefix.as_ref().is_some_and(|prefix| prefix.trim() != prefix || prefix.is_empty());
        let empty = empty.then(|| "prefix: must be something, without spaces around it".to_owned());
        let id = self.id.as_ref().and_then(|id| id.validator().err()).map(|problem| format!("id: {problem}"));
        let lookup = self.lookup.iter().flat_map(|lookup| lookup.problems(manifest));
        empty.into_iter().chain(id).chain(lookup.map(|problem| format!("lookup.{problem}"))).collect()
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
                // A schema that does not compile is a problem of its action.
                if let Ok(validator) = schema::compile(&action.parameters) {
                    let wrong = schema::problems_of(&validator, &action.parameters, &parameters, "");
                    problems.extend(wrong.into_iter().map(|problem| {
                        format!("parameters{} of {}: {}", problem.pointer, self.action, problem.message)
                    }));
                }
            }
        }
        if self.name_parameter.as_ref().is_some_and(|name| self.parameters.contains_key(name)) {
            problems.push("name_parameter: is in parameters, too".to_owned());
        }
        let of_item = Names::from(["item"]);
        problems.extend(self.items.problems(&Names::from(["data"])));
        problems.extend([&self.name, &self.id].into_iter().flat_map(|expression| expression.problems(&of_item)));
        if !LIFETIME_S.contains(&self.lifetime_s) {
            problems.push(format!("lifetime_s: must be {} to {}", LIFETIME_S.start(), LIFETIME_S.end()));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r##"
name: chat
version: 1.0.0
display_name: Chat
description: Talks.
runtime: { type: http, base_url: "https://chat.example" }
permissions: ["network:chat.example"]
mappings:
  room:
    prefix: "#"
    id: "^R[0-9]+$"
    lookup: { action: rooms, parameters: { limit: 5 }, name_parameter: query, items: data.rooms, name: item.name, id: item.id, lifetime_s: 60 }
  person: {}
actions:
  - name: rooms
    description: Lists them.
    effect: read
    parameters: { type: object, additionalProperties: false, properties: { limit: { type: integer, maximum: 5 }, query: { type: string } } }
    request: { path: /rooms }
  - name: say
    description: Says it.
    effect: unsafe
    parameters:
      type: object
      properties:
        room: { type: string, x-mapping: room }
        rooms: { type: array, x-mapping: room, items: { type: string } }
        to: { type: string, x-mapping: { parameter: to_what } }
        to_what: { enum: [room, person] }
    request: { path: /say }
"##;

    #[test]
    fn names_are_compared_without_what_stands_around_them() {
        let manifest = Manifest::parse(GOOD).unwrap();
        let room = &manifest.mappings[&MappingKind::parse("room").unwrap()];
        for name in ["general", "#general", " # General ", "GENERAL"] {
            assert_eq!(room.compared(name).as_deref(), Some("general"), "{name}");
        }
        assert_eq!(room.compared("##a").as_deref(), Some("#a"));
        assert_eq!(room.compared("ÄRGER").as_deref(), Some("ärger"));
        assert_eq!(room.compared(&"x".repeat(255)).map(|name| name.len()), Some(255));
        for none in ["", "#", "  ", "a\nb", &"x".repeat(256)] {
            assert_eq!(room.compared(none), None, "{none}");
        }
        assert!(room.is_id("R12") && !room.is_id("r12") && !room.is_id("#R12"));
        assert_eq!(room.lookup.as_ref().unwrap().lifetime_s, 60);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (from, to, said) in [
            ("prefix: \"#\"", "prefix: \" #\"", "mappings.room.prefix: must be something"),
            ("prefix: \"#\"", "prefix: \"\"", "mappings.room.prefix: must be something"),
            ("prefix: \"#\"", "prefx: \"#\"", "prefx"),
            ("^R[0-9]+$", "^R[0-9+$", "regex"),
            ("^R[0-9]+$", "^((a{500}){500}){500}$", "regex"),
            ("room:\n    prefix", "Room:\n    prefix", "small letter"),
            ("action: rooms,", "action: roms,", "mappings.room.lookup.action: there is no action roms"),
            ("action: rooms,", "action: say,", "say is not of effect read"),
            ("{ limit: 5 }", "{ limit: 6 }", "mappings.room.lookup.parameters/limit of rooms"),
            ("{ limit: 5 }", "{ limt: 5 }", "mappings.room.lookup.parameters/limt of rooms"),
            ("{ limit: 5 }", "{ query: a }", "name_parameter: is in parameters, too"),
            ("name_parameter: query", "name_parameter: limit", "parameters/limit of rooms"),
            ("items: data.rooms", "items: body.rooms", "refers to body"),
            ("name: item.name", "name: room.name", "refers to room"),
            ("id: item.id", "id: data.id", "refers to data"),
            ("lifetime_s: 60", "lifetime_s: 59", "mappings.room.lookup.lifetime_s: must be 60 to 2592000"),
            ("lifetime_s: 60", "lifetime_s: 2592001", "lifetime_s: must be 60 to 2592000"),
            ("lifetime_s: 60", "lifetime: 60", "lifetime"),
            (
                "x-mapping: room }",
                "x-mapping: rom }",
                "say.parameters/properties/room: the kind \"rom\" is not in mappings",
            ),
            ("x-mapping: room }", "x-mapping: { a: b } }", "is a kind, or {parameter"),
            ("room: { type: string,", "room: { type: integer,", "/properties/room: x-mapping is for a string"),
            ("items: { type: string }", "items: { type: integer }", "/properties/rooms: x-mapping is for a string"),
            (
                "items: { type: string }",
                "items: { type: string, x-mapping: room }",
                "/properties/rooms/items: x-mapping is only",
            ),
            ("parameter: to_what", "parameter: to_whom", "to_whom, which is not a parameter with an enum"),
            ("[room, person]", "[room, dog]", "/properties/to: the kind \"dog\" is not in mappings"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let problem = Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(problem.contains(said), "{to}: {problem}");
        }
        for lifetime in ["60", "2592000"] {
            Manifest::parse(&GOOD.replacen("lifetime_s: 60", &format!("lifetime_s: {lifetime}"), 1)).unwrap();
        }
    }
}
