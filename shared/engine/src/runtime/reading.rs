//! Reads a service's answer, and says in one vocabulary what went wrong.

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::{Call, Returned, Stopped};
use crate::host::FetchError;
use crate::manifest::{BodyFormat, Data, Effect, Response};
use crate::outbound::{OutboundAnswer, OutboundError};
use crate::outcome::{Failure, OutcomeCode, Success};
use crate::template::{Context, Expression, text_of};

/// The longest text of a service that is passed on in a message, in characters.
const SAID_MAX: usize = 300;

/// What response templates see, if the answer is a success.
pub(super) fn read(
    call: &Call<'_>,
    response: &Response,
    answer: &OutboundAnswer,
    context: Context,
) -> Result<Context, Stopped> {
    let status = answer.status;
    let name = &call.manifest.display_name;
    let body = match response.body {
        BodyFormat::Text => Some(Value::String(String::from_utf8_lossy(&answer.body).into_owned())),
        BodyFormat::Json if answer.body.is_empty() => Some(Value::Null),
        BodyFormat::Json => serde_json::from_slice(&answer.body).ok(),
    };
    if status.is_redirection() {
        let message = format!("{name} redirects to another address, which is not followed");
        return Err(Stopped::failed(OutcomeCode::Unavailable, message, false));
    }
    if body.is_none() && status.is_success() {
        let message = format!("{name} answered with something that is not JSON{}", caution(call));
        return Err(Stopped::failed(OutcomeCode::Unavailable, message, repeatable(call)));
    }
    let context = context
        .with("status", &status.as_u16())
        .with("headers", &header_values(&answer.headers))
        .with("body", &body.unwrap_or(Value::Null));
    let declared = response.failed_when.as_ref().map_or(Ok(false), |expression| expression.holds(&context))?;
    if declared || !status.is_success() {
        return Err(failure(call, response, status, &answer.headers, &context)?.into());
    }
    Ok(context)
}

/// The success that an answer, once read, stands for.
pub(super) fn returned(call: &Call<'_>, response: &Response, read: &Context) -> Returned {
    let data = match &response.data {
        None => read.get("body"),
        Some(Data::Expression(expression)) => expression.evaluate(read)?,
        Some(Data::Template(template)) => template.evaluate(read)?,
    };
    let message = match &response.message {
        Some(text) => text.render(read)?,
        None => format!("{}: {} done", call.manifest.display_name, call.action.name),
    };
    let external_id = match &response.external_id {
        Some(expression) => expression.evaluate(read)?.as_ref().and_then(text_of),
        None => None,
    };
    Ok(Success { message, data: data.unwrap_or(Value::Null), external_id })
}

fn header_values(headers: &HeaderMap) -> Map<String, Value> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), Value::from(value.to_str().ok()?))))
        .collect()
}

fn failure(
    call: &Call<'_>,
    response: &Response,
    status: StatusCode,
    headers: &HeaderMap,
    context: &Context,
) -> Result<Failure, Stopped> {
    let text = |expression: &Option<Expression>| match expression {
        Some(expression) => Ok(expression.evaluate(context)?.as_ref().and_then(text_of)),
        None => Ok::<_, Stopped>(None),
    };
    let (said_code, said) = (text(&response.error.code)?, text(&response.error.message)?);
    let mapped = said_code.as_ref().and_then(|code| response.error.map.get(code)).copied();
    let code = mapped.unwrap_or_else(|| match status {
        StatusCode::UNAUTHORIZED => OutcomeCode::ReconnectRequired,
        StatusCode::TOO_MANY_REQUESTS => OutcomeCode::RateLimited,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => OutcomeCode::Timeout,
        status if status.is_server_error() => OutcomeCode::Unavailable,
        _ => OutcomeCode::Rejected,
    });
    let http = (!status.is_success()).then(|| format!("HTTP {}", status.as_u16()));
    let mut details: Vec<String> = [said_code, said].into_iter().flatten().map(|text| shortened(&text)).collect();
    details.dedup();
    if details.is_empty() {
        details.extend(http);
    }
    let detail = if details.is_empty() { String::new() } else { format!(" ({})", details.join(": ")) };
    let retry_after_s = retry_after(call, headers);
    let name = &call.manifest.display_name;
    let (message, retryable) = match code {
        OutcomeCode::RateLimited => match retry_after_s {
            Some(seconds) => (format!("{name} asks to wait {seconds} s{detail}"), true),
            None => (format!("{name} asks to wait{detail}"), true),
        },
        OutcomeCode::ReconnectRequired => {
            (format!("{name} no longer accepts the account's credential{detail}; connect the account again"), false)
        }
        OutcomeCode::Timeout => (format!("{name} took too long{detail}{}", caution(call)), repeatable(call)),
        OutcomeCode::Unavailable => (format!("{name} failed{detail}{}", caution(call)), repeatable(call)),
        OutcomeCode::NotConnected
        | OutcomeCode::Rejected
        | OutcomeCode::Disabled
        | OutcomeCode::Vetoed
        | OutcomeCode::OutcomeUnknown => (format!("{name} refused{detail}"), false),
    };
    Ok(Failure { code, message, retryable, retry_after_s })
}

/// The failure of a call that had no answer.
pub(super) fn no_answer(call: &Call<'_>, error: &FetchError) -> Stopped {
    let name = &call.manifest.display_name;
    let unavailable = |message: String, retryable| Stopped::failed(OutcomeCode::Unavailable, message, retryable);
    tracing::warn!(plugin = %call.manifest.name, action = %call.action.name, error = %causes(error), "a call had no answer");
    match error {
        FetchError::NotPermitted(_) => unavailable(format!("the plugin is at fault: {error}"), false),
        FetchError::Credential => Stopped::failed(
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
        FetchError::Outbound(OutboundError::Timeout { .. }) => Stopped::failed(
            OutcomeCode::Timeout,
            format!("{name} did not answer in time{}", caution(call)),
            repeatable(call),
        ),
        FetchError::Outbound(OutboundError::Broken { .. }) => {
            unavailable(format!("the connection to {name} broke{}", caution(call)), repeatable(call))
        }
        FetchError::Outbound(OutboundError::TooLarge { .. }) => {
            unavailable(format!("{name} answered with more than is read; ask for less{}", caution(call)), false)
        }
    }
}

fn causes(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Whether sending the same again does nothing twice.
fn repeatable(call: &Call<'_>) -> bool {
    match call.action.effect {
        Effect::Read | Effect::Idempotent => true,
        Effect::Keyed | Effect::Unsafe => false,
    }
}

/// What to add where the action may have happened all the same.
fn caution(call: &Call<'_>) -> &'static str {
    if repeatable(call) { "" } else { "; it may have happened all the same, so look before asking again" }
}

/// Seconds to wait (RFC 9110, 10.2.3): a number, or a date.
fn retry_after(call: &Call<'_>, headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(call.manifest.retry.after_header.as_str())?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    u64::try_from(at.as_second() - call.now.as_second()).ok()
}

/// A service's words, on one line and not too long.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_MAX).collect();
    if text.chars().nth(SAID_MAX).is_some() {
        short.push('…');
    }
    short
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
