//! Bare expressions.

use minijinja::value::ValueKind;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::environment::EXPRESSIONS;
use super::language::{self, Shape};
use super::{Context, TemplateError};

/// A bare expression, such as `body.ok and not body.error`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Expression {
    pub(super) source: String,
    pub(super) shape: Shape,
}

impl TryFrom<String> for Expression {
    type Error = TemplateError;
    fn try_from(source: String) -> Result<Self, TemplateError> {
        let shape = language::read_expression(&source).map_err(|reason| TemplateError::template(&source, &reason))?;
        let compiled = EXPRESSIONS.compile_expression_owned(source.as_str()).map(drop);
        compiled.map_err(|error| TemplateError::from_minijinja(&source, &error))?;
        Ok(Self { source, shape })
    }
}

impl Expression {
    /// The value; `None` if it is absent.
    pub fn evaluate(&self, context: &Context) -> Result<Option<Value>, TemplateError> {
        let failed = |error| TemplateError::from_minijinja(&self.source, &error);
        context.charge_evaluation(&self.source, &self.shape).map_err(failed)?;
        let compiled = EXPRESSIONS.compile_expression_owned(self.source.as_str()).map_err(failed)?;
        let value = compiled.eval(context.value()).map_err(failed)?;
        if value.is_undefined() {
            return Ok(None);
        }
        if matches!(value.kind(), ValueKind::Invalid) {
            return Err(TemplateError::template(&self.source, "the value is invalid"));
        }
        context.work.charge_value(&value).map_err(failed)?;
        let value = serde_json::to_value(&value);
        value.map(Some).map_err(|error| TemplateError::template(&self.source, &error.to_string()))
    }

    /// Whether the value is present and truthy: not false, null, 0 or empty.
    pub fn holds(&self, context: &Context) -> Result<bool, TemplateError> {
        Ok(self.evaluate(context)?.is_some_and(|value| match value {
            Value::Null => false,
            Value::Bool(truth) => truth,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        }))
    }
}
