//! One action to call: what the caller requests, and what the plugin declares about it.

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::access::principal::Principal;
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::{AgentId, Alias, ChannelName, OrgId, RequestId, RunId, TaskId, UserId};
use crate::core::outcome::{Failure, Metadata, Outcome};
use crate::invoke::mappings::Naming;
use crate::invoke::runs::IdempotencyRequest;
use crate::plugin::breaker::ActionClass;
use crate::plugin::catalog::{CompiledAction, Plugin};
use crate::plugin::manifest::{Action, Manifest};

/// A request to call one action.
pub(crate) struct ActionRequest<'a> {
    pub org: &'a OrgId,
    /// The user whose account is used.
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    /// The channel in which the plugin must be enabled.
    pub channel: Option<&'a ChannelName>,
    pub plugin: &'a Plugin,
    /// The action's name or one of its aliases.
    pub action: &'a str,
    /// The account to use; without one, the default account.
    pub alias: Option<&'a Alias>,
    pub parameters: &'a Map<String, Value>,
    pub origin: Origin<'a>,
    /// When the outcome must be there.
    pub deadline: Instant,
}

/// Where a request to call an action comes from.
pub(crate) enum Origin<'a> {
    /// An intent, whose caller waits for the answer.
    Intent { principal: &'a Principal, request: Option<&'a RequestId>, idempotency: Option<&'a IdempotencyRequest> },
    /// An attempt of a task.
    Task {
        id: &'a TaskId,
        /// The id of the attempt's entry in the ledger.
        run: &'a RunId,
        /// When the worker's claim expires.
        until: Timestamp,
        /// The number of the task's run.
        number: u32,
    },
}

impl<'a> Origin<'a> {
    /// The HTTP request of an intent.
    pub(super) fn request_id(&self) -> Option<&'a RequestId> {
        match self {
            Self::Intent { request, .. } => *request,
            Self::Task { .. } => None,
        }
    }

    /// The task, if this is an attempt of one.
    pub(super) fn task_id(&self) -> Option<&'a TaskId> {
        match self {
            Self::Intent { .. } => None,
            Self::Task { id, .. } => Some(*id),
        }
    }
}

/// A request together with the action that it names.
pub(crate) struct Invocation<'a> {
    pub request: &'a ActionRequest<'a>,
    pub manifest: &'a Manifest,
    pub action: &'a Action,
    /// The action with its compiled parameter schema.
    definition: CompiledAction<'a>,
    started: Instant,
}

/// Parameters that fit the action's schema, and the names among them.
pub(super) struct CheckedParameters {
    pub parameters: Map<String, Value>,
    pub naming: Naming,
}

impl<'a> Invocation<'a> {
    /// Finds the action that the request names; its duration counts from here.
    pub(crate) fn of(request: &'a ActionRequest<'a>) -> Result<Self, Error> {
        let started = Instant::now();
        let definition = request.plugin.action(request.action)?;
        Ok(Self { request, manifest: &request.plugin.manifest, action: definition.action, definition, started })
    }

    /// Fills in defaults and validates parameters against the action's schema; `Invalid` lists every problem.
    pub(crate) fn check(&self, parameters: Map<String, Value>) -> Result<Map<String, Value>, Error> {
        self.definition.check(parameters)
    }

    /// The request's own parameters, checked, and the names among them.
    pub(super) fn check_request(&self) -> Result<CheckedParameters, Error> {
        let parameters = self.check(self.request.parameters.clone())?;
        Ok(CheckedParameters { naming: Naming::of(self.manifest, self.action, &parameters)?, parameters })
    }
}

impl Invocation<'_> {
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn metadata(&self, attempts: u32, run: Option<RunId>) -> Metadata {
        Metadata {
            plugin: self.manifest.name.clone(),
            version: self.manifest.version.to_string(),
            action: self.action.name.clone(),
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            attempts,
            run,
        }
    }

    /// The class of actions that share a breaker.
    pub(crate) fn class(&self) -> ActionClass {
        self.action.effect.into()
    }

    /// The names of the plugin and the action.
    pub(crate) fn tool(&self) -> (&str, &str) {
        (self.manifest.name.as_str(), self.action.name.as_str())
    }

    /// The caller's idempotency key; a task's attempt has none.
    pub(crate) fn idempotency(&self) -> Option<&IdempotencyRequest> {
        match &self.request.origin {
            Origin::Intent { idempotency, .. } => *idempotency,
            Origin::Task { .. } => None,
        }
    }

    /// Whether the service recognises a retry of a run by its key. Only for runs of the same plugin version: another may
    /// send the service another key.
    pub(crate) fn service_deduplicates(&self, run_version: &str) -> bool {
        self.action.effect == Effect::Keyed && self.manifest.version.to_string() == run_version
    }

    /// The outcome of an invocation that did not get as far as an attempt.
    pub(super) fn failed(&self, failure: Failure) -> Outcome {
        Outcome { result: Err(failure), metadata: self.metadata(0, None) }
    }
}
