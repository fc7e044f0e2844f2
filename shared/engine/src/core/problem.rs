//! One problem of a request.

use schemars::JsonSchema;
use serde::Serialize;

/// One problem of a request, with its location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldProblem {
    /// The location in the body, as a JSON pointer (RFC 6901); `""` is the whole body.
    pub pointer: String,
    /// What is wrong, and the remedy.
    pub message: String,
}

impl FieldProblem {
    /// A problem at `pointer`.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }
}

/// A key as a part of a JSON pointer (RFC 6901, 3).
pub(crate) fn pointer_part(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
