//! The OAuth protocol with a provider (RFC 6749, 7009, 7636), through the one outbound client. Responses that deviate from
//! the standard are normalized here, by the rules of the manifest, before the `oauth2` crate reads them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use oauth2::basic::{BasicClient, BasicErrorResponse, BasicErrorResponseType, BasicTokenResponse};
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken,
    RequestTokenError, Scope, TokenResponse as _, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use url::Url;

use crate::core::error::causes;
use crate::core::json;
use crate::core::redactor::Redactor;
use crate::outbound::client::{Outbound, OutboundAnswer, OutboundError, OutboundRequest};
use crate::outbound::config::{OauthClient, StandIn};
use crate::outbound::credential::{Credential, check_token};
use crate::plugin::manifest::{
    ClientAuthentication, Oauth2, Provider, Revocation, SCOPES_MAX, SCOPES_MAX_BYTES, TokenRequest,
};
use crate::plugin::template::{Context, Expression, text_of};

/// The most bytes that are read of a provider's response.
const RESPONSE_MAX_BYTES: usize = 256 * 1024;
/// The longest account name that is stored, in characters.
const ACCOUNT_NAME_MAX: usize = 255;

/// The tokens that a provider issued.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub access: SecretString,
    pub refresh: Option<SecretString>,
    /// The lifetime of the access token in seconds, if the provider tells.
    pub expires_in_s: Option<i64>,
    /// The scopes that were granted; `None` if they are the requested ones.
    pub scopes: Option<Vec<String>>,
    /// The name that people know the account by, if the response has it.
    pub account: Option<String>,
}

/// Why a provider issued no tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The code or the refresh token is no longer valid (RFC 6749, 5.2).
    #[error("the provider no longer accepts the grant")]
    InvalidGrant,
    /// The provider refused for another reason, with this code.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The provider was not reached or failed, and certainly issued nothing.
    #[error("{0}")]
    Unavailable(String),
    /// The provider may have issued tokens that did not arrive.
    #[error("{0}")]
    Unknown(String),
}

/// A provider, and the client that Overseer uses there.
pub(crate) struct Protocol<'a> {
    outbound: &'a Outbound,
    provider: &'a Provider,
    stand_in: Option<&'a StandIn>,
    client: &'a OauthClient,
    deadline: Instant,
}

/// The client of the `oauth2` crate with a token endpoint.
type TokenClient = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

impl<'a> Protocol<'a> {
    /// The protocol with `provider`, or with its stand-in. Every request ends at `deadline`.
    pub(crate) fn new(
        outbound: &'a Outbound,
        provider: &'a Provider,
        stand_in: Option<&'a StandIn>,
        client: &'a OauthClient,
        deadline: Instant,
    ) -> Self {
        Self { outbound, provider, stand_in, client, deadline }
    }

    /// Exchanges an authorization code (RFC 6749, 4.1.3).
    pub(crate) async fn exchange(
        &self,
        code: &SecretString,
        redirect_uri: &Url,
        verifier: Option<&SecretString>,
    ) -> Result<Tokens, TokenError> {
        let client = self.token_client().set_redirect_uri(RedirectUrl::from_url(redirect_uri.clone()));
        let mut request = client.exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()));
        if let Some(verifier) = verifier {
            request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()));
        }
        let adapter = self.adapter();
        let result = request.request_async(&adapter).await;
        read_tokens(result, adapter)
    }

    /// Exchanges a refresh token for a new access token (RFC 6749, 6).
    pub(crate) async fn refresh(&self, token: &SecretString) -> Result<Tokens, TokenError> {
        let client = self.token_client();
        let token = RefreshToken::new(token.expose_secret().to_owned());
        let request = client.exchange_refresh_token(&token);
        let adapter = self.adapter();
        let result = request.request_async(&adapter).await;
        read_tokens(result, adapter)
    }

    /// Requests a token for the client itself (RFC 6749, 4.4).
    pub(crate) async fn client_credentials(&self, scopes: &[String]) -> Result<Tokens, TokenError> {
        let client = self.token_client();
        let mut request = client.exchange_client_credentials();
        if !scopes.is_empty() {
            request = request.add_scope(Scope::new(scopes.join(&self.provider.scope_separator)));
        }
        let adapter = self.adapter();
        let result = request.request_async(&adapter).await;
        read_tokens(result, adapter)
    }

    fn adapter(&self) -> HttpAdapter<'_> {
        HttpAdapter { protocol: self, account: Mutex::new(None) }
    }

    /// Revokes a credential (RFC 7009): its refresh token, which ends the whole grant, unless the provider wants the access
    /// token as a bearer. The error says why the provider did not revoke it, without the token.
    pub(crate) async fn revoke(&self, credential: &Credential) -> Result<(), String> {
        let refresh = credential.refresh_token.as_ref().filter(|_| self.provider.revocation == Revocation::Parameter);
        self.revoke_token(refresh.unwrap_or(&credential.token)).await
    }

    async fn revoke_token(&self, token: &SecretString) -> Result<(), String> {
        let url = self.stand_in.map(|stand_in| &stand_in.revocation_url).or(self.provider.revocation_url.as_ref());
        let Some(url) = url else { return Err("the provider has no revocation endpoint".to_owned()) };
        let mut headers = HeaderMap::new();
        let body = match self.provider.revocation {
            Revocation::Bearer => {
                headers.insert(AUTHORIZATION, sensitive(&format!("Bearer {}", token.expose_secret()))?);
                BTreeMap::new()
            }
            Revocation::Parameter => self.revocation_form(token, &mut headers)?,
        };
        let response = self.post(url.clone(), headers, &body).await.map_err(|error| {
            tracing::warn!(error = %causes(&error), "token revocation failed");
            error.to_string()
        })?;
        let body = json::read_leniently(&response.body).unwrap_or_default();
        // Slack reports a failure with status 200.
        let failed = body.get("ok") == Some(&Value::Bool(false));
        if response.status.is_success() && !failed {
            return Ok(());
        }
        let redactor = Redactor::new(std::iter::once(token).chain(&self.client.secret));
        let code = body.get("error").and_then(Value::as_str).map(|code| redactor.text(code.to_owned()));
        let code = code.map_or_else(|| "no reason".to_owned(), |code| safe_code(&code));
        Err(format!("the provider answered with HTTP {} ({code})", response.status.as_u16()))
    }

    /// The form of a revocation request (RFC 7009, 2.1). The client authenticates in it or in a header (RFC 6749, 2.3.1).
    fn revocation_form<'t>(
        &'t self,
        token: &'t SecretString,
        headers: &mut HeaderMap,
    ) -> Result<BTreeMap<&'static str, &'t str>, String> {
        let mut form = BTreeMap::from([("token", token.expose_secret())]);
        match (self.provider.client_authentication, &self.client.secret) {
            (ClientAuthentication::Basic, Some(secret)) => {
                let both = format!("{}:{}", form_encoded(&self.client.id), form_encoded(secret.expose_secret()));
                headers.insert(AUTHORIZATION, sensitive(&format!("Basic {}", STANDARD.encode(both)))?);
            }
            (ClientAuthentication::Body, Some(secret)) => {
                form.insert("client_id", &self.client.id);
                form.insert("client_secret", secret.expose_secret());
            }
            (ClientAuthentication::Basic | ClientAuthentication::Body, None) => {
                form.insert("client_id", &self.client.id);
            }
        }
        Ok(form)
    }

    /// Posts fields to the provider, encoded and with the headers as the manifest says.
    async fn post(
        &self,
        url: Url,
        mut headers: HeaderMap,
        fields: &impl Serialize,
    ) -> Result<OutboundAnswer, OutboundError> {
        let (media_type, body) = match self.provider.token_request {
            TokenRequest::Form => ("application/x-www-form-urlencoded", serde_urlencoded::to_string(fields).ok()),
            TokenRequest::Json => ("application/json", serde_json::to_string(fields).ok()),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in &self.provider.token_headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        let body = Bytes::from(body.unwrap_or_default());
        let request = OutboundRequest { method: Method::POST, url, headers, body };
        self.outbound.send(request, &AtomicUsize::new(RESPONSE_MAX_BYTES), self.deadline).await
    }

    fn token_client(&self) -> TokenClient {
        let token_url = self.stand_in.map_or(&self.provider.token_url, |stand_in| &stand_in.token_url);
        let client = BasicClient::new(ClientId::new(self.client.id.clone()))
            .set_token_uri(TokenUrl::from_url(token_url.clone()))
            .set_auth_type(match self.provider.client_authentication {
                ClientAuthentication::Basic => AuthType::BasicAuth,
                ClientAuthentication::Body => AuthType::RequestBody,
            });
        match &self.client.secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned())),
            None => client,
        }
    }

    /// Sends a request of the `oauth2` crate to the provider, and returns the normalized response. Stores the account's name
    /// in `account`.
    async fn send(&self, request: HttpRequest, account: &Mutex<Option<String>>) -> Result<HttpResponse, TokenError> {
        let (parts, body) = request.into_parts();
        let invalid =
            |problem: &str| TokenError::Unavailable(format!("the plugin's token_url cannot be used: {problem}"));
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| invalid("it is no URL"))?;
        let mut headers = parts.headers;
        if let Some(credential) = headers.get_mut(AUTHORIZATION) {
            credential.set_sensitive(true);
        }
        let mut fields: BTreeMap<String, String> =
            serde_urlencoded::from_bytes(&body).map_err(|_| invalid("its form is malformed"))?;
        let secret_fields = ["client_secret", "code", "code_verifier", "refresh_token"].into_iter();
        let secrets: Vec<SecretString> =
            secret_fields.filter_map(|name| Some(fields.get(name)?.as_str().into())).collect();
        let redactor = Redactor::new(secrets.iter().chain(&self.client.secret));
        fields.extend(self.provider.token_params.clone());
        let response = self.post(url, headers, &fields).await.map_err(|error| no_response(&error))?;
        let (status, body) = read_response(&response)?;
        let (status, normalized) = self
            .normalize_response(status, &body, &redactor)
            .ok_or_else(|| TokenError::Unknown("the provider answered with neither a token nor an error".to_owned()))?;
        *account.lock().unwrap_or_else(PoisonError::into_inner) =
            evaluate(self.provider.token_response.account.as_ref(), &body);
        let mut response = HttpResponse::new(serde_json::to_vec(&normalized).unwrap_or_default());
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// A response in the standard form: tokens with status 200 (RFC 6749, 5.1), an error with 400 (5.2). `None` for a
    /// success with neither.
    fn normalize_response(&self, status: StatusCode, body: &Value, redactor: &Redactor) -> Option<(StatusCode, Value)> {
        let shape = &self.provider.token_response;
        let field = |expression: Option<&Expression>, name: &str| {
            evaluate(expression, body).or_else(|| body.get(name).and_then(text_of)).filter(|text| !text.is_empty())
        };
        let access = field(shape.access_token.as_ref(), "access_token");
        let Some(access) = access.filter(|_| status.is_success()) else {
            let own = evaluate(self.provider.token_errors_at.as_ref(), body);
            let code = match own.or_else(|| Some(body.get("error")?.as_str()?.to_owned())) {
                Some(code) => safe_code(&redactor.text(code)),
                None if status.is_success() => return None,
                None => "no_reason".to_owned(),
            };
            let code = self.provider.token_errors.get(&code).cloned().unwrap_or(code);
            return Some((StatusCode::BAD_REQUEST, json!({ "error": code })));
        };
        let mut normalized = Map::new();
        normalized.insert("access_token".to_owned(), access.into());
        normalized.insert("token_type".to_owned(), "bearer".into());
        if let Some(refresh) = field(shape.refresh_token.as_ref(), "refresh_token") {
            normalized.insert("refresh_token".to_owned(), refresh.into());
        }
        // Some providers send the number as text. Zero or less means nothing.
        let seconds = field(shape.expires_in.as_ref(), "expires_in").and_then(|text| text.parse::<f64>().ok());
        if let Some(seconds) = seconds.filter(|seconds| *seconds >= 1.0) {
            let seconds = Duration::from_secs_f64(seconds.min(1e9)).as_secs();
            normalized.insert("expires_in".to_owned(), json!(seconds));
        }
        if let Some(scope) = field(shape.scope.as_ref(), "scope") {
            // Some providers answer with commas though they are asked with spaces; no scope has a comma.
            normalized.insert("scope".to_owned(), scope.replace(',', " ").into());
        }
        Some((StatusCode::OK, normalized.into()))
    }
}

/// The error of a request without a response.
fn no_response(error: &OutboundError) -> TokenError {
    tracing::warn!(error = %causes(error), "no response from provider");
    let message = error.to_string();
    match error {
        OutboundError::Refused { .. } | OutboundError::Unreachable { .. } => TokenError::Unavailable(message),
        OutboundError::Timeout { .. } | OutboundError::Broken { .. } | OutboundError::TooLarge { .. } => {
            TokenError::Unknown(message)
        }
    }
}

/// The status and the JSON object of a response.
fn read_response(response: &OutboundAnswer) -> Result<(StatusCode, Value), TokenError> {
    let status = response.status;
    let failed = || format!("the provider answered with HTTP {}", status.as_u16());
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        return Err(TokenError::Unavailable(failed()));
    }
    // A gateway may send this although the provider behind it has issued tokens.
    if status.is_server_error() {
        return Err(TokenError::Unknown(failed()));
    }
    if let Some(body @ Value::Object(_)) = json::read_leniently(&response.body) {
        return Ok((status, body));
    }
    let message = format!("the provider answered with HTTP {} and no JSON object", status.as_u16());
    // A success has used up the code even if its tokens cannot be read.
    Err(if status.is_success() { TokenError::Unknown(message) } else { TokenError::Unavailable(message) })
}

/// The value of a manifest's expression over a response's body.
fn evaluate(expression: Option<&Expression>, body: &Value) -> Option<String> {
    let value = expression?.evaluate(&Context::default().with("body", body)).ok().flatten();
    value.as_ref().and_then(text_of)
}

/// Sends the requests of the `oauth2` crate, and holds the account's name, which the crate does not read.
struct HttpAdapter<'a> {
    protocol: &'a Protocol<'a>,
    account: Mutex<Option<String>>,
}

impl<'c> AsyncHttpClient<'c> for HttpAdapter<'_> {
    type Error = TokenError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, TokenError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.protocol.send(request, &self.account))
    }
}

/// The tokens of a result of the `oauth2` crate, checked. Names and scopes may be shown, so secrets are redacted in them: a
/// manifest's expression may point at the wrong field.
fn read_tokens(result: TokenResult, adapter: HttpAdapter<'_>) -> Result<Tokens, TokenError> {
    let tokens = result.map_err(token_error)?;
    let access = SecretString::from(tokens.access_token().secret().as_str());
    let refresh = tokens.refresh_token().map(|token| SecretString::from(token.secret().as_str()));
    let issued = || [Some(&access), refresh.as_ref()].into_iter().flatten();
    if issued().any(|token| check_token(token).is_err()) {
        return Err(unreadable_tokens());
    }
    let redactor = Redactor::new(issued().chain(&adapter.protocol.client.secret));
    let scopes = tokens
        .scopes()
        .map(|scopes| limited_scopes(scopes.iter().map(|scope| redactor.text(scope.as_str().to_owned()))));
    let expires_in_s = tokens.expires_in().and_then(|time| i64::try_from(time.as_secs()).ok());
    let account = adapter.account.into_inner().unwrap_or_else(PoisonError::into_inner);
    let account = account.map(|name| shorten_name(&redactor.text(name)));
    Ok(Tokens { access, refresh, expires_in_s, scopes, account })
}

/// The scopes that are stored: no more than a request may name.
fn limited_scopes(scopes: impl Iterator<Item = String>) -> Vec<String> {
    let mut remaining = SCOPES_MAX_BYTES;
    let fitting = scopes.filter(|scope| !scope.is_empty()).take_while(|scope| {
        let fits = scope.len() <= remaining;
        remaining = remaining.saturating_sub(scope.len());
        fits
    });
    fitting.take(SCOPES_MAX).collect()
}

fn unreadable_tokens() -> TokenError {
    TokenError::Unknown("the provider answered with tokens that cannot be read".to_owned())
}

fn token_error(error: RequestTokenError<TokenError, BasicErrorResponse>) -> TokenError {
    match error {
        RequestTokenError::ServerResponse(response) => match response.error() {
            BasicErrorResponseType::InvalidGrant => TokenError::InvalidGrant,
            other @ (BasicErrorResponseType::InvalidClient
            | BasicErrorResponseType::InvalidRequest
            | BasicErrorResponseType::InvalidScope
            | BasicErrorResponseType::UnauthorizedClient
            | BasicErrorResponseType::UnsupportedGrantType
            | BasicErrorResponseType::Extension(_)) => TokenError::Refused(other.to_string()),
        },
        RequestTokenError::Request(error) => error,
        // Their texts may quote the response, with its tokens.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => unreadable_tokens(),
    }
}

/// The result of a request of the `oauth2` crate.
type TokenResult = Result<BasicTokenResponse, RequestTokenError<TokenError, BasicErrorResponse>>;

/// The URL of the provider that a browser is redirected to (RFC 6749, 4.1.1).
pub(crate) fn authorization_url(
    oauth: &Oauth2,
    stand_in: Option<&StandIn>,
    client_id: &str,
    redirect_uri: &Url,
    scopes: &[String],
    state: &SecretString,
    verifier: Option<&SecretString>,
) -> Url {
    let url = stand_in.map_or(&oauth.authorization_url, |stand_in| &stand_in.authorization_url);
    let client = BasicClient::new(ClientId::new(client_id.to_owned())).set_auth_uri(AuthUrl::from_url(url.clone()));
    let redirect_uri = RedirectUrl::from_url(redirect_uri.clone());
    let mut request = client
        .authorize_url(|| CsrfToken::new(state.expose_secret().to_owned()))
        .set_redirect_uri(std::borrow::Cow::Borrowed(&redirect_uri));
    if !scopes.is_empty() {
        let scopes = scopes.join(&oauth.provider.scope_separator);
        request = match oauth.scope_parameter.as_str() {
            "scope" => request.add_scope(Scope::new(scopes)),
            other => request.add_extra_param(other, scopes),
        };
    }
    if let Some(verifier) = verifier {
        let verifier = PkceCodeVerifier::new(verifier.expose_secret().to_owned());
        request = request.set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
    }
    for (name, value) in &oauth.authorization_params {
        request = request.add_extra_param(name, value);
    }
    request.url().0
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "the token cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// A provider's error code, safe to show. A provider may send anything, even what it was sent: a code that is not 1 to 64
/// letters, digits, `_`, `-` or `.` is replaced.
pub(crate) fn safe_code(code: &str) -> String {
    let fits = (1..=64).contains(&code.len());
    let safe = code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if fits && safe { code.to_owned() } else { "an unreadable reason".to_owned() }
}

/// An account's name on one line, cut after [`ACCOUNT_NAME_MAX`] characters.
pub(crate) fn shorten_name(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ACCOUNT_NAME_MAX).collect()
}
