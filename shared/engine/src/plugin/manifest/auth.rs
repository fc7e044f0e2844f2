//! How calls authenticate to a service, and where its OAuth provider deviates from the standard.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{Action, Request, Response, ScopeList, default_true};
use crate::core::ids::ActionName;
use crate::plugin::template::Expression;

/// How calls authenticate to the service. The host adds the credential; no template ever sees it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    /// The service needs no credential.
    #[default]
    None,
    /// Each user consents at the provider (RFC 6749, 4.1). The access token is sent as `Authorization: Bearer` (RFC 6750).
    Oauth2(Box<Oauth2>),
    /// The organization's own OAuth client gets a token, without a user (RFC 6749, 4.4).
    ClientCredentials(Box<ClientCredentials>),
    /// A fixed key.
    ApiKey(Box<ApiKey>),
    /// A user name and a password (RFC 7617).
    Basic(Box<Basic>),
}

/// OAuth 2 with a user's consent.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oauth2 {
    /// The page at which the user consents. All URLs here are `https`, unless they are of an address of 127.0.0.0/8.
    pub authorization_url: Url,
    /// Further parameters of the authorization request, such as `access_type: offline`.
    #[serde(default)]
    pub authorization_params: BTreeMap<String, String>,
    /// The provider's issuer identifier, if it sends `iss` with its callbacks (RFC 9207). If set, every callback must have it.
    pub issuer: Option<String>,
    /// The scopes that the actions need.
    #[serde(default)]
    pub scopes: ScopeList,
    /// The parameter that carries the scopes.
    #[serde(default = "scope_parameter")]
    pub scope_parameter: String,
    /// Whether to use PKCE (RFC 7636, S256). `false` only if the provider refuses it.
    #[serde(default = "default_true")]
    pub pkce: bool,
    /// How to request tokens.
    #[serde(flatten)]
    pub provider: Provider,
    /// Whether a refresh token can be used only once. Decides the message when one is refused after an interrupted refresh.
    #[serde(default = "default_true")]
    pub rotates_refresh_token: bool,
    /// Checks that the account works, and names it.
    pub test: Option<ConnectionTest>,
}

/// OAuth 2 without a user.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCredentials {
    /// The scopes that the actions need.
    #[serde(default)]
    pub scopes: ScopeList,
    /// How to request tokens.
    #[serde(flatten)]
    pub provider: Provider,
    /// Checks that the account works, and names it.
    pub test: Option<ConnectionTest>,
}

/// How to request tokens from a provider.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct Provider {
    /// The token endpoint.
    pub token_url: Url,
    /// Further parameters of every token request, such as an `audience`.
    #[serde(default)]
    pub token_params: BTreeMap<String, String>,
    /// Headers of every request to the provider, such as a version.
    #[serde(default)]
    pub token_headers: BTreeMap<String, String>,
    /// The format of the request's body.
    #[serde(default)]
    pub token_request: TokenRequest,
    /// How the client authenticates (RFC 6749, 2.3.1).
    #[serde(default)]
    pub client_authentication: ClientAuthentication,
    /// The separator of scopes, in requests and responses.
    #[serde(default = "space")]
    pub scope_separator: String,
    /// Where the response has its values, if not where the standard says.
    #[serde(default)]
    pub token_response: TokenResponse,
    /// The standard error code (RFC 6749, 5.2) for each of the provider's own codes, such as
    /// `invalid_refresh_token: invalid_grant`.
    #[serde(default)]
    pub token_errors: BTreeMap<String, String>,
    /// Where the response has the provider's own code, if not in `error`. The expression sees the response as `body`.
    pub token_errors_at: Option<Expression>,
    /// How many seconds before it expires a token is refreshed: at most 3,600.
    #[serde(default = "five_minutes")]
    pub refresh_margin_s: u32,
    /// Error codes of the service (`response.error.code`) that mean the same as HTTP 401: the token is no longer valid.
    #[serde(default)]
    pub refused_codes: Vec<String>,
    /// The revocation endpoint (RFC 7009).
    pub revocation_url: Option<Url>,
    /// How the token is sent to the revocation endpoint.
    #[serde(default)]
    pub revocation: Revocation,
}

/// The format of a token request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenRequest {
    /// A form, as in the standard.
    #[default]
    Form,
    /// JSON.
    Json,
}

/// How a client authenticates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// In the header, which every provider has to support.
    #[default]
    Basic,
    /// In the body.
    Body,
}

/// How a token is sent to the revocation endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// As the parameter `token` with the client's credentials, as in the standard.
    #[default]
    Parameter,
    /// As the credential of the request itself.
    Bearer,
}

/// Where the response to a token request has its values. Expressions see the response as `body`. Values without an
/// expression are read where the standard has them (RFC 6749, 5.1).
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenResponse {
    /// The access token.
    pub access_token: Option<Expression>,
    /// The refresh token.
    pub refresh_token: Option<Expression>,
    /// The lifetime of the access token, in seconds.
    pub expires_in: Option<Expression>,
    /// The scopes that were granted.
    pub scope: Option<Expression>,
    /// The account's name for people.
    pub account: Option<Expression>,
}

/// A fixed key.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The header that carries it.
    #[serde(default = "authorization")]
    pub header: String,
    /// The text before it in the header, with its space.
    #[serde(default)]
    pub prefix: String,
    /// Checks that the key works, and names its account.
    pub test: Option<ConnectionTest>,
}

/// A user name and a password.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// Checks that they work, and names their account.
    pub test: Option<ConnectionTest>,
}

/// A request that changes nothing and succeeds if the credential is valid.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionTest {
    /// The request; its templates see `user` and `now`.
    pub request: Request,
    /// How to read its response.
    #[serde(default)]
    pub response: Response,
    /// The account's name for people; sees what `response` sees.
    pub account: Option<Expression>,
}

impl ConnectionTest {
    /// The test as an action, so that it is sent and read like one. Always `Some`: the name is valid.
    pub(crate) fn action(&self) -> Option<Action> {
        Some(Action {
            request: Some(self.request.clone()),
            response: Response { external_id: self.account.clone(), ..self.response.clone() },
            ..Action::reading(ActionName::parse("connection_test").ok()?)
        })
    }
}

impl Auth {
    /// The provider of tokens, for credentials that are tokens.
    pub fn provider(&self) -> Option<&Provider> {
        match self {
            Self::Oauth2(oauth) => Some(&oauth.provider),
            Self::ClientCredentials(client) => Some(&client.provider),
            Self::None | Self::ApiKey(_) | Self::Basic(_) => None,
        }
    }

    /// The scopes that the actions need.
    pub fn scopes(&self) -> &[String] {
        match self {
            Self::Oauth2(oauth) => oauth.scopes.names(),
            Self::ClientCredentials(client) => client.scopes.names(),
            Self::None | Self::ApiKey(_) | Self::Basic(_) => &[],
        }
    }

    /// The scopes to ask the provider for: those that the caller requested, or else those that the actions need.
    pub fn requested_or_own<'a>(&'a self, requested: Option<&'a [String]>) -> &'a [String] {
        requested.unwrap_or_else(|| self.scopes())
    }

    /// The request that checks a credential.
    pub fn test(&self) -> Option<&ConnectionTest> {
        match self {
            Self::Oauth2(oauth) => oauth.test.as_ref(),
            Self::ClientCredentials(client) => client.test.as_ref(),
            Self::ApiKey(key) => key.test.as_ref(),
            Self::Basic(basic) => basic.test.as_ref(),
            Self::None => None,
        }
    }
}

fn scope_parameter() -> String {
    "scope".to_owned()
}

fn space() -> String {
    " ".to_owned()
}

fn authorization() -> String {
    "authorization".to_owned()
}

fn five_minutes() -> u32 {
    300
}

/// The most scopes that Overseer requests.
pub(crate) const SCOPES_MAX: usize = 100;

/// The most bytes that requested scopes may have together.
pub(crate) const SCOPES_MAX_BYTES: usize = 4096;
