//! What the organization's hooks have to say of a call: before it, after it, and where it failed.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::attempt::redact_token;
use super::execute::{Invocation, Origin};
use crate::core::error::Error;
use crate::core::outcome::{Failure, Outcome, Success};
use crate::core::problem::FieldProblem;
use crate::core::redactor::Redactor;
use crate::engine::Engine;
use crate::invoke::hooks::{HookContext, Hooks};
use crate::invoke::mappings::Naming;
use crate::plugin::manifest::Hook;

/// The time that hooks have at least to hear of a failure: well within the lease of a run.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl Invocation<'_> {
    /// The plugin and the action, as hooks are told of them.
    pub(crate) fn tool(&self) -> (&str, &str) {
        (self.manifest.name.as_str(), self.action.name.as_str())
    }

    fn moment<'a>(&'a self, parameters: Option<&'a Map<String, Value>>) -> HookContext<'a> {
        let (request, task) = match &self.doing.source {
            Origin::Intent { request, .. } => (*request, None),
            Origin::Task { id, .. } => (None, Some(*id)),
        };
        HookContext {
            org: self.doing.org,
            user: self.doing.user,
            agent: self.doing.agent,
            channel: self.doing.channel,
            tool: Some(self.tool()),
            parameters,
            session: None,
            request,
            task,
            reported: false,
            deadline: self.doing.deadline,
        }
    }
}

impl Engine {
    /// The parameters that hooks let through, or what forbids the call. They see what will be sent, ids in the place of
    /// names, and never the account's own token.
    pub(super) async fn before_call(
        &self,
        what: &Invocation<'_>,
        hooks: &Hooks,
        striker: &Redactor,
        parameters: Map<String, Value>,
    ) -> Result<Map<String, Value>, Failure> {
        if !hooks.any_at(Hook::BeforeToolCall, what.tool()) {
            return Ok(parameters);
        }
        let fit = |data: Value| match data {
            Value::Object(parameters) => what.found.check(parameters).map(Value::Object).map_err(summarize),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err("it is no object of parameters".to_owned())
            }
        };
        let shown = Value::Object(redact_token(striker, &parameters));
        let came = self.ask_hooks(hooks, Hook::BeforeToolCall, &what.moment(None), shown, fit).await;
        match (came.vetoed, came.data) {
            (Some(vetoed), _) => Err(vetoed.failure()),
            (None, Value::Object(changed)) if came.replaced => Ok(changed),
            (None, _) => Ok(parameters),
        }
    }

    /// Whether hooks let the service be asked what the names stand for. The look-up itself is Overseer's, so that they can
    /// forbid it, and not change it.
    pub(super) async fn before_look_ups(
        &self,
        what: &Invocation<'_>,
        hooks: &Hooks,
        naming: &Naming,
    ) -> Result<(), Failure> {
        let plugin = what.manifest.name.as_str();
        for (action, parameters) in naming.lookup_calls(what.manifest) {
            let tool = (plugin, action.as_str());
            if !hooks.any_at(Hook::BeforeToolCall, tool) {
                continue;
            }
            let moment = HookContext { tool: Some(tool), ..what.moment(None) };
            let parameters = Value::Object(parameters);
            let came = self.ask_hooks(hooks, Hook::BeforeToolCall, &moment, parameters, Ok).await;
            if let Some(vetoed) = came.vetoed {
                let failure = vetoed.failure();
                let message = format!("a name cannot be looked up by {plugin}.{action}: {}", failure.message);
                return Err(Failure { message, ..failure });
            }
        }
        Ok(())
    }

    /// What hooks make of a success. It has happened, so that the most that they can do is to withhold what it gave.
    pub(super) async fn after_call(
        &self,
        what: &Invocation<'_>,
        hooks: &Hooks,
        parameters: &Map<String, Value>,
        success: Success,
    ) -> Success {
        if !hooks.any_at(Hook::AfterToolCall, what.tool()) {
            return success;
        }
        let Success { message, data, external_id } = success;
        let moment = what.moment(Some(parameters));
        let came = self.ask_hooks(hooks, Hook::AfterToolCall, &moment, data, Ok).await;
        match came.vetoed {
            Some(vetoed) => {
                // The message may say what the data does.
                let message = format!("It was done; {} withholds the result: {}", vetoed.title, vetoed.reason);
                Success { message, data: Value::Null, external_id }
            }
            None => Success { message, data: came.data, external_id },
        }
    }

    /// What hooks make of what the agent, or whoever looks at the task, is told about a failure. The ledger and the error log
    /// have what happened. The time may be used up by what failed, so that they have a little of their own.
    pub(super) async fn after_failure(&self, what: &Invocation<'_>, hooks: &Hooks, mut outcome: Outcome) -> Outcome {
        if let Err(failure) = &mut outcome.result
            && hooks.any_at(Hook::OnError, what.tool())
        {
            let deadline = what.doing.deadline.max(Instant::now() + AFTER_FAILURE);
            let moment = HookContext { deadline, ..what.moment(None) };
            let before = failure.shown();
            let fit = |data: Value| {
                let fields = data.as_object().ok_or_else(|| "it is no error".to_owned())?;
                fields.iter().try_for_each(|(name, value)| match is_replaceable(name) {
                    true if value.is_string() => Ok(()),
                    true => Err(format!("{name} is no text")),
                    false if before.get(name) == Some(value) => Ok(()),
                    false => Err(format!("{name} cannot be changed; message and fallback can")),
                })?;
                Ok(data)
            };
            let came = self.ask_hooks(hooks, Hook::OnError, &moment, before.clone(), fit).await;
            let text = |name: &str| came.data.get(name).and_then(Value::as_str).map(str::to_owned);
            if came.replaced {
                failure.message = text("message").unwrap_or_else(|| failure.message.clone());
                failure.fallback = text("fallback").or_else(|| failure.fallback.take());
            }
        }
        outcome
    }
}

/// Whether a field of an error is what the agent is told.
fn is_replaceable(name: &str) -> bool {
    matches!(name, "message" | "fallback")
}

/// What is wrong with parameters, in one line.
fn summarize(error: Error) -> String {
    let Error::Invalid(problems) = error else { return error.to_string() };
    let place = |pointer: &str| pointer.replacen("/context", "/data", 1);
    let said = |problem: &FieldProblem| format!("{} {}", place(&problem.pointer), problem.message);
    problems.iter().map(said).collect::<Vec<_>>().join("; ")
}
