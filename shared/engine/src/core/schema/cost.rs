//! Refuses schemas whose validation would cost far more than their length suggests, because references multiply. Two
//! references side by side in each of thirty definitions make a billion checks. A schema that refers to itself twice doubles
//! the checks at each level of the value. And the checks of a list's elements are repeated for each element.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::SchemaError;

/// The most schemas in one schema with all references followed.
pub(super) const SCHEMAS_MAX: usize = 2_000;
/// The most checks of one value: schemas, values of an enum, and names.
const CHECKS_MAX: usize = 500;
/// The number of checks that a keyword counts which reads a whole text or list: `pattern`, `format` and `uniqueItems`.
const SLOW_CHECK: usize = 25;
/// The longest name of a property, in bytes. Pointers consist of them.
const NAME_MAX: usize = 255;
/// The deepest nesting of schemas with all references followed.
const DEPTH_MAX: usize = 200;
/// The most references to an enclosing schema.
const RECURSIONS_MAX: usize = 100;

/// The cost of a schema with all references followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// The number of schemas in it.
    pub schemas: usize,
    /// The number of checks in all of them.
    pub checks: usize,
    /// The number of patterns that are compiled for it.
    pub patterns: usize,
}

/// A step from a value to a value within it.
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
    /// Whether both can lead to the same value.
    fn overlaps(self, other: Self) -> bool {
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

/// A walk through a schema that follows all references, except those to enclosing schemas.
struct Walk<'a> {
    root: &'a Value,
    cost: Cost,
    /// The number of checks for the values at each path.
    checks: HashMap<Vec<Step<'a>>, usize>,
    /// The schemas that enclose the current one.
    enclosing: Vec<&'a Value>,
    /// The path of the value that the current schema describes.
    path: Vec<Step<'a>>,
    /// The paths of references to an enclosing schema.
    recursions: Vec<Vec<Step<'a>>>,
}

/// The cost of a schema. An error if it exceeds a limit, or if its references multiply the checks with the depth of a value.
pub(super) fn bounded(schema: &Value) -> Result<Cost, SchemaError> {
    let mut walk = Walk {
        root: schema,
        cost: Cost::default(),
        checks: HashMap::new(),
        enclosing: Vec::new(),
        path: Vec::new(),
        recursions: Vec::new(),
    };
    walk.enter(schema, "")?;
    // If no path is the beginning of another, each value is reached by at most one recursion.
    let recursions = walk.recursions.iter().enumerate();
    let pairs =
        recursions.flat_map(|(index, one)| walk.recursions.iter().skip(index + 1).map(move |other| (one, other)));
    for (one, other) in pairs {
        if one.iter().zip(other).all(|(one, other)| one.overlaps(*other)) {
            return Err(refused("", "refers to itself in two ways for the same value; merge them into one schema"));
        }
    }
    Ok(walk.cost)
}

fn refused(pointer: &str, problem: &str) -> SchemaError {
    SchemaError { pointer: pointer.to_owned(), problem: problem.to_owned() }
}

impl<'a> Walk<'a> {
    fn enter(&mut self, schema: &'a Value, pointer: &str) -> Result<(), SchemaError> {
        let Some(fields) = schema.as_object() else {
            // `true` and `false` are schemas as well.
            return if schema.is_boolean() { self.count(1, pointer) } else { Ok(()) };
        };
        if self.enclosing.iter().any(|outer| std::ptr::eq(*outer, schema)) {
            self.recursions.push(self.path.clone());
            if self.recursions.len() > RECURSIONS_MAX {
                return Err(refused(pointer, "refers to itself in more than 100 places; simplify it"));
            }
            return Ok(());
        }
        if self.enclosing.len() >= DEPTH_MAX {
            return Err(refused(pointer, "schemas are nested deeper than 200; simplify it"));
        }
        self.cost.patterns += patterns_of(fields);
        self.count(checks_of(fields), pointer)?;
        self.enclosing.push(schema);
        // With the keywords of older drafts, which a schema may declare with $schema.
        for (keyword, value) in fields {
            let pointer = &format!("{pointer}/{keyword}");
            let named = value.as_object().into_iter().flatten();
            let listed = value.as_array().into_iter().flatten();
            match keyword.as_str() {
                "$ref" => self.follow(value, pointer)?,
                "$dynamicRef" | "$recursiveRef" => {
                    return Err(refused(pointer, "its target is not known before validation; use $ref"));
                }
                "$id" if self.enclosing.len() > 1 => {
                    return Err(refused(pointer, "is allowed at the top of the schema only; remove it"));
                }
                "properties" => {
                    for (name, schema) in named {
                        if name.len() > NAME_MAX {
                            return Err(refused(pointer, "a name has more than 255 bytes; shorten it"));
                        }
                        self.step(Some(Step::Property(name)), schema, &format!("{pointer}/{name}"))?;
                    }
                }
                "patternProperties" => {
                    for (name, schema) in named {
                        self.step(Some(Step::AnyProperty), schema, &format!("{pointer}/{name}"))?;
                    }
                }
                "dependentSchemas" | "dependencies" => {
                    for (name, schema) in named {
                        self.step(None, schema, &format!("{pointer}/{name}"))?;
                    }
                }
                "additionalProperties" | "unevaluatedProperties" | "propertyNames" => {
                    self.step(Some(Step::AnyProperty), value, pointer)?;
                }
                "items" | "prefixItems" | "contains" | "unevaluatedItems" | "additionalItems" => {
                    for (index, schema) in listed.enumerate() {
                        self.step(Some(Step::Element), schema, &format!("{pointer}/{index}"))?;
                    }
                    self.step(Some(Step::Element), value, pointer)?;
                }
                "allOf" | "anyOf" | "oneOf" => {
                    for (index, schema) in listed.enumerate() {
                        self.step(None, schema, &format!("{pointer}/{index}"))?;
                    }
                }
                "not" | "if" | "then" | "else" => self.step(None, value, pointer)?,
                _ => {}
            }
        }
        self.enclosing.pop();
        Ok(())
    }

    /// Counts a schema with `checks` checks of the current value.
    fn count(&mut self, checks: usize, pointer: &str) -> Result<(), SchemaError> {
        self.cost.schemas += 1;
        self.cost.checks = self.cost.checks.saturating_add(checks);
        if self.cost.schemas > SCHEMAS_MAX {
            let problem = "it has more than 2000 schemas, with all references ($ref) followed; simplify it";
            return Err(refused(pointer, problem));
        }
        let total = self.checks.entry(self.path.clone()).or_default();
        *total = total.saturating_add(checks);
        if *total > CHECKS_MAX {
            return Err(refused(
                pointer,
                "one value would need more than 500 checks (a schema, a value of an enum and a name count 1; pattern, \
                 format and uniqueItems 25); simplify it",
            ));
        }
        Ok(())
    }

    fn step(&mut self, step: Option<Step<'a>>, schema: &'a Value, pointer: &str) -> Result<(), SchemaError> {
        self.path.extend(step);
        self.enter(schema, pointer)?;
        if step.is_some() {
            self.path.pop();
        }
        Ok(())
    }

    fn follow(&mut self, reference: &Value, pointer: &str) -> Result<(), SchemaError> {
        // A reference that is not a text is refused by the compiler.
        let Some(reference) = reference.as_str() else { return Ok(()) };
        let target = reference.strip_prefix('#').filter(|target| target.is_empty() || target.starts_with('/'));
        let Some(target) = target else {
            let problem = "points outside the schema, and nothing is fetched; put its target under $defs, and write \
                           #/$defs/name";
            return Err(refused(pointer, problem));
        };
        let target = percent_decode_str(target).decode_utf8_lossy();
        match self.root.pointer(&target) {
            Some(schema) => self.enter(schema, pointer),
            None => Err(refused(pointer, "its target does not exist; put it under $defs")),
        }
    }
}

/// The number of patterns that a schema itself compiles.
fn patterns_of(fields: &Map<String, Value>) -> usize {
    let of_names = fields.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
    of_names + usize::from(fields.contains_key("pattern"))
}

/// The number of checks that a schema itself makes of a value.
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

    /// `length` definitions, each of which refers twice to the next one.
    fn chain(length: usize) -> Value {
        let next = |index: usize| json!({ "$ref": format!("#/$defs/d{}", index + 1) });
        let twice = |index: usize| (format!("d{index}"), json!({ "allOf": [next(index), next(index)] }));
        let mut definitions: Map<String, Value> = (0..length).map(twice).collect();
        definitions.insert(format!("d{length}"), json!({ "type": "string" }));
        json!({ "$ref": "#/$defs/d0", "$defs": definitions })
    }

    #[test]
    fn multiplying_references_are_refused() {
        // Each level has twice the schemas of the level above, and one for each reference.
        compile(&chain(6)).unwrap();
        for length in [10, 30, 60] {
            let refused = compile(&chain(length)).unwrap_err();
            assert!(refused.problem.contains("500 checks") && refused.pointer.starts_with("/$ref/"), "{refused:?}");
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
    fn schema_may_refer_to_itself_once_for_each_value() {
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

    /// The schema of a list with that schema for its elements.
    fn each(element: &Value) -> Value {
        json!({ "type": "array", "items": element })
    }

    #[test]
    fn checks_of_one_value_are_limited() {
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
            assert!(refused.problem.contains("more than 500 checks"), "{refused:?}");
            // Definitions are at the top only.
            if bad.get("$defs").is_none() {
                assert!(compile(&each(&bad)).unwrap_err().problem.contains("more than 500 checks"));
            }
        }
    }

    #[test]
    fn schemas_are_limited_in_number() {
        // The root, five objects, and their fields.
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
    fn large_value_gets_a_single_problem() {
        // Half a MiB of wrong elements.
        let value = json!(vec!["a"; 131_072]);
        let constants: Vec<Value> = (0..480).map(|one| json!({ "const": format!("{one}") })).collect();
        let schema = each(&json!({ "anyOf": constants }));
        let validator = compile(&schema).unwrap();
        let problems = super::super::problems_of(&validator, &schema, &value, "/context");
        let [problem] = &*problems else { panic!("{problems:?}") };
        assert_eq!(problem.pointer, "/context");
        assert!(problem.message.contains("too large to say where"), "{problem:?}");
        // The same if few schemas find many problems.
        let names: Vec<_> = (0..480).map(|one| format!("n{one}")).collect();
        let (schema, value) = (each(&json!({ "required": names })), json!(vec![json!({}); 1_000]));
        let problems = super::super::problems_of(&compile(&schema).unwrap(), &schema, &value, "/context");
        assert!(problems.len() == 1 && problems[0].message.contains("too large to say where"), "{problems:?}");
        // A small value gets every problem.
        let problems = super::super::problems_of(&validator, &schema, &json!(vec!["a"; 50]), "/context");
        assert_eq!(problems.len(), 50);
        assert!(problems.iter().all(|problem| problem.message.chars().count() <= 2_001));
    }

    #[test]
    fn reference_stays_within_the_schema() {
        for (reference, expected) in [
            ("https://x.example/s", "nothing is fetched"),
            ("https://json-schema.org/draft/2020-12/schema", "nothing is fetched"),
            ("file:///etc/passwd", "nothing is fetched"),
            ("other.json", "nothing is fetched"),
            ("#anchor", "nothing is fetched"),
            ("#/$defs/none", "its target does not exist"),
        ] {
            let refused = compile(&json!({ "properties": { "a": { "$ref": reference } } })).unwrap_err();
            assert!(refused.problem.contains(expected), "{refused:?}");
            assert_eq!(refused.pointer, "/properties/a/$ref");
        }
        let dynamic = compile(&json!({ "$dynamicAnchor": "x", "items": { "$dynamicRef": "#x" } })).unwrap_err();
        assert_eq!(dynamic.pointer, "/items/$dynamicRef");
        let inner = compile(&json!({ "properties": { "a": { "$id": "https://x.example/s" } } })).unwrap_err();
        assert_eq!(inner.pointer, "/properties/a/$id");
        compile(&json!({ "$id": "https://x.example/s", "$ref": "#/$defs/a", "$defs": { "a": {} } })).unwrap();
    }
}
