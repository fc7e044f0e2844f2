//! Refuses schemas that would cost far more to check by than they are long: references multiply. Two that stand beside each
//! other in each of thirty definitions are a billion checks, and one that leads back twice doubles them at each level of the
//! value that is checked. And what is said of each element of a list is checked as often as the list is long.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::NoSchema;

/// The most schemas that there are in one once all references are followed.
pub(super) const SCHEMAS_MAX: usize = 2_000;
/// The most that one value may be checked by: schemas, values of an enum, and names.
const CHECKS_MAX: usize = 500;
/// What a check counts that goes through a whole text or list: `pattern`, `format` and `uniqueItems`.
const SLOW_CHECK: usize = 25;
/// The longest name of a property, in bytes. Places are made of them.
const NAME_MAX: usize = 255;
/// How deep they may stand in each other then.
const DEPTH_MAX: usize = 200;
/// The most places at which a schema leads back to one that it stands in.
const RETURNS_MAX: usize = 100;

/// What a schema costs once all references are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// How many schemas there are in it.
    pub schemas: usize,
    /// How many checks there are in all of them.
    pub checks: usize,
    /// How many patterns are compiled for it.
    pub patterns: usize,
}

/// A step from a value to one within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step<'a> {
    /// To the property of that name.
    Property(&'a str),
    /// To any property.
    AnyProperty,
    /// To an element of a list.
    Element,
}

impl Step<'_> {
    /// Whether both can lead to the same place.
    fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Property(one), Self::Property(another)) => one == another,
            (Self::Element, Self::Element)
            | (Self::AnyProperty, Self::AnyProperty | Self::Property(_))
            | (Self::Property(_), Self::AnyProperty) => true,
            (Self::Element, Self::Property(_) | Self::AnyProperty)
            | (Self::Property(_) | Self::AnyProperty, Self::Element) => false,
        }
    }
}

/// What is met when all references are followed, up to those that lead back.
struct Walk<'a> {
    root: &'a Value,
    cost: Cost,
    /// What the values at the end of a way are checked by.
    checks: HashMap<Vec<Step<'a>>, usize>,
    /// The schemas that the present one stands in.
    around: Vec<&'a Value>,
    /// The way to the value that the present one is about.
    way: Vec<Step<'a>>,
    /// The ways at which it leads back.
    returns: Vec<Vec<Step<'a>>>,
}

/// Finds out whether checking by a schema costs what its length and that of the value let one expect.
pub(super) fn bounded(schema: &Value) -> Result<Cost, NoSchema> {
    let (around, way, returns) = (Vec::new(), Vec::new(), Vec::new());
    let mut walk = Walk { root: schema, cost: Cost::default(), checks: HashMap::new(), around, way, returns };
    walk.enter(schema, "")?;
    // Where no way begins as another does, one value is met by one return at most.
    let returns = walk.returns.iter().enumerate();
    let meeting = returns.flat_map(|(index, one)| walk.returns.iter().skip(index + 1).map(move |other| (one, other)));
    for (one, other) in meeting {
        if one.iter().zip(other).all(|(one, other)| one.meets(*other)) {
            return Err(refused("", "refers to itself in two ways for the same value; let one schema say both"));
        }
    }
    Ok(walk.cost)
}

fn refused(place: &str, problem: &str) -> NoSchema {
    NoSchema { place: place.to_owned(), problem: problem.to_owned() }
}

impl<'a> Walk<'a> {
    fn enter(&mut self, schema: &'a Value, place: &str) -> Result<(), NoSchema> {
        let Some(fields) = schema.as_object() else {
            // Also true and false are schemas.
            return if schema.is_boolean() { self.count(1, place) } else { Ok(()) };
        };
        if self.around.iter().any(|outer| std::ptr::eq(*outer, schema)) {
            self.returns.push(self.way.clone());
            if self.returns.len() > RETURNS_MAX {
                return Err(refused(place, "refers to itself in more than 100 places; make it simpler"));
            }
            return Ok(());
        }
        if self.around.len() >= DEPTH_MAX {
            return Err(refused(place, "schemas stand in each other deeper than 200; make it simpler"));
        }
        self.cost.patterns += patterns_of(fields);
        self.count(checks_of(fields), place)?;
        self.around.push(schema);
        // Also what only older drafts know, which a schema may say that it is of.
        for (keyword, value) in fields {
            let place = &format!("{place}/{keyword}");
            let below = value.as_object().into_iter().flatten();
            let listed = value.as_array().into_iter().flatten();
            match keyword.as_str() {
                "$ref" => self.follow(value, place)?,
                "$dynamicRef" | "$recursiveRef" => {
                    return Err(refused(place, "leads where nobody can tell before; use $ref"));
                }
                "$id" if self.around.len() > 1 => {
                    return Err(refused(place, "is for the whole schema only; remove it"));
                }
                "properties" => {
                    for (name, schema) in below {
                        if name.len() > NAME_MAX {
                            return Err(refused(place, "a name has more than 255 bytes; shorten it"));
                        }
                        self.step(Some(Step::Property(name)), schema, &format!("{place}/{name}"))?;
                    }
                }
                "patternProperties" => {
                    for (name, schema) in below {
                        self.step(Some(Step::AnyProperty), schema, &format!("{place}/{name}"))?;
                    }
                }
                "dependentSchemas" | "dependencies" => {
                    for (name, schema) in below {
                        self.step(None, schema, &format!("{place}/{name}"))?;
                    }
                }
                "additionalProperties" | "unevaluatedProperties" | "propertyNames" => {
                    self.step(Some(Step::AnyProperty), value, place)?;
                }
                "items" | "prefixItems" | "contains" | "unevaluatedItems" | "additionalItems" => {
                    for (index, schema) in listed.enumerate() {
                        self.step(Some(Step::Element), schema, &format!("{place}/{index}"))?;
                    }
                    self.step(Some(Step::Element), value, place)?;
                }
                "allOf" | "anyOf" | "oneOf" => {
                    for (index, schema) in listed.enumerate() {
                        self.step(None, schema, &format!("{place}/{index}"))?;
                    }
                }
                "not" | "if" | "then" | "else" => self.step(None, value, place)?,
                _ => {}
            }
        }
        self.around.pop();
        Ok(())
    }

    /// Counts a schema that makes so many checks of the present value.
    fn count(&mut self, checks: usize, place: &str) -> Result<(), NoSchema> {
        self.cost.schemas += 1;
        self.cost.checks = self.cost.checks.saturating_add(checks);
        if self.cost.schemas > SCHEMAS_MAX {
            let problem = "its schemas are more than 2000, with those that references ($ref) multiply; make it simpler";
            return Err(refused(place, problem));
        }
        let here = self.checks.entry(self.way.clone()).or_default();
        *here = here.saturating_add(checks);
        if *here > CHECKS_MAX {
            return Err(refused(
                place,
                "one value would be checked in more than 500 ways (a schema, a value of an enum and a name count 1; \
                 pattern, format and uniqueItems 25); allow more than you name, or make it simpler",
            ));
        }
        Ok(())
    }

    fn step(&mut self, step: Option<Step<'a>>, schema: &'a Value, place: &str) -> Result<(), NoSchema> {
        self.way.extend(step);
        self.enter(schema, place)?;
        if step.is_some() {
            self.way.pop();
        }
        Ok(())
    }

    fn follow(&mut self, reference: &Value, place: &str) -> Result<(), NoSchema> {
        // What is no text is refused when it is compiled, and so is what leads nowhere.
        let Some(reference) = reference.as_str() else { return Ok(()) };
        let pointer = reference.strip_prefix('#').filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
        let Some(pointer) = pointer else {
            let problem = "leads out of the schema, and nothing is fetched; put what it names under $defs, and write \
                           #/$defs/name";
            return Err(refused(place, problem));
        };
        let pointer = percent_decode_str(pointer).decode_utf8_lossy();
        match self.root.pointer(&pointer) {
            Some(target) => self.enter(target, place),
            None => Err(refused(place, "leads to what is not there; put it under $defs")),
        }
    }
}

/// How many patterns are compiled for a schema itself.
fn patterns_of(fields: &Map<String, Value>) -> usize {
    let of_names = fields.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
    of_names + usize::from(fields.contains_key("pattern"))
}

/// How many checks of a value a schema itself makes.
fn checks_of(fields: &Map<String, Value>) -> usize {
    let listed = |keyword: &str| fields.get(keyword).and_then(Value::as_array).map_or(0, Vec::len);
    let named = |keyword: &str| fields.get(keyword).and_then(Value::as_object).map_or(0, Map::len);
    let needed = fields.get("dependentRequired").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let needed: usize = needed.map(|names| 1 + names.as_array().map_or(0, Vec::len)).sum();
    let slow = ["format", "uniqueItems"].into_iter().filter(|keyword| fields.contains_key(*keyword)).count();
    let slow = (slow + patterns_of(fields)) * SLOW_CHECK;
    1 + slow + needed + listed("enum") + listed("required") + named("properties")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::compile;
    use super::*;

    /// A definition that refers to the next one twice, so often.
    fn chain(length: usize) -> Value {
        let next = |index: usize| json!({ "$ref": format!("#/$defs/d{}", index + 1) });
        let twice = |index: usize| (format!("d{index}"), json!({ "allOf": [next(index), next(index)] }));
        let mut definitions: Map<String, Value> = (0..length).map(twice).collect();
        definitions.insert(format!("d{length}"), json!({ "type": "string" }));
        json!({ "$ref": "#/$defs/d0", "$defs": definitions })
    }

    #[test]
    fn references_that_multiply_are_refused_at_once() {
        // Each level is twice the one above, and a schema for each reference.
        compile(&chain(6)).unwrap();
        for length in [10, 30, 60] {
            let refused = compile(&chain(length)).unwrap_err();
            assert!(refused.problem.contains("500 ways") && refused.place.starts_with("/$ref/"), "{refused:?}");
        }
        let next = |index: usize| (format!("d{index}"), json!({ "$ref": format!("#/$defs/d{}", index + 1) }));
        let long = |length: usize| {
            let mut definitions: Map<String, Value> = (0..length).map(next).collect();
            definitions.insert(format!("d{length}"), json!({ "type": "string" }));
            json!({ "$ref": "#/$defs/d0", "$defs": definitions })
        };
        compile(&long(DEPTH_MAX - 2)).unwrap();
        compile(&long(DEPTH_MAX - 1)).unwrap_err();
        compile(&long(10_000)).unwrap_err();
    }

    #[test]
    fn a_schema_may_lead_back_to_itself_in_one_way_for_each_value() {
        for good in [
            json!({ "properties": { "children": { "items": { "$ref": "#" } } } }),
            json!({ "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } } }),
            json!({ "properties": {
                "and": { "items": { "$ref": "#" } }, "or": { "items": { "$ref": "#" } }, "not": { "$ref": "#" } } }),
            json!({ "anyOf": [{ "items": { "$ref": "#" } }, { "additionalProperties": { "$ref": "#" } }] }),
            json!({ "$ref": "#/$defs/a%20b", "$defs": { "a b": { "properties": { "a": { "$ref": "#/$defs/a%20b" } } } } }),
        ] {
            assert!(compile(&good).is_ok(), "{good}");
        }
        for bad in [
            json!({ "allOf": [{ "properties": { "a": { "$ref": "#" } } }, { "properties": { "a": { "$ref": "#" } } }] }),
            json!({ "properties": { "a": { "$ref": "#" } }, "patternProperties": { "a": { "$ref": "#" } } }),
            json!({ "properties": { "a": { "allOf": [{ "$ref": "#" }, { "properties": { "a": { "$ref": "#" } } }] } } }),
            json!({ "properties": { "a": { "$ref": "#/$defs/b" } }, "$defs": { "b": {
                "allOf": [{ "properties": { "a": { "$ref": "#" } } }, { "properties": { "a": { "$ref": "#/$defs/b" } } }] } } }),
        ] {
            assert!(compile(&bad).unwrap_err().problem.contains("in two ways"), "{bad}");
        }
        let back = json!({ "$ref": "#" });
        let places: Map<String, Value> = (0..101).map(|index| (format!("p{index}"), back.clone())).collect();
        assert!(compile(&json!({ "properties": places })).unwrap_err().problem.contains("more than 100 places"));
    }

    /// A schema in which each element of a list is checked by another.
    fn each(element: &Value) -> Value {
        json!({ "type": "array", "items": element })
    }

    #[test]
    fn a_value_is_checked_by_as_much_as_it_may_be_and_no_more() {
        let constants = |count: usize| (0..count).map(|one| json!({ "const": one })).collect::<Vec<_>>();
        let numbers = |count: usize| (0..count).collect::<Vec<_>>();
        let names = |count: usize| (0..count).map(|one| format!("n{one}")).collect::<Vec<_>>();
        let fields = |count| names(count).into_iter().map(|name| (name, json!(true))).collect::<Map<_, _>>();
        let text = |count: usize, keyword: &str, value: Value| {
            let schema: Map<_, _> = [(keyword.to_owned(), value)].into_iter().collect();
            json!({ "allOf": vec![schema; count] })
        };
        for (good, bad) in [
            (json!({ "anyOf": constants(499) }), json!({ "anyOf": constants(500) })),
            (json!({ "enum": numbers(499) }), json!({ "enum": numbers(500) })),
            (json!({ "required": names(499) }), json!({ "required": names(500) })),
            (json!({ "properties": fields(499) }), json!({ "properties": fields(500) })),
            (json!({ "dependentRequired": { "a": names(498) } }), json!({ "dependentRequired": { "a": names(499) } })),
            (text(19, "pattern", json!("^a")), text(20, "pattern", json!("^a"))),
            (text(19, "format", json!("date")), text(20, "format", json!("date"))),
            (text(19, "uniqueItems", json!(true)), text(20, "uniqueItems", json!(true))),
            (
                json!({ "anyOf": [{ "enum": numbers(240) }, { "enum": numbers(240) }] }),
                json!({ "anyOf": [{ "enum": numbers(250) }, { "enum": numbers(250) }] }),
            ),
            // References count as what they name.
            (
                json!({ "$defs": { "a": { "enum": numbers(248) } }, "allOf": [{ "$ref": "#/$defs/a" }] }),
                json!({ "$defs": { "a": { "enum": numbers(248) } },
                        "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }] }),
            ),
        ] {
            compile(&good).unwrap();
            compile(&each(&json!({ "allOf": [{ "const": 1 }] }))).unwrap();
            let refused = compile(&bad).unwrap_err();
            assert!(refused.problem.contains("more than 500 ways"), "{refused:?}");
            // Definitions are at the top only.
            if bad.get("$defs").is_none() {
                assert!(compile(&each(&bad)).unwrap_err().problem.contains("more than 500 ways"));
            }
        }
    }

    #[test]
    fn there_are_as_many_schemas_as_there_may_be_and_no_more() {
        // The whole, five objects, and their fields.
        let with = |fields: usize| {
            let fields: Map<_, _> = (0..fields).map(|one| (format!("n{one}"), json!(one % 2 == 0))).collect();
            let objects = ["a", "b", "c", "d", "e"].map(|name| (name.to_owned(), json!({ "properties": fields })));
            json!({ "properties": objects.into_iter().collect::<Map<_, _>>() })
        };
        assert_eq!(bounded(&with(398)).unwrap().schemas, 1_996);
        assert!(compile(&with(399)).unwrap_err().problem.contains("more than 2000"));
        let patterns = json!({ "pattern": "a", "patternProperties": { "b": { "pattern": "c" }, "d": true } });
        let cost = bounded(&patterns).unwrap();
        assert_eq!((cost.schemas, cost.patterns), (3, 4));
    }

    #[test]
    fn of_a_large_value_it_is_said_only_that_something_is_wrong() {
        // Half a MiB, and none of it fits.
        let value = json!(vec!["a"; 131_072]);
        let constants: Vec<Value> = (0..480).map(|one| json!({ "const": format!("{one}") })).collect();
        let schema = each(&json!({ "anyOf": constants }));
        let validator = compile(&schema).unwrap();
        let problems = super::super::problems_of(&validator, &schema, &value, "/context");
        let [problem] = &*problems else { panic!("{problems:?}") };
        assert_eq!(problem.pointer, "/context");
        assert!(problem.message.contains("too large to say where"), "{problem:?}");
        // Also where few schemas find much.
        let names: Vec<_> = (0..480).map(|one| format!("n{one}")).collect();
        let (schema, value) = (each(&json!({ "required": names })), json!(vec![json!({}); 1_000]));
        let problems = super::super::problems_of(&compile(&schema).unwrap(), &schema, &value, "/context");
        assert!(problems.len() == 1 && problems[0].message.contains("too large to say where"), "{problems:?}");
        // A small one is told all that is wrong with it.
        let problems = super::super::problems_of(&validator, &schema, &json!(vec!["a"; 50]), "/context");
        assert_eq!(problems.len(), 50);
        assert!(problems.iter().all(|problem| problem.message.chars().count() <= 2_001));
    }

    #[test]
    fn a_reference_stays_in_the_schema() {
        for (reference, said) in [
            ("https://x.example/s", "nothing is fetched"),
            ("https://json-schema.org/draft/2020-12/schema", "nothing is fetched"),
            ("file:///etc/passwd", "nothing is fetched"),
            ("other.json", "nothing is fetched"),
            ("#anchor", "nothing is fetched"),
            ("#/$defs/none", "leads to what is not there"),
        ] {
            let refused = compile(&json!({ "properties": { "a": { "$ref": reference } } })).unwrap_err();
            assert!(refused.problem.contains(said), "{refused:?}");
            assert_eq!(refused.place, "/properties/a/$ref");
        }
        let dynamic = compile(&json!({ "$dynamicAnchor": "x", "items": { "$dynamicRef": "#x" } })).unwrap_err();
        assert_eq!(dynamic.place, "/items/$dynamicRef");
        let inner = compile(&json!({ "properties": { "a": { "$id": "https://x.example/s" } } })).unwrap_err();
        assert_eq!(inner.place, "/properties/a/$id");
        compile(&json!({ "$id": "https://x.example/s", "$ref": "#/$defs/a", "$defs": { "a": {} } })).unwrap();
    }
}
