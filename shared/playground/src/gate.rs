//! The steps before every stand-in: the body limit, authentication, the switches and the log, in that order.

use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::any;
use serde_json::{Map, Value, json};

use crate::call::{Answer, Call, Fault, Payload};
use crate::log::Received;
use crate::{Mode, Playground, Service, Switch, gmail, notion, slack};

const MOST_BYTES: usize = 8 * 1024 * 1024;
const OVERSIZED_BYTES: usize = 6 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_mins(2);

pub(crate) fn routes() -> Router<Playground> {
    Service::ALL.into_iter().fold(Router::new(), |router, service| {
        let serve = move |State(playground): State<Playground>, request: Request| serve(playground, service, request);
        router.route(&format!("/playground/{service}/{{*path}}"), any(serve))
    })
}

async fn serve(playground: Playground, service: Service, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, MOST_BYTES).await.ok();
    let (answer, pause) = playground.admit(service, &parts, bytes.as_ref());
    if pause {
        tokio::time::sleep(TIMEOUT).await;
    }
    respond(answer)
}

impl Playground {
    /// The answer to a call, and whether it must be delayed by [`TIMEOUT`].
    fn admit(&self, service: Service, parts: &Parts, bytes: Option<&Bytes>) -> (Answer, bool) {
        let now = self.now();
        let state = &mut *self.state();
        let query: Vec<(String, String)> = parts.uri.query().map_or_else(Vec::new, parse_pairs);
        let content = bytes.map(|bytes| parse_body(service, &parts.headers, bytes));
        let token = bearer(&parts.headers);

        let checked = state.grants.check(service, token, now);
        let switch = state.take_switch(service, checked.is_ok());
        let mode = switch.map(|switch| switch.mode);
        let answer = match mode {
            Some(Mode::ExpiredToken) => fault(service, Fault::ExpiredToken),
            Some(Mode::RateLimited) => {
                Answer { retry_after: switch.map(|switch| switch.retry_after), ..fault(service, Fault::RateLimited) }
            }
            Some(Mode::Error) => fault(service, Fault::Internal),
            Some(Mode::Timeout) => Answer::failure(StatusCode::GATEWAY_TIMEOUT, json!({}), ""),
            Some(Mode::Nonsense) => {
                Answer::new(StatusCode::OK, Payload::Html("<!doctype html><p>{\"ok\": tru<b>e</p>"), "")
            }
            Some(Mode::Oversized) => Answer::success(json!({"ok": true, "padding": "x".repeat(OVERSIZED_BYTES)}), ""),
            Some(Mode::Redirect) => {
                Answer::new(StatusCode::TEMPORARY_REDIRECT, Payload::Redirect("http://example.com/"), "")
            }
            Some(Mode::Echo) | None => match (checked, &content) {
                (Err(refusal), _) => fault(service, refusal),
                (Ok(_), None) => fault(service, Fault::TooLarge),
                (Ok(_), Some(Err(_))) => fault(service, Fault::Malformed),
                (Ok(holder), Some(Ok(body))) => {
                    let path = parts.uri.path().strip_prefix(service.base_path()).unwrap_or_default();
                    let call = Call {
                        method: &parts.method,
                        path: path.strip_prefix('/').unwrap_or_default(),
                        query: &query,
                        headers: &parts.headers,
                        body,
                        token: token.unwrap_or_default(),
                        holder,
                        now,
                    };
                    match service {
                        Service::Slack => state.slack.answer(&call, &mut state.grants),
                        Service::Gmail => state.gmail.answer(&call),
                        Service::Notion => state.notion.answer(&call),
                    }
                }
            },
        };
        let answer = match mode {
            Some(Mode::Echo) => {
                let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
                let note = format!("{} (switch: echo)", answer.note);
                answer.noted(note).echo(service, header.unwrap_or_default())
            }
            Some(mode) => answer.noted(format_args!("switch: {}", mode.name())),
            None => answer,
        };

        let received = Received {
            time: now,
            service,
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            body: recorded_body(content, query),
            status: answer.status.as_u16(),
            note: answer.note.clone(),
        };
        state.log.add(received, token);
        (answer, mode == Some(Mode::Timeout))
    }
}

impl crate::State {
    /// Uses up one call of the service's switch. Only `expired_token` works without a valid token.
    fn take_switch(&mut self, service: Service, authenticated: bool) -> Option<Switch> {
        let switch = self.switches.get_mut(&service)?;
        if !authenticated && switch.mode != Mode::ExpiredToken {
            return None;
        }
        switch.calls = switch.calls.saturating_sub(1);
        let taken = *switch;
        if taken.calls == 0 {
            self.switches.remove(&service);
        }
        Some(taken)
    }
}

fn fault(service: Service, fault: Fault) -> Answer {
    match service {
        Service::Slack => slack::fault(fault),
        Service::Gmail => gmail::fault(fault),
        Service::Notion => notion::fault(fault),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn parse_pairs(text: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(text).unwrap_or_default()
}

fn object(pairs: Vec<(String, String)>) -> Value {
    pairs.into_iter().map(|(key, value)| (key, Value::String(value))).collect::<Map<_, _>>().into()
}

/// The parsed body, or its text if it cannot be parsed. Only Slack accepts forms.
fn parse_body(service: Service, headers: &HeaderMap, bytes: &Bytes) -> Result<Value, String> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    if text.trim().is_empty() {
        Ok(Value::Null)
    } else if service == Service::Slack && !kind.contains("json") {
        Ok(object(parse_pairs(&text)))
    } else {
        serde_json::from_slice(bytes).map_err(|_| text.into_owned())
    }
}

fn recorded_body(content: Option<Result<Value, String>>, query: Vec<(String, String)>) -> Value {
    match content {
        Some(Ok(Value::Null)) if !query.is_empty() => object(query),
        Some(Ok(body)) => body,
        Some(Err(text)) => text.into(),
        None => "(more than 8 MiB)".into(),
    }
}

fn respond(answer: Answer) -> Response {
    let mut response = match answer.payload {
        Payload::Json(body) => (answer.status, Json(body)).into_response(),
        Payload::Html(text) => (answer.status, Html(text)).into_response(),
        Payload::Redirect(target) => (answer.status, [(LOCATION, target)]).into_response(),
    };
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
