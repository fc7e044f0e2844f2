//! What can be wrong with a request. What comes of a well-formed intent is not an error but an
//! [`Outcome`](crate::core::outcome::Outcome).
//!
//! A message here is for the caller and never holds a credential or a cause from inside; causes are `#[source]`s, for
//! the log.

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::problem::FieldProblem;
use crate::ports::table::TableError;
use crate::ports::vault::VaultError;

/// The machine code of a refused request: a closed set, part of the public surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// Fields are missing or wrong; `errors` names each.
    InvalidParameters,
    /// No credential, or not a good one.
    Unauthenticated,
    /// A good credential that does not allow this.
    Forbidden,
    /// No plugin of that name.
    UnknownPlugin,
    /// The plugin has no action of that name.
    UnknownAction,
    /// Nothing there, or nothing that this caller may see.
    NotFound,
    /// The route does not know the method.
    MethodNotAllowed,
    /// The first request with this idempotency key is still running.
    InProgress,
    /// The thing is not in a state that allows this.
    Conflict,
    /// The thing is not as it was when the caller looked at it.
    PreconditionFailed,
    /// Larger than allowed.
    TooLarge,
    /// Not a media type that the route reads.
    UnsupportedMediaType,
    /// The idempotency key was used with another request.
    KeyReused,
    /// More requests than allowed.
    TooManyRequests,
    /// A service that the request depends on gave no answer that can be used. Nothing was kept.
    Unavailable,
    /// A fault of Overseer.
    Internal,
}

/// What an error says and what its causes say, for the log. Only their messages: a derived form would show records, too.
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
    /// No credential, or not a good one; says what is wrong with it.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The caller may not do this; says what would be needed.
    #[error("{0}")]
    Forbidden(String),
    /// No plugin of that name.
    #[error("there is no plugin {name:?}{}", suggestion(.nearest))]
    UnknownPlugin {
        /// What was asked for.
        name: String,
        /// What may have been meant, the likeliest first.
        nearest: Vec<String>,
    },
    /// The plugin has no action of that name.
    #[error("the plugin {plugin:?} has no action {name:?}{}", suggestion(.nearest))]
    UnknownAction {
        /// The plugin.
        plugin: String,
        /// What was asked for.
        name: String,
        /// What may have been meant, the likeliest first.
        nearest: Vec<String>,
    },
    /// Nothing there, or nothing that this caller may see.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// A service that the request depends on gave no answer that can be used; says which and why.
    #[error("{0}")]
    Unavailable(String),
    /// The first request with this idempotency key is still running.
    #[error(
        "the first request with this key is still running; ask again in {retry_after_s} s, or send Prefer: wait=20"
    )]
    InProgress {
        /// When it is worth asking again.
        retry_after_s: u64,
    },
    /// The idempotency key was used with another request.
    #[error("this key was used with another request in the last 24 hours; take a new key for each intent")]
    KeyReused,
    /// The thing is not in a state that allows this; says which would.
    #[error("{0}")]
    Conflict(String),
    /// The thing is not as it was when the caller looked at it.
    #[error("somebody else changed it in the meantime; get it again, and send its new ETag in If-Match")]
    Changed,
    /// The store failed.
    #[error("something failed on Overseer's side; the log has the request id")]
    Table(#[from] TableError),
    /// The vault failed.
    #[error("something failed on Overseer's side; the log has the request id")]
    Vault(#[from] VaultError),
    /// Overseer made something that it cannot use itself, such as an id; the caller did nothing wrong.
    #[error("something failed on Overseer's side; the log has the request id")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A part of the engine panicked.
    #[error("something failed on Overseer's side; the log has the request id")]
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

    /// A fault of Overseer's own: `cause` goes to the log, and nothing of it to the caller.
    pub(crate) fn internal(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(cause))
    }

    /// No plugin of that name, and nothing that may have been meant.
    pub(crate) fn unknown_plugin(name: &str) -> Self {
        Self::UnknownPlugin { name: name.to_owned(), nearest: Vec::new() }
    }

    /// A cursor that the store does not know came from the caller.
    pub(crate) fn of_cursor(error: TableError) -> Self {
        match error {
            TableError::Request(_) => {
                Self::field("/cursor", "is not a cursor of this list; leave it out to begin anew")
            }
            error @ (TableError::Condition { .. }
            | TableError::TooLarge { .. }
            | TableError::Record(_)
            | TableError::Store(_)) => error.into(),
        }
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
            Self::Table(_) | Self::Vault(_) | Self::Internal(_) | Self::Panicked(_) => ProblemCode::Internal,
        }
    }
}

fn summary(problems: &[FieldProblem]) -> String {
    match problems {
        [only] if only.pointer.is_empty() => only.message.clone(),
        [only] => format!("{}: {}", only.pointer, only.message),
        several => format!("{} things are wrong with the request; errors lists them", several.len()),
    }
}

fn suggestion(nearest: &[String]) -> String {
    match nearest {
        [] => "; GET /api/plugin-engine lists those there are".to_owned(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}
