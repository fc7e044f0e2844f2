//! Refuses schemas that would cost far more to check by than they are long: references multiply. Two that stand beside each
//! other in each of thirty definitions are a billion checks, and one that leads back twice doubles them at each level of the
//! value that is checked.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::NoSchema;

/// The most schemas that there are in one once all references are followed.
const SCHEMAS_MAX: usize = 10_000;
/// How deep they may stand in each other then.
const DEPTH_MAX: usize = 200;
/// The most places at which a schema leads back to one that it stands in.
const RETURNS_MAX: usize = 100;

/// A step from a value to one within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    schemas: usize,
    /// The schemas that the present one stands in.
    around: Vec<&'a Value>,
    /// The way to the value that the present one is about.
    way: Vec<Step<'a>>,
    /// The ways at which it leads back.
    returns: Vec<Vec<Step<'a>>>,
}

/// Finds out whether checking by a schema costs what its length and that of the value let one expect.
pub(super) fn bounded(schema: &Value) -> Result<(), NoSchema> {
    let mut walk = Walk { root: schema, schemas: 0, around: Vec::new(), way: Vec::new(), returns: Vec::new() };
    walk.enter(schema, "")?;
    // Where no way begins as another does, one value is met by one return at most.
    let returns = walk.returns.iter().enumerate();
    let meeting = returns.flat_map(|(index, one)| walk.returns.iter().skip(index + 1).map(move |other| (one, other)));
    for (one, other) in meeting {
        if one.iter().zip(other).all(|(one, other)| one.meets(*other)) {
            return Err(refused("", "refers to itself in two ways for the same value; let one schema say both"));
        }
    }
    Ok(())
}

fn refused(place: &str, problem: &str) -> NoSchema {
    NoSchema { place: place.to_owned(), problem: problem.to_owned() }
}

impl<'a> Walk<'a> {
    fn enter(&mut self, schema: &'a Value, place: &str) -> Result<(), NoSchema> {
        let Some(fields) = schema.as_object() else { return Ok(()) };
        if self.around.iter().any(|outer| std::ptr::eq(*outer, schema)) {
            self.returns.push(self.way.clone());
            if self.returns.len() > RETURNS_MAX {
                return Err(refused(place, "refers to itself in more than 100 places; make it simpler"));
            }
            return Ok(());
        }
        self.schemas += 1;
        if self.schemas > SCHEMAS_MAX || self.around.len() >= DEPTH_MAX {
            return Err(refused(
                place,
                "its references ($ref) multiply to more than can be checked by; make it simpler",
            ));
        }
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::super::compile;
    use super::*;

    /// A definition that refers to the next one twice, so often.
    fn chain(length: usize) -> Value {
        let next = |index: usize| json!({ "$ref": format!("#/$defs/d{}", index + 1) });
        let twice = |index: usize| (format!("d{index}"), json!({ "allOf": [next(index), next(index)] }));
        let mut definitions: serde_json::Map<String, Value> = (0..length).map(twice).collect();
        definitions.insert(format!("d{length}"), json!({ "type": "string" }));
        json!({ "$ref": "#/$defs/d0", "$defs": definitions })
    }

    #[test]
    fn references_that_multiply_are_refused_at_once() {
        // Each level is twice the one above, and a schema for each reference.
        compile(&chain(10)).unwrap();
        for length in [12, 30, 60] {
            let before = Instant::now();
            let refused = compile(&chain(length)).unwrap_err();
            assert!(refused.problem.contains("multiply") && refused.place.starts_with("/$ref/"), "{refused:?}");
            assert!(before.elapsed() < Duration::from_secs(1));
        }
        let next = |index: usize| (format!("d{index}"), json!({ "$ref": format!("#/$defs/d{}", index + 1) }));
        let long = |length: usize| {
            let mut definitions: serde_json::Map<String, Value> = (0..length).map(next).collect();
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
        let places: serde_json::Map<String, Value> =
            (0..101).map(|index| (format!("p{index}"), back.clone())).collect();
        assert!(compile(&json!({ "properties": places })).unwrap_err().problem.contains("more than 100 places"));
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
