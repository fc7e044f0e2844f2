//! The part of OAuth in the browser: the consent page, and the redirect with a code or an error.

use std::collections::HashMap;
use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use overseer_pages::escape;
use url::{Host, Url};

use super::{CLIENT_ID, Holder, REQUEST_SECONDS, Request};
use crate::identifier::same_secret;
use crate::page::{OWN_FORMS, document};
use crate::{Playground, Service};

/// Tokens carry their scope, and must stay under 1 KB.
const MOST_SCOPE_BYTES: usize = 500;

pub(super) fn routes(service: Service) -> Router<Playground> {
    let authorize = move |State(playground): State<Playground>, RawQuery(query): RawQuery| async move {
        playground.authorize(service, query.as_deref().unwrap_or_default())
    };
    let consent =
        move |State(playground): State<Playground>, form: Bytes| async move { playground.consent(service, &form) };
    Router::new()
        .route(&format!("/playground/oauth/{service}/authorize"), get(authorize))
        .route(&format!("/playground/oauth/{service}/consent"), post(consent))
}

/// The S256 challenge of a verifier.
pub(super) fn challenge(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

/// Parameters by name; none if one occurs twice.
pub(super) fn parameters(text: &[u8]) -> Option<HashMap<String, String>> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(text).ok()?;
    let count = pairs.len();
    let fields: HashMap<String, String> = pairs.into_iter().collect();
    (fields.len() == count).then_some(fields)
}

impl Playground {
    fn authorize(&self, service: Service, query: &str) -> Response {
        let Some(fields) = parameters(query.as_bytes()) else {
            return problem(service, "A parameter is there twice, or the query cannot be read.");
        };
        let field = |name: &str| fields.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if !field("client_id").is_some_and(|id| same_secret(id, CLIENT_ID)) {
            return problem(service, "The client_id is missing or unknown. The stand-in knows only 'playground'.");
        }
        let Some(target) = field("redirect_uri").and_then(redirect_target) else {
            return problem(
                service,
                "The redirect_uri is missing, or neither https nor http on localhost, 127.0.0.1 or [::1].",
            );
        };
        let state = field("state");
        let refuse =
            |error, description| redirect(&target, &[("error", error), ("error_description", description)], state);

        let person = field("user_scope").filter(|_| service == Service::Slack);
        let app = field("scope").or_else(|| person.is_none().then(|| default_scope(service)));
        let scopes: Vec<(Holder, String)> = [(Holder::App, app), (Holder::Person, person)]
            .into_iter()
            .filter_map(|(holder, scope)| Some((holder, scope?.to_owned())))
            .collect();
        let challenge = field("code_challenge").filter(|challenge| is_challenge(challenge));
        match (field("response_type"), challenge, field("code_challenge_method")) {
            (None, _, _) => refuse("invalid_request", "response_type is missing"),
            (Some(kind), _, _) if kind != "code" => refuse("unsupported_response_type", "response_type must be code"),
            (Some(_), Some(challenge), Some("S256")) if scopes.iter().all(|(_, scope)| is_scope(service, scope)) => {
                let page_scopes = listed(&scopes);
                let now = self.now();
                let request = Request {
                    service,
                    redirect_uri: field("redirect_uri").unwrap_or_default().to_owned(),
                    scopes,
                    state: state.map(str::to_owned),
                    challenge: challenge.to_owned(),
                    expires: now.saturating_add(REQUEST_SECONDS),
                };
                match self.state().grants.add_request(request, now) {
                    Ok(id) => consent_page(service, &id, &page_scopes, &target),
                    Err(_) => refuse("server_error", "no randomness"),
                }
            }
            (Some(_), Some(_), Some("S256")) => {
                refuse("invalid_scope", "a scope is too long, or has a character that is not for scopes")
            }
            (Some(_), _, _) => {
                refuse("invalid_request", "a code_challenge of 43 characters with code_challenge_method=S256 is needed")
            }
        }
    }

    fn consent(&self, service: Service, form: &[u8]) -> Response {
        let fields = parameters(form).unwrap_or_default();
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let now = self.now();
        let mut state = self.state();
        let Some(request) = state.grants.take_request(service, field("request"), now) else {
            return problem(service, "This request is unknown, was answered already, or waited too long. Start again.");
        };
        let Some(target) = redirect_target(&request.redirect_uri) else {
            return problem(service, "The redirect_uri cannot be read.");
        };
        let returned = request.state.clone();
        if field("decision") != "allow" {
            let denied = [("error", "access_denied"), ("error_description", "consent was denied")];
            return redirect(&target, &denied, returned.as_deref());
        }
        match state.grants.code(request, now) {
            Ok(code) => redirect(&target, &[("code", &code)], returned.as_deref()),
            Err(_) => redirect(&target, &[("error", "server_error")], returned.as_deref()),
        }
    }
}

/// A valid redirect URI: https anywhere, http on this machine only; no fragment and no credentials.
fn redirect_target(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_local = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.octets() == [127, 0, 0, 1],
        Host::Ipv6(address) => address.is_loopback(),
    };
    let is_allowed = url.scheme() == "https" || (url.scheme() == "http" && is_local);
    let is_bare = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    (is_allowed && is_bare).then_some(url)
}

fn is_challenge(text: &str) -> bool {
    text.len() == 43 && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
}

/// The characters of RFC 6749; Slack separates scopes with a comma, the others with a space.
fn is_scope(service: Service, text: &str) -> bool {
    let (separator, misplaced) = if service == Service::Slack { (',', ' ') } else { (' ', ',') };
    let is_part = |letter: char| letter.is_ascii_graphic() && !['"', '\\', misplaced].contains(&letter);
    text.len() <= MOST_SCOPE_BYTES && text.chars().all(|letter| letter == separator || is_part(letter))
}

fn default_scope(service: Service) -> &'static str {
    match service {
        Service::Slack => "chat:write,channels:read,channels:history",
        Service::Gmail => "https://www.googleapis.com/auth/gmail.modify",
        Service::Notion => "",
    }
}

fn redirect(target: &Url, fields: &[(&str, &str)], state: Option<&str>) -> Response {
    let mut target = target.clone();
    target
        .query_pairs_mut()
        .extend_pairs(fields.iter().filter(|(_, value)| !value.is_empty()))
        .extend_pairs(state.map(|state| ("state", state)));
    let headers = [(LOCATION, target.to_string()), (CACHE_CONTROL, "no-store".to_owned())];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// The requested scopes, as items of a list.
fn listed(scopes: &[(Holder, String)]) -> String {
    let mut items = String::new();
    for (holder, scope) in scopes {
        let manner = if *holder == Holder::Person { " in your name" } else { "" };
        for name in scope.split([' ', ',']).filter(|name| !name.is_empty()) {
            // Writing to a string cannot fail.
            let _ = write!(items, "<li><code>{}</code>{manner}</li>", escape(name));
        }
    }
    if items.is_empty() { "<li>work in the workspace</li>".to_owned() } else { items }
}

fn consent_page(service: Service, id: &str, scopes: &str, target: &Url) -> Response {
    let title = service.title();
    let body = format!(
        "<h1>Stand-in of {title}</h1><p>Allow Overseer to use the stand-in of {title}?</p><ul>{scopes}</ul>\
         <p>You are then sent back to <code>{}</code>.</p>\
         <form method=\"post\" action=\"/playground/oauth/{service}/consent\">\
         <input type=\"hidden\" name=\"request\" value=\"{}\">\
         <button name=\"decision\" value=\"allow\">Allow</button> \
         <button class=\"second\" name=\"decision\" value=\"deny\">Deny</button></form>",
        escape(&target.origin().ascii_serialization()),
        escape(id),
    );
    // Chrome applies form-action to every redirect after the form, and only the client knows where those lead.
    document(StatusCode::OK, title, &body, None)
}

fn problem(service: Service, text: &str) -> Response {
    let title = service.title();
    let body = format!("<h1>Stand-in of {title}</h1><p>{}</p>", escape(text));
    document(StatusCode::BAD_REQUEST, title, &body, OWN_FORMS)
}
