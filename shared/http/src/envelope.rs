//! The envelope of every request: a request id, a log line, common headers, and problems in one form.

use std::any::Any;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use overseer_engine::core::error::ProblemCode;
use overseer_engine::core::ids::RequestId;
use overseer_engine::engine::Engine;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use crate::drain::drain;
use crate::{Problem, Routes, guard, oauth};

/// The header of every answer that contains the request id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The routes with their engine, in the envelope.
pub fn service(engine: Arc<Engine>, routes: Routes) -> Router {
    wrap(engine, routes, |routes| routes)
}

/// Like [`service`], for a server on this machine: it answers only if `Host`, and `Origin` if there is one, name this
/// machine with `port`, or the configured `public_url`.
pub fn local_service(engine: Arc<Engine>, routes: Routes, port: u16) -> Router {
    let origins = guard::own_origins(port, engine.config.public_url.as_ref());
    wrap(engine, routes, |routes| routes.layer(from_fn_with_state(origins, guard::check))).layer(from_fn(drain))
}

fn wrap(engine: Arc<Engine>, routes: Routes, guard: impl FnOnce(Routes) -> Routes) -> Router {
    let routes = routes
        .fallback(async || Problem::new(ProblemCode::NotFound, "there is no such route"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                ProblemCode::MethodNotAllowed,
                "the route does not support this method; the header Allow lists those it supports",
            )
        })
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            // The panic hook logged the panic and its location.
            tracing::error!("handler panicked");
            Problem::of_status(axum::http::StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }));
    guard(routes).layer(from_fn_with_state(Arc::clone(&engine), envelope)).with_state(engine)
}

async fn envelope(State(engine): State<Arc<Engine>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let Ok(id) = RequestId::parse(engine.ports.ids.hex(12)) else {
        return axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    request.extensions_mut().insert(id.clone());
    let (method, path) = (request.method().clone(), loggable(request.uri().path()));
    let span = tracing::info_span!("request", request_id = %id);
    let answer = async {
        let mut response = next.run(request).await;
        let problem = response.extensions_mut().remove::<Problem>().or_else(|| unhandled(&response));
        if let Some(problem) = problem {
            response = problem.write(&id, response.headers());
        }
        let status = response.status().as_u16();
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(%method, %path, status, duration_ms, "request answered");
        response
    };
    let mut response = answer.instrument(span).await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The longest logged path, in characters.
const LOGGED_PATH_MAX: usize = 200;

/// The path for the log: truncated, and without the ticket of a connect link, even where the link is mangled.
fn loggable(path: &str) -> String {
    let link = path.to_ascii_lowercase().find("oauth").filter(|_| !path.starts_with(oauth::CALLBACK));
    let public = link.and_then(|at| path.get(..at)).unwrap_or(path);
    let is_cut = link.is_some() || public.chars().nth(LOGGED_PATH_MAX).is_some();
    let public: String = public.chars().take(LOGGED_PATH_MAX).collect();
    let route = if path.starts_with(oauth::START) { "oauth/start/" } else { "" };
    if is_cut { format!("{public}{route}…") } else { public }
}

/// The problem for an error that axum answered itself, as plain text.
fn unhandled(response: &Response) -> Option<Problem> {
    let status = response.status();
    let is_raw = response.extensions().get::<RawResponse>().is_some();
    (!is_raw && (status.is_client_error() || status.is_server_error())).then(|| Problem::of_status(status))
}

/// The machine code of a problem or of a failed outcome. Such a response has it in its extensions, where the host process
/// reads it for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorCode(pub String);

impl ErrorCode {
    pub(crate) fn of(code: impl Display) -> Self {
        Self(code.to_string())
    }
}

/// When the host process has to be done, for example because its runtime will stop it. The host puts it into the extensions
/// of a request where that may be sooner than the time budget of an intent.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub tokio::time::Instant);

/// Marks a response that the envelope must not replace by a problem, whatever its status: a page for people, or the
/// playground's answer in the name of a service.
#[derive(Debug, Clone, Copy)]
pub struct RawResponse;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticket_of_a_link_is_not_logged() {
        for (path, expected) in [
            ("/api/plugin-engine", "/api/plugin-engine"),
            ("/api/plugin-engine/oauth/start/abc", "/api/plugin-engine/oauth/start/…"),
            ("/api/plugin-engine/oauth/start%2Fabc", "/api/plugin-engine/…"),
            ("//api/plugin-engine/OAuth/start/abc", "//api/plugin-engine/…"),
            ("/api/plugin-engine/oauth/callback/slack", "/api/plugin-engine/oauth/callback/slack"),
        ] {
            assert_eq!(loggable(path), expected);
        }
    }

    #[test]
    fn logged_path_is_cut_after_200_characters() {
        assert_eq!(loggable(&format!("/{}", "x".repeat(300))).chars().count(), 201);
    }
}
