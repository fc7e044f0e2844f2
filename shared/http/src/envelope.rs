//! What every request and every answer has: an id, a log line, headers, and problems in one form.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use overseer_engine::core::error::ProblemCode;
use overseer_engine::core::ids::RequestId;
use overseer_engine::engine::Engine;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use crate::{Problem, Routes, guard, oauth};

/// The header that carries the request id on every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Routes over an engine, with everything around them.
pub fn service(engine: Arc<Engine>, routes: Routes) -> Router {
    around(engine, routes, |routes| routes)
}

/// As [`service`], for a server on this machine: it answers only where `Host`, and `Origin` if there is one, name this
/// machine and `port`, or the configured `public_url`.
pub fn local_service(engine: Arc<Engine>, routes: Routes, port: u16) -> Router {
    let origins = guard::own_origins(port, engine.config.public_url.as_ref());
    around(engine, routes, |routes| routes.layer(from_fn_with_state(origins, guard::check)))
}

fn around(engine: Arc<Engine>, routes: Routes, guarded: impl FnOnce(Routes) -> Routes) -> Router {
    let routes = routes
        .fallback(async || Problem::new(ProblemCode::NotFound, "there is no such route"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                ProblemCode::MethodNotAllowed,
                "the route does not know this method; Allow lists those it knows",
            )
        })
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            // The panic itself, with its place, was printed by the panic hook.
            tracing::error!("a handler panicked");
            Problem::of_status(axum::http::StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }));
    guarded(routes).layer(from_fn_with_state(Arc::clone(&engine), envelope)).with_state(engine)
}

async fn envelope(State(engine): State<Arc<Engine>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let Ok(id) = RequestId::parse(engine.ports.ids.hex(12)) else {
        return axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    request.extensions_mut().insert(id.clone());
    let (method, path) = (request.method().clone(), logged(request.uri().path()));
    let span = tracing::info_span!("request", request_id = %id);
    let answered = async {
        let mut response = next.run(request).await;
        let problem = response.extensions_mut().remove::<Problem>().or_else(|| unhandled(&response));
        if let Some(problem) = problem {
            response = problem.write(&id, response.headers());
        }
        let status = response.status().as_u16();
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(%method, %path, status, duration_ms, "{method} {path} {status}");
        response
    };
    let mut response = answered.instrument(span).await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The longest path that is logged, in characters.
const LOGGED_MAX: usize = 200;

/// A path as the log has it: not too long, and without the secret of a link to connect, also where the link is mangled.
fn logged(path: &str) -> String {
    let link = path.to_ascii_lowercase().find("oauth").filter(|_| !path.starts_with(oauth::CALLBACK));
    let shown = link.and_then(|at| path.get(..at)).unwrap_or(path);
    let cut = link.is_some() || shown.chars().nth(LOGGED_MAX).is_some();
    let shown: String = shown.chars().take(LOGGED_MAX).collect();
    let kind = if path.starts_with(oauth::START) { "oauth/start/" } else { "" };
    if cut { format!("{shown}{kind}…") } else { shown }
}

/// An error that axum answered by itself, as text.
fn unhandled(response: &Response) -> Option<Problem> {
    let status = response.status();
    let own = response.extensions().get::<RawResponse>().is_some();
    (!own && (status.is_client_error() || status.is_server_error())).then(|| Problem::of_status(status))
}

/// The machine code of a problem, or of an outcome that failed: in the extensions of such an answer, for whoever counts
/// answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorCode(pub String);

impl ErrorCode {
    pub(crate) fn of(code: &impl Serialize) -> Self {
        let name = serde_json::to_value(code).unwrap_or_default();
        Self(name.as_str().unwrap_or_default().to_owned())
    }
}

/// When whoever runs the handlers has to be done: in the extensions of a request, where that may be sooner than the
/// budget of an intent.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub tokio::time::Instant);

/// Marks an answer that is to leave as it is whatever its status: a page for a person, or what the playground says in a
/// vendor's name.
#[derive(Debug, Clone, Copy)]
pub struct RawResponse;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_is_logged_however_it_is_mangled() {
        for (path, shown) in [
            ("/api/plugin-engine", "/api/plugin-engine"),
            ("/api/plugin-engine/oauth/start/abc", "/api/plugin-engine/oauth/start/…"),
            ("/api/plugin-engine/oauth/start%2Fabc", "/api/plugin-engine/…"),
            ("//api/plugin-engine/OAuth/start/abc", "//api/plugin-engine/…"),
            ("/api/plugin-engine/oauth/callback/slack", "/api/plugin-engine/oauth/callback/slack"),
        ] {
            assert_eq!(logged(path), shown);
        }
        assert_eq!(logged(&format!("/{}", "x".repeat(300))).chars().count(), 201);
    }
}
