//! JSON Schema (2020-12) in and out: every problem at once, each with its pointer, and never the offending value, which
//! may be a secret.

mod cost;

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

pub(crate) use cost::Cost;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::core::ids;
use crate::core::ids::{NAME_FORMAT, NameError};
use crate::core::problem::FieldProblem;

/// The memory that one compiled pattern may take.
const PATTERN_MAX_BYTES: usize = 256 * 1024;

/// The keywords of JSON Schema 2020-12 that hold no schemas.
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

/// Problems beyond this many are not listed.
const PROBLEMS_MAX: usize = 100;
/// The most checks, for all parts of a value, that are asked for every problem. A problem takes some hundred bytes.
const ASKED_MAX: usize = 200_000;
/// How much of a problem is said, in characters.
const SAID_MAX: usize = 2_000;

/// Why a schema is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoSchema {
    /// Where in the schema, as a JSON pointer.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

impl From<ValidationError<'_>> for NoSchema {
    fn from(error: ValidationError<'_>) -> Self {
        let place = error.instance_path().as_str().to_owned();
        let remedy = if matches!(error.kind(), ValidationErrorKind::Referencing(_)) {
            "; nothing is fetched: put what $ref names into the schema itself, under $defs"
        } else {
            "; write what JSON Schema 2020-12 has there"
        };
        Self { place, problem: format!("{error}{remedy}") }
    }
}

/// Compiles a schema. Patterns run in linear time, no reference is fetched from anywhere, and what its references multiply
/// is bounded.
pub(crate) fn compile(schema: &Value) -> Result<Validator, NoSchema> {
    cost::bounded(schema)?;
    jsonschema::draft202012::options()
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_MAX_BYTES))
        .should_validate_formats(true)
        .with_format(NAME_FORMAT, |name: &str| ids::free(name).is_ok())
        .offline()
        .build(schema)
        .map_err(NoSchema::from)
}

/// What a schema costs, if that is not too much.
pub(crate) fn cost_of(schema: &Value) -> Result<Cost, NoSchema> {
    cost::bounded(schema)
}

/// Everything that is wrong with `value` by `schema`, which `validator` was made of. Pointers begin with `prefix`. Of a value
/// that is too large to be asked for every problem it is said only that something is.
pub(crate) fn problems_of(validator: &Validator, schema: &Value, value: &Value, prefix: &str) -> Vec<FieldProblem> {
    if validator.is_valid(value) {
        return Vec::new();
    }
    let checks = cost::bounded(schema).map_or(usize::MAX, |cost| cost.checks);
    if parts_of(value).saturating_mul(checks) > ASKED_MAX {
        let problem = "is not what the schema allows, and is too large to say where; try with less of it";
        return vec![FieldProblem::new(prefix, problem)];
    }
    validator.iter_errors(value).flat_map(|error| explain(&error, schema, prefix)).take(PROBLEMS_MAX).collect()
}

/// How many values a value is made of.
fn parts_of(value: &Value) -> usize {
    let parts: usize = match value {
        Value::Array(items) => items.iter().map(parts_of).sum(),
        Value::Object(fields) => fields.values().map(parts_of).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    };
    parts + 1
}

fn explain(error: &ValidationError<'_>, schema: &Value, prefix: &str) -> Vec<FieldProblem> {
    let place = format!("{prefix}{}", error.instance_path().as_str());
    let below = |name: &str| format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is described well by the library")]
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            vec![FieldProblem::new(below(property.as_str().unwrap_or_default()), "is required and missing")]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .map(|name| FieldProblem::new(below(name), "is not a field that is known here; remove it"))
            .collect(),
        ValidationErrorKind::Format { format } if format == NAME_FORMAT => {
            vec![FieldProblem::new(place, NameError::Free.to_string())]
        }
        ValidationErrorKind::OneOfNotValid { .. } if constants(schema, error).is_some() => {
            let allowed = constants(schema, error).unwrap_or_default().join(", ");
            vec![FieldProblem::new(place, format!("must be one of {allowed}"))]
        }
        _ => {
            let mut message = error.masked_with("the value").to_string();
            // What the author says of the field helps more than the rule that it broke.
            let rule = error.schema_path().as_str();
            let field = rule.rsplit_once('/').and_then(|(field, _)| schema.pointer(field));
            if let Some(description) = field.and_then(|field| field.get("description")?.as_str()) {
                message = format!("{message}. {description}");
            }
            if let Some((end, _)) = message.char_indices().nth(SAID_MAX) {
                message.truncate(end);
                message.push('…');
            }
            vec![FieldProblem::new(place, message)]
        }
    }
}

/// The values that a `oneOf` allows, where it lists nothing but constants.
fn constants(schema: &Value, error: &ValidationError<'_>) -> Option<Vec<String>> {
    let choices = schema.pointer(error.schema_path().as_str())?.as_array()?;
    choices.iter().map(|choice| choice.get("const").map(ToString::to_string)).collect()
}

/// Keywords that no vocabulary of JSON Schema 2020-12 has, each with its place: slips that would be passed over in
/// silence. Those that begin with `x-` are the author's own. No more than a hundred are listed.
pub(crate) fn unknown_keywords(schema: &Value) -> Vec<(String, String)> {
    keywords(schema, &|keyword| !keyword.starts_with("x-") && !KEYWORDS.contains(&keyword), PROBLEMS_MAX)
}

/// Where a keyword stands in a schema.
pub(crate) fn places_of(schema: &Value, keyword: &str) -> Vec<String> {
    keywords(schema, &|word| word == keyword, usize::MAX).into_iter().map(|(place, _)| place).collect()
}

/// The keywords that hold no schemas and that are `wanted`, each with its place.
fn keywords(schema: &Value, wanted: &dyn Fn(&str) -> bool, most: usize) -> Vec<(String, String)> {
    let Some(fields) = schema.as_object() else { return Vec::new() };
    let mut found = Vec::new();
    for (keyword, value) in fields {
        let below: Vec<(String, &Value)> = match keyword.as_str() {
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
                found.extend(wanted(other).then(|| (String::new(), other.to_owned())));
                Vec::new()
            }
        };
        if found.len() >= most {
            break;
        }
        for (place, schema) in below {
            let inside = keywords(schema, wanted, most);
            found.extend(inside.into_iter().map(|(inner, word)| (format!("{place}{inner}"), word)));
        }
    }
    found.truncate(most);
    found
}

/// Parses a request's body: against the type's own schema first, for every problem at once, then by serde.
pub fn parse<T: DeserializeOwned + JsonSchema + 'static>(json: &[u8]) -> Result<T, Vec<FieldProblem>> {
    let not_json = |error| vec![FieldProblem::new("", format!("the body is not JSON: {error}"))];
    let value: Value = serde_json::from_slice(json).map_err(not_json)?;
    if let Some(compiled) = validator_of::<T>() {
        let (schema, validator) = &*compiled;
        let problems = problems_of(validator, schema, &value, "");
        if !problems.is_empty() {
            return Err(problems);
        }
    }
    // From the text again, in which a field that is there twice can still be seen.
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer_of(error.path());
        vec![FieldProblem::new(pointer, error.into_inner().to_string())]
    })
}

/// A schema and its validator.
type Compiled = (Value, Validator);

/// The validator of a type of this crate, compiled once in a process.
fn validator_of<T: JsonSchema + 'static>() -> Option<Arc<Compiled>> {
    static COMPILED: LazyLock<Mutex<HashMap<TypeId, Arc<Compiled>>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(validator) = compiled.get(&TypeId::of::<T>()) {
        return Some(Arc::clone(validator));
    }
    let schema = schema_of::<T>();
    let validator = compile(&schema).ok()?;
    let validator = Arc::new((schema, validator));
    compiled.insert(TypeId::of::<T>(), Arc::clone(&validator));
    Some(validator)
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => format!("{pointer}/{key}"),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}

/// The JSON Schema of a type of this crate.
pub fn schema_of<T: JsonSchema>() -> Value {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}
