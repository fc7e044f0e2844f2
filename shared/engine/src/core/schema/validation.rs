//! Compiles schemas and validates values. A problem never contains the value, which may be a secret.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::cost::{self, Cost};
use crate::core::ids::{self, NAME_FORMAT, NameError};
use crate::core::problem::{FieldProblem, pointer_part};

/// The memory that one compiled pattern may take, in bytes.
const PATTERN_MAX_BYTES: usize = 256 * 1024;
/// The most problems that are listed.
const PROBLEMS_MAX: usize = 100;
/// The most checks of a value (its parts times the schema's checks) for which every problem is collected. A problem takes
/// about a hundred bytes.
const CHECKS_MAX: usize = 200_000;
/// The longest message of a problem, in characters.
const MESSAGE_MAX: usize = 2_000;

/// Why a schema is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SchemaError {
    /// The wrong part of the schema, as a JSON pointer.
    pub pointer: String,
    /// What is wrong there, and the remedy.
    pub problem: String,
}

impl From<ValidationError<'_>> for SchemaError {
    fn from(error: ValidationError<'_>) -> Self {
        let pointer = error.instance_path().as_str().to_owned();
        let remedy = if matches!(error.kind(), ValidationErrorKind::Referencing(_)) {
            "; nothing is fetched: put the schema that $ref names under $defs"
        } else {
            "; write what JSON Schema 2020-12 allows there"
        };
        Self { pointer, problem: format!("{error}{remedy}") }
    }
}

/// Compiles a schema. Patterns run in linear time, references are never fetched, and the cost of references that multiply is
/// limited.
pub(crate) fn compile(schema: &Value) -> Result<Validator, SchemaError> {
    cost::bounded(schema)?;
    jsonschema::draft202012::options()
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_MAX_BYTES))
        .should_validate_formats(true)
        .with_format(NAME_FORMAT, |name: &str| ids::free(name).is_ok())
        .offline()
        .build(schema)
        .map_err(SchemaError::from)
}

/// The cost of a schema; an error if it is too high.
pub(crate) fn cost_of(schema: &Value) -> Result<Cost, SchemaError> {
    cost::bounded(schema)
}

/// Every problem of `value` by `schema`, which `validator` was compiled from. Pointers begin with `prefix`. A value that is
/// too large for collecting every problem gets a single one.
pub(crate) fn problems_of(validator: &Validator, schema: &Value, value: &Value, prefix: &str) -> Vec<FieldProblem> {
    if validator.is_valid(value) {
        return Vec::new();
    }
    let checks = cost::bounded(schema).map_or(usize::MAX, |cost| cost.checks);
    if parts_of(value).saturating_mul(checks) > CHECKS_MAX {
        let problem = "does not match the schema, and is too large to say where; try a smaller value";
        return vec![FieldProblem::new(prefix, problem)];
    }
    validator.iter_errors(value).flat_map(|error| explain(&error, schema, prefix)).take(PROBLEMS_MAX).collect()
}

/// The number of values in a value, with itself.
fn parts_of(value: &Value) -> usize {
    let parts: usize = match value {
        Value::Array(items) => items.iter().map(parts_of).sum(),
        Value::Object(fields) => fields.values().map(parts_of).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    };
    parts + 1
}

fn explain(error: &ValidationError<'_>, schema: &Value, prefix: &str) -> Vec<FieldProblem> {
    let pointer = format!("{prefix}{}", error.instance_path().as_str());
    let property_pointer = |name: &str| format!("{pointer}/{}", pointer_part(name));
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library describes all other kinds well")]
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            vec![FieldProblem::new(property_pointer(property.as_str().unwrap_or_default()), "is required and missing")]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .map(|name| FieldProblem::new(property_pointer(name), "unknown field; remove it"))
            .collect(),
        ValidationErrorKind::Format { format } if format == NAME_FORMAT => {
            vec![FieldProblem::new(pointer, NameError::Free.to_string())]
        }
        ValidationErrorKind::OneOfNotValid { .. } if constants(schema, error).is_some() => {
            let allowed = constants(schema, error).unwrap_or_default().join(", ");
            vec![FieldProblem::new(pointer, format!("must be one of {allowed}"))]
        }
        _ => {
            let mut message = error.masked_with("the value").to_string();
            // The author's description of the field often helps more than the rule.
            let rule = error.schema_path().as_str();
            let field = rule.rsplit_once('/').and_then(|(field, _)| schema.pointer(field));
            if let Some(description) = field.and_then(|field| field.get("description")?.as_str()) {
                message = format!("{message}. {description}");
            }
            if let Some((end, _)) = message.char_indices().nth(MESSAGE_MAX) {
                message.truncate(end);
                message.push('…');
            }
            vec![FieldProblem::new(pointer, message)]
        }
    }
}

/// The values that a `oneOf` allows, if it lists only constants.
fn constants(schema: &Value, error: &ValidationError<'_>) -> Option<Vec<String>> {
    let choices = schema.pointer(error.schema_path().as_str())?.as_array()?;
    choices.iter().map(|choice| choice.get("const").map(ToString::to_string)).collect()
}
