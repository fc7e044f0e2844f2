//! JSON with templates for strings.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Context, Expression, TemplateError, Text, work};

/// Any JSON with templates for strings. An object `{$for: name, $in: expression, $do: template}` makes an array.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(with = "Value")]
pub enum Template {
    /// A value without templates.
    Literal(Value),
    /// One `{{ expression }}`, which keeps its type.
    Expression(Expression),
    /// Any other string.
    Text(Text),
    /// An array; absent elements are left out.
    Array(Vec<Template>),
    /// An object; absent values are left out with their keys.
    Object(Vec<(String, Template)>),
    /// One element for each element of a list.
    For {
        /// The variable that holds the element.
        name: String,
        /// The list. If it is absent, the result is absent.
        list: Expression,
        /// The template for each element.
        element: Box<Template>,
    },
}

impl TryFrom<Value> for Template {
    type Error = TemplateError;
    fn try_from(value: Value) -> Result<Self, TemplateError> {
        match value {
            Value::String(source) => Self::parse_string(source),
            Value::Array(items) => items.into_iter().map(Self::try_from).collect::<Result<_, _>>().map(Self::Array),
            Value::Object(fields) if fields.contains_key("$for") => Self::parse_loop(fields),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(key, value)| Ok((key, Self::try_from(value)?)))
                .collect::<Result<_, _>>()
                .map(Self::Object),
            literal @ (Value::Null | Value::Bool(_) | Value::Number(_)) => Ok(Self::Literal(literal)),
        }
    }
}

impl Template {
    fn parse_string(source: String) -> Result<Self, TemplateError> {
        let Some(inner) = source.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")) else {
            let plain = !source.contains("{{") && !source.contains("{%");
            return if plain { Ok(Self::Literal(source.into())) } else { source.try_into().map(Self::Text) };
        };
        match Expression::try_from(inner.trim().to_owned()) {
            // It may be several expressions, as in `{{ first }} {{ last }}`; or the inner braces close a map.
            Err(_) if inner.contains("}}") => source.try_into().map(Self::Text),
            expression => expression.map(Self::Expression),
        }
    }

    fn parse_loop(mut fields: serde_json::Map<String, Value>) -> Result<Self, TemplateError> {
        let parts = (fields.remove("$for"), fields.remove("$in"), fields.remove("$do"), fields.is_empty());
        let (Some(Value::String(name)), Some(Value::String(list)), Some(element), true) = parts else {
            let reason = "a loop is {$for: a name, $in: an expression, $do: a template}, the first two as text, and \
                          nothing else";
            return Err(TemplateError::template("$for", reason));
        };
        Ok(Self::For { name, list: list.try_into()?, element: Box::new(Self::try_from(element)?) })
    }

    /// The cost of writing its own literals and keys, without the expressions and texts in it.
    fn own_cost(&self) -> u64 {
        let length = match self {
            Self::Literal(Value::String(text)) => text.len(),
            Self::Object(fields) => fields.iter().map(|(key, _)| key.len()).sum(),
            Self::Literal(_) | Self::Expression(_) | Self::Text(_) | Self::Array(_) | Self::For { .. } => 0,
        };
        work::bytes(length).saturating_add(work::NODE)
    }

    /// The value; `None` if it is absent.
    pub fn evaluate(&self, context: &Context) -> Result<Option<Value>, TemplateError> {
        // A loop may write the same literals many times.
        context.work.spend(self.own_cost()).map_err(|error| TemplateError::from_minijinja("$for", &error))?;
        Ok(Some(match self {
            Self::Literal(value) => value.clone(),
            Self::Expression(expression) => return expression.evaluate(context),
            Self::Text(text) => Value::String(text.render(context)?),
            Self::Array(items) => {
                let values = items.iter().filter_map(|item| item.evaluate(context).transpose());
                Value::Array(values.collect::<Result<_, _>>()?)
            }
            Self::Object(fields) => {
                let values = fields.iter().filter_map(|(key, value)| {
                    value.evaluate(context).transpose().map(|value| Ok((key.clone(), value?)))
                });
                Value::Object(values.collect::<Result<_, TemplateError>>()?)
            }
            Self::For { name, list, element } => match list.evaluate(context)? {
                None => return Ok(None),
                Some(Value::Array(items)) => {
                    let values =
                        items.iter().filter_map(|item| element.evaluate(&context.clone().with(name, item)).transpose());
                    Value::Array(values.collect::<Result<_, _>>()?)
                }
                Some(_) => return Err(TemplateError::template(&list.source, "the value of $in is not a list")),
            },
        }))
    }
}
