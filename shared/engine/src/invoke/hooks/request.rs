//! Asks a hook over HTTP: a signed request, as Standard Webhooks says (<https://www.standardwebhooks.com>), through the one
//! outbound client. It is asked once; nobody knows how often a hook that did not answer was reached.

use std::sync::atomic::AtomicUsize;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::core::error::causes;
use crate::core::outcome::{OutcomeCode, cut};
use crate::engine::Engine;
use crate::events::signing::SignedPostError;
use crate::invoke::hooks::context::{HookContext, HookFailure, HookReply, LoadedHook};
use crate::outbound::client::OutboundError;
use crate::plugin::manifest::DeclaredHook;
use crate::registry::config_secret_id;

/// How much is shown of an answer that does not read, in characters.
const SHOWN_MAX: usize = 200;

/// What a server answers.
#[derive(Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case", deny_unknown_fields)]
enum HookResponse {
    Proceed {},
    Replace { data: Value },
    Veto { reason: Option<String> },
}

impl Engine {
    pub(super) async fn ask_over_http(
        &self,
        ready: &LoadedHook,
        hook: &DeclaredHook,
        moment: &HookContext<'_>,
        data: &Value,
        deadline: Instant,
    ) -> Result<HookReply, HookFailure> {
        let (manifest, at) = (ready.manifest(), self.ports.clock.now());
        let (Some(url), Some(signing)) = (manifest.hook_url(hook), &ready.hooked.secret) else {
            return Err(HookFailure::rejected("it has no secret to sign with".to_owned()));
        };
        let config = manifest.config_with_defaults(ready.hooked.config.clone());
        let (tool, intent) = moment.tool.unzip();
        let intent = intent.filter(|intent| !intent.is_empty());
        let mut context = json!({
            "organization_id": moment.org, "user_id": moment.user, "agent_id": moment.agent, "channel": moment.channel,
            "tool": tool, "intent": intent, "session_id": moment.session, "request_id": moment.request,
            "task_id": moment.task, "reported": moment.reported, "plugin": manifest.name, "version": manifest.version, "config": config,
        });
        if let (Some(context), Some(parameters)) = (context.as_object_mut(), moment.parameters) {
            context.insert("parameters".to_owned(), Value::Object(parameters.clone()));
        }
        let body = json!({ "type": hook.on, "timestamp": at, "context": context, "data": data }).to_string();
        let secret_id = config_secret_id(moment.org, &manifest.name, &signing.secret);
        let request = self.signed_post(&url, &self.id_at(at), at, body, &secret_id, signing).await.map_err(|error| {
            tracing::error!(org = %moment.org, plugin = %manifest.name, error = %causes(&error), "a hook was not asked");
            let code = match error {
                SignedPostError::Secret(_) => OutcomeCode::Unavailable,
                SignedPostError::Unsigned | SignedPostError::Address => OutcomeCode::Rejected,
            };
            HookFailure { code, message: error.to_string(), detail: None, called: false }
        })?;
        let left = AtomicUsize::new(self.config.limits.answer_max_bytes);
        let answer = self.outbound.send_once(request, &left, deadline).await.map_err(|error| {
            tracing::info!(org = %moment.org, plugin = %manifest.name, error = %causes(&error), "a hook did not answer");
            let message = error.to_string();
            match error {
                OutboundError::Refused { .. } => HookFailure::rejected(message),
                OutboundError::Timeout { .. } => HookFailure::called(OutcomeCode::Timeout, message),
                OutboundError::Unreachable { .. } | OutboundError::Broken { .. } | OutboundError::TooLarge { .. } => {
                    HookFailure::called(OutcomeCode::Unavailable, message)
                }
            }
        })?;
        summarize_response(answer.status, &answer.body)
    }
}

/// What an answer says: nothing at all lets it go on.
fn summarize_response(status: StatusCode, body: &[u8]) -> Result<HookReply, HookFailure> {
    if !status.is_success() {
        let code = if status.is_server_error() { OutcomeCode::Unavailable } else { OutcomeCode::Rejected };
        return Err(HookFailure::called(code, format!("it answered with the status {}", status.as_u16())));
    }
    if body.is_empty() {
        return Ok(HookReply::Proceed);
    }
    match serde_json::from_slice(body) {
        Ok(HookResponse::Proceed {}) => Ok(HookReply::Proceed),
        Ok(HookResponse::Replace { data }) => Ok(HookReply::Replace(data)),
        Ok(HookResponse::Veto { reason }) => Ok(HookReply::Veto(reason)),
        Err(error) => {
            let error = cut(&error.to_string(), SHOWN_MAX);
            let message = format!("its answer is no decision ({error}); answer with {{\"decision\": \"proceed\"}}");
            Err(HookFailure::called(OutcomeCode::Unavailable, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_decides_or_is_none() {
        let ok = |body: &str| summarize_response(StatusCode::OK, body.as_bytes());
        assert_eq!(summarize_response(StatusCode::NO_CONTENT, b"").unwrap(), HookReply::Proceed);
        assert_eq!(ok("").unwrap(), HookReply::Proceed);
        assert_eq!(ok(r#"{"decision": "proceed"}"#).unwrap(), HookReply::Proceed);
        assert_eq!(ok(r#"{"decision": "replace", "data": null}"#).unwrap(), HookReply::Replace(Value::Null));
        assert_eq!(ok(r#"{"decision": "veto"}"#).unwrap(), HookReply::Veto(None));
        assert_eq!(ok(r#"{"decision": "veto", "reason": "no"}"#).unwrap(), HookReply::Veto(Some("no".to_owned())));
        for wrong in [
            "null",
            "{}",
            "ok",
            r#"{"decision": "allow"}"#,
            r#"{"decision": "replace"}"#,
            r#"{"decision": "proceed", "data": 1}"#,
            r#"{"decision": "veto", "reason": 1}"#,
            r#"{"decision": "veto", "because": "x"}"#,
        ] {
            let failure = ok(wrong).unwrap_err();
            assert!(failure.message.contains("is no decision") && failure.called, "{wrong}: {failure:?}");
        }
        for (status, code) in
            [(302, OutcomeCode::Rejected), (404, OutcomeCode::Rejected), (500, OutcomeCode::Unavailable)]
        {
            let failure =
                summarize_response(StatusCode::from_u16(status).unwrap(), br#"{"decision": "proceed"}"#).unwrap_err();
            assert_eq!((failure.code, failure.message), (code, format!("it answered with the status {status}")));
        }
    }
}
