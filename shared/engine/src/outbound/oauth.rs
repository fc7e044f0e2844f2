//! The protocol with a provider of accounts (RFC 6749, 7009, 7636), through the one outbound client. What a provider does
//! differently is brought to the standard form here, so that the `oauth2` crate sees nothing else.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};

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
use crate::core::redactor::Redactor;
use crate::outbound::client::{Outbound, OutboundAnswer, OutboundError, OutboundRequest};
use crate::outbound::config::{OauthClient, StandIn};
use crate::outbound::credential::{Credential, check_token};
use crate::plugin::manifest::{
    ClientAuthentication, Oauth2, Provider, Revocation, SCOPES_MAX, SCOPES_MAX_BYTES, TokenRequest,
};
use crate::plugin::template::{Context, Expression, text_of};

/// The most that is read of an answer to a request for tokens, in bytes.
const ANSWER_MAX_BYTES: usize = 256 * 1024;
/// The longest account name that is kept, in characters.
const ACCOUNT_NAME_MAX: usize = 255;

/// What a provider gave.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub access: SecretString,
    pub refresh: Option<SecretString>,
    /// Seconds for which the access token is good, if the provider says.
    pub expires_in_s: Option<i64>,
    /// What was granted; `None` where it is what was asked for.
    pub scopes: Option<Vec<String>>,
    /// What people call the account, if the answer says.
    pub account: Option<String>,
}

/// Why a provider gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The code or the refresh token is not good any more (RFC 6749, 5.2).
    #[error("the provider no longer accepts the grant")]
    InvalidGrant,
    /// It refused for another reason, which has this code.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// It was not reached or failed, and surely gave nothing.
    #[error("{0}")]
    Unavailable(String),
    /// It may have given something that did not arrive.
    #[error("{0}")]
    Unknown(String),
}

/// A provider, with the client that is known to it.
pub(crate) struct Protocol<'a> {
    outbound: &'a Outbound,
    provider: &'a Provider,
    stand_in: Option<&'a StandIn>,
    client: &'a OauthClient,
    deadline: Instant,
}

/// The client of the `oauth2` crate once it knows where tokens are asked for.
type Client = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

impl<'a> Protocol<'a> {
    /// Talks to `provider`, or to its stand-in, until `deadline`.
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
        let client = self.client().set_redirect_uri(RedirectUrl::from_url(redirect_uri.clone()));
        let mut request = client.exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()));
        if let Some(verifier) = verifier {
            request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()));
        }
        let carrier = HttpAdapter { protocol: self, account: Mutex::new(None) };
        let answer = request.request_async(&carrier).await;
        tokens(answer, carrier)
    }

    /// Exchanges a refresh token for a new access token (RFC 6749, 6).
    pub(crate) async fn refresh(&self, token: &SecretString) -> Result<Tokens, TokenError> {
        let client = self.client();
        let token = RefreshToken::new(token.expose_secret().to_owned());
        let request = client.exchange_refresh_token(&token);
        let carrier = HttpAdapter { protocol: self, account: Mutex::new(None) };
        let answer = request.request_async(&carrier).await;
        tokens(answer, carrier)
    }

    /// Asks in the client's own name (RFC 6749, 4.4).
    pub(crate) async fn client_credentials(&self, scopes: &[String]) -> Result<Tokens, TokenError> {
        let client = self.client();
        let mut request = client.exchange_client_credentials();
        if !scopes.is_empty() {
            request = request.add_scope(Scope::new(scopes.join(&self.provider.scope_separator)));
        }
        let carrier = HttpAdapter { protocol: self, account: Mutex::new(None) };
        let answer = request.request_async(&carrier).await;
        tokens(answer, carrier)
    }

    /// Gives a credential back (RFC 7009): by its refresh token, which ends all of the grant, unless the provider wants the
    /// token that requests carry. The error says why the provider did not take it, without the token.
    pub(crate) async fn give_back(&self, credential: &Credential) -> Result<(), String> {
        let refresh = credential.refresh_token.as_ref().filter(|_| self.provider.revocation == Revocation::Parameter);
        self.revoke(refresh.unwrap_or(&credential.token)).await
    }

    async fn revoke(&self, token: &SecretString) -> Result<(), String> {
        let url = self.stand_in.map(|stand_in| &stand_in.revocation_url).or(self.provider.revocation_url.as_ref());
        let Some(url) = url else { return Err("the provider has no way to give a token back".to_owned()) };
        let mut headers = HeaderMap::new();
        let body = match self.provider.revocation {
            Revocation::Bearer => {
                headers.insert(AUTHORIZATION, sensitive(&format!("Bearer {}", token.expose_secret()))?);
                BTreeMap::new()
            }
            Revocation::Parameter => {
                let mut body = BTreeMap::from([("token", token.expose_secret())]);
                match (self.provider.client_authentication, &self.client.secret) {
                    (ClientAuthentication::Basic, Some(secret)) => {
                        let both =
                            format!("{}:{}", form_encoded(&self.client.id), form_encoded(secret.expose_secret()));
                        headers.insert(AUTHORIZATION, sensitive(&format!("Basic {}", STANDARD.encode(both)))?);
                    }
                    (ClientAuthentication::Body, Some(secret)) => {
                        body.insert("client_id", &self.client.id);
                        body.insert("client_secret", secret.expose_secret());
                    }
                    (ClientAuthentication::Basic | ClientAuthentication::Body, None) => {
                        body.insert("client_id", &self.client.id);
                    }
                }
                body
            }
        };
        let answer = self.post(url.clone(), headers, &body).await.map_err(|error| {
            tracing::warn!(error = %causes(&error), "a token was not given back");
            error.to_string()
        })?;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        // Slack says that it failed with status 200.
        let failed = said.get("ok") == Some(&Value::Bool(false));
        if answer.status.is_success() && !failed {
            return Ok(());
        }
        let striker = Redactor::new(std::iter::once(token).chain(&self.client.secret));
        let code = said.get("error").and_then(Value::as_str).map(|code| striker.text(code.to_owned()));
        let code = code.map_or_else(|| "no reason".to_owned(), |code| plain(&code));
        Err(format!("the provider answered with HTTP {} ({code})", answer.status.as_u16()))
    }

    /// Sends fields to the provider, in the form and with the headers that the manifest wants.
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
        self.outbound.send(request, &AtomicUsize::new(ANSWER_MAX_BYTES), self.deadline).await
    }

    fn client(&self) -> Client {
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

    /// Carries a request of the `oauth2` crate to the provider, and its answer back in the standard form.
    async fn send(&self, request: HttpRequest, account: &Mutex<Option<String>>) -> Result<HttpResponse, TokenError> {
        let (parts, body) = request.into_parts();
        let at_fault = |what: &str| TokenError::Unavailable(format!("the plugin's token_url cannot be asked: {what}"));
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| at_fault("it is no URL"))?;
        let mut headers = parts.headers;
        if let Some(credential) = headers.get_mut(AUTHORIZATION) {
            credential.set_sensitive(true);
        }
        let mut fields: BTreeMap<String, String> =
            serde_urlencoded::from_bytes(&body).map_err(|_| at_fault("its form does not read"))?;
        let sent = ["client_secret", "code", "code_verifier", "refresh_token"].into_iter();
        let sent: Vec<SecretString> = sent.filter_map(|name| Some(fields.get(name)?.as_str().into())).collect();
        let striker = Redactor::new(sent.iter().chain(&self.client.secret));
        fields.extend(self.provider.token_params.clone());
        let answer = self.post(url, headers, &fields).await;
        let answer = answer.map_err(|error| {
            tracing::warn!(error = %causes(&error), "a provider gave no answer");
            let text = error.to_string();
            match error {
                OutboundError::Refused { .. } | OutboundError::Unreachable { .. } => TokenError::Unavailable(text),
                OutboundError::Timeout { .. } | OutboundError::Broken { .. } | OutboundError::TooLarge { .. } => {
                    TokenError::Unknown(text)
                }
            }
        })?;
        let status = answer.status;
        let failed = || format!("the provider answered with HTTP {}", status.as_u16());
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            return Err(TokenError::Unavailable(failed()));
        }
        // A gateway says so, too, when what is behind it has done its work.
        if status.is_server_error() {
            return Err(TokenError::Unknown(failed()));
        }
        let Ok(said @ Value::Object(_)) = serde_json::from_slice::<Value>(&answer.body) else {
            let text = format!("the provider answered with HTTP {} and no JSON object", status.as_u16());
            // A success whose tokens nobody can read has used up the code all the same.
            return Err(if status.is_success() { TokenError::Unknown(text) } else { TokenError::Unavailable(text) });
        };
        let (status, normal) = self
            .normalize_response(status, &said, &striker)
            .ok_or_else(|| TokenError::Unknown("the provider answered with neither a token nor an error".to_owned()))?;
        *account.lock().unwrap_or_else(PoisonError::into_inner) =
            Self::said(self.provider.token_response.account.as_ref(), &said);
        let mut response = HttpResponse::new(serde_json::to_vec(&normal).unwrap_or_default());
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// An answer as the standard has it: tokens with status 200 (RFC 6749, 5.1), an error with 400 (5.2).
    fn normalize_response(&self, status: StatusCode, said: &Value, striker: &Redactor) -> Option<(StatusCode, Value)> {
        let shape = &self.provider.token_response;
        let field = |expression: Option<&Expression>, name: &str| {
            Self::said(expression, said).or_else(|| said.get(name).and_then(text_of)).filter(|text| !text.is_empty())
        };
        let access = field(shape.access_token.as_ref(), "access_token");
        let Some(access) = access.filter(|_| status.is_success()) else {
            let code = match said.get("error").and_then(Value::as_str) {
                Some(code) => plain(&striker.text(code.to_owned())),
                None if status.is_success() => return None,
                None => "no_reason".to_owned(),
            };
            let code = self.provider.token_errors.get(&code).cloned().unwrap_or(code);
            return Some((StatusCode::BAD_REQUEST, json!({ "error": code })));
        };
        let mut normal = Map::new();
        normal.insert("access_token".to_owned(), access.into());
        normal.insert("token_type".to_owned(), "bearer".into());
        if let Some(refresh) = field(shape.refresh_token.as_ref(), "refresh_token") {
            normal.insert("refresh_token".to_owned(), refresh.into());
        }
        // Some providers give the number as text. Zero or less says nothing that can be used.
        let seconds = field(shape.expires_in.as_ref(), "expires_in").and_then(|text| text.parse::<f64>().ok());
        if let Some(seconds) = seconds.filter(|seconds| *seconds >= 1.0) {
            normal
                .insert("expires_in".to_owned(), json!(std::time::Duration::from_secs_f64(seconds.min(1e9)).as_secs()));
        }
        if let Some(scope) = field(shape.scope.as_ref(), "scope") {
            normal.insert("scope".to_owned(), scope.replace(&self.provider.scope_separator, " ").into());
        }
        Some((StatusCode::OK, normal.into()))
    }

    /// What an expression of the manifest finds in an answer.
    fn said(expression: Option<&Expression>, said: &Value) -> Option<String> {
        let value = expression?.evaluate(&Context::default().with("body", said)).ok().flatten();
        value.as_ref().and_then(text_of)
    }
}

/// Carries the requests of the `oauth2` crate, and keeps what it does not look at.
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

fn tokens(answer: TokenResult, carrier: HttpAdapter<'_>) -> Result<Tokens, TokenError> {
    let unreadable = || TokenError::Unknown("the provider answered with tokens that cannot be read".to_owned());
    let tokens = answer.map_err(|error| match error {
        RequestTokenError::ServerResponse(said) => match said.error() {
            BasicErrorResponseType::InvalidGrant => TokenError::InvalidGrant,
            other @ (BasicErrorResponseType::InvalidClient
            | BasicErrorResponseType::InvalidRequest
            | BasicErrorResponseType::InvalidScope
            | BasicErrorResponseType::UnauthorizedClient
            | BasicErrorResponseType::UnsupportedGrantType
            | BasicErrorResponseType::Extension(_)) => TokenError::Refused(other.to_string()),
        },
        RequestTokenError::Request(refusal) => refusal,
        // Neither is to be shown: they may quote the answer.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => unreadable(),
    })?;
    let access = SecretString::from(tokens.access_token().secret().as_str());
    let refresh = tokens.refresh_token().map(|token| SecretString::from(token.secret().as_str()));
    if [Some(&access), refresh.as_ref()].into_iter().flatten().any(|token| check_token(token).is_err()) {
        return Err(unreadable());
    }
    // Names and scopes are shown, and the manifest says where they are: it may be wrong.
    let striker =
        Redactor::new([Some(&access), refresh.as_ref()].into_iter().flatten().chain(&carrier.protocol.client.secret));
    let scopes = tokens.scopes().map(|scopes| {
        // No more than may be asked for is kept.
        let mut left = SCOPES_MAX_BYTES;
        let named = scopes.iter().map(|scope| striker.text(scope.as_str().to_owned()));
        let named = named.filter(|scope| !scope.is_empty());
        let fit = named.take_while(|scope| {
            let fits = scope.len() <= left;
            left = left.saturating_sub(scope.len());
            fits
        });
        fit.take(SCOPES_MAX).collect()
    });
    let expires_in_s = tokens.expires_in().and_then(|time| i64::try_from(time.as_secs()).ok());
    let account = carrier.account.into_inner().unwrap_or_else(PoisonError::into_inner);
    let account = account.map(|name| shortened(&striker.text(name)));
    Ok(Tokens { access, refresh, expires_in_s, scopes, account })
}

/// What the `oauth2` crate makes of an answer.
type TokenResult = Result<BasicTokenResponse, RequestTokenError<TokenError, BasicErrorResponse>>;

/// Where a user's browser is sent to allow it (RFC 6749, 4.1.1).
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

/// A provider's code for an error, safe to show: it could be anything, even what was sent.
pub(crate) fn plain(code: &str) -> String {
    let fits = (1..=64).contains(&code.len());
    let plain = code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if fits && plain { code.to_owned() } else { "an unreadable reason".to_owned() }
}

/// A name on one line and not too long.
pub(crate) fn shortened(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ACCOUNT_NAME_MAX).collect()
}
