//! How a plugin's actions run. A runtime is given a call and a [`Host`](crate::outbound::host::Host), and nothing else.

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

/// One call of one action, with its parameters checked.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub manifest: &'a Manifest,
    pub action: &'a Action,
    pub parameters: &'a Map<String, Value>,
    /// The configuration of the plugin's instance.
    pub config: &'a Map<String, Value>,
    pub user: &'a UserId,
    pub now: Timestamp,
    /// By what the service is to know a repetition, for actions that are `keyed`.
    pub key: Option<ServiceKey>,
    /// Until when the ledger has it as this caller's: later nothing more may be sent.
    pub until: Option<Timestamp>,
}

/// What a service is told, so that it knows a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceKey {
    pub text: String,
    /// Whether it comes of a key of the caller, who can then safely ask again.
    pub of_caller: bool,
}

impl ServiceKey {
    /// What stands for a caller's own key, and for what was asked under it.
    pub(crate) fn of_caller(org: &OrgId, user: &UserId, key: &IdempotencyKey, payload: &str) -> Self {
        Self::of(&["key", org.as_str(), user.as_str(), key.as_str(), payload], true)
    }

    /// In the form of a UUID (version 8, RFC 9562), which every service takes: the hash of what it stands for.
    pub(crate) fn of(what: &[&str], of_caller: bool) -> Self {
        // No part of an id or hash has a line break in it.
        let hash = sha256(what.join("\n").as_bytes());
        let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
        let text = format!("{}-{}-8{}-a{}-{}", part(0, 8), part(8, 12), part(12, 15), part(15, 18), part(18, 30));
        Self { text, of_caller }
    }
}

/// Why a call did not succeed.
#[derive(Debug)]
pub(crate) enum CallError {
    /// A parameter that its schema let through cannot be used. Nothing has happened yet.
    Parameter(FieldProblem),
    /// The call failed.
    Failed(Failure),
}

/// What a call gave.
pub(crate) type CallResult = Result<Success, CallError>;

impl CallError {
    /// As a failure, whatever it was.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Parameter(problem) => {
                Failure::new(OutcomeCode::Unavailable, format!("the plugin is at fault: {}", problem.message), false)
            }
        }
    }

    /// The plugin's author has to mend it.
    fn at_fault(what: impl Display) -> Self {
        Self::failed(OutcomeCode::Unavailable, format!("the plugin is at fault: {what}"), false)
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
