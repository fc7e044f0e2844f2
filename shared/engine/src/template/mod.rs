//! The templates that a manifest writes its requests and answers with: minijinja, with a limit on its steps.
//!
//! A string that is one `{{ expression }}` keeps the expression's type, and an absent value drops the key that it would
//! have filled. Any other string is text, in which an absent value is an error (`default` gives it one). An evaluation
//! may take [`FUEL`] steps. What templates see never includes a credential.

mod check;
mod filters;
mod mail;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, UndefinedBehavior};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub(crate) use check::{NOT_THERE, Names};
pub(crate) use filters::text_of;

/// The steps that one evaluation may take; the largest built-in template takes about a hundred.
pub const FUEL: u64 = 50_000;

/// All but the unreserved characters, which mean nothing anywhere in a URL (RFC 3986, 2.3).
pub(crate) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn environment(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(64);
    environment.set_undefined_behavior(undefined);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.remove_global("debug");
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
        out.write_str(&utf8_percent_encode(&value.to_string(), UNRESERVED).to_string()).map_err(minijinja::Error::from)
    });
    environment
});

/// What a template may refer to.
#[derive(Debug, Clone, Default)]
pub struct Context(BTreeMap<String, minijinja::Value>);

impl Context {
    /// This context with one more variable; an older one of that name is hidden.
    #[must_use]
    pub fn with(mut self, name: &str, value: &impl serde::Serialize) -> Self {
        self.0.insert(name.to_owned(), minijinja::Value::from(Serde(value)));
        self
    }

    /// The variable of that name, as JSON.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        serde_json::to_value(self.0.get(name)?).ok()
    }

    fn value(&self) -> minijinja::Value {
        minijinja::Value::from_pairs(self.0.iter().map(|(name, value)| (name.as_str(), value.clone())))
    }
}

/// Why a template did not give a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A parameter that the schema let through cannot be used; the caller can mend it.
    #[error("{parameter} {problem}")]
    Parameter {
        /// Which parameter, as a JSON pointer within the parameters, such as `/to`.
        parameter: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// The template itself is at fault; its author can mend it.
    #[error("the template {source_text:?} failed: {reason}")]
    Template {
        /// The template.
        source_text: String,
        /// What minijinja says.
        reason: String,
    },
}

impl TemplateError {
    fn from_minijinja(source_text: &str, error: &minijinja::Error) -> Self {
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            if let Some(Self::Parameter { parameter, problem }) = inner.downcast_ref::<Self>() {
                return Self::Parameter { parameter: parameter.clone(), problem: problem.clone() };
            }
            cause = inner.source();
        }
        Self::Template { source_text: source_text.to_owned(), reason: error.to_string() }
    }
}

/// A bare expression, such as `body.ok and not body.error`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Expression(String);

impl TryFrom<String> for Expression {
    type Error = TemplateError;
    fn try_from(source: String) -> Result<Self, TemplateError> {
        let read = EXPRESSIONS.compile_expression_owned(source.as_str()).map(drop);
        read.map_err(|error| TemplateError::from_minijinja(&source, &error))?;
        Ok(Self(source))
    }
}

impl Expression {
    /// The value, or nothing if it is absent.
    pub fn evaluate(&self, context: &Context) -> Result<Option<Value>, TemplateError> {
        let failed = |error| TemplateError::from_minijinja(&self.0, &error);
        let compiled = EXPRESSIONS.compile_expression_owned(self.0.as_str()).map_err(failed)?;
        let value = compiled.eval(context.value()).map_err(failed)?;
        if value.is_undefined() {
            return Ok(None);
        }
        if matches!(value.kind(), ValueKind::Invalid) {
            return Err(TemplateError::Template {
                source_text: self.0.clone(),
                reason: "the value is invalid".to_owned(),
            });
        }
        serde_json::to_value(&value)
            .map(Some)
            .map_err(|error| TemplateError::Template { source_text: self.0.clone(), reason: error.to_string() })
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
pub struct Text(String);

impl TryFrom<String> for Text {
    type Error = TemplateError;
    fn try_from(source: String) -> Result<Self, TemplateError> {
        let read = TEXTS.template_from_str(&source).map(drop);
        read.map_err(|error| TemplateError::from_minijinja(&source, &error))?;
        Ok(Self(source))
    }
}

impl Text {
    /// The text as its author wrote it.
    pub(crate) fn source(&self) -> &str {
        &self.0
    }

    /// The text with its values filled in.
    pub fn render(&self, context: &Context) -> Result<String, TemplateError> {
        Self::render_in(&TEXTS, &self.0, context)
    }

    /// The text as a path: every value is percent-encoded, so that none can leave its segment.
    pub fn render_path(&self, context: &Context) -> Result<String, TemplateError> {
        Self::render_in(&PATHS, &self.0, context)
    }

    fn render_in(environment: &Environment<'_>, source: &str, context: &Context) -> Result<String, TemplateError> {
        environment.render_str(source, context.value()).map_err(|error| TemplateError::from_minijinja(source, &error))
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
            return Err(TemplateError::Template {
                source_text: "$for".to_owned(),
                reason: "a loop is {$for: a name, $in: an expression, $do: a template}, the first two as text, and \
                         nothing else"
                    .to_owned(),
            });
        };
        Ok(Self::For { name, list: list.try_into()?, element: Box::new(Self::try_from(element)?) })
    }

    /// The value, or nothing if it is absent.
    pub fn evaluate(&self, context: &Context) -> Result<Option<Value>, TemplateError> {
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
                Some(_) => {
                    return Err(TemplateError::Template {
                        source_text: list.0.clone(),
                        reason: "what $in gives is not a list".to_owned(),
                    });
                }
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evaluate(template: Value, parameters: Value) -> Result<Option<Value>, TemplateError> {
        let mut context = Context::default();
        if let Value::Object(parameters) = parameters {
            for (name, value) in parameters {
                context = context.with(&name, &value);
            }
        }
        Template::try_from(template)?.evaluate(&context)
    }

    #[test]
    fn a_single_expression_keeps_its_type_and_an_absent_value_drops_its_key() {
        let template = json!({
            "n": "{{ n }}", "list": "{{ list }}", "gone": "{{ missing }}", "deep": "{{ missing.deeper }}",
            "null": "{{ nothing }}", "text": "n is {{ n }}", "two": "{{ n }}{{ n }}",
            "map": "{{ {'a': {'b': n}} }}", "kept": [1, "{{ missing }}", true]
        });
        let made = evaluate(template, json!({"n": 3, "list": [1, {"a": null}], "nothing": null})).unwrap();
        assert_eq!(
            made.unwrap(),
            json!({"n": 3, "list": [1, {"a": null}], "null": null, "text": "n is 3", "two": "33",
                "map": {"a": {"b": 3}}, "kept": [1, true]})
        );
    }

    #[test]
    fn values_are_never_read_as_templates() {
        let made = evaluate(json!("{{ text }}"), json!({"text": "{{ 1 + 1 }}"})).unwrap();
        assert_eq!(made, Some(json!("{{ 1 + 1 }}")));
    }

    #[test]
    fn a_loop_gives_a_list() {
        let template = json!({"$for": "word", "$in": "words", "$do": {"text": "{{ word }}"}});
        let made = evaluate(template.clone(), json!({"words": ["a", "b"]})).unwrap();
        assert_eq!(made, Some(json!([{"text": "a"}, {"text": "b"}])));
        assert_eq!(evaluate(template.clone(), json!({})).unwrap(), None);
        assert!(evaluate(template, json!({"words": "ab"})).is_err());
        assert!(evaluate(json!({"$for": "x", "$in": "y"}), json!({})).is_err());
    }

    #[test]
    fn absent_values_in_text_are_errors_and_wrong_templates_are_found_when_read() {
        assert!(evaluate(json!("hello {{ missing }}"), json!({})).is_err());
        assert_eq!(evaluate(json!("hello {{ missing|default('you') }}"), json!({})).unwrap(), Some(json!("hello you")));
        assert!(Template::try_from(json!("{{ 1 + }}")).is_err());
        assert!(Template::try_from(json!("a {% for %}")).is_err());
        assert!(Expression::try_from("a b".to_owned()).is_err());
    }

    #[test]
    fn endless_work_runs_out_of_fuel() {
        let endless = json!("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}");
        let Err(TemplateError::Template { reason, .. }) = evaluate(endless, json!({})) else {
            panic!("it did not fail")
        };
        assert!(reason.contains("fuel"), "{reason}");
    }

    #[test]
    fn a_path_value_stays_in_its_segment() {
        let path = Text::try_from("/pages/{{ id }}/x".to_owned()).unwrap();
        let context = Context::default().with("id", &"../a?b#c d/é");
        assert_eq!(path.render_path(&context).unwrap(), "/pages/..%2Fa%3Fb%23c%20d%2F%C3%A9/x");
        assert!(path.render_path(&Context::default()).is_err());
    }
}
