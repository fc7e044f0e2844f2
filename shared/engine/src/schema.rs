//! JSON Schema (2020-12) in and out: every problem at once, each with its pointer, and never the offending value, which
//! may be a secret.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::error::{Error, FieldProblem};

/// Problems beyond this many are not listed.
const PROBLEMS_MAX: usize = 100;

/// Compiles a schema. Patterns run in linear time, and no reference is fetched from anywhere.
pub(crate) fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::draft202012::options()
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .build(schema)
        .map_err(|error| error.to_string())
}

/// Everything that is wrong with `value`. Pointers begin with `prefix`.
pub(crate) fn problems_of(validator: &Validator, value: &Value, prefix: &str) -> Vec<FieldProblem> {
    validator.iter_errors(value).flat_map(|error| explain(&error, prefix)).take(PROBLEMS_MAX).collect()
}

fn explain(error: &ValidationError<'_>, prefix: &str) -> Vec<FieldProblem> {
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
        _ => vec![FieldProblem::new(place, error.masked_with("the value").to_string())],
    }
}

/// Parses a request's body: against the type's own schema first, for every problem at once, then by serde.
pub fn parse<T: DeserializeOwned + JsonSchema>(value: &Value) -> Result<T, Error> {
    let error = match serde_path_to_error::deserialize::<_, T>(value) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    let schema = schema_of::<T>();
    let mut problems = match compile(&schema) {
        Ok(validator) => problems_of(&validator, value, ""),
        Err(_) => Vec::new(),
    };
    if problems.is_empty() {
        // What a schema cannot say, such as a length in bytes.
        problems.push(FieldProblem::new(pointer_of(error.path()), error.into_inner().to_string()));
    }
    Err(Error::Invalid(problems))
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
