//! Parses request bodies by the JSON Schemas of their types.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::{compile, problems_of};
use crate::core::json;
use crate::core::problem::FieldProblem;

/// Parses a request's body: first by the type's schema, which reports every problem at once, then by serde.
pub fn parse<T: DeserializeOwned + JsonSchema + 'static>(json: &[u8]) -> Result<T, Vec<FieldProblem>> {
    let not_json = |error| vec![FieldProblem::new("", format!("the body is not JSON: {error}"))];
    let (value, mut problems) = json::read_strictly(json).map_err(not_json)?;
    if let Some(compiled) = validator_of::<T>() {
        let (schema, validator) = &*compiled;
        problems.extend(problems_of(validator, schema, &value, ""));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer_of(error.path());
        vec![FieldProblem::new(pointer, error.into_inner().to_string())]
    })
}

/// A schema and its validator.
type Compiled = (Value, Validator);

/// The compiled schema of a type of this crate, cached for the life of the process.
fn validator_of<T: JsonSchema + 'static>() -> Option<Arc<Compiled>> {
    static COMPILED: LazyLock<Mutex<HashMap<TypeId, Arc<Compiled>>>> = LazyLock::new(Mutex::default);
    let mut cache = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(compiled) = cache.get(&TypeId::of::<T>()) {
        return Some(Arc::clone(compiled));
    }
    let schema = schema_of::<T>();
    let validator = compile(&schema).ok()?;
    let compiled = Arc::new((schema, validator));
    cache.insert(TypeId::of::<T>(), Arc::clone(&compiled));
    Some(compiled)
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
