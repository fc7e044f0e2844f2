//! Errors of requests. The failure of a well-formed intent is not an error but an
//! [`Outcome`](crate::core::outcome::Outcome).
//!
//! Messages are for the caller and never contain a credential or an internal cause. Causes are `#[source]`s and go to the log.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use tracing::Span;
use tracing::field::display;

use crate::core::problem::FieldProblem;
use crate::core::trace::SpanOutcome;
use crate::ports::table::TableError;
use crate::ports::vault::VaultError;

/// The machine code of a refused request: a closed set, part of the public surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// Fields are missing or wrong; `errors` names each.
    InvalidParameters,
    /// The credential is missing or invalid.
    Unauthenticated,
    /// The credential is valid but does not allow this.
    Forbidden,
    /// No plugin of that name.
    UnknownPlugin,
    /// The plugin has no action of that name.
    UnknownAction,
    /// Not found, or not visible to this caller.
    NotFound,
    /// The route does not support the method.
    MethodNotAllowed,
    /// The first request with this idempotency key is still running.
    InProgress,
    /// The resource's state does not allow this.
    Conflict,
    /// The resource changed since the caller read it.
    PreconditionFailed,
    /// The body is larger than allowed.
    TooLarge,
    /// The route does not support the media type.
    UnsupportedMediaType,
    /// The idempotency key was used with another request.
    KeyReused,
    /// More requests than allowed.
    TooManyRequests,
    /// A service that the request depends on did not answer, or answered with an error. Nothing was stored.
    Unavailable,
    /// Overseer failed.
    Internal,
}

impl fmt::Display for ProblemCode {
    /// Its name on the wire.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// The messages of an error and its causes, for the log. Not `Debug`, which would contain records.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// A refused or failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields are missing or wrong.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldProblem>),
    /// The credential is missing or invalid; the text says what is wrong with it.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The caller may not do this; the text says what is needed.
    #[error("{0}")]
    Forbidden(String),
    /// No plugin of that name.
    #[error("there is no plugin {name:?}{}", suggestion(.nearest))]
    UnknownPlugin {
        /// The requested name.
        name: String,
        /// Similar names, the most similar first.
        nearest: Vec<String>,
    },
    /// The plugin has no action of that name.
    #[error("the plugin {plugin:?} has no action {name:?}{}", suggestion(.nearest))]
    UnknownAction {
        /// The plugin.
        plugin: String,
        /// The requested name.
        name: String,
        /// Similar names, the most similar first.
        nearest: Vec<String>,
    },
    /// Not found, or not visible to this caller; names the kind of resource.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// A service that the request depends on did not answer, or answered with an error; the text says which and why.
    #[error("{0}")]
    Unavailable(String),
    /// The first request with this idempotency key is still running.
    #[error("the first request with this key is still running; retry in {retry_after_s} s, or send Prefer: wait=20")]
    InProgress {
        /// The seconds to wait before a retry.
        retry_after_s: u64,
    },
    /// The idempotency key was used with another request.
    #[error("this key was used with another request in the last 24 hours; use a new key for each intent")]
    KeyReused,
    /// The resource's state does not allow this; the text says which state would.
    #[error("{0}")]
    Conflict(String),
    /// The resource changed since the caller read it.
    #[error("it changed since you read it; get it again and send its new ETag in If-Match")]
    Changed,
    /// The store failed.
    #[error("{}", failure_text(is_store_failure(.0)))]
    Table(#[from] TableError),
    /// The vault failed.
    #[error("{}", failure_text(is_vault_failure(.0)))]
    Vault(#[from] VaultError),
    /// Overseer made a value that it cannot use itself, such as an id. The caller is not at fault.
    #[error("Overseer failed; its log has the details under the request id")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A task of the engine panicked.
    #[error("Overseer failed; its log has the details under the request id")]
    Panicked(#[source] tokio::task::JoinError),
}

impl From<FieldProblem> for Error {
    fn from(problem: FieldProblem) -> Self {
        Self::Invalid(vec![problem])
    }
}

impl From<Vec<FieldProblem>> for Error {
    fn from(problems: Vec<FieldProblem>) -> Self {
        Self::Invalid(problems)
    }
}

impl Error {
    /// One wrong field.
    pub fn field(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldProblem::new(pointer, message)])
    }

    /// A failure of Overseer: `cause` goes to the log and not to the caller.
    pub(crate) fn internal(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(cause))
    }

    /// No plugin of that name, without suggestions.
    pub(crate) fn unknown_plugin(name: &str) -> Self {
        Self::UnknownPlugin { name: name.to_owned(), nearest: Vec::new() }
    }

    /// The error of a query with the caller's cursor: a cursor that the store refuses is the caller's error.
    pub(crate) fn of_cursor(error: TableError) -> Self {
        match error {
            TableError::Request(_) => {
                Self::field("/cursor", "is not a cursor of this list; leave it out to start from the beginning")
            }
            error @ (TableError::Condition { .. }
            | TableError::TooLarge { .. }
            | TableError::Record(_)
            | TableError::Store(_)) => error.into(),
        }
    }

    /// Whether Overseer failed, and not the caller or a service: then the causes are for the log.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Table(_) | Self::Vault(_) | Self::Internal(_) | Self::Panicked(_))
    }

    /// The machine code.
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::Invalid(_) => ProblemCode::InvalidParameters,
            Self::Unauthenticated(_) => ProblemCode::Unauthenticated,
            Self::Forbidden(_) => ProblemCode::Forbidden,
            Self::UnknownPlugin { .. } => ProblemCode::UnknownPlugin,
            Self::UnknownAction { .. } => ProblemCode::UnknownAction,
            Self::NotFound(_) => ProblemCode::NotFound,
            Self::Conflict(_) => ProblemCode::Conflict,
            Self::Changed => ProblemCode::PreconditionFailed,
            Self::InProgress { .. } => ProblemCode::InProgress,
            Self::KeyReused => ProblemCode::KeyReused,
            Self::Unavailable(_) => ProblemCode::Unavailable,
            Self::Table(error) if is_store_failure(error) => ProblemCode::Unavailable,
            Self::Vault(error) if is_vault_failure(error) => ProblemCode::Unavailable,
            Self::Table(_) | Self::Vault(_) | Self::Internal(_) | Self::Panicked(_) => ProblemCode::Internal,
        }
    }
}

impl SpanOutcome for Error {
    fn record_in(&self, span: &Span) {
        span.record("outcome", display(self.code()));
    }
}

/// Whether the store itself failed, and may work again later.
fn is_store_failure(error: &TableError) -> bool {
    matches!(error, TableError::Store(_))
}

fn is_vault_failure(error: &VaultError) -> bool {
    matches!(error, VaultError::Service(_) | VaultError::Table(TableError::Store(_)))
}

fn failure_text(of_store: bool) -> &'static str {
    if of_store {
        "Overseer's store failed, and a change may or may not have been made; the log has the details under the request id"
    } else {
        "Overseer failed; its log has the details under the request id"
    }
}

fn summary(problems: &[FieldProblem]) -> String {
    match problems {
        [only] if only.pointer.is_empty() => only.message.clone(),
        [only] => format!("{}: {}", only.pointer, only.message),
        several => format!("the request has {} problems; errors lists them", several.len()),
    }
}

fn suggestion(nearest: &[String]) -> String {
    match nearest {
        [] => "; GET /api/plugin-engine lists all".to_owned(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::RunId;

    #[test]
    fn unusable_own_id_is_internal() {
        let cause = RunId::parse("not an id").unwrap_err();
        let error = Error::internal(cause);
        assert_eq!(error.code(), ProblemCode::Internal);
    }

    #[test]
    fn internal_cause_is_for_the_log_only() {
        let cause = RunId::parse("not an id").unwrap_err();
        let error = Error::internal(cause);
        assert!(!error.to_string().contains(&cause.to_string()), "{error}");
        assert!(causes(&error).contains(&cause.to_string()), "{}", causes(&error));
    }
}
