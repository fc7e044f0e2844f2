//! Parameters as they may be kept: without secrets, and not too large.
//!
//! Being careful is better than being clever here. A value goes if its key looks secret, and if any schema that could be
//! meant for it says `x-secret`, whether or not that branch applies.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ptr;

use jsonschema::Validator;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::secret_names::looks_secret;
use crate::core::outcome::cut;
use crate::core::redactor::{Redactor, STRUCK};
use crate::core::schema;

/// The largest parameters that are kept, in bytes of JSON.
pub const KEPT_MAX_BYTES: usize = 16 * 1024;
/// The longest string that is kept, in characters.
pub const STRING_MAX: usize = 1_000;
/// How deep arrays and objects are kept.
const DEPTH_MAX: usize = 16;
/// About how many secrets are looked for in a message.
const STRUCK_MAX: usize = 100;
/// What stands where a secret stood.
const REMOVED: &str = "[removed]";
/// What stands where something was nested too deep.
const TOO_DEEP: &str = "[left out: nested too deep]";
/// Where it is said how much did not fit.
const LEFT_OUT: &str = "[left out]";
/// Room for the word on what was left out, in bytes of JSON: the key above, a comma, and a sentence with a number in it.
const WORD_BYTES: usize = 64;

/// The fields by which an object may name what its `value` is, as lists of headers do.
const NAMING: [&str; 3] = ["name", "key", "header"];

/// Parameters as they may be kept: redacted, and at most 16 KiB of JSON.
pub(crate) fn redacted(schema: &Value, parameters: &Map<String, Value>) -> Map<String, Value> {
    // Most plugins have no secrets among their parameters.
    let schemas = if mentions_secrets(schema) { vec![schema] } else { Vec::new() };
    let mut redactor =
        ParameterRedactor { root: schema, patterns: HashMap::new(), left: KEPT_MAX_BYTES, gathered: None };
    match redactor.object(parameters, &schemas, 1) {
        Some(Value::Object(kept)) => kept,
        Some(_) | None => Map::new(),
    }
}

/// Takes secrets among parameters out of what a service says, which may be what it was sent.
pub(crate) struct SchemaRedactor {
    striker: Redactor,
    /// There are more than are looked for.
    too_many: bool,
}

impl SchemaRedactor {
    /// Everything among `parameters` that is not kept of them; only what the schema marks, if `marked`.
    pub(crate) fn among(schema: &Value, parameters: &Map<String, Value>, marked: bool) -> Self {
        let schemas = if mentions_secrets(schema) { vec![schema] } else { Vec::new() };
        let mut found = Vec::new();
        if !(marked && schemas.is_empty()) {
            let gathered = Gathered { secrets: Vec::new(), marked };
            let (patterns, left) = (HashMap::new(), usize::MAX);
            let mut redactor = ParameterRedactor { root: schema, patterns, left, gathered: Some(gathered) };
            redactor.object(parameters, &schemas, 1);
            found = redactor.gathered.map(|gathered| gathered.secrets).unwrap_or_default();
        }
        Self { striker: Redactor::new(found.iter().take(STRUCK_MAX)), too_many: found.len() > STRUCK_MAX }
    }

    /// A text without them.
    pub(crate) fn text(&self, text: String) -> String {
        if self.too_many { STRUCK.to_owned() } else { self.striker.text(text) }
    }

    /// A value without them.
    pub(crate) fn value(&self, value: Value) -> Value {
        if self.too_many { STRUCK.into() } else { self.striker.value(value) }
    }
}

/// What is found where nothing is to be kept.
struct Gathered {
    secrets: Vec<SecretString>,
    /// Only what the schema marks is meant.
    marked: bool,
}

/// Every string and number in a value, a little beyond what is looked for.
fn texts(value: &Value, secrets: &mut Vec<SecretString>) {
    match value {
        _ if secrets.len() > STRUCK_MAX => {}
        Value::String(text) => secrets.push(text.as_str().into()),
        Value::Number(number) => secrets.push(number.to_string().into()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, secrets)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, secrets)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Whether a schema says anywhere that something is secret.
fn mentions_secrets(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| (key == "x-secret" && value == &Value::Bool(true)) || mentions_secrets(value)),
        Value::Array(items) => items.iter().any(mentions_secrets),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Copies values without their secrets until there is no room left.
struct ParameterRedactor<'a> {
    root: &'a Value,
    /// The patterns of names, compiled when first met; none where one does not compile.
    patterns: HashMap<&'a str, Option<Validator>>,
    /// How many bytes of JSON there is room for.
    left: usize,
    /// What is removed, where that is what is wanted, and not the copy.
    gathered: Option<Gathered>,
}

/// What a schema says of a place.
struct SchemaPosition<'a> {
    /// Every schema that could be meant for it.
    schemas: Vec<&'a Value>,
    /// Whether one of them says that it is secret, or refers to what cannot be looked up here.
    is_secret: bool,
}

impl<'a> ParameterRedactor<'a> {
    /// A copy of the value, or nothing where there is no room for it.
    fn value(&mut self, value: &Value, schemas: &[&'a Value], depth: usize) -> Option<Value> {
        let here = self.here(schemas);
        if here.is_secret {
            return self.remove(value);
        }
        match value {
            Value::Array(_) | Value::Object(_) if depth > DEPTH_MAX && self.gathered.is_none() => {
                self.take(TOO_DEEP.into())
            }
            Value::Array(items) => self.array(items, &here.schemas, depth),
            Value::Object(fields) => self.fields(fields, &here.schemas, depth),
            Value::String(text) => self.take(cut(text, STRING_MAX).into()),
            Value::Null | Value::Bool(_) | Value::Number(_) => self.take(value.clone()),
        }
    }

    /// As [`Self::value`], of the parameters as a whole: if they are secret, each of them is.
    fn object(&mut self, fields: &Map<String, Value>, schemas: &[&'a Value], depth: usize) -> Option<Value> {
        let here = self.here(schemas);
        if here.is_secret {
            for value in fields.values() {
                self.gather(value);
            }
            let removed = fields.keys().map(|name| (name.clone(), REMOVED.into())).collect();
            return self.fields(&removed, &[], depth);
        }
        self.fields(fields, &here.schemas, depth)
    }

    fn fields(&mut self, fields: &Map<String, Value>, schemas: &[&'a Value], depth: usize) -> Option<Value> {
        self.spend(2 + WORD_BYTES)?;
        let mut kept = Map::new();
        let names_secret =
            NAMING.iter().any(|name| fields.get(*name).and_then(Value::as_str).is_some_and(looks_secret));
        for (name, value) in fields {
            // With a colon and a comma.
            let around = bytes(name).saturating_add(2);
            let Some(()) = self.spend(around) else { break };
            let by_name = looks_secret(name) || (names_secret && name == "value");
            let copy = if by_name && self.gathered.as_ref().is_none_or(|gathered| !gathered.marked) {
                self.remove(value)
            } else {
                let schemas = self.of_field(schemas, name);
                self.value(value, &schemas, depth + 1)
            };
            let Some(copy) = copy else {
                self.left += around;
                break;
            };
            kept.insert(name.clone(), copy);
        }
        match fields.len() - kept.len() {
            0 => self.left += WORD_BYTES,
            missing => {
                kept.insert(LEFT_OUT.to_owned(), format!("{missing} more").into());
            }
        }
        Some(Value::Object(kept))
    }

    fn array(&mut self, items: &[Value], schemas: &[&'a Value], depth: usize) -> Option<Value> {
        self.spend(2 + WORD_BYTES)?;
        let mut kept = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Some(()) = self.spend(1) else { break };
            let Some(copy) = self.value(item, &of_item(schemas, index), depth + 1) else { break };
            kept.push(copy);
        }
        match items.len() - kept.len() {
            0 => self.left += WORD_BYTES,
            missing => kept.push(format!("{LEFT_OUT} {missing} more").into()),
        }
        Some(Value::Array(kept))
    }

    /// What stands in the place of a secret.
    fn remove(&mut self, value: &Value) -> Option<Value> {
        self.gather(value);
        self.take(REMOVED.into())
    }

    fn gather(&mut self, value: &Value) {
        if let Some(gathered) = &mut self.gathered {
            texts(value, &mut gathered.secrets);
        }
    }

    /// The value, if there is room for it.
    fn take(&mut self, value: Value) -> Option<Value> {
        self.spend(value.to_string().len()).map(|()| value)
    }

    fn spend(&mut self, bytes: usize) -> Option<()> {
        self.left = self.left.checked_sub(bytes)?;
        Some(())
    }

    /// Follows what `schemas` apply to the same place: references, and every branch.
    fn here(&self, schemas: &[&'a Value]) -> SchemaPosition<'a> {
        let mut here = SchemaPosition { schemas: Vec::new(), is_secret: false };
        let mut open = schemas.to_vec();
        let mut seen = HashSet::new();
        while let Some(schema) = open.pop() {
            let Some(words) = schema.as_object().filter(|_| seen.insert(ptr::from_ref(schema))) else { continue };
            here.is_secret |= words.get("x-secret") == Some(&Value::Bool(true));
            here.schemas.push(schema);
            for reference in ["$ref", "$dynamicRef"].iter().filter_map(|word| words.get(*word)) {
                match self.referred(reference) {
                    Some(schema) => open.push(schema),
                    None => here.is_secret = true,
                }
            }
            let lists = ["allOf", "anyOf", "oneOf"].iter().filter_map(|word| words.get(*word)?.as_array());
            open.extend(lists.flatten());
            open.extend(["if", "then", "else"].iter().filter_map(|word| words.get(*word)));
            open.extend(words.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(Map::values));
        }
        here
    }

    /// What a reference within the schema is to: `#` and a JSON pointer.
    fn referred(&self, reference: &Value) -> Option<&'a Value> {
        let pointer: Cow<'_, str> = percent_decode_str(reference.as_str()?.strip_prefix('#')?).decode_utf8().ok()?;
        self.root.pointer(&pointer)
    }

    /// The schemas that could be meant for a field.
    fn of_field(&mut self, schemas: &[&'a Value], name: &str) -> Vec<&'a Value> {
        let mut found = Vec::new();
        for schema in schemas {
            let before = found.len();
            found.extend(schema.get("properties").and_then(|named| named.get(name)));
            let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
            found.extend(patterns.filter(|(pattern, _)| self.matches(pattern, name)).map(|(_, schema)| schema));
            if found.len() == before {
                let others = ["additionalProperties", "unevaluatedProperties"];
                found.extend(others.iter().filter_map(|word| schema.get(word)));
            }
        }
        found
    }

    /// Whether a name matches a pattern, by the same rules as when parameters are checked. One that does not compile
    /// matches all.
    fn matches(&mut self, pattern: &'a str, name: &str) -> bool {
        let compiled = self.patterns.entry(pattern);
        let compiled = compiled.or_insert_with(|| schema::compile(&json!({ "pattern": pattern })).ok());
        compiled.as_ref().is_none_or(|compiled| compiled.is_valid(&name.into()))
    }
}

/// The schemas that could be meant for an item.
fn of_item<'a>(schemas: &[&'a Value], index: usize) -> Vec<&'a Value> {
    let mut found = Vec::new();
    for schema in schemas {
        let first = schema.get("prefixItems").and_then(|items| items.get(index));
        let rest = ["items", "unevaluatedItems"].iter().filter_map(|word| schema.get(word));
        found.extend(schema.get("contains"));
        match first {
            Some(first) => found.push(first),
            None => found.extend(rest),
        }
    }
    found
}

/// The bytes of a text in JSON.
fn bytes(text: &str) -> usize {
    Value::from(text).to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(schema: &Value, parameters: Value) -> Value {
        let Value::Object(parameters) = parameters else { panic!("not an object") };
        Value::Object(redacted(schema, &parameters))
    }

    #[test]
    fn what_stands_under_a_secret_name_is_removed_whatever_it_is() {
        for value in [json!("x"), json!(7), json!(null), json!(["x"]), json!({ "a": "x" })] {
            let kept = kept(&json!({}), json!({ "a": [{ "password": value, "text": "my password is x" }] }));
            assert_eq!(kept, json!({ "a": [{ "password": "[removed]", "text": "my password is x" }] }));
        }
        let headers =
            json!({ "headers": [{ "name": "Authorization", "value": "x" }, { "name": "Accept", "value": "y" }] });
        let kept = kept(&json!({}), headers);
        assert_eq!((&kept["headers"][0]["value"], &kept["headers"][1]["value"]), (&json!("[removed]"), &json!("y")));
    }

    #[test]
    fn what_the_schema_says_is_secret_is_removed_by_every_way_there() {
        let secret = json!({ "x-secret": true });
        for schema in [
            json!({ "properties": { "a": secret } }),
            json!({ "additionalProperties": secret }),
            json!({ "unevaluatedProperties": secret }),
            json!({ "patternProperties": { "^a": secret } }),
            json!({ "patternProperties": { "(": secret } }),
            json!({ "allOf": [{}, { "properties": { "a": secret } }] }),
            json!({ "anyOf": [{ "oneOf": [{ "properties": { "a": secret } }] }] }),
            json!({ "if": {}, "then": { "properties": { "a": secret } } }),
            json!({ "if": {}, "else": { "properties": { "a": secret } } }),
            json!({ "if": { "properties": { "a": secret } } }),
            json!({ "dependentSchemas": { "b": { "properties": { "a": secret } } } }),
            json!({ "$ref": "#/$defs/x", "$defs": { "x": { "properties": { "a": { "$ref": "#/$defs/y~1%20z" } } }, "y/ z": secret } }),
            json!({ "properties": { "a": { "$ref": "#anchor" } }, "$defs": { "x": { "$anchor": "anchor", "x-secret": true } } }),
            json!({ "$defs": { "loop": { "$ref": "#/$defs/loop" } }, "allOf": [{ "$ref": "#/$defs/loop" }, { "$ref": "#" }],
                    "properties": { "a": secret } }),
        ] {
            assert_eq!(kept(&schema, json!({ "a": { "b": 1 } })), json!({ "a": "[removed]" }), "{schema}");
        }
        let whole = json!({ "x-secret": true, "type": "object" });
        assert_eq!(kept(&whole, json!({ "a": 1, "b": [] })), json!({ "a": "[removed]", "b": "[removed]" }));
        // What another pattern or property is for stays.
        let other =
            json!({ "properties": { "a": {} }, "patternProperties": { "^b": secret }, "additionalProperties": secret });
        assert_eq!(
            kept(&other, json!({ "a": 1, "b": 1, "c": 1 })),
            json!({ "a": 1, "b": "[removed]", "c": "[removed]" })
        );
        assert_eq!(
            kept(&json!({ "properties": { "a": { "x-secret": false } } }), json!({ "a": 1 })),
            json!({ "a": 1 })
        );
        // A tree that refers to itself.
        let tree = json!({ "$defs": { "node": { "properties": { "value": secret, "nodes": { "items": { "$ref": "#/$defs/node" } } } } },
                           "properties": { "tree": { "$ref": "#/$defs/node" },
                                           "pair": { "prefixItems": [{}, secret], "items": { "properties": { "c": secret } } } } });
        let parameters =
            json!({ "tree": { "value": 1, "nodes": [{ "value": 2, "of": 3 }] }, "pair": [1, 2, { "c": 3, "d": 4 }] });
        let expected = json!({ "tree": { "value": "[removed]", "nodes": [{ "value": "[removed]", "of": 3 }] },
                               "pair": [1, "[removed]", { "c": "[removed]", "d": 4 }] });
        assert_eq!(kept(&tree, parameters), expected);
    }

    #[test]
    fn what_is_kept_is_never_larger_than_allowed() {
        let many = |count: usize, value: Value| {
            Value::Object((0..count).map(|index| (format!("f{index:05}"), value.clone())).collect())
        };
        let mut deep = json!(1);
        for _ in 0..60 {
            deep = json!([{ "a": deep }]);
        }
        for parameters in [
            json!({ "a": "x".repeat(500_000) }),
            json!({ "a": "\u{1}".repeat(500_000), "b": ["\u{1}".repeat(5_000), "\u{1}".repeat(5_000), "\u{1}".repeat(5_000)] }),
            json!({ "x".repeat(20_000): 1 }),
            many(10_000, json!(1)),
            many(10_000, json!({ "a": [[], {}] })),
            json!({ "a": vec![json!(null); 100_000] }),
            json!({ "a": vec![json!("é".repeat(300)); 1_000], "b": 1 }),
            json!({ "deep": deep }),
        ] {
            let kept = kept(&json!({}), parameters);
            let text = kept.to_string();
            assert!(text.len() <= KEPT_MAX_BYTES, "{} bytes", text.len());
            assert!(text.contains("left out") || text.contains('…'), "{text}");
        }
        // What fits, with room for a word on what does not, stays whole.
        let filled = |last: usize| {
            let mut fields = vec!["x".repeat(990); 16];
            fields.push("x".repeat(last));
            json!({ "a": fields })
        };
        let room = KEPT_MAX_BYTES - filled(0).to_string().len();
        let fits = filled(room - 3 * WORD_BYTES);
        assert!(kept(&json!({}), fits.clone()) == fits);
        assert!(kept(&json!({}), filled(room + 1)).to_string().contains("[left out] "));
        assert_eq!(kept(&json!({}), json!({ "a": "é".repeat(1_001) }))["a"], format!("{}…", "é".repeat(1_000)));
    }

    #[test]
    fn what_was_removed_is_struck_out_elsewhere_wherever_it_stood() {
        let object = |value: Value| {
            let Value::Object(fields) = value else { panic!("not an object") };
            fields
        };
        let struck = |parameters: Value, schema: Value, marked: bool, text: &str| {
            SchemaRedactor::among(&schema, &object(parameters), marked).text(text.to_owned())
        };
        let said = "it was hunter22 and 4242424242 of xyzxyzxyz, openly";
        let parameters = json!({ "a": [{ "password": "hunter22" }, 1], "token": { "b": [4_242_424_242_u64, "xyzxyzxyz"] }, "c": "openly" });
        let expected = format!("it was {STRUCK} and {STRUCK} of {STRUCK}, openly");
        assert_eq!(struck(parameters.clone(), json!({}), false, said), expected);
        assert_eq!(struck(parameters, json!({}), true, said), said, "only what is marked");
        // Also beyond what is kept, and below what is kept.
        let deep = (0..40).fold(json!({ "password": "hunter22" }), |inner, _| json!({ "a": inner }));
        let long = json!({ "a": vec![0; 9_000], "password": "hunter22" });
        for parameters in [deep, long] {
            assert_eq!(struck(parameters, json!({}), false, "hunter22!"), format!("{STRUCK}!"));
        }
        let marked = json!({ "properties": { "code": { "x-secret": true } } });
        assert_eq!(struck(json!({ "code": "hunter22" }), marked, true, "hunter22"), STRUCK);
        let many: Vec<_> = (0..=STRUCK_MAX).map(|number| format!("secret-{number}")).collect();
        assert_eq!(struck(json!({ "password": many }), json!({}), false, "anything"), STRUCK);
    }
}
