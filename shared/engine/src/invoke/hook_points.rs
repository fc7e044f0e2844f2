//! Hooks at the points of a call: before it, before the lookups of names, after it, and after its failure; and what their
//! replies mean for the call.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::record::redact_token;
use super::request::Invocation;
use crate::core::error::Error;
use crate::core::outcome::{Failure, Outcome, Success};
use crate::core::problem::FieldProblem;
use crate::core::redactor::Redactor;
use crate::engine::Engine;
use crate::invoke::hooks::{HookContext, Hooks};
use crate::invoke::mappings::Naming;
use crate::plugin::manifest::Hook;

/// The time that hooks have at least after a failure, which may have used up the request's own: well within a run's lease.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl Invocation<'_> {
    fn hook_context<'a>(&'a self, parameters: Option<&'a Map<String, Value>>) -> HookContext<'a> {
        let request = self.request;
        HookContext {
            org: request.org,
            user: request.user,
            agent: request.agent,
            channel: request.channel,
            tool: Some(self.tool()),
            parameters,
            session: None,
            request: request.origin.request_id(),
            task: request.origin.task_id(),
            reported: false,
            deadline: request.deadline,
        }
    }
}

impl Engine {
    /// The parameters as the hooks before the call leave them, or the failure of the hook that forbids it. Hooks see what
    /// will be sent, with ids in place of names, and never the account's own token.
    pub(super) async fn before_call(
        &self,
        invocation: &Invocation<'_>,
        hooks: &Hooks,
        redactor: &Redactor,
        parameters: Map<String, Value>,
    ) -> Result<Map<String, Value>, Failure> {
        if !hooks.any_at(Hook::BeforeToolCall, invocation.tool()) {
            return Ok(parameters);
        }
        let validate = |data: Value| match data {
            Value::Object(parameters) => invocation.check(parameters).map(Value::Object).map_err(summarize),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err("it is not an object of parameters".to_owned())
            }
        };
        let data = Value::Object(redact_token(redactor, &parameters));
        let context = invocation.hook_context(None);
        let result = self.ask_hooks(hooks, Hook::BeforeToolCall, &context, data, validate).await;
        match (result.vetoed, result.data) {
            (Some(vetoed), _) => Err(vetoed.failure()),
            (None, Value::Object(replaced)) if result.replaced => Ok(replaced),
            (None, _) => Ok(parameters),
        }
    }

    /// Asks the hooks before the calls that look up names. A lookup is Overseer's own call: hooks can forbid it, and not
    /// change it.
    pub(super) async fn before_look_ups(
        &self,
        invocation: &Invocation<'_>,
        hooks: &Hooks,
        naming: &Naming,
    ) -> Result<(), Failure> {
        let plugin = invocation.manifest.name.as_str();
        for (action, parameters) in naming.lookup_calls(invocation.manifest) {
            let tool = (plugin, action.as_str());
            if !hooks.any_at(Hook::BeforeToolCall, tool) {
                continue;
            }
            let context = HookContext { tool: Some(tool), ..invocation.hook_context(None) };
            let data = Value::Object(parameters);
            let result = self.ask_hooks(hooks, Hook::BeforeToolCall, &context, data, Ok).await;
            if let Some(vetoed) = result.vetoed {
                let failure = vetoed.failure();
                let message = format!("a name cannot be looked up by {plugin}.{action}: {}", failure.message);
                return Err(Failure { message, ..failure });
            }
        }
        Ok(())
    }

    /// The success as the hooks after the call leave it. The action has happened: a veto only withholds its data.
    pub(super) async fn after_call(
        &self,
        invocation: &Invocation<'_>,
        hooks: &Hooks,
        parameters: &Map<String, Value>,
        success: Success,
    ) -> Success {
        if !hooks.any_at(Hook::AfterToolCall, invocation.tool()) {
            return success;
        }
        let Success { message, data, external_id } = success;
        let context = invocation.hook_context(Some(parameters));
        let result = self.ask_hooks(hooks, Hook::AfterToolCall, &context, data, Ok).await;
        match result.vetoed {
            Some(vetoed) => {
                // The service's message may repeat the data.
                let message = format!("It was done; {} withholds the result: {}", vetoed.title, vetoed.reason);
                Success { message, data: Value::Null, external_id }
            }
            None => Success { message, data: result.data, external_id },
        }
    }

    /// The outcome as the hooks after a failure leave it. They may replace the message and the fallback that the agent, or
    /// a reader of the task, gets; the ledger and the error log keep the original.
    pub(super) async fn after_failure(
        &self,
        invocation: &Invocation<'_>,
        hooks: &Hooks,
        mut outcome: Outcome,
    ) -> Outcome {
        let Err(failure) = &mut outcome.result else { return outcome };
        if !hooks.any_at(Hook::OnError, invocation.tool()) {
            return outcome;
        }
        let deadline = invocation.request.deadline.max(Instant::now() + AFTER_FAILURE);
        let context = HookContext { deadline, ..invocation.hook_context(None) };
        let error = failure.shown();
        let validate = |data: Value| validate_error(&error, data);
        let result = self.ask_hooks(hooks, Hook::OnError, &context, error.clone(), validate).await;
        if result.replaced {
            let text = |name: &str| result.data.get(name).and_then(Value::as_str).map(str::to_owned);
            failure.message = text("message").unwrap_or_else(|| failure.message.clone());
            failure.fallback = text("fallback").or_else(|| failure.fallback.take());
        }
        outcome
    }
}

/// Accepts an error in which at most the replaceable fields differ from the `original`.
fn validate_error(original: &Value, data: Value) -> Result<Value, String> {
    let fields = data.as_object().ok_or_else(|| "it is not an error object".to_owned())?;
    fields.iter().try_for_each(|(name, value)| match is_replaceable(name) {
        true if value.is_string() => Ok(()),
        true => Err(format!("{name} is not a string")),
        false if original.get(name) == Some(value) => Ok(()),
        false => Err(format!("{name} cannot be changed; only message and fallback can")),
    })?;
    Ok(data)
}

/// Whether hooks may replace a field of an error.
fn is_replaceable(field: &str) -> bool {
    matches!(field, "message" | "fallback")
}

/// Every problem of invalid parameters, in one line.
fn summarize(error: Error) -> String {
    let Error::Invalid(problems) = error else { return error.to_string() };
    let pointer = |problem: &FieldProblem| problem.pointer.replacen("/context", "/data", 1);
    let line = |problem: &FieldProblem| format!("{} {}", pointer(problem), problem.message);
    problems.iter().map(line).collect::<Vec<_>>().join("; ")
}
