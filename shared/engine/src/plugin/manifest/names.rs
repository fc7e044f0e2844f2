//! Names instead of a service's ids: the kinds of names that a plugin declares, and the parameters that take them.

use std::sync::OnceLock;

use jsonschema::Validator;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::core::ids::{ActionName, MappingName};
use crate::core::schema;
use crate::plugin::template::Expression;

/// The keyword of a schema that marks a parameter which takes names.
pub(crate) const MARK: &str = "x-mapping";

/// The lifetime of a cached lookup, in seconds.
pub(super) const LIFETIME_S: std::ops::RangeInclusive<u32> = 60..=30 * 86_400;

/// One kind of names, such as those of channels.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameKind {
    /// An optional prefix of names, such as `#`. It is not part of the name.
    pub prefix: Option<String>,
    /// A regular expression that ids of the service match. A value that matches is passed on unchanged.
    pub id: Option<IdPattern>,
    /// How to find the id for a name at the service.
    pub lookup: Option<Lookup>,
}

/// Lists the ids of the service and their names.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// The action that lists them. Its effect must be `read`.
    pub action: ActionName,
    /// The action's parameters.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// The parameter of the action that takes the name to search for, if the service can search.
    pub name_parameter: Option<String>,
    /// The list: an expression over `data`, the action's result.
    pub items: Expression,
    /// The name of an element: an expression over `item`.
    pub name: Expression,
    /// The id of an element: an expression over `item`.
    pub id: Expression,
    /// How long a found id is cached, in seconds: 60 to 2592000 (30 days).
    #[serde(default = "one_day")]
    pub lifetime_s: u32,
}

fn one_day() -> u32 {
    86_400
}

/// A regular expression that runs in linear time. It is compiled at its first use, since the limit on their number can be
/// checked only after the whole manifest is read.
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
    /// The compiled pattern, or what is wrong with it.
    pub(super) fn validator(&self) -> Result<&Validator, &str> {
        let compiled = self.validator.get_or_init(|| {
            let validator = schema::compile(&json!({ "type": "string", "pattern": self.pattern }));
            validator.map_err(|error| error.problem)
        });
        compiled.as_ref().map_err(String::as_str)
    }
}

impl NameKind {
    /// Whether a value is certainly an id of the service.
    pub(crate) fn is_id(&self, value: &str) -> bool {
        self.id.as_ref().is_some_and(|id| id.validator().is_ok_and(|validator| validator.is_valid(&value.into())))
    }

    /// A name without its prefix and the spaces around it.
    pub(crate) fn bare<'a>(&self, name: &'a str) -> &'a str {
        let name = name.trim();
        self.prefix.as_ref().and_then(|prefix| name.strip_prefix(prefix.as_str())).unwrap_or(name).trim()
    }

    /// A name in the form in which names are compared: bare and in lower case. `None` if the value cannot be a name.
    pub(crate) fn compared(&self, name: &str) -> Option<String> {
        let name = MappingName::parse(self.bare(name)).ok()?;
        Some(name.as_str().to_lowercase())
    }

    /// A name as people write it, with the prefix.
    pub(crate) fn written(&self, name: &str) -> String {
        format!("{}{}", self.prefix.as_deref().unwrap_or_default(), self.bare(name))
    }
}

impl Lookup {
    /// The action's parameters for the lookup of a name.
    pub(crate) fn parameters_for(&self, name: &str) -> Map<String, Value> {
        let mut parameters = self.parameters.clone();
        parameters.extend(self.name_parameter.clone().map(|parameter| (parameter, name.into())));
        parameters
    }
}

#[cfg(test)]
mod tests {
    use crate::core::ids::MappingKind;
    use crate::plugin::manifest::Manifest;

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

    fn room() -> super::NameKind {
        let mut manifest = Manifest::parse(GOOD).unwrap();
        manifest.mappings.remove(&MappingKind::parse("room").unwrap()).unwrap()
    }

    #[test]
    fn compared_name_is_bare() {
        for (name, compared) in
            [("general", "general"), ("#general", "general"), (" # General ", "general"), ("##a", "#a")]
        {
            assert_eq!(room().compared(name).as_deref(), Some(compared), "{name}");
        }
    }

    #[test]
    fn compared_name_is_in_lower_case() {
        for (name, compared) in [("GENERAL", "general"), ("ÄRGER", "ärger")] {
            assert_eq!(room().compared(name).as_deref(), Some(compared));
        }
    }

    #[test]
    fn compared_name_has_at_most_255_characters() {
        assert_eq!(room().compared(&"x".repeat(255)).map(|name| name.len()), Some(255));
        assert_eq!(room().compared(&"x".repeat(256)), None);
    }

    #[test]
    fn name_without_a_printable_text_is_none() {
        for none in ["", "#", "  ", "a\nb"] {
            assert_eq!(room().compared(none), None, "{none}");
        }
    }

    #[test]
    fn id_matches_its_pattern() {
        assert!(room().is_id("R12") && !room().is_id("r12") && !room().is_id("#R12"));
    }

    #[test]
    fn lookup_keeps_its_declared_lifetime() {
        assert_eq!(room().lookup.unwrap().lifetime_s, 60);
    }

    #[test]
    fn name_problem_names_its_path() {
        for (from, to, expected) in [
            ("prefix: \"#\"", "prefix: \" #\"", "mappings.room.prefix: must not be empty"),
            ("prefix: \"#\"", "prefix: \"\"", "mappings.room.prefix: must not be empty"),
            ("prefix: \"#\"", "prefx: \"#\"", "prefx"),
            ("^R[0-9]+$", "^R[0-9+$", "regex"),
            ("^R[0-9]+$", "^((a{500}){500}){500}$", "regex"),
            ("room:\n    prefix", "Room:\n    prefix", "small letter"),
            ("action: rooms,", "action: roms,", "mappings.room.lookup.action: there is no action roms"),
            ("action: rooms,", "action: say,", "say is not of effect read"),
            ("{ limit: 5 }", "{ limit: 6 }", "mappings.room.lookup.parameters/limit of rooms"),
            ("{ limit: 5 }", "{ limt: 5 }", "mappings.room.lookup.parameters/limt of rooms"),
            ("{ limit: 5 }", "{ query: a }", "name_parameter: is also in parameters"),
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
            assert!(problem.contains(expected), "{to}: {problem}");
        }
        for lifetime in ["60", "2592000"] {
            Manifest::parse(&GOOD.replacen("lifetime_s: 60", &format!("lifetime_s: {lifetime}"), 1)).unwrap();
        }
    }
}
