//! Asks a hook over HTTP: a request signed by Standard Webhooks (<https://www.standardwebhooks.com>), through the one outbound
//! client. It is sent once, because a hook that did not answer may have been reached.

use std::sync::atomic::AtomicUsize;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::core::error::causes;
use crate::core::json;
use crate::core::outcome::{OutcomeCode, cut};
use crate::engine::Engine;
use crate::events::signing::SignedPostError;
use crate::invoke::hooks::context::{HookContext, HookFailure, HookReply, LoadedHook};
use crate::outbound::client::OutboundError;
use crate::plugin::manifest::{DeclaredHook, Hook};
use crate::registry::config_secret_id;

/// How much of the error about an unreadable answer is quoted, in characters.
const QUOTE_MAX: usize = 200;

/// The answer of a hook's server.
#[derive(Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case", deny_unknown_fields)]
enum HookResponse {
    Proceed {},
    Replace { data: Value },
    Veto { reason: Option<String> },
}

impl Engine {
    /// Asks a hook over HTTP, before `deadline`.
    pub(super) async fn ask_over_http(
        &self,
        loaded: &LoadedHook,
        hook: &DeclaredHook,
        context: &HookContext<'_>,
        data: &Value,
        deadline: Instant,
    ) -> Result<HookReply, HookFailure> {
        let (manifest, at) = (loaded.manifest(), self.ports.clock.now());
        let (Some(url), Some(signing)) = (manifest.hook_url(hook), &loaded.hooked.secret) else {
            return Err(HookFailure::rejected("its requests have no signing secret".to_owned()));
        };
        let config = manifest.config_with_defaults(loaded.hooked.config.clone());
        let (tool, intent) = context.tool.unzip();
        let intent = intent.filter(|intent| !intent.is_empty());
        let mut sent_context = json!({
            "organization_id": context.org, "user_id": context.user, "agent_id": context.agent,
            "channel": context.channel, "tool": tool, "intent": intent, "session_id": context.session,
            "request_id": context.request, "task_id": context.task, "reported": context.reported,
            "plugin": manifest.name, "version": manifest.version, "config": config,
        });
        if let (Some(fields), Some(parameters)) = (sent_context.as_object_mut(), context.parameters) {
            fields.insert("parameters".to_owned(), Value::Object(parameters.clone()));
        }
        let body = json!({ "type": hook.on, "timestamp": at, "context": sent_context, "data": data }).to_string();
        let secret_id = config_secret_id(context.org, &manifest.name, &signing.secret);
        let request = self.signed_post(&url, &self.id_at(at), at, body, &secret_id, signing).await.map_err(|error| {
            tracing::error!(org = %context.org, plugin = %manifest.name, error = %causes(&error), "hook request was not sent");
            let code = match error {
                SignedPostError::Secret(_) => OutcomeCode::Unavailable,
                SignedPostError::Unsigned | SignedPostError::Address => OutcomeCode::Rejected,
            };
            HookFailure { code, message: error.to_string(), detail: None, called: false }
        })?;
        let remaining_bytes = AtomicUsize::new(self.config.limits.answer_max_bytes);
        let answer = self.outbound.send_once(request, &remaining_bytes, deadline).await.map_err(|error| {
            tracing::info!(org = %context.org, plugin = %manifest.name, error = %causes(&error), "hook got no answer");
            let message = error.to_string();
            match error {
                OutboundError::Refused { .. } => HookFailure::rejected(message),
                OutboundError::Timeout { .. } => HookFailure::called(OutcomeCode::Timeout, message),
                OutboundError::Unreachable { .. } | OutboundError::Broken { .. } | OutboundError::TooLarge { .. } => {
                    HookFailure::called(OutcomeCode::Unavailable, message)
                }
            }
        })?;
        read_response(answer.status, &answer.body, (hook.on == Hook::BeforeToolCall).then_some(data))
    }
}

/// The reply in an answer. An empty answer lets the call go on. So does an object of exactly the fields of `data`, which replaces
/// it; `data` is that of a call to come. Other fields would more likely be a misspelt decision.
fn read_response(status: StatusCode, body: &[u8], data: Option<&Value>) -> Result<HookReply, HookFailure> {
    if !status.is_success() {
        let code = if status.is_server_error() { OutcomeCode::Unavailable } else { OutcomeCode::Rejected };
        return Err(HookFailure::called(code, format!("it answered with the status {}", status.as_u16())));
    }
    if body.is_empty() {
        return Ok(HookReply::Proceed);
    }
    // A repeated key could hide a veto.
    let answer = json::read_strictly(body).ok().filter(|(_, problems)| problems.is_empty()).map(|(answer, _)| answer);
    let answer = answer.unwrap_or_default();
    if let (Value::Object(fields), Some(Value::Object(sent))) = (&answer, data)
        && fields.len() == sent.len()
        && fields.keys().all(|name| name != "decision" && sent.contains_key(name))
    {
        return Ok(HookReply::Replace(answer));
    }
    match serde_json::from_value(answer) {
        Ok(HookResponse::Proceed {}) => Ok(HookReply::Proceed),
        Ok(HookResponse::Replace { data }) => Ok(HookReply::Replace(data)),
        Ok(HookResponse::Veto { reason }) => Ok(HookReply::Veto(reason)),
        Err(error) => {
            let error = cut(&error.to_string(), QUOTE_MAX);
            let message = format!("its answer is not a decision ({error}); answer with {{\"decision\": \"proceed\"}}");
            Err(HookFailure::called(OutcomeCode::Unavailable, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(body: &str) -> Result<HookReply, HookFailure> {
        read_response(StatusCode::OK, body.as_bytes(), Some(&json!({ "text": "x", "channel": "c" })))
    }

    #[test]
    fn answer_gives_a_decision() {
        assert_eq!(read_response(StatusCode::NO_CONTENT, b"", None).unwrap(), HookReply::Proceed);
        assert_eq!(ok("").unwrap(), HookReply::Proceed);
        assert_eq!(ok(r#"{"decision": "proceed"}"#).unwrap(), HookReply::Proceed);
        assert_eq!(ok(r#"{"decision": "replace", "data": null}"#).unwrap(), HookReply::Replace(Value::Null));
        assert_eq!(ok(r#"{"decision": "veto"}"#).unwrap(), HookReply::Veto(None));
        assert_eq!(ok(r#"{"decision": "veto", "reason": "no"}"#).unwrap(), HookReply::Veto(Some("no".to_owned())));
    }

    #[test]
    fn answer_of_the_same_fields_is_the_data() {
        let data = json!({ "text": "y", "channel": "c" });
        assert_eq!(ok(&data.to_string()).unwrap(), HookReply::Replace(data));
    }

    #[test]
    fn answer_without_a_decision_is_a_failure() {
        for wrong in [
            "null",
            "{}",
            r#"{"text": "y", "descision": "veto"}"#,
            r#"{"data": {"text": "y"}}"#,
            r#"{"text": "y"}"#,
            r#"{"decision": "veto", "decision": "proceed"}"#,
            "ok",
            r#"{"decision": "allow"}"#,
            r#"{"decision": "replace"}"#,
            r#"{"decision": "proceed", "data": 1}"#,
            r#"{"decision": "veto", "reason": 1}"#,
            r#"{"decision": "veto", "because": "x"}"#,
        ] {
            let failure = ok(wrong).unwrap_err();
            assert!(failure.message.contains("is not a decision") && failure.called, "{wrong}: {failure:?}");
        }
    }

    #[test]
    fn status_other_than_success_is_a_failure() {
        for (status, code) in
            [(302, OutcomeCode::Rejected), (404, OutcomeCode::Rejected), (500, OutcomeCode::Unavailable)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            let failure = read_response(status, br#"{"decision": "proceed"}"#, None).unwrap_err();
            let message = format!("it answered with the status {}", status.as_u16());
            assert_eq!((failure.code, failure.message), (code, message));
        }
    }
}
