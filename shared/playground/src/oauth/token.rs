//! The part of OAuth that clients use: tokens for codes and refresh tokens, and their revocation, in
//! each vendor's dialect.

use std::collections::HashMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::authorization::parameters;
use super::{CLIENT_ID, CLIENT_SECRET, Issued, Refusal, TOKEN_SECONDS};
use crate::identifier::{same_secret, uuid};
use crate::{Playground, Service, notion};

type Fields = HashMap<String, String>;

pub(super) fn routes(service: Service) -> Router<Playground> {
    let token = move |State(playground): State<Playground>, headers: HeaderMap, body: Bytes| async move {
        let issued = playground.exchange(service, &headers, &body);
        answer(service, issued.map(|issued| granted(service, &issued)))
    };
    let revoke = move |State(playground): State<Playground>, headers: HeaderMap, body: Bytes| async move {
        let revoked = playground.revoke(service, &headers, &body);
        let done = if service == Service::Slack { json!({"ok": true, "revoked": true}) } else { json!({}) };
        answer(service, revoked.map(|()| done))
    };
    Router::new()
        .route(&format!("/playground/oauth/{service}/token"), post(token))
        .route(&format!("/playground/oauth/{service}/revoke"), post(revoke))
}

/// 43 to 128 unreserved characters.
pub(super) fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._~".contains(letter))
}

impl Playground {
    fn exchange(&self, service: Service, headers: &HeaderMap, body: &[u8]) -> Result<Issued, Refusal> {
        let fields = read(service, body)?;
        authenticate(service, headers, &fields)?;
        let field = |name: &str| fields.get(name).map(String::as_str);
        let required = |name: &str| field(name).ok_or(Refusal::Malformed);
        let now = self.now();
        let mut state = self.state();
        // Slack takes a code without any grant type.
        let implied = (service == Service::Slack && field("code").is_some()).then_some("authorization_code");
        match field("grant_type").or(implied) {
            Some("authorization_code") => {
                let code = required("code")?;
                state.grants.redeem(service, code, field("redirect_uri"), field("code_verifier"), now)
            }
            Some("refresh_token") => state.grants.refresh(service, required("refresh_token")?, now),
            Some(_) => Err(Refusal::GrantType),
            None => Err(Refusal::Malformed),
        }
    }

    fn revoke(&self, service: Service, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        let fields = read(service, body)?;
        // Google asks for nothing but the token.
        let is_anonymous = !headers.contains_key(AUTHORIZATION) && !fields.contains_key("client_id");
        if service != Service::Gmail || !is_anonymous {
            authenticate(service, headers, &fields)?;
        }
        let token = fields.get("token").ok_or(Refusal::Malformed)?;
        self.state().grants.revoke(service, token);
        Ok(())
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

/// Basic authentication everywhere, or credentials in the body except at Notion, but not both.
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

fn granted(service: Service, Issued { access, refresh, scope }: &Issued) -> Value {
    match service {
        Service::Slack => json!({
            "ok": true, "access_token": access, "token_type": "bot", "scope": scope,
            "bot_user_id": "U0PLAYGRND", "app_id": "A0PLAYGRND",
            "team": {"id": "T0PLAYGRND", "name": "Playground"}, "enterprise": null,
            "is_enterprise_install": false, "authed_user": {"id": "U0PLAYHUMN"},
            "expires_in": TOKEN_SECONDS, "refresh_token": refresh,
        }),
        Service::Gmail => json!({
            "access_token": access, "expires_in": TOKEN_SECONDS, "refresh_token": refresh, "scope": scope,
            "token_type": "Bearer",
        }),
        Service::Notion => json!({
            "access_token": access, "token_type": "bearer", "refresh_token": refresh,
            "bot_id": notion::bot_id(), "workspace_icon": null, "workspace_name": notion::WORKSPACE,
            "workspace_id": uuid("notion workspace"), "duplicated_template_id": null, "owner": notion::owner(),
            "request_id": uuid("notion request"),
        }),
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
            (status, Json(json!({"error": error, "error_description": description}))).into_response()
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
        Refusal::Unavailable => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "There is no randomness."),
    }
}
