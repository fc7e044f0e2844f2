//! Why a template failed.

use minijinja::{Error, ErrorKind};

/// Why a template failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A parameter is valid by its schema but cannot be used; the caller can correct it.
    #[error("{parameter} {problem}")]
    Parameter {
        /// Which parameter, as a JSON pointer within the parameters, such as `/to`.
        parameter: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// The template itself is wrong; its author can correct it.
    #[error("the template {source_text:?} failed: {reason}")]
    Template {
        /// The template.
        source_text: String,
        /// The error of minijinja.
        reason: String,
    },
}

impl TemplateError {
    pub(super) fn from_minijinja(source_text: &str, error: &Error) -> Self {
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            if let Some(Self::Parameter { parameter, problem }) = inner.downcast_ref::<Self>() {
                return Self::Parameter { parameter: parameter.clone(), problem: problem.clone() };
            }
            cause = inner.source();
        }
        Self::template(source_text, &error.to_string())
    }

    pub(super) fn template(source_text: &str, reason: &str) -> Self {
        Self::Template { source_text: shortened(source_text), reason: shortened(reason) }
    }
}

/// The beginning of a text, at most [`SHOWN_MAX`] characters.
pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The most characters of a template or of an error that a message contains.
const SHOWN_MAX: usize = 300;

/// An error that the caller can correct; `pointer` names the parameter.
pub(super) fn parameter_error(pointer: impl Into<String>, problem: impl Into<String>) -> Error {
    let cause = TemplateError::Parameter { parameter: pointer.into(), problem: problem.into() };
    Error::new(ErrorKind::InvalidOperation, "a parameter cannot be used").with_source(cause)
}
