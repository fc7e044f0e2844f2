//! Connecting an account without a browser: with a key, a password, a token or client credentials. For a browser this file
//! hands over to `authorize.rs`.

use std::sync::Arc;

use secrecy::SecretString;
use serde::Serialize;
use tokio::time::Instant;
use tracing::debug_span;
use tracing::field::Empty;

use super::authorize::ConnectLink;
use super::clients;
use super::connect_request::{Connect, check_connect};
use super::new_account::{ConnectTarget, NewAccount};
use super::owner::resolve_owner;
use super::refresh::credential_of;
use super::view::Integration;
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName, UserId};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::outbound::oauth::{TokenError, shorten_name};
use crate::outbound::runtime::{Call, CallError};
use crate::plugin::manifest::{Auth, ConnectionTest, Manifest};

/// The answer to a request to connect.
#[derive(Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Connecting {
    /// The account is connected.
    Connected(Box<Integration>),
    /// The user has to open a link in a browser.
    Link(ConnectLink),
}

/// Where the credential of a new account comes from.
enum CredentialSource {
    /// From the request.
    Request(Credential),
    /// From the provider, once the user has allowed it in a browser.
    Browser,
    /// From the provider, for the client's own id and secret.
    ClientCredentials,
}

impl CredentialSource {
    fn of(auth: &Auth, token: Option<SecretString>, username: Option<String>, password: Option<SecretString>) -> Self {
        match (token, password) {
            (Some(token), _) => Self::Request(Credential::token(token)),
            (None, Some(password)) => Self::Request(Credential { username, ..Credential::token(password) }),
            (None, None) if matches!(auth, Auth::Oauth2(_)) => Self::Browser,
            (None, None) => Self::ClientCredentials,
        }
    }
}

impl Engine {
    /// Connects an account or replaces the credential of a connected one. For a plugin with OAuth and without a token in the
    /// request it returns the link that the user opens in a browser.
    pub async fn connect(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        connect: Connect,
    ) -> Result<Connecting, Error> {
        let span = debug_span!("connect", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            let plugin = self.plugin(&principal.org, plugin).await?;
            let manifest = &plugin.manifest;
            self.must_be_granted(&principal.org, &plugin).await?;
            let user = principal.resolve_user(connect.user_id.clone())?;
            check_connect(manifest, &connect, &self.config.return_to)?;
            let owner = resolve_owner(principal, Some(manifest), connect.owner, Some(user.clone()))?;
            let Connect { token, username, password, alias, scopes, return_to, .. } = connect;
            let target = ConnectTarget { user, owner, alias: alias.unwrap_or_default(), requested_scopes: scopes };
            let deadline = Instant::now() + self.config.limits.budget;
            let (credential, client_id) = match CredentialSource::of(&manifest.auth, token, username, password) {
                CredentialSource::Request(credential) => (credential, None),
                CredentialSource::Browser => {
                    let link = self.create_connect_link(&principal.org, manifest, target, return_to).await?;
                    return Ok(Connecting::Link(link));
                }
                CredentialSource::ClientCredentials => {
                    let scopes = target.requested_scopes.as_deref();
                    let (credential, client_id) =
                        self.client_credentials_grant(&principal.org, manifest, scopes, deadline).await?;
                    (credential, Some(client_id))
                }
            };
            let new = NewAccount { target, credential, client_id, name: None };
            let (engine, org, plugin) = (Arc::clone(self), principal.org.clone(), Arc::clone(&plugin));
            self.run_to_completion(async move {
                let integration = engine.test_and_connect(&org, &plugin.manifest, new, deadline).await?;
                Ok(Connecting::Connected(Box::new(integration)))
            })
            .await
        })
        .await
    }

    /// Tries the credential with the manifest's test, if there is one, and connects the account. A token of an OAuth
    /// provider is not tried: the caller has used it already.
    async fn test_and_connect(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        mut new: NewAccount,
        deadline: Instant,
    ) -> Result<Integration, Error> {
        if !matches!(manifest.auth, Auth::Oauth2(_)) && manifest.auth.test().is_some() {
            let tested = self.test_credential(org, manifest, &new.target.user, &new.credential, deadline).await;
            new.name = tested.map_err(|failure| test_failed(manifest, &failure))?;
        }
        self.connect_account(org, manifest, new).await
    }

    /// Requests the first credential of an account that acts for the organization. Returns it with the id of the client that
    /// it was issued to.
    async fn client_credentials_grant(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        scopes: Option<&[String]>,
        deadline: Instant,
    ) -> Result<(Credential, String), Error> {
        let client = self.client(org, manifest).await?.ok_or_else(|| clients::missing_client(manifest))?;
        let requested_at = self.ports.clock.now();
        let missing = || clients::missing_client(manifest);
        let protocol = self.protocol(manifest, &client, deadline).ok_or_else(missing)?;
        let tokens = protocol.client_credentials(manifest.auth.requested_or_own(scopes)).await;
        let tokens = tokens.map_err(|error| {
            let message = format!("{} issued no token: {error}", manifest.display_name);
            match error {
                TokenError::Refused(_) | TokenError::InvalidGrant => Error::field("", message),
                TokenError::Unavailable(_) | TokenError::Unknown(_) => Error::Unavailable(message),
            }
        })?;
        Ok((credential_of(tokens, requested_at, None), client.id))
    }

    /// Calls the manifest's test with a credential. Returns the account's name, if the service tells it.
    pub(super) async fn test_credential(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        user: &UserId,
        credential: &Credential,
        deadline: Instant,
    ) -> Result<Option<String>, Failure> {
        let Some(action) = manifest.auth.test().and_then(ConnectionTest::action) else {
            return Ok(None);
        };
        let parameters = serde_json::Map::new();
        let now = self.ports.clock.now();
        let config = &self.config_of(org, manifest).await.map_err(|error| {
            tracing::error!(%org, error = %causes(&error), "configuration read failed");
            Failure::new(OutcomeCode::Unavailable, "the plugin's configuration could not be read".to_owned(), true)
        })?;
        let call =
            Call { manifest, action: &action, parameters: &parameters, config, user, now, key: None, until: None };
        let result = self.call_once(&call, Some(credential), deadline).await.result;
        let success = result.map_err(CallError::into_failure)?;
        Ok(success.external_id.map(|name| shorten_name(&name)))
    }

    /// What a credential of the plugin may be used for: which address and hosts, by which sign-in. A credential serves only
    /// the audience that it was connected for; a later manifest with another audience does not get it.
    pub(crate) fn audience(&self, manifest: &Manifest) -> String {
        if self.config.stand_ins.contains_key(&manifest.name) {
            return "a stand-in".to_owned();
        }
        manifest.audience()
    }

    /// Whether the caller's default account at a stand-in is missing or unusable. An account at the real service counts as
    /// usable: it must not be replaced.
    pub async fn wants_stand_in(&self, principal: &Principal, plugin: &PluginName) -> Result<bool, Error> {
        let span = debug_span!("wants_stand_in", org = %principal.org, %plugin, outcome = Empty);
        traced(span, async {
            let user = principal.resolve_user(None)?;
            let plugin = self.plugin(&principal.org, plugin.as_str()).await?;
            let manifest = &plugin.manifest;
            let org = &principal.org;
            let Some(lookup) = self.find_account(org, &user, manifest, None).await? else { return Ok(true) };
            if lookup.accounts.by_alias.values().any(|account| account.audience != self.audience(manifest)) {
                return Ok(false);
            }
            if self.unusable_reason(manifest, &lookup.account, self.ports.clock.now()).is_some() {
                return Ok(true);
            }
            let version = &lookup.account.version;
            let opened = self.open_credential(org, &lookup.accounts, &lookup.alias, &lookup.account, version).await;
            Ok(!matches!(opened, Ok(Some(_))))
        })
        .await
    }
}

/// The error for a credential whose test failed. Nothing was connected.
fn test_failed(manifest: &Manifest, failure: &Failure) -> Error {
    match failure.code {
        OutcomeCode::RateLimited | OutcomeCode::Timeout | OutcomeCode::Unavailable | OutcomeCode::OutcomeUnknown => {
            Error::Unavailable(format!(
                "nothing was connected: the credential could not be tested: {}",
                failure.message
            ))
        }
        OutcomeCode::NotConnected
        | OutcomeCode::ReconnectRequired
        | OutcomeCode::Rejected
        | OutcomeCode::Disabled
        | OutcomeCode::Vetoed => {
            let pointer = match manifest.auth {
                Auth::Basic(_) => "/password",
                Auth::ApiKey(_) | Auth::Oauth2(_) => "/token",
                Auth::ClientCredentials(_) | Auth::None => "",
            };
            Error::field(pointer, format!("was refused by {}: {}", manifest.display_name, failure.message))
        }
    }
}
