//! JSON Schema (2020-12): compiles and limits the schemas of manifests, and validates values. Validation reports every problem
//! at once, each with its JSON pointer and without the value, which may be a secret.

mod body;
mod cost;
mod keywords;
mod validation;

pub use body::{parse, schema_of};
pub(crate) use keywords::{pointers_of, unknown_keywords};
pub(crate) use validation::{SchemaError, compile, cost_of, problems_of};
