//! Reads a service's answer, and turns what went wrong into one set of failures.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::Value;

use super::{Call, CallError, CallResult};
use crate::core::effect::Effect;
use crate::core::error::causes;
use crate::core::outcome::{Failure, OutcomeCode, Success};
use crate::core::retry_after::seconds_of;
use crate::outbound::client::OutboundError;
use crate::outbound::host::{FetchError, HostResponse};
use crate::plugin::manifest::{Auth, Data, Response};
use crate::plugin::template::{Context, Expression, TemplateError, text_of};

/// The longest text of a service that a message quotes, in characters.
const QUOTE_MAX: usize = 300;

/// The context of response templates, with the answer in it, if the answer is a success.
pub(super) fn read(
    call: &Call<'_>,
    response: &Response,
    answer: HostResponse,
    context: Context,
) -> Result<Context, CallError> {
    let status = answer.status;
    let name = &call.manifest.display_name;
    if status.is_redirection() {
        let message = format!("{name} redirects to another address, or too often; that is not followed");
        return Err(uncertain(call, OutcomeCode::Unavailable, message, false).into());
    }
    if answer.body.is_none() && status.is_success() {
        let message = format!("{name} answered with a body that is not JSON");
        return Err(uncertain(call, OutcomeCode::Unavailable, message, true).into());
    }
    let context = context
        .with("status", &status.as_u16())
        .with("headers", &answer.headers)
        .with("body", &answer.body.unwrap_or(Value::Null));
    let failed = response.failed_when.as_ref().map_or(Ok(false), |expression| expression.holds(&context));
    let failed = failed.map_err(|error| at_fault(call, &error))?;
    if failed || !status.is_success() {
        return Err(failure(call, response, status, &answer.headers, &context)?.into());
    }
    Ok(context)
}

/// The success, by the response's templates.
pub(super) fn returned(call: &Call<'_>, response: &Response, read: &Context) -> CallResult {
    let data = match &response.data {
        None => read.get("body"),
        Some(Data::Expression(expression)) => expression.evaluate(read).map_err(|error| at_fault(call, &error))?,
        Some(Data::Template(template)) => template.evaluate(read).map_err(|error| at_fault(call, &error))?,
    };
    let message = match &response.message {
        Some(text) => text.render(read).map_err(|error| at_fault(call, &error))?,
        None => format!("{}: {} done", call.manifest.display_name, call.action.name),
    };
    let external_id = value_of(call, response.external_id.as_ref(), read)?.as_ref().and_then(text_of);
    Ok(Success { message, data: data.unwrap_or(Value::Null), external_id })
}

/// The value of an expression about an answer, if there is one.
pub(super) fn value_of(
    call: &Call<'_>,
    expression: Option<&Expression>,
    read: &Context,
) -> Result<Option<Value>, CallError> {
    let value = expression.map(|expression| expression.evaluate(read)).transpose();
    value.map(Option::flatten).map_err(|error| at_fault(call, &error))
}

/// The failure of a template after the service was called: the action may have happened.
pub(super) fn at_fault(call: &Call<'_>, error: &TemplateError) -> CallError {
    uncertain(call, OutcomeCode::Unavailable, format!("the plugin is at fault: {error}"), false).into()
}

fn failure(
    call: &Call<'_>,
    response: &Response,
    status: StatusCode,
    headers: &BTreeMap<String, String>,
    context: &Context,
) -> Result<Failure, CallError> {
    let text = |expression: &Option<Expression>| {
        value_of(call, expression.as_ref(), context).map(|value| value.as_ref().and_then(text_of))
    };
    let (error_code, error_message) = (text(&response.error.code)?, text(&response.error.message)?);
    let mapped = error_code.as_ref().and_then(|code| response.error.map.get(code)).copied();
    let code = mapped.unwrap_or_else(|| match status {
        StatusCode::UNAUTHORIZED => OutcomeCode::ReconnectRequired,
        StatusCode::TOO_MANY_REQUESTS => OutcomeCode::RateLimited,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => OutcomeCode::Timeout,
        status if status.is_server_error() => OutcomeCode::Unavailable,
        _ => OutcomeCode::Rejected,
    });
    let code = match (code, &call.manifest.auth) {
        // Without an account there is none to connect again.
        (OutcomeCode::ReconnectRequired, Auth::None) => OutcomeCode::Rejected,
        (code, _) => code,
    };
    let is_refused_code = call
        .manifest
        .auth
        .provider()
        .is_some_and(|provider| error_code.as_ref().is_some_and(|code| provider.refused_codes.contains(code)));
    let credential_refused =
        code == OutcomeCode::ReconnectRequired && (status == StatusCode::UNAUTHORIZED || is_refused_code);
    let did_nothing = error_code.as_ref().is_some_and(|code| response.error.did_nothing.contains(code));
    let http = (!status.is_success()).then(|| format!("HTTP {}", status.as_u16()));
    let quotes = [error_code, error_message].into_iter().flatten().filter(|text| !text.is_empty());
    let mut details: Vec<String> = quotes.map(|text| shortened(&text)).collect();
    details.dedup();
    if details.is_empty() {
        details.extend(http);
    }
    let detail = if details.is_empty() { String::new() } else { format!(" ({})", details.join(": ")) };
    let retry_after_s = retry_after(call, headers);
    let name = &call.manifest.display_name;
    let failure = match code {
        OutcomeCode::RateLimited => {
            let seconds = retry_after_s.map(|seconds| format!(" {seconds} s")).unwrap_or_default();
            Failure::new(code, format!("{name} asks to wait{seconds}{detail}"), true)
        }
        OutcomeCode::ReconnectRequired => {
            let message =
                format!("{name} no longer accepts the account's credential{detail}; connect the account again");
            Failure::new(code, message, false)
        }
        OutcomeCode::Timeout | OutcomeCode::Unavailable | OutcomeCode::OutcomeUnknown if did_nothing => {
            Failure::new(code, format!("{name} did nothing{detail}"), true)
        }
        OutcomeCode::Timeout => uncertain(call, code, format!("{name} took too long{detail}"), true),
        OutcomeCode::Unavailable => uncertain(call, code, format!("{name} failed{detail}"), true),
        OutcomeCode::NotConnected | OutcomeCode::Rejected | OutcomeCode::Disabled | OutcomeCode::Vetoed => {
            Failure::new(code, format!("{name} refused{detail}"), false)
        }
        OutcomeCode::OutcomeUnknown => uncertain(call, code, format!("{name} does not know the outcome{detail}"), true),
    };
    Ok(Failure { retry_after_s, credential_refused, ..failure })
}

/// The failure of a call that got no answer.
pub(super) fn no_answer(call: &Call<'_>, error: &FetchError) -> CallError {
    let name = &call.manifest.display_name;
    let unavailable = |message: String, retryable| CallError::failed(OutcomeCode::Unavailable, message, retryable);
    tracing::warn!(plugin = %call.manifest.name, action = %call.action.name, error = %causes(error), "call got no answer");
    match error {
        FetchError::NotPermitted(_) => CallError::at_fault(error),
        FetchError::Credential => CallError::failed(
            OutcomeCode::ReconnectRequired,
            format!("{name}'s stored credential cannot be sent: {error}; connect the account again"),
            false,
        ),
        FetchError::Outbound(OutboundError::Refused { host }) => unavailable(
            format!("{host} is at a private or local address; the operator can allow it (OVERSEER_ALLOW_ADDRESSES)"),
            false,
        ),
        FetchError::Outbound(OutboundError::Unreachable { .. }) => {
            unavailable(format!("{name} cannot be reached; nothing was sent"), true)
        }
        FetchError::Outbound(OutboundError::Timeout { .. }) => out_of_time(call),
        FetchError::Outbound(OutboundError::Broken { .. }) => {
            uncertain(call, OutcomeCode::Unavailable, format!("the connection to {name} broke"), true).into()
        }
        FetchError::Outbound(OutboundError::TooLarge { .. }) => {
            let message = format!("{name} answered with more than the limit; request less");
            Failure { of_caller: true, ..uncertain(call, OutcomeCode::Unavailable, message, false) }.into()
        }
    }
}

/// The failure of a call that reached its deadline.
pub(crate) fn out_of_time(call: &Call<'_>) -> CallError {
    let message = format!("{} did not answer in time", call.manifest.display_name);
    uncertain(call, OutcomeCode::Timeout, message, true).into()
}

/// The failure of a call that may have had its effect. `may_help` says whether a retry could succeed. For an action that can
/// be repeated safely the effect does not matter.
fn uncertain(call: &Call<'_>, code: OutcomeCode, message: String, may_help: bool) -> Failure {
    if call.action.effect.is_repeatable() {
        return Failure { unclear: call.action.effect != Effect::Read, ..Failure::new(code, message, may_help) };
    }
    // The service recognises a retry by the key. The caller can retry too, if the key is made of their own.
    let key = call.key.as_ref().filter(|_| may_help);
    let retryable = key.is_some_and(|key| key.of_caller);
    let remedy =
        if retryable { "retry with the same idempotency key" } else { "check whether it happened before a retry" };
    let message = format!("{message}; it may have happened: {remedy}");
    let failure = Failure::new(code, message, retryable);
    Failure { may_have_happened: true, unclear: true, try_again: key.is_some(), ..failure }
}

/// Seconds to wait by the manifest's retry header. Without them a retry has Overseer's own pause.
fn retry_after(call: &Call<'_>, headers: &BTreeMap<String, String>) -> Option<u64> {
    seconds_of(headers.get(&call.manifest.retry.after_header.to_ascii_lowercase())?, call.now)
}

/// A service's text on one line, cut to [`QUOTE_MAX`] characters.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTE_MAX).collect();
    if text.chars().nth(QUOTE_MAX).is_some() {
        short.push('…');
    }
    short
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
