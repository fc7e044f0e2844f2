//! The part of OAuth that clients call: the token endpoint and revocation, in each vendor's dialect.

use std::collections::HashMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::authorization::parameters;
use super::{CLIENT_ID, CLIENT_SECRET, Holder, Pair, Refusal, TOKEN_SECONDS};
use crate::call::set;
use crate::identifier::{same_secret, uuid};
use crate::{Playground, Service, notion, slack};

type Fields = HashMap<String, String>;

pub(super) fn routes(service: Service) -> Router<Playground> {
    let token = move |State(playground): State<Playground>, headers: HeaderMap, body: Bytes| async move {
        answer(service, playground.exchange(service, &headers, &body))
    };
    let router = Router::new().route(&format!("/playground/oauth/{service}/token"), post(token));
    match service {
        // Slack revokes by a method of its API.
        Service::Slack => router,
        Service::Gmail => router.route("/playground/oauth/gmail/revoke", post(revoke_grant)),
        Service::Notion => router.route("/playground/oauth/notion/revoke", post(revoke_token)),
    }
}

/// Google requires only the token, in the form or in the query.
async fn revoke_grant(State(playground): State<Playground>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let token = [&body, query.unwrap_or_default().as_bytes()]
        .into_iter()
        .find_map(|fields| parameters(fields)?.remove("token"));
    let now = playground.now();
    let grants = &mut playground.state().grants;
    let revoked = match token {
        None => Err(Refusal::Malformed),
        Some(token) if grants.accepts(Service::Gmail, &token) => Ok(json!({})),
        Some(token) if grants.revoke(Service::Gmail, &token, now) => Ok(json!({})),
        Some(_) => Err(Refusal::Token),
    };
    answer(Service::Gmail, revoked)
}

/// Notion revokes a known token, and answers an unknown one with success (RFC 7009).
async fn revoke_token(State(playground): State<Playground>, headers: HeaderMap, body: Bytes) -> Response {
    let revoked = read(Service::Notion, &body).and_then(|fields| {
        authenticate(Service::Notion, &headers, &fields)?;
        let token = fields.get("token").ok_or(Refusal::Malformed)?;
        playground.state().grants.revoke(Service::Notion, token, playground.now());
        Ok(json!({"request_id": uuid("notion request")}))
    });
    answer(Service::Notion, revoked)
}

/// 43 to 128 unreserved characters.
pub(super) fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._~".contains(letter))
}

impl Playground {
    fn exchange(&self, service: Service, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
        let fields = read(service, body)?;
        authenticate(service, headers, &fields)?;
        let field = |name: &str| fields.get(name).map(String::as_str);
        let required = |name: &str| field(name).ok_or(Refusal::Malformed);
        let now = self.now();
        let mut state = self.state();
        // Slack accepts a code without a grant type.
        let implied = (service == Service::Slack && field("code").is_some()).then_some("authorization_code");
        match field("grant_type").or(implied) {
            Some("authorization_code") => {
                let code = required("code")?;
                let pairs = state.grants.redeem(service, code, field("redirect_uri"), field("code_verifier"), now)?;
                Ok(granted(service, &pairs))
            }
            Some("refresh_token") => {
                let pair = state.grants.refresh(service, required("refresh_token")?, now)?;
                Ok(refreshed(service, &pair))
            }
            Some(_) => Err(Refusal::GrantType),
            None => Err(Refusal::Malformed),
        }
    }
}

fn read(service: Service, body: &[u8]) -> Result<Fields, Refusal> {
    let fields = match service {
        Service::Slack | Service::Gmail => parameters(body),
        Service::Notion => serde_json::from_slice::<HashMap<String, Value>>(body).ok().map(|fields| {
            let texts = fields.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())));
            texts.collect()
        }),
    };
    fields.ok_or(Refusal::Malformed)
}

/// Checks the client's credentials: Basic authentication, or fields of the body except at Notion, but not both.
fn authenticate(service: Service, headers: &HeaderMap, fields: &Fields) -> Result<(), Refusal> {
    let in_body = fields.get("client_secret").filter(|_| service != Service::Notion);
    let (id, secret) = match (headers.get(AUTHORIZATION), in_body) {
        (Some(_), Some(_)) => return Err(Refusal::Malformed),
        (Some(header), None) => basic(header).ok_or(Refusal::ClientId)?,
        (None, Some(secret)) => (fields.get("client_id").ok_or(Refusal::ClientId)?.clone(), secret.clone()),
        (None, None) => return Err(Refusal::ClientId),
    };
    if !same_secret(&id, CLIENT_ID) {
        return Err(Refusal::ClientId);
    }
    if same_secret(&secret, CLIENT_SECRET) { Ok(()) } else { Err(Refusal::ClientSecret) }
}

fn basic(header: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
}

/// The response to a code. At Slack the person's tokens are in `authed_user`, and the app's are missing if none were
/// requested.
fn granted(service: Service, pairs: &[Pair]) -> Value {
    let mut answer = metadata(service);
    let mut person = json!({"id": slack::PERSON});
    for pair in pairs {
        let target = if pair.holder == Holder::Person { &mut person } else { &mut answer };
        add(target, credentials(service, pair));
    }
    if service == Service::Slack {
        set(&mut answer, "authed_user", person);
    }
    answer
}

/// The response to a refresh token, where even Slack puts a person's tokens at the top.
fn refreshed(service: Service, pair: &Pair) -> Value {
    let mut answer = metadata(service);
    add(&mut answer, credentials(service, pair));
    answer
}

fn credentials(service: Service, pair: &Pair) -> Value {
    let Pair { holder, access, refresh, scope } = pair;
    match (service, holder) {
        (Service::Slack, Holder::App) => json!({
            "access_token": access, "token_type": "bot", "scope": scope, "bot_user_id": slack::USER,
            "expires_in": TOKEN_SECONDS, "refresh_token": refresh,
        }),
        (Service::Slack, Holder::Person) => json!({
            "access_token": access, "token_type": "user", "scope": scope,
            "expires_in": TOKEN_SECONDS, "refresh_token": refresh,
        }),
        (Service::Gmail, _) => json!({
            "access_token": access, "expires_in": TOKEN_SECONDS, "refresh_token": refresh, "scope": scope,
            "token_type": "Bearer",
        }),
        (Service::Notion, _) => json!({"access_token": access, "token_type": "bearer", "refresh_token": refresh}),
    }
}

/// The fields beside the tokens.
fn metadata(service: Service) -> Value {
    match service {
        Service::Slack => json!({
            "ok": true, "app_id": slack::APP, "team": {"id": slack::TEAM, "name": slack::TEAM_NAME},
            "enterprise": null, "is_enterprise_install": false,
        }),
        Service::Gmail => json!({}),
        Service::Notion => json!({
            "bot_id": notion::bot_id(), "workspace_icon": null, "workspace_name": notion::WORKSPACE,
            "workspace_id": uuid("notion workspace"), "duplicated_template_id": null, "owner": notion::owner(),
            "request_id": uuid("notion request"),
        }),
    }
}

fn add(object: &mut Value, fields: Value) {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
}

fn answer(service: Service, outcome: Result<Value, Refusal>) -> Response {
    let mut response = match outcome {
        Ok(body) => Json(body).into_response(),
        Err(refusal) if service == Service::Slack => {
            Json(json!({"ok": false, "error": slack_error(refusal)})).into_response()
        }
        Err(refusal) => {
            let (status, error, description) = standard_error(refusal);
            let mut body = json!({"error": error, "error_description": description});
            if service == Service::Notion {
                set(&mut body, "request_id", uuid("notion request").into());
            }
            (status, Json(body)).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"playground\""));
    }
    response
}

fn slack_error(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::ClientId => "invalid_client_id",
        Refusal::ClientSecret => "bad_client_secret",
        Refusal::Malformed => "invalid_arguments",
        Refusal::GrantType => "invalid_grant_type",
        Refusal::Code | Refusal::Verifier => "invalid_code",
        Refusal::CodeUsed => "code_already_used",
        Refusal::RedirectUri => "bad_redirect_uri",
        Refusal::RefreshToken => "invalid_refresh_token",
        Refusal::Token => "invalid_auth",
        Refusal::Unavailable => "internal_error",
    }
}

fn standard_error(refusal: Refusal) -> (StatusCode, &'static str, &'static str) {
    match refusal {
        Refusal::ClientId => (StatusCode::UNAUTHORIZED, "invalid_client", "The OAuth client was not found."),
        Refusal::ClientSecret => (StatusCode::UNAUTHORIZED, "invalid_client", "The client secret is wrong."),
        Refusal::Malformed => (StatusCode::BAD_REQUEST, "invalid_request", "The request is incomplete or unreadable."),
        Refusal::GrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type", "The grant_type is not supported."),
        Refusal::Code | Refusal::CodeUsed => {
            (StatusCode::BAD_REQUEST, "invalid_grant", "The code is unknown, expired or used.")
        }
        Refusal::RedirectUri => (StatusCode::BAD_REQUEST, "invalid_grant", "The redirect_uri is not the same."),
        Refusal::Verifier => (StatusCode::BAD_REQUEST, "invalid_grant", "The code_verifier does not match."),
        Refusal::RefreshToken => {
            (StatusCode::BAD_REQUEST, "invalid_grant", "The refresh token is unknown, used or revoked.")
        }
        Refusal::Token => (StatusCode::BAD_REQUEST, "invalid_token", "Token expired or revoked"),
        Refusal::Unavailable => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "There is no randomness."),
    }
}
