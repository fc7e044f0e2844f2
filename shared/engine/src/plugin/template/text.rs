//! Texts with code in them.

use minijinja::Environment;
use schemars::JsonSchema;
use serde::Deserialize;

use super::environment::{PATHS, TEXTS};
use super::language::{self, Shape};
use super::work::{self, Limited};
use super::{Context, TemplateError};

/// Text with `{{ … }}` and `{% … %}` in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Text {
    pub(super) source: String,
    pub(super) shape: Shape,
}

impl TryFrom<String> for Text {
    type Error = TemplateError;
    fn try_from(source: String) -> Result<Self, TemplateError> {
        let shape = language::read_text(&source).map_err(|reason| TemplateError::template(&source, &reason))?;
        let compiled = TEXTS.template_from_str(&source).map(drop);
        compiled.map_err(|error| TemplateError::from_minijinja(&source, &error))?;
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

    /// The text as a path: every value is percent-encoded, so that it cannot leave its segment.
    pub fn render_path(&self, context: &Context) -> Result<String, TemplateError> {
        self.render_in(&PATHS, context)
    }

    fn render_in(&self, environment: &Environment<'_>, context: &Context) -> Result<String, TemplateError> {
        let mut text = Limited::default();
        let rendered = context.charge_evaluation(&self.source, &self.shape).and_then(|()| {
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
