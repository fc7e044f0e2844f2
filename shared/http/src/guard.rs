//! Protects the local server from DNS rebinding and cross-site requests: it answers only to its own host names, and not to
//! pages of other sites. Otherwise a page that resolves its own name to 127.0.0.1 could use the server from a browser.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use overseer_engine::core::error::ProblemCode;
use url::Url;

use crate::Problem;

/// The host names of this machine.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The origins of a server on `port` of this machine, and `public`, the origin that the operator configured for browsers.
pub(crate) fn own_origins(port: u16, public: Option<&Url>) -> Arc<[String]> {
    let names = NAMES.iter().map(|name| if port == 80 { (*name).to_owned() } else { format!("{name}:{port}") });
    let public = public.map(|url| url.origin().ascii_serialization());
    names.map(|authority| format!("http://{authority}")).chain(public).collect()
}

pub(crate) async fn check(State(origins): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    match refusal(&origins, request.uri().authority(), request.headers()) {
        Some(detail) => Problem::new(ProblemCode::Forbidden, detail).into_response(),
        None => next.run(request).await,
    }
}

/// Why the request is refused. HTTP/2 names the host in the request's target (RFC 9113, 8.3.1), HTTP/1.1 in the header `Host`,
/// or in both.
fn refusal(origins: &[String], target: Option<&Authority>, headers: &HeaderMap) -> Option<&'static str> {
    let own = |authority: &str| {
        let authorities = origins.iter().filter_map(|origin| origin.split_once("://"));
        authorities.map(|(_, host)| host).any(|host| host.eq_ignore_ascii_case(authority))
    };
    let mut hosts = headers.get_all(HOST).iter();
    let is_named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(own),
        (None, None) => target.is_some(),
        _ => false,
    };
    if !is_named || !target.is_none_or(|target| own(target.as_str())) {
        return Some(
            "the Host header must be localhost, 127.0.0.1 or [::1] with this server's port, or the host of PUBLIC_URL",
        );
    }
    let foreign = |origin: &str| !origins.iter().any(|own| own.eq_ignore_ascii_case(origin));
    if headers.get_all(ORIGIN).iter().any(|origin| origin.to_str().map_or(true, foreign)) {
        return Some("this server does not answer pages of other sites");
    }
    None
}
