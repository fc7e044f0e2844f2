//! Redaction of an action's parameters: which of their values are secret, and how much of the rest is stored.
//!
//! Where each rule is:
//! - Names that look secret, such as `password`: the lists in `secret_names.rs`.
//! - Values that the schema marks with `x-secret`: [`ParameterRedactor::position`] follows references and branches,
//!   [`ParameterRedactor::schemas_of_field`] and [`schemas_of_item`] go into fields and items.
//! - Pairs such as `{"name": "Authorization", "value": …}`: [`NAME_FIELDS`].
//! - Limits of size, length and depth: the constants below.
//! - Secret parameters that the service repeats in its answer: [`SchemaRedactor`] collects them here, and
//!   `core::redactor::Redactor` removes them in all their encodings.
//! - The account's own credential: only `core::redactor`, which the callers give the credential itself.
//!
//! In doubt a value is removed: if its name looks secret, or if any schema that may apply to it says `x-secret`, whether or
//! not that branch of the schema does apply.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ptr;

use jsonschema::Validator;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::secret_names::looks_secret;
use crate::core::outcome::cut;
use crate::core::redactor::{REDACTED, Redactor};
use crate::core::schema;

/// The largest stored parameters, in bytes of JSON.
pub const KEPT_MAX_BYTES: usize = 16 * 1024;
/// The longest stored string, in characters.
pub const STRING_MAX: usize = 1_000;
/// How deep arrays and objects are stored.
const DEPTH_MAX: usize = 16;
/// The most secrets that are searched for in an answer. With more, the whole text is replaced.
const SECRETS_MAX: usize = 100;
/// Replaces a secret parameter.
const REMOVED: &str = "[removed]";
/// Replaces a value that is nested too deep.
const TOO_DEEP: &str = "[left out: nested too deep]";
/// The key, or the beginning of the last item, that says how much did not fit.
const LEFT_OUT: &str = "[left out]";
/// Room reserved for that note, in bytes of JSON: the key, a comma, and a sentence with a number.
const NOTE_BYTES: usize = 64;

/// The fields that name what an object's `value` is, as in lists of headers.
const NAME_FIELDS: [&str; 3] = ["name", "key", "header"];

/// The parameters as they may be stored: redacted, and at most 16 KiB of JSON.
pub(crate) fn redacted(schema: &Value, parameters: &Map<String, Value>) -> Map<String, Value> {
    // Most schemas mark nothing as secret; then there is nothing to follow.
    let schemas = if mentions_secrets(schema) { vec![schema] } else { Vec::new() };
    let mut redactor =
        ParameterRedactor { root: schema, patterns: HashMap::new(), remaining: KEPT_MAX_BYTES, collector: None };
    match redactor.object(parameters, &schemas, 1) {
        Some(Value::Object(kept)) => kept,
        Some(_) | None => Map::new(),
    }
}

/// Removes secret parameters from a service's answer, which may repeat what it was sent.
pub(crate) struct SchemaRedactor {
    redactor: Redactor,
    /// Whether there are more than [`SECRETS_MAX`].
    too_many: bool,
}

impl SchemaRedactor {
    /// Collects the secrets among `parameters`; if `marked`, only those that the schema marks, and not those whose name looks
    /// secret.
    pub(crate) fn among(schema: &Value, parameters: &Map<String, Value>, marked: bool) -> Self {
        let schemas = if mentions_secrets(schema) { vec![schema] } else { Vec::new() };
        let mut secrets = Vec::new();
        if !(marked && schemas.is_empty()) {
            let collector = SecretCollector { secrets: Vec::new(), marked };
            let (patterns, remaining) = (HashMap::new(), usize::MAX);
            let mut redactor = ParameterRedactor { root: schema, patterns, remaining, collector: Some(collector) };
            redactor.object(parameters, &schemas, 1);
            secrets = redactor.collector.map(|collector| collector.secrets).unwrap_or_default();
        }
        Self { redactor: Redactor::new(secrets.iter().take(SECRETS_MAX)), too_many: secrets.len() > SECRETS_MAX }
    }

    /// The text without the secrets.
    pub(crate) fn text(&self, text: String) -> String {
        if self.too_many { REDACTED.to_owned() } else { self.redactor.text(text) }
    }

    /// The value without the secrets.
    pub(crate) fn value(&self, value: Value) -> Value {
        if self.too_many { REDACTED.into() } else { self.redactor.value(value) }
    }
}

/// Collects the removed values, in a pass whose copy is not used.
struct SecretCollector {
    secrets: Vec<SecretString>,
    /// Whether only values count that the schema marks.
    marked: bool,
}

/// Collects every string and number in a value, until there is at least one more than [`SECRETS_MAX`].
fn collect_texts(value: &Value, secrets: &mut Vec<SecretString>) {
    match value {
        _ if secrets.len() > SECRETS_MAX => {}
        Value::String(text) => secrets.push(text.as_str().into()),
        Value::Number(number) => secrets.push(number.to_string().into()),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, secrets)),
        Value::Object(fields) => fields.values().for_each(|value| collect_texts(value, secrets)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Whether a schema marks anything as secret.
fn mentions_secrets(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| (key == "x-secret" && value == &Value::Bool(true)) || mentions_secrets(value)),
        Value::Array(items) => items.iter().any(mentions_secrets),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Copies values without their secrets, while the budget of bytes lasts.
struct ParameterRedactor<'a> {
    root: &'a Value,
    /// Patterns of names, compiled on first use; none for a pattern that does not compile.
    patterns: HashMap<&'a str, Option<Validator>>,
    /// The bytes of JSON that are left of the budget.
    remaining: usize,
    /// Collects the removed values, where they are wanted instead of the copy.
    collector: Option<SecretCollector>,
}

/// What the schema says about one value.
struct SchemaPosition<'a> {
    /// Every schema that may apply to it.
    schemas: Vec<&'a Value>,
    /// Whether one of them marks it as secret, or has a reference that cannot be resolved here.
    is_secret: bool,
}

impl<'a> ParameterRedactor<'a> {
    /// A redacted copy of the value; none if the budget does not suffice.
    fn value(&mut self, value: &Value, schemas: &[&'a Value], depth: usize) -> Option<Value> {
        let position = self.position(schemas);
        if position.is_secret {
            return self.remove(value);
        }
        match value {
            Value::Array(_) | Value::Object(_) if depth > DEPTH_MAX && self.collector.is_none() => {
                self.charge(TOO_DEEP.into())
            }
            Value::Array(items) => self.array(items, &position.schemas, depth),
            Value::Object(fields) => self.fields(fields, &position.schemas, depth),
            Value::String(text) => self.charge(cut(text, STRING_MAX).into()),
            Value::Null | Value::Bool(_) | Value::Number(_) => self.charge(value.clone()),
        }
    }

    /// A redacted copy of all parameters. If the schema marks the whole object as secret, each value in it is removed.
    fn object(&mut self, fields: &Map<String, Value>, schemas: &[&'a Value], depth: usize) -> Option<Value> {
        let position = self.position(schemas);
        if position.is_secret {
            for value in fields.values() {
                self.collect(value);
            }
            let removed = fields.keys().map(|name| (name.clone(), REMOVED.into())).collect();
            return self.fields(&removed, &[], depth);
        }
        self.fields(fields, &position.schemas, depth)
    }

    fn fields(&mut self, fields: &Map<String, Value>, schemas: &[&'a Value], depth: usize) -> Option<Value> {
        self.spend(2 + NOTE_BYTES)?;
        let mut kept = Map::new();
        let names_secret =
            NAME_FIELDS.iter().any(|name| fields.get(*name).and_then(Value::as_str).is_some_and(looks_secret));
        for (name, value) in fields {
            // The name with its colon and comma.
            let name_bytes = json_bytes(name).saturating_add(2);
            let Some(()) = self.spend(name_bytes) else { break };
            let by_name = looks_secret(name) || (names_secret && name == "value");
            let copy = if by_name && self.collector.as_ref().is_none_or(|collector| !collector.marked) {
                self.remove(value)
            } else {
                let schemas = self.schemas_of_field(schemas, name);
                self.value(value, &schemas, depth + 1)
            };
            let Some(copy) = copy else {
                self.remaining += name_bytes;
                break;
            };
            kept.insert(name.clone(), copy);
        }
        match fields.len() - kept.len() {
            0 => self.remaining += NOTE_BYTES,
            missing => {
                kept.insert(LEFT_OUT.to_owned(), format!("{missing} more").into());
            }
        }
        Some(Value::Object(kept))
    }

    fn array(&mut self, items: &[Value], schemas: &[&'a Value], depth: usize) -> Option<Value> {
        self.spend(2 + NOTE_BYTES)?;
        let mut kept = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Some(()) = self.spend(1) else { break };
            let Some(copy) = self.value(item, &schemas_of_item(schemas, index), depth + 1) else { break };
            kept.push(copy);
        }
        match items.len() - kept.len() {
            0 => self.remaining += NOTE_BYTES,
            missing => kept.push(format!("{LEFT_OUT} {missing} more").into()),
        }
        Some(Value::Array(kept))
    }

    /// Collects a secret if that is wanted, and returns its replacement.
    fn remove(&mut self, value: &Value) -> Option<Value> {
        self.collect(value);
        self.charge(REMOVED.into())
    }

    fn collect(&mut self, value: &Value) {
        if let Some(collector) = &mut self.collector {
            collect_texts(value, &mut collector.secrets);
        }
    }

    /// Charges the value to the budget; none if the budget does not suffice.
    fn charge(&mut self, value: Value) -> Option<Value> {
        self.spend(value.to_string().len()).map(|()| value)
    }

    fn spend(&mut self, bytes: usize) -> Option<()> {
        self.remaining = self.remaining.checked_sub(bytes)?;
        Some(())
    }

    /// Every schema that may apply to a value with these `schemas`: follows references, and every branch.
    fn position(&self, schemas: &[&'a Value]) -> SchemaPosition<'a> {
        let mut position = SchemaPosition { schemas: Vec::new(), is_secret: false };
        let mut open = schemas.to_vec();
        let mut seen = HashSet::new();
        while let Some(schema) = open.pop() {
            let Some(keywords) = schema.as_object().filter(|_| seen.insert(ptr::from_ref(schema))) else { continue };
            position.is_secret |= keywords.get("x-secret") == Some(&Value::Bool(true));
            position.schemas.push(schema);
            for reference in ["$ref", "$dynamicRef"].iter().filter_map(|keyword| keywords.get(*keyword)) {
                match self.referred(reference) {
                    Some(schema) => open.push(schema),
                    None => position.is_secret = true,
                }
            }
            let lists = ["allOf", "anyOf", "oneOf"].iter().filter_map(|keyword| keywords.get(*keyword)?.as_array());
            open.extend(lists.flatten());
            open.extend(["if", "then", "else"].iter().filter_map(|keyword| keywords.get(*keyword)));
            open.extend(keywords.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(Map::values));
        }
        position
    }

    /// The target of a reference within the schema: `#` and a JSON pointer.
    fn referred(&self, reference: &Value) -> Option<&'a Value> {
        let pointer: Cow<'_, str> = percent_decode_str(reference.as_str()?.strip_prefix('#')?).decode_utf8().ok()?;
        self.root.pointer(&pointer)
    }

    /// The schemas that may apply to a field.
    fn schemas_of_field(&mut self, schemas: &[&'a Value], name: &str) -> Vec<&'a Value> {
        let mut found = Vec::new();
        for schema in schemas {
            let before = found.len();
            found.extend(schema.get("properties").and_then(|named| named.get(name)));
            let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
            found.extend(patterns.filter(|(pattern, _)| self.matches(pattern, name)).map(|(_, schema)| schema));
            if found.len() == before {
                let others = ["additionalProperties", "unevaluatedProperties"];
                found.extend(others.iter().filter_map(|keyword| schema.get(keyword)));
            }
        }
        found
    }

    /// Whether a name matches a pattern, by the same rules as the validation of parameters. A pattern that does not compile
    /// matches every name.
    fn matches(&mut self, pattern: &'a str, name: &str) -> bool {
        let compiled = self.patterns.entry(pattern);
        let compiled = compiled.or_insert_with(|| schema::compile(&json!({ "pattern": pattern })).ok());
        compiled.as_ref().is_none_or(|compiled| compiled.is_valid(&name.into()))
    }
}

/// The schemas that may apply to an item.
fn schemas_of_item<'a>(schemas: &[&'a Value], index: usize) -> Vec<&'a Value> {
    let mut found = Vec::new();
    for schema in schemas {
        let first = schema.get("prefixItems").and_then(|items| items.get(index));
        let rest = ["items", "unevaluatedItems"].iter().filter_map(|keyword| schema.get(keyword));
        found.extend(schema.get("contains"));
        match first {
            Some(first) => found.push(first),
            None => found.extend(rest),
        }
    }
    found
}

/// The length of a text in JSON, in bytes.
fn json_bytes(text: &str) -> usize {
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
    fn value_under_secret_name_is_removed_whatever_its_type() {
        for value in [json!("x"), json!(7), json!(null), json!(["x"]), json!({ "a": "x" })] {
            let kept = kept(&json!({}), json!({ "a": [{ "password": value, "text": "my password is x" }] }));
            assert_eq!(kept, json!({ "a": [{ "password": "[removed]", "text": "my password is x" }] }));
        }
    }

    #[test]
    fn value_of_a_pair_with_secret_name_is_removed() {
        let headers =
            json!({ "headers": [{ "name": "Authorization", "value": "x" }, { "name": "Accept", "value": "y" }] });
        let kept = kept(&json!({}), headers);
        assert_eq!((&kept["headers"][0]["value"], &kept["headers"][1]["value"]), (&json!("[removed]"), &json!("y")));
    }

    #[test]
    fn value_marked_by_schema_is_removed_on_every_path_to_it() {
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
    fn stored_parameters_never_exceed_their_limit() {
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
        // What fits, with room for the note, stays whole.
        let filled = |last: usize| {
            let mut fields = vec!["x".repeat(990); 16];
            fields.push("x".repeat(last));
            json!({ "a": fields })
        };
        let room = KEPT_MAX_BYTES - filled(0).to_string().len();
        let fits = filled(room - 3 * NOTE_BYTES);
        assert!(kept(&json!({}), fits.clone()) == fits);
        assert!(kept(&json!({}), filled(room + 1)).to_string().contains("[left out] "));
        assert_eq!(kept(&json!({}), json!({ "a": "é".repeat(1_001) }))["a"], format!("{}…", "é".repeat(1_000)));
    }

    #[test]
    fn secret_parameters_are_removed_from_answers_at_every_depth() {
        let object = |value: Value| {
            let Value::Object(fields) = value else { panic!("not an object") };
            fields
        };
        let struck = |parameters: Value, schema: Value, marked: bool, text: &str| {
            SchemaRedactor::among(&schema, &object(parameters), marked).text(text.to_owned())
        };
        let answer = "it was hunter22 and 4242424242 of xyzxyzxyz, openly";
        let parameters = json!({ "a": [{ "password": "hunter22" }, 1], "token": { "b": [4_242_424_242_u64, "xyzxyzxyz"] }, "c": "openly" });
        let expected = format!("it was {REDACTED} and {REDACTED} of {REDACTED}, openly");
        assert_eq!(struck(parameters.clone(), json!({}), false, answer), expected);
        assert_eq!(struck(parameters, json!({}), true, answer), answer, "only what is marked");
        // Also where the parameters are too deep or too large to be stored.
        let deep = (0..40).fold(json!({ "password": "hunter22" }), |inner, _| json!({ "a": inner }));
        let long = json!({ "a": vec![0; 9_000], "password": "hunter22" });
        for parameters in [deep, long] {
            assert_eq!(struck(parameters, json!({}), false, "hunter22!"), format!("{REDACTED}!"));
        }
        let marked = json!({ "properties": { "code": { "x-secret": true } } });
        assert_eq!(struck(json!({ "code": "hunter22" }), marked, true, "hunter22"), REDACTED);
        let many: Vec<_> = (0..=SECRETS_MAX).map(|number| format!("secret-{number}")).collect();
        assert_eq!(struck(json!({ "password": many }), json!({}), false, "anything"), REDACTED);
    }
}
