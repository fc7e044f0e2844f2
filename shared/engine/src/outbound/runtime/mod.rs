//! How a plugin's actions run. A runtime gets a call and a [`Host`](crate::outbound::host::Host), and nothing else.

pub(crate) mod http;
mod response;

use std::fmt::Display;

use jiff::Timestamp;
pub(crate) use response::out_of_time;
use serde_json::{Map, Value};

use crate::core::ids::{IdempotencyKey, OrgId, UserId};
use crate::core::outcome::{Failure, OutcomeCode, Success};
use crate::core::problem::FieldProblem;
use crate::plugin::manifest::{Action, Manifest};
use crate::plugin::template::TemplateError;
use crate::ports::ids::sha256;

/// One call of one action, with checked parameters.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub manifest: &'a Manifest,
    pub action: &'a Action,
    pub parameters: &'a Map<String, Value>,
    /// The configuration of the plugin's instance.
    pub config: &'a Map<String, Value>,
    pub user: &'a UserId,
    pub now: Timestamp,
    /// The key by which the service recognises a retry, for `keyed` actions.
    pub key: Option<ServiceKey>,
    /// When the caller's lease on the run expires: nothing is sent after that.
    pub until: Option<Timestamp>,
}

/// The key by which a service recognises a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceKey {
    pub text: String,
    /// Whether it is made of the caller's own key, so that the caller can retry safely.
    pub of_caller: bool,
}

impl ServiceKey {
    /// The key for a caller's own key and the payload sent under it.
    pub(crate) fn of_caller(org: &OrgId, user: &UserId, key: &IdempotencyKey, payload: &str) -> Self {
        Self::of(&["key", org.as_str(), user.as_str(), key.as_str(), payload], true)
    }

    /// A hash of the parts in the form of a UUID (version 8, RFC 9562), which every service accepts.
    pub(crate) fn of(parts: &[&str], of_caller: bool) -> Self {
        // No id or hash contains a line break.
        let hash = sha256(parts.join("\n").as_bytes());
        let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
        let text = format!("{}-{}-8{}-a{}-{}", part(0, 8), part(8, 12), part(12, 15), part(15, 18), part(18, 30));
        Self { text, of_caller }
    }
}

/// Why a call did not succeed.
#[derive(Debug)]
pub(crate) enum CallError {
    /// A parameter that fits its schema cannot be used. Nothing was sent.
    Parameter(FieldProblem),
    /// The call failed.
    Failed(Failure),
}

/// The result of a call.
pub(crate) type CallResult = Result<Success, CallError>;

impl CallError {
    /// The error as a failure, for callers that did not choose the parameters.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Parameter(problem) => {
                Failure::new(OutcomeCode::Unavailable, format!("the plugin is at fault: {}", problem.message), false)
            }
        }
    }

    /// A fault of the manifest, which the plugin's author has to fix.
    fn at_fault(problem: impl Display) -> Self {
        Self::failed(OutcomeCode::Unavailable, format!("the plugin is at fault: {problem}"), false)
    }

    fn failed(code: OutcomeCode, message: String, retryable: bool) -> Self {
        Self::Failed(Failure::new(code, message, retryable))
    }
}

impl From<TemplateError> for CallError {
    fn from(error: TemplateError) -> Self {
        match error {
            TemplateError::Parameter { parameter, problem } => {
                Self::Parameter(FieldProblem::new(format!("/context{parameter}"), problem))
            }
            error @ TemplateError::Template { .. } => Self::at_fault(error),
        }
    }
}
