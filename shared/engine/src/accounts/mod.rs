//! Accounts at the services of plugins: connected, shown, used, renewed and given back. A credential goes into the vault
//! and is never shown again.

mod authorize;
mod clients;
mod lookup;
mod owner;
mod record;
mod refresh;
mod revoke;
mod state;
mod view;

use std::sync::Arc;

pub use authorize::{
    CONNECTING_TIME, Callback, CallbackOutcome, Complete, ConnectError, ConnectLink, Offer, PARAMETER_MAX_BYTES,
};
pub(crate) use authorize::{PENDING, pending_work};
pub use clients::{ClientInUse, ClientSource, NewClient};
pub(crate) use lookup::{AuthorizedAccount, CredentialCache, not_connected};
pub use owner::OwnerKind;
use owner::owned_by;
pub(crate) use record::AccountLookup;
pub use record::{ACCOUNTS_MAX, LastError};
use record::{Account, Accounts, Change};
use refresh::version_of;
pub use revoke::Disconnected;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
pub use state::{Reason, State};
use tokio::time::Instant;
use url::Url;
pub use view::{AccountSelector, Integration, MakeDefault, PluginStatus, Scopes};

use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids;
use crate::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::core::problem::FieldProblem;
use crate::core::redactor::SECRET_MIN_BYTES;
use crate::engine::Engine;
pub use crate::outbound::credential::TOKEN_MAX_BYTES;
use crate::outbound::credential::check_password;
pub(crate) use crate::outbound::credential::{Credential, check_token};
use crate::outbound::oauth::TokenError;
use crate::outbound::runtime::{Call, CallError};
use crate::plugin::manifest::{Auth, Manifest, SCOPES_MAX, SCOPES_MAX_BYTES, is_scope};
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::TableError;
use crate::ports::vault::SecretId;

/// The longest `returnTo`, in bytes.
const RETURN_TO_MAX_BYTES: usize = 2048;

/// What to connect. Which fields are needed depends on how the plugin signs in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connect {
    /// A token or key: 8 to 16,384 printable ASCII characters. For a plugin with OAuth this takes the place of the
    /// browser.
    #[schemars(with = "Option<String>", length(min = SECRET_MIN_BYTES, max = TOKEN_MAX_BYTES), regex(pattern = "^[!-~]*$"))]
    pub token: Option<SecretString>,
    /// The user name, for a plugin that asks for one.
    pub username: Option<String>,
    /// The password that goes with it.
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// Which of the owner's accounts at the service this is; left out, `default`.
    pub alias: Option<Alias>,
    /// Who connects it. Left out, the user that the API key is bound to.
    pub user_id: Option<UserId>,
    /// Whose it is; left out, the user's.
    pub owner: Option<OwnerKind>,
    /// The scopes to ask for in the place of the plugin's own.
    pub scopes: Option<Vec<String>>,
    /// Where the browser is to come back to, with a code for `connect/complete`.
    #[schemars(with = "Option<String>")]
    pub return_to: Option<Url>,
}

/// What connecting gives.
#[derive(Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Connecting {
    /// The account is connected.
    Connected(Box<Integration>),
    /// The user has to open a link.
    Link(ConnectLink),
}

/// An account that is connected as soon as it is written.
struct Connected {
    integration: Integration,
    event: Event,
}

/// An account that is about to be.
struct NewAccount {
    user: UserId,
    owner: Owner,
    alias: Alias,
    credential: Credential,
    client_id: Option<String>,
    asked: Option<Vec<String>>,
    name: Option<String>,
}

impl Account {
    /// The scopes that it should have.
    fn wanted<'a>(&'a self, manifest: &'a Manifest) -> &'a [String] {
        self.asked.as_deref().unwrap_or_else(|| manifest.auth.scopes())
    }
}

impl Engine {
    /// Connects an account, or replaces the credential of one that is connected; or makes the link by which a browser does
    /// so.
    pub async fn connect(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        connect: Connect,
    ) -> Result<Connecting, Error> {
        let plugin = self.plugin(&principal.org, plugin).await?;
        let manifest = &plugin.manifest;
        self.must_be_granted(&principal.org, &plugin).await?;
        let user = principal.resolve_user(connect.user_id.clone())?;
        self.check_connect(manifest, &connect)?;
        let owner = owned_by(principal, Some(manifest), connect.owner, Some(user.clone()))?;
        let alias = connect.alias.unwrap_or_default();
        let deadline = Instant::now() + self.config.limits.budget;
        let (credential, client_id) = match (connect.token, connect.password) {
            (Some(token), _) => (Credential::token(token), None),
            (None, Some(password)) => (Credential { username: connect.username, ..Credential::token(password) }, None),
            (None, None) if matches!(manifest.auth, Auth::Oauth2(_)) => {
                let whose = (user, owner, alias);
                let link = self.begin(principal, manifest, whose, connect.scopes, connect.return_to).await?;
                return Ok(Connecting::Link(link));
            }
            (None, None) => {
                let scopes = connect.scopes.as_deref();
                let (credential, client_id) =
                    self.client_credentials_grant(&principal.org, manifest, scopes, deadline).await?;
                (credential, Some(client_id))
            }
        };
        let handed_over = matches!(manifest.auth, Auth::Oauth2(_));
        let new = NewAccount { user, owner, alias, credential, client_id, asked: connect.scopes, name: None };
        let (engine, org, plugin) = (Arc::clone(self), principal.org.clone(), Arc::clone(&plugin));
        self.run_to_completion(async move {
            let (manifest, mut new) = (&plugin.manifest, new);
            // Whoever hands over a token of an OAuth provider has tried it; a key is tried here.
            if !handed_over && manifest.auth.test().is_some() {
                let tested = engine.test(&org, manifest, &new.user, &new.credential, deadline).await;
                new.name = tested.map_err(|failure| refused_by(manifest, &failure))?;
            }
            let integration = engine.connect_account(&org, manifest, new).await?;
            Ok(Connecting::Connected(Box::new(integration)))
        })
        .await
    }

    /// Finds what is missing, wrong, or of no use for this kind of sign-in.
    fn check_connect(&self, manifest: &Manifest, connect: &Connect) -> Result<(), Error> {
        let name = &manifest.display_name;
        let (token, basic, oauth) = match manifest.auth {
            Auth::None => return Err(Error::field("", format!("{name} needs no account"))),
            Auth::Oauth2(_) => (true, false, connect.token.is_none()),
            Auth::ApiKey(_) => (true, false, false),
            Auth::Basic(_) => (false, true, false),
            Auth::ClientCredentials(_) => (false, false, false),
        };
        let scopes_fit = oauth || matches!(manifest.auth, Auth::ClientCredentials(_));
        let mut problems = Vec::new();
        let mut problem = |pointer: &str, message: String| problems.push(FieldProblem::new(pointer, message));
        for (pointer, there, fits) in [
            ("/token", connect.token.is_some(), token),
            ("/username", connect.username.is_some(), basic),
            ("/password", connect.password.is_some(), basic),
            ("/scopes", connect.scopes.is_some(), scopes_fit),
            ("/returnTo", connect.return_to.is_some(), oauth),
        ] {
            if there && !fits {
                problem(pointer, format!("is of no use for this way to connect {name}; leave it out"));
            }
        }
        if matches!(manifest.auth, Auth::ApiKey(_)) && connect.token.is_none() {
            problem("/token", "is required and missing".to_owned());
        }
        if basic && connect.username.is_none() {
            problem("/username", "is required and missing".to_owned());
        }
        if basic && connect.password.is_none() {
            problem("/password", "is required and missing".to_owned());
        }
        if let Some(Err(rule)) = connect.token.as_ref().map(check_token) {
            problem("/token", rule);
        }
        if let Some(Err(rule)) = connect.password.as_ref().map(check_password) {
            problem("/password", rule);
        }
        if connect.username.as_ref().is_some_and(|name| ids::free(name).is_err() || name.contains(':')) {
            problem("/username", "must be 1 to 255 bytes of UTF-8 without colons and control characters".to_owned());
        }
        if let Some(scopes) = &connect.scopes {
            if scopes.is_empty() || scopes.len() > SCOPES_MAX {
                problem("/scopes", format!("must be 1 to {SCOPES_MAX} scopes; leave it out for the plugin's own"));
            }
            if scopes.iter().map(String::len).sum::<usize>() > SCOPES_MAX_BYTES {
                problem("/scopes", format!("must have at most {SCOPES_MAX_BYTES} characters together"));
            }
            for (place, _) in scopes.iter().enumerate().filter(|(_, scope)| !is_scope(scope)) {
                problem(&format!("/scopes/{place}"), "is not a scope (RFC 6749, 3.3)".to_owned());
            }
        }
        if connect.owner == Some(OwnerKind::User) && matches!(manifest.auth, Auth::ClientCredentials(_)) {
            problem("/owner", format!("{name} is used in the organization's own name; leave it out"));
        }
        if let Some(url) = &connect.return_to
            && (url.as_str().len() > RETURN_TO_MAX_BYTES || !authorize::may_return_to(&self.config.return_to, url))
        {
            let rule = "must be a URL that the operator allowed (OVERSEER_RETURN_TO), without a user, a fragment and \
                        parameters called code or error, and have at most 2048 bytes";
            problem("/returnTo", rule.to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
    }

    /// A first credential in the organization's own name, and the id of the client that it was given to.
    async fn client_credentials_grant(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        scopes: Option<&[String]>,
        deadline: Instant,
    ) -> Result<(Credential, String), Error> {
        let client = self.client(org, manifest).await?.ok_or_else(|| clients::no_client(manifest))?;
        let asked_at = self.ports.clock.now();
        let no_client = || clients::no_client(manifest);
        let protocol = self.protocol(manifest, &client, deadline).ok_or_else(no_client)?;
        let tokens = protocol.client_credentials(scopes.unwrap_or_else(|| manifest.auth.scopes())).await;
        let tokens = tokens.map_err(|refusal| {
            let message = format!("{} gave no token: {refusal}", manifest.display_name);
            match refusal {
                TokenError::Refused(_) | TokenError::InvalidGrant => Error::field("", message),
                TokenError::Unavailable(_) | TokenError::Unknown(_) => Error::Unavailable(message),
            }
        })?;
        Ok((refresh::credential_of(tokens, asked_at, None), client.id))
    }

    /// Whether a credential works: what people call the account, if the service says.
    async fn test(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        user: &UserId,
        credential: &Credential,
        deadline: Instant,
    ) -> Result<Option<String>, Failure> {
        let Some(action) = manifest.auth.test().and_then(crate::plugin::manifest::ConnectionTest::action) else {
            return Ok(None);
        };
        let parameters = serde_json::Map::new();
        let now = self.ports.clock.now();
        let config = &self.config_of(org, manifest).await.map_err(|error| {
            tracing::error!(%org, error = %causes(&error), "a configuration could not be read");
            Failure::new(OutcomeCode::Unavailable, "the plugin's configuration could not be read".to_owned(), true)
        })?;
        let call =
            Call { manifest, action: &action, parameters: &parameters, config, user, now, key: None, until: None };
        let returned = self.call_once(&call, Some(credential), deadline).await.result;
        let success = returned.map_err(CallError::into_failure)?;
        Ok(success.external_id.map(|name| crate::outbound::oauth::shortened(&name)))
    }

    /// Where a plugin's credential goes and how. A credential serves only what it was handed over for: a manifest that says
    /// otherwise later does not get it.
    pub(crate) fn audience(&self, manifest: &Manifest) -> String {
        if self.config.stand_ins.contains_key(&manifest.name) {
            return "a stand-in".to_owned();
        }
        manifest.audience()
    }

    /// Puts a credential into the vault, and makes the record that names it.
    async fn new_account(&self, org: &OrgId, manifest: &Manifest, new: NewAccount) -> Result<Account, Error> {
        let now = self.ports.clock.now();
        let NewAccount { user, owner, alias, credential, client_id, asked, name } = new;
        let renews = credential.refresh_token.is_some() || matches!(manifest.auth, Auth::ClientCredentials(_));
        let account = Account {
            bound_to: self.audience(manifest),
            secret: self.ports.ids.hex(16),
            version: version_of(1, &self.ports.ids.hex(8)),
            generation: 1,
            client_id,
            granted: credential.scopes.clone(),
            asked,
            name,
            issued_at: now,
            expires_at: credential.expires_at,
            refreshable: renews,
            state: State::Active,
            since: now,
            reason: None,
            lease: None,
            lapsed: Vec::new(),
            interrupted: false,
            trouble: None,
            connected_by: user,
            created_at: now,
            updated_at: now,
            last_used_at: None,
            last_error: None,
        };
        let id = account.secret_id(org, &owner, &manifest.name, &alias);
        // The credential first: a record never names one that is not there.
        self.store_tokens(&id, &account.version, &credential).await?;
        Ok(account)
    }

    /// Makes an account one that can be used.
    async fn connect_account(&self, org: &OrgId, manifest: &Manifest, new: NewAccount) -> Result<Integration, Error> {
        let (owner, alias) = (new.owner.clone(), new.alias.clone());
        let account = self.new_account(org, manifest, new).await?;
        let inserted = self
            .change_accounts(org, &owner, &manifest.name, |accounts| {
                let before = accounts.insert(&alias, account.clone())?;
                let connected = self.connected(org, manifest, accounts, &alias)?;
                let event = connected.event.clone();
                Ok(Change::Tell((connected, before), event))
            })
            .await;
        match inserted {
            Ok((connected, before)) => {
                let before = before.map(|before| before.secret_id(org, &owner, &manifest.name, &alias));
                Ok(self.after_connecting(connected, before).await)
            }
            // Whether it was written is not known: a record that names nothing would be worse than a secret too many.
            Err(error @ Error::Table(TableError::Store(_))) => Err(error),
            Err(error) => {
                let id = account.secret_id(org, &owner, &manifest.name, &alias);
                if let Err(error) = self.ports.vault.delete(&id).await {
                    tracing::error!(%org, error = %causes(&error), "a credential without a record stays in the vault");
                }
                Err(error)
            }
        }
    }

    /// What is shown and told of an account that is about to be connected.
    fn connected(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        accounts: &Accounts,
        alias: &Alias,
    ) -> Result<Connected, Error> {
        let account = accounts.by_alias.get(alias).ok_or(Error::NotFound("account"))?;
        let integration = self.shown(Some(manifest), accounts, alias, account);
        let event = self.event(org, EventKind::IntegrationConnected, &integration);
        Ok(Connected { integration, event })
    }

    /// What follows when an account was connected: the credential that it replaced goes, and everybody hears of it.
    async fn after_connecting(&self, connected: Connected, before: Option<SecretId>) -> Integration {
        let Connected { integration, event } = connected;
        // It is not given back: a provider that knows one grant for each user would take the new tokens, too.
        if let Some(id) = before
            && let Err(error) = self.ports.vault.delete(&id).await
        {
            // Nothing refers to it any more, and it is sealed.
            tracing::error!(org = %id.org, error = %causes(&error), "the credential that was replaced stays in the vault");
        }
        self.publish(event).await;
        integration
    }

    /// Whether the caller's default account at a stand-in is missing or of no use. An account at the real service is
    /// left alone.
    pub async fn wants_stand_in(&self, principal: &Principal, plugin: &PluginName) -> Result<bool, Error> {
        let user = principal.resolve_user(None)?;
        let plugin = self.plugin(&principal.org, plugin.as_str()).await?;
        let manifest = &plugin.manifest;
        let org = &principal.org;
        let Some(found) = self.find(org, &user, manifest, None).await? else { return Ok(true) };
        if found.accounts.by_alias.values().any(|account| account.bound_to != self.audience(manifest)) {
            return Ok(false);
        }
        if self.unusable_reason(manifest, &found.account, self.ports.clock.now()).is_some() {
            return Ok(true);
        }
        let opened = self.open(org, &found.accounts, &found.alias, &found.account, &found.account.version).await;
        Ok(!matches!(opened, Ok(Some(_))))
    }
}

/// What a service said about a credential that was to be connected.
fn refused_by(manifest: &Manifest, failure: &Failure) -> Error {
    match failure.code {
        OutcomeCode::RateLimited | OutcomeCode::Timeout | OutcomeCode::Unavailable | OutcomeCode::OutcomeUnknown => {
            Error::Unavailable(format!("nothing was connected, because it could not be tried: {}", failure.message))
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
