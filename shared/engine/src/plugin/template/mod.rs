//! The templates that a manifest writes its requests and answers with: a part of minijinja (`language`), with limits on
//! what evaluating may cost (`work`).
//!
//! A string that is one `{{ expression }}` keeps the expression's type, and an absent value drops the key that it would
//! have filled. Any other string is text, in which an absent value is an error (`default` gives it one). What templates see
//! never includes a credential.

mod check;
mod error;
mod filters;
mod language;
mod mail;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

pub(crate) use check::{NOT_THERE, Names};
pub use error::TemplateError;
pub(crate) use filters::text_of;
pub use language::TEMPLATE_MAX_BYTES;
use language::{Path, Shape};
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, UndefinedBehavior};
use percent_encoding::utf8_percent_encode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use work::{Limited, WorkBudget};
pub use work::{TEXT_MAX, WORK_MAX};

use crate::core::percent::UNRESERVED;

fn environment(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_recursion_limit(64);
    environment.set_undefined_behavior(undefined);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    filters::add(&mut environment);
    environment
}

/// Looking into something absent gives something absent.
static EXPRESSIONS: LazyLock<Environment<'static>> = LazyLock::new(|| environment(UndefinedBehavior::Chainable));
/// Writing something absent is an error.
static TEXTS: LazyLock<Environment<'static>> = LazyLock::new(|| environment(UndefinedBehavior::SemiStrict));
/// As text, with every value encoded so that it stays within its path segment.
static PATHS: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = environment(UndefinedBehavior::SemiStrict);
    environment.set_formatter(|out, _, value| {
        if value.is_undefined() {
            return Err(minijinja::Error::from(minijinja::ErrorKind::UndefinedError));
        }
        let text = work::text_of(value)?;
        let mut pieces = utf8_percent_encode(&text, UNRESERVED);
        pieces.try_for_each(|piece| out.write_str(piece)).map_err(minijinja::Error::from)
    });
    environment
});

/// What a template may refer to, and what is left of the work that all templates may do that share it or a copy of it.
#[derive(Debug, Clone, Default)]
pub struct Context {
    variables: BTreeMap<String, minijinja::Value>,
    work: Arc<WorkBudget>,
}

impl Context {
    /// This context with one more variable; an older one of that name is hidden.
    #[must_use]
    pub fn with(mut self, name: &str, value: &impl serde::Serialize) -> Self {
        self.variables.insert(name.to_owned(), minijinja::Value::from(Serde(value)));
        self
    }

    /// The variable of that name, as JSON.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        serde_json::to_value(self.variables.get(name)?).ok()
    }

    fn value(&self) -> minijinja::Value {
        let work = (work::LEFT, minijinja::Value::from_dyn_object(Arc::clone(&self.work)));
        let variables = self.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        minijinja::Value::from_pairs(variables.chain([work]))
    }

    /// Takes away what an evaluation costs before anything of it is done.
    fn begin(&self, source: &str, shape: &Shape) -> Result<(), minijinja::Error> {
        self.work.begin(source)?;
        shape.heavy.iter().filter_map(|path| self.at(path)).try_for_each(|value| self.work.charge_scan(&value))
    }

    fn at(&self, path: &Path) -> Option<minijinja::Value> {
        let (name, attributes) = path.split_first()?;
        let value = self.variables.get(name)?.clone();
        attributes.iter().try_fold(value, |value, attribute| value.get_attr(attribute).ok())
    }
}

/// A bare expression, such as `body.ok and not body.error`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Expression {
    source: String,
    shape: Shape,
}

impl TryFrom<String> for Expression {
    type Error = TemplateError;
    fn try_from(source: String) -> Result<Self, TemplateError> {
        let shape = language::of_expression(&source).map_err(|reason| TemplateError::template(&source, &reason))?;
        let read = EXPRESSIONS.compile_expression_owned(source.as_str()).map(drop);
        read.map_err(|error| TemplateError::from_minijinja(&source, &error))?;
        Ok(Self { source, shape })
    }
}

impl Expression {
    /// The value, or nothing if it is absent.
    pub fn evaluate(&self, context: &Context) -> Result<Option<Value>, TemplateError> {
        let failed = |error| TemplateError::from_minijinja(&self.source, &error);
        context.begin(&self.source, &self.shape).map_err(failed)?;
        let compiled = EXPRESSIONS.compile_expression_owned(self.source.as_str()).map_err(failed)?;
        let value = compiled.eval(context.value()).map_err(failed)?;
        if value.is_undefined() {
            return Ok(None);
        }
        if matches!(value.kind(), ValueKind::Invalid) {
            return Err(TemplateError::template(&self.source, "the value is invalid"));
        }
        context.work.give(&value).map_err(failed)?;
        let value = serde_json::to_value(&value);
        value.map(Some).map_err(|error| TemplateError::template(&self.source, &error.to_string()))
    }

    /// Whether the value is present and counts as true.
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

/// Text with `{{ … }}` and `{% … %}` in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Text {
    source: String,
    shape: Shape,
}

impl TryFrom<String> for Text {
    type Error = TemplateError;
    fn try_from(source: String) -> Result<Self, TemplateError> {
        let shape = language::of_text(&source).map_err(|reason| TemplateError::template(&source, &reason))?;
        let read = TEXTS.template_from_str(&source).map(drop);
        read.map_err(|error| TemplateError::from_minijinja(&source, &error))?;
        Ok(Self { source, shape })
    }
}

impl Text {
    /// The text as its author wrote it.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The text with its values filled in.
    pub fn render(&self, context: &Context) -> Result<String, TemplateError> {
        self.render_in(&TEXTS, context)
    }

    /// The text as a path: every value is percent-encoded, so that none can leave its segment.
    pub fn render_path(&self, context: &Context) -> Result<String, TemplateError> {
        self.render_in(&PATHS, context)
    }

    fn render_in(&self, environment: &Environment<'_>, context: &Context) -> Result<String, TemplateError> {
        let mut text = Limited::default();
        let rendered = context.begin(&self.source, &self.shape).and_then(|()| {
            let template = environment.template_from_str(&self.source)?;
            template.render_captured_to(context.value(), &mut text).map(drop)
        });
        let rendered = match rendered {
            Err(_) if text.full => Err(work::too_long()),
            other => other,
        };
        let text = rendered.and_then(|()| text.into_text());
        let text = text.and_then(|text| context.work.spend(work::bytes(text.len())).map(|()| text));
        text.map_err(|error| TemplateError::from_minijinja(&self.source, &error))
    }
}

/// Any JSON with templates for strings. An object `{$for: name, $in: expression, $do: template}` gives an array.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(with = "Value")]
pub enum Template {
    /// A value as it stands.
    Literal(Value),
    /// One `{{ expression }}`, which keeps its type.
    Expression(Expression),
    /// Any other string.
    Text(Text),
    /// An array; absent elements are left out.
    Array(Vec<Template>),
    /// An object; absent values are left out with their keys.
    Object(Vec<(String, Template)>),
    /// One element for each of a list.
    For {
        /// What an element of the list is called inside.
        name: String,
        /// The list. An absent one gives an absent value.
        list: Expression,
        /// What each becomes.
        element: Box<Template>,
    },
}

impl TryFrom<Value> for Template {
    type Error = TemplateError;
    fn try_from(value: Value) -> Result<Self, TemplateError> {
        match value {
            Value::String(source) => Self::of_text(source),
            Value::Array(items) => items.into_iter().map(Self::try_from).collect::<Result<_, _>>().map(Self::Array),
            Value::Object(fields) if fields.contains_key("$for") => Self::loop_of(fields),
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
    fn of_text(source: String) -> Result<Self, TemplateError> {
        let Some(inner) = source.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")) else {
            let plain = !source.contains("{{") && !source.contains("{%");
            return if plain { Ok(Self::Literal(source.into())) } else { source.try_into().map(Self::Text) };
        };
        match Expression::try_from(inner.trim().to_owned()) {
            // It may be several, as in `{{ first }} {{ last }}`; braces alone may also close a map.
            Err(_) if inner.contains("}}") => source.try_into().map(Self::Text),
            expression => expression.map(Self::Expression),
        }
    }

    fn loop_of(mut fields: serde_json::Map<String, Value>) -> Result<Self, TemplateError> {
        let parts = (fields.remove("$for"), fields.remove("$in"), fields.remove("$do"), fields.is_empty());
        let (Some(Value::String(name)), Some(Value::String(list)), Some(element), true) = parts else {
            let reason = "a loop is {$for: a name, $in: an expression, $do: a template}, the first two as text, and \
                          nothing else";
            return Err(TemplateError::template("$for", reason));
        };
        Ok(Self::For { name, list: list.try_into()?, element: Box::new(Self::try_from(element)?) })
    }

    /// What it costs to write what is neither an expression nor a text.
    fn own_cost(&self) -> u64 {
        let length = match self {
            Self::Literal(Value::String(text)) => text.len(),
            Self::Object(fields) => fields.iter().map(|(key, _)| key.len()).sum(),
            Self::Literal(_) | Self::Expression(_) | Self::Text(_) | Self::Array(_) | Self::For { .. } => 0,
        };
        work::bytes(length).saturating_add(work::NODE)
    }

    /// The value, or nothing if it is absent.
    pub fn evaluate(&self, context: &Context) -> Result<Option<Value>, TemplateError> {
        // A loop writes the same many times.
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
                Some(_) => return Err(TemplateError::template(&list.source, "what $in gives is not a list")),
            },
        }))
    }
}
