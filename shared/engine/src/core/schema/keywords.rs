//! Finds keywords in a schema: unknown ones, and those of Overseer.

use serde_json::Value;

/// The most unknown keywords that are listed.
const UNKNOWN_MAX: usize = 100;

/// The keywords of JSON Schema 2020-12 that contain no schemas.
const KEYWORDS: [&str; 38] = [
    "$anchor",
    "$comment",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "$vocabulary",
    "const",
    "contentEncoding",
    "contentMediaType",
    "default",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
];

/// Keywords that JSON Schema 2020-12 does not have, each with its pointer: typos that validation would ignore. Those that
/// begin with `x-` are the author's own. At most a hundred are listed.
pub(crate) fn unknown_keywords(schema: &Value) -> Vec<(String, String)> {
    keywords(schema, &|keyword| !keyword.starts_with("x-") && !KEYWORDS.contains(&keyword), UNKNOWN_MAX)
}

/// The pointers of the schemas that have a keyword.
pub(crate) fn pointers_of(schema: &Value, keyword: &str) -> Vec<String> {
    keywords(schema, &|word| word == keyword, usize::MAX).into_iter().map(|(pointer, _)| pointer).collect()
}

/// Up to `max` keywords that contain no schemas and that are `wanted`, each with the pointer of its schema.
fn keywords(schema: &Value, wanted: &dyn Fn(&str) -> bool, max: usize) -> Vec<(String, String)> {
    let Some(fields) = schema.as_object() else { return Vec::new() };
    let mut matches = Vec::new();
    for (keyword, value) in fields {
        let subschemas: Vec<(String, &Value)> = match keyword.as_str() {
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
                let named = value.as_object().into_iter().flatten();
                named.map(|(name, schema)| (format!("/{keyword}/{name}"), schema)).collect()
            }
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                let listed = value.as_array().into_iter().flatten().enumerate();
                listed.map(|(index, schema)| (format!("/{keyword}/{index}"), schema)).collect()
            }
            "items"
            | "contains"
            | "additionalProperties"
            | "unevaluatedProperties"
            | "unevaluatedItems"
            | "propertyNames"
            | "not"
            | "if"
            | "then"
            | "else"
            | "contentSchema" => {
                vec![(format!("/{keyword}"), value)]
            }
            other => {
                matches.extend(wanted(other).then(|| (String::new(), other.to_owned())));
                Vec::new()
            }
        };
        if matches.len() >= max {
            break;
        }
        for (pointer, schema) in subschemas {
            let inner = keywords(schema, wanted, max);
            matches.extend(inner.into_iter().map(|(rest, word)| (format!("{pointer}{rest}"), word)));
        }
    }
    matches.truncate(max);
    matches
}
