//! The way of a browser to the provider (RFC 6749, 4.1; RFC 7636; RFC 9700): the link, the consent page and the click.
//! `callback.rs` has the way back.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tracing::debug_span;
use tracing::field::Empty;
use url::Url;

use super::attempt::{
    CONNECTING_TIME, ConnectAttempt, ConnectError, PendingAuthorization, hash, seal_verifier, with_error,
};
use super::clients::missing_client;
use super::new_account::ConnectTarget;
use super::record::accounts_in;
use crate::core::error::Error;
use crate::core::ids::{Alias, OrgId, Owner, UserId};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::outbound::oauth::authorization_url;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, NewItem, Read, TableError, Version};
use crate::storage::keys;

/// The link for a user who wants to connect an account.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectLink {
    /// The URL that the user opens in a browser.
    pub connect_url: Url,
    /// When the link expires.
    pub expires_at: Timestamp,
}

/// What the consent page shows before the user clicks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// The organization that the account is connected in.
    pub org: OrgId,
    /// The user who asked for the link.
    pub user: UserId,
    /// The owner of the account.
    pub owner: Owner,
    /// The plugin's display name.
    pub plugin: String,
    /// The account's alias.
    pub alias: Alias,
    /// The scopes that the provider will be asked for.
    pub scopes: Vec<OfferedScope>,
    /// The provider's host, where the browser goes next.
    pub host: String,
}

impl Offer {
    /// Identifies everything that the page shows. The user's click names it, so that it agrees to nothing else.
    pub fn fingerprint(&self) -> Result<String, Error> {
        serde_json::to_vec(self).map(|shown| sha256(&shown)).map_err(Error::internal)
    }
}

/// A scope that the provider will be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OfferedScope {
    /// Its name at the provider.
    pub name: String,
    /// What it allows, if the plugin says so.
    pub description: Option<String>,
}

impl Engine {
    /// Makes the link that a user opens to connect an account, and stores the attempt under the hash of its ticket.
    pub(super) async fn create_connect_link(
        self: &Arc<Self>,
        org: &OrgId,
        manifest: &Manifest,
        target: ConnectTarget,
        return_to: Option<Url>,
    ) -> Result<ConnectLink, Error> {
        let (Some(base), Some(redirect_uri)) = (&self.config.public_url, self.redirect_uri(org, &manifest.name)) else {
            let message = "this Overseer does not know its own address, so no browser can come back to it; the operator sets \
                 PUBLIC_URL";
            return Err(Error::field("", message));
        };
        let client = self.client(org, manifest).await?.ok_or_else(|| missing_client(manifest))?;
        let ConnectTarget { user, owner, alias, requested_scopes } = target;
        let key = keys::integrations(org, &owner, &manifest.name);
        let item = self.ports.table.get(&key, Read::Eventual).await?;
        accounts_in(item.as_ref(), &owner, &manifest.name)?.check_room(&alias)?;
        let ticket = SecretString::from(self.ports.ids.hex(32));
        let expires_at = self.ports.clock.now() + CONNECTING_TIME;
        let attempt = ConnectAttempt {
            until: expires_at,
            org: org.clone(),
            user,
            owner,
            plugin: manifest.name.clone(),
            alias,
            requested_scopes,
            audience: self.audience(manifest),
            client_id: client.id,
            redirect_uri,
            return_to,
        };
        let base = base.as_str().trim_end_matches('/');
        let connect_url = format!("{base}/api/plugin-engine/oauth/start/{}", ticket.expose_secret());
        let connect_url = Url::parse(&connect_url).map_err(Error::internal)?;
        let mut item = NewItem::new(keys::ticket(&hash(&ticket)), &attempt)?;
        // The callback deletes the ticket, and it may come as long after the click as the click after the link.
        item.expires_at = Some(expires_at + CONNECTING_TIME);
        self.ports.table.put(item, Condition::Absent).await?;
        Ok(ConnectLink { connect_url, expires_at })
    }

    /// The attempt of a ticket that has not expired, and the version of its item.
    async fn connect_attempt(&self, ticket: &SecretString) -> Result<(ConnectAttempt, Version), ConnectError> {
        let item = self.ports.table.get(&keys::ticket(&hash(ticket)), Read::Consistent).await?;
        let item = item.ok_or(ConnectError::UnknownLink)?;
        let attempt: ConnectAttempt = item.record()?;
        if attempt.until <= self.ports.clock.now() {
            return Err(ConnectError::UnknownLink);
        }
        Ok((attempt, item.version))
    }

    /// What the provider of an attempt's plugin will be asked for, with the plugin.
    async fn offer(&self, attempt: &ConnectAttempt) -> Result<(Offer, Arc<Plugin>), ConnectError> {
        let plugin = self.plugin_of_attempt(attempt).await?;
        let manifest = &plugin.manifest;
        let Auth::Oauth2(oauth) = &manifest.auth else { return Err(ConnectError::Changed) };
        let scopes = manifest.auth.requested_or_own(attempt.requested_scopes.as_deref()).iter();
        let offered = |scope: &String| OfferedScope {
            name: scope.clone(),
            description: oauth.scopes.description(scope).map(str::to_owned),
        };
        let stand_in = self.config.stand_ins.get(&manifest.name);
        let url = stand_in.map_or(&oauth.authorization_url, |stand_in| &stand_in.authorization_url);
        let offer = Offer {
            org: attempt.org.clone(),
            user: attempt.user.clone(),
            owner: attempt.owner.clone(),
            plugin: manifest.display_name.clone(),
            alias: attempt.alias.clone(),
            scopes: scopes.map(offered).collect(),
            host: url.host_str().unwrap_or_default().to_owned(),
        };
        Ok((offer, plugin))
    }

    /// Step 1: the user opens the link. Returns what the consent page shows. Changes nothing, because programs such as mail
    /// scanners open links, too.
    pub async fn view_consent(&self, ticket: &SecretString) -> Result<Offer, ConnectError> {
        let span = debug_span!("view_consent", outcome = Empty);
        traced(span, async {
            let (attempt, _) = self.connect_attempt(ticket).await?;
            Ok(self.offer(&attempt).await?.0)
        })
        .await
    }

    /// Step 2: the user clicks on the consent page, in the browser that has the secret `browser`. Makes a state and a PKCE
    /// verifier, and returns the provider's URL for the browser. `shown` is the [fingerprint](Offer::fingerprint) of what the
    /// page showed: if the plugin was changed meanwhile, the user has to see the page again.
    pub async fn authorize(
        &self,
        ticket: &SecretString,
        browser: &SecretString,
        shown: &str,
    ) -> Result<Url, ConnectError> {
        let span = debug_span!("authorize", outcome = Empty);
        traced(span, async {
            let (attempt, version) = self.connect_attempt(ticket).await?;
            let (offer, plugin) = self.offer(&attempt).await?;
            if offer.fingerprint()? != shown {
                return Err(ConnectError::OfferChanged);
            }
            let manifest = &plugin.manifest;
            let Auth::Oauth2(oauth) = &manifest.auth else { return Err(ConnectError::Changed) };
            let state = SecretString::from(self.ports.ids.hex(32));
            let verifier = oauth.pkce.then(|| self.new_verifier());
            let url = authorization_url(
                oauth,
                self.config.stand_ins.get(&manifest.name),
                &attempt.client_id,
                &attempt.redirect_uri,
                manifest.auth.requested_or_own(attempt.requested_scopes.as_deref()),
                &state,
                verifier.as_ref(),
            );
            let sealed = verifier.map(|verifier| seal_verifier(&attempt, browser, &state, &verifier));
            let verifier = sealed.transpose().map_err(Error::from)?;
            let authorization =
                PendingAuthorization { ticket: (hash(ticket), version), browser: hash(browser), verifier, attempt };
            let mut item = NewItem::new(keys::state(&hash(&state)), &authorization)?;
            item.expires_at = Some(self.ports.clock.now() + CONNECTING_TIME);
            self.ports.table.put(item, Condition::Absent).await?;
            Ok(url)
        })
        .await
    }

    /// Step 2, if the user cancels on the consent page instead: uses up the link. Returns the application's URL with the error
    /// `access_denied`, if the application asked for the browser.
    pub async fn cancel_connect(self: &Arc<Self>, ticket: &SecretString) -> Result<Option<Url>, ConnectError> {
        let span = debug_span!("cancel_connect", outcome = Empty);
        traced(span, async {
            let (attempt, version) = self.connect_attempt(ticket).await?;
            let (engine, key) = (Arc::clone(self), keys::ticket(&hash(ticket)));
            self.run_to_completion(async move {
                match engine.ports.table.delete(&key, Condition::Version(version)).await {
                    Err(TableError::Condition { .. }) => Err(ConnectError::UnknownLink),
                    result => result.map_err(ConnectError::from),
                }
            })
            .await?;
            Ok(attempt.return_to.map(|url| with_error(url, "access_denied")))
        })
        .await
    }

    /// A PKCE verifier (RFC 7636, 4.1): 32 random bytes.
    fn new_verifier(&self) -> SecretString {
        let mut random = [0; 32];
        self.ports.ids.fill(&mut random);
        SecretString::from(URL_SAFE_NO_PAD.encode(random))
    }
}
