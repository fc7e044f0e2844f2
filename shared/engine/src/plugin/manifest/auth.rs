//! How a service knows whose call it is, and what its provider of accounts does differently from the standard.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{Manifest, Request, Response, Runtime, yes};
use crate::plugin::template::Expression;

/// How the service knows whose call it is. The host adds the credential; no template ever sees it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    /// It does not ask.
    #[default]
    None,
    /// Each user allows it at the provider (RFC 6749, 4.1); the access token is sent as `Authorization: Bearer` (RFC
    /// 6750).
    Oauth2(Box<Oauth2>),
    /// The organization's own OAuth client gets a token, without any user (RFC 6749, 4.4).
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
    /// Where the user's browser is sent. All URLs here are `https`, unless they are of an address of 127.0.0.0/8.
    pub authorization_url: Url,
    /// What the user's browser is sent with besides, such as `access_type: offline`.
    #[serde(default)]
    pub authorization_params: BTreeMap<String, String>,
    /// What the provider calls itself, if it sends `iss` with its answers (RFC 9207): then every answer must have it.
    pub issuer: Option<String>,
    /// The scopes that the actions need.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The parameter that carries the scopes.
    #[serde(default = "scope")]
    pub scope_parameter: String,
    /// Proves that who asked is who comes back (RFC 7636, S256). `false` only where the provider refuses it.
    #[serde(default = "yes")]
    pub pkce: bool,
    /// How tokens are asked for.
    #[serde(flatten)]
    pub provider: Provider,
    /// Whether a refresh token is good for one use. Decides what is said of one that is refused after an interruption.
    #[serde(default = "yes")]
    pub rotates_refresh_token: bool,
    /// Tells whether the account works, and whose it is.
    pub test: Option<ConnectionTest>,
}

/// OAuth 2 without a user.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCredentials {
    /// The scopes that the actions need.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// How tokens are asked for.
    #[serde(flatten)]
    pub provider: Provider,
    /// Tells whether the account works, and whose it is.
    pub test: Option<ConnectionTest>,
}

/// How a provider gives tokens.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct Provider {
    /// Where tokens are asked for.
    pub token_url: Url,
    /// What tokens are asked for with besides, such as an `audience`.
    #[serde(default)]
    pub token_params: BTreeMap<String, String>,
    /// Headers of every request to the provider, such as a version.
    #[serde(default)]
    pub token_headers: BTreeMap<String, String>,
    /// The form of the body that asks.
    #[serde(default)]
    pub token_request: TokenRequest,
    /// How the client proves itself (RFC 6749, 2.3.1).
    #[serde(default)]
    pub client_authentication: ClientAuthentication,
    /// What stands between two scopes, in requests and answers.
    #[serde(default = "space")]
    pub scope_separator: String,
    /// Where the answer has what, if not where the standard says.
    #[serde(default)]
    pub token_response: TokenResponse,
    /// What the provider's own codes for errors are called in the standard (RFC 6749, 5.2), such as
    /// `invalid_refresh_token: invalid_grant`.
    #[serde(default)]
    pub token_errors: BTreeMap<String, String>,
    /// Seconds before its end at which a token is replaced.
    #[serde(default = "five_minutes")]
    pub refresh_margin_s: u32,
    /// Codes of the service (`response.error.code`) that, as HTTP 401 does, mean that the token is no longer good.
    #[serde(default)]
    pub refused_codes: Vec<String>,
    /// Where tokens are given back (RFC 7009).
    pub revocation_url: Option<Url>,
    /// How the token is given back.
    #[serde(default)]
    pub revocation: Revocation,
}

/// The form of a request for tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenRequest {
    /// A form, as the standard has it.
    #[default]
    Form,
    /// JSON.
    Json,
}

/// How a client proves itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// In the header, which every provider has to take.
    #[default]
    Basic,
    /// In the body.
    Body,
}

/// How a token is given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// As the parameter `token` of the client, as the standard has it.
    #[default]
    Parameter,
    /// As the credential of the request itself.
    Bearer,
}

/// Where the answer to a request for tokens has what. Expressions see the answer as `body`; what is absent is looked for
/// where the standard has it (RFC 6749, 5.1).
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenResponse {
    /// The access token.
    pub access_token: Option<Expression>,
    /// The refresh token.
    pub refresh_token: Option<Expression>,
    /// The seconds for which the access token is good.
    pub expires_in: Option<Expression>,
    /// The scopes that were granted.
    pub scope: Option<Expression>,
    /// What people call the account.
    pub account: Option<Expression>,
}

/// A fixed key.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The header that carries it.
    #[serde(default = "authorization")]
    pub header: String,
    /// What stands before it in the header, with its space.
    #[serde(default)]
    pub prefix: String,
    /// Tells whether the key works, and whose it is.
    pub test: Option<ConnectionTest>,
}

/// A user name and a password.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// Tells whether they work, and whose they are.
    pub test: Option<ConnectionTest>,
}

/// A request that changes nothing and succeeds if the credential is good.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionTest {
    /// The request; its templates see `user` and `now`.
    pub request: Request,
    /// How to read its answer.
    #[serde(default)]
    pub response: Response,
    /// What people call the account; sees what `response` sees.
    pub account: Option<Expression>,
}

impl Auth {
    /// What gives tokens for this kind of credential.
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
            Self::Oauth2(oauth) => &oauth.scopes,
            Self::ClientCredentials(client) => &client.scopes,
            Self::None | Self::ApiKey(_) | Self::Basic(_) => &[],
        }
    }

    /// What tells whether a credential is good.
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

impl Manifest {
    /// Where a credential of the plugin goes and how. One serves only what it was handed over for: a manifest that says
    /// otherwise later does not get it.
    pub(crate) fn audience(&self) -> String {
        let hosts: BTreeSet<&str> = self.hosts().collect();
        let hosts = hosts.into_iter().collect::<Vec<_>>().join(" ");
        let way = match &self.auth {
            Auth::None => "nothing".to_owned(),
            Auth::Oauth2(oauth) => format!("oauth2 of {} {:?}", oauth.authorization_url, oauth.issuer),
            Auth::ClientCredentials(_) => "client_credentials".to_owned(),
            Auth::ApiKey(key) => format!("api_key in {}", key.header.to_ascii_lowercase()),
            Auth::Basic(_) => "basic".to_owned(),
        };
        let provider = self.auth.provider().map(|provider| {
            let back = provider.revocation_url.as_ref().map(Url::as_str).unwrap_or_default();
            format!(" by {} {back}", provider.token_url)
        });
        let provider = provider.unwrap_or_default();
        let base = match &self.runtime {
            Runtime::Http { base_url } => base_url.origin().ascii_serialization(),
            Runtime::Native | Runtime::Container(_) | Runtime::Module(_) => "nowhere".to_owned(),
        };
        format!("{way}{provider} to {base} {hosts}")
    }
}

fn scope() -> String {
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

/// The most scopes that may be asked for.
pub(crate) const SCOPES_MAX: usize = 100;

/// The most characters that they may have together.
pub(crate) const SCOPES_MAX_BYTES: usize = 4096;
