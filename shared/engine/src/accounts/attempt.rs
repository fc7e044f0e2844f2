//! An attempt to connect an account with a browser: its records, its secrets and its errors.
//!
//! The table holds only hashes of the secrets, and the PKCE verifier sealed with a key that is made of two of them.

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tracing::Span;
use url::Url;

use crate::core::error::Error;
use crate::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use crate::core::trace::SpanOutcome;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::ports::ids::sha256;
use crate::ports::table::{TableError, Version};
use crate::ports::vault::VaultError;
use crate::storage::seal::{NamedKey, Sealed};

/// How long a link, a state and a confirmation code are valid.
pub const CONNECTING_TIME: SignedDuration = SignedDuration::from_mins(10);

/// Why connecting with a browser stopped. Nothing was connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no such attempt.
    #[error("This link is not valid. It was used already, or it is older than 10 minutes.")]
    UnknownLink,
    /// The browser that came back is not the browser that started.
    #[error(
        "This browser did not start this connection. If another person sent you this link, do not use it: your account \
         would be connected for that person."
    )]
    OtherBrowser,
    /// The response came to another plugin's address, or in another provider's name.
    #[error("The response did not come from the service that was asked. Its code was not used.")]
    OtherProvider,
    /// A parameter is missing, repeated or too long.
    #[error("The service's response is malformed: {0}.")]
    Malformed(&'static str),
    /// The user denied access at the provider.
    #[error("Access was denied at the service.")]
    Denied,
    /// The provider refused.
    #[error("The service refused ({0}).")]
    Provider(String),
    /// The plugin or its client changed, or the plugin lost a permission.
    #[error("The plugin was changed after this connection was started.")]
    Changed,
    /// The consent page showed something else than the provider would be asked for now.
    #[error("What this plugin asks for was changed after this page was opened. Check it again.")]
    OfferChanged,
    /// Overseer failed.
    #[error("Overseer failed.")]
    Failed(#[from] Error),
}

/// The application's URL with the code of an error (RFC 6749, 4.1.2.1).
pub(super) fn with_error(mut return_to: Url, code: &str) -> Url {
    return_to.query_pairs_mut().append_pair("error", code);
    return_to
}

impl SpanOutcome for ConnectError {
    fn record_in(&self, span: &Span) {
        let outcome = match self {
            Self::UnknownLink => "unknown_link",
            Self::OtherBrowser => "other_browser",
            Self::OtherProvider => "other_provider",
            Self::Malformed(_) => "malformed",
            Self::Denied => "denied",
            Self::Provider(_) => "provider_refused",
            Self::Changed => "changed",
            Self::OfferChanged => "offer_changed",
            Self::Failed(error) => return error.record_in(span),
        };
        span.record("outcome", outcome);
    }
}

impl From<TableError> for ConnectError {
    fn from(error: TableError) -> Self {
        Self::Failed(error.into())
    }
}

/// What a link stands for: the account to connect. Stored under the hash of the link's ticket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ConnectAttempt {
    /// When the link expires.
    pub until: Timestamp,
    pub org: OrgId,
    /// The user who asked for the link.
    pub user: UserId,
    pub owner: Owner,
    pub plugin: PluginName,
    pub alias: Alias,
    /// The scopes to request, if they are not the manifest's.
    #[serde(rename = "asked")]
    pub requested_scopes: Option<Vec<String>>,
    /// [`Engine::audience`] when the link was made.
    #[serde(rename = "bound_to")]
    pub audience: String,
    pub client_id: String,
    /// The exact redirect URI.
    pub redirect_uri: Url,
    /// The URL of the application that the browser is redirected to at the end.
    pub return_to: Option<Url>,
}

/// An attempt whose browser is at the provider. Stored under the hash of the state.
#[derive(Serialize, Deserialize)]
pub(super) struct PendingAuthorization {
    pub attempt: ConnectAttempt,
    /// The hash of the ticket and the version of its item: the first callback deletes both.
    pub ticket: (String, Version),
    /// The hash of the browser's secret.
    pub browser: String,
    /// The PKCE verifier, sealed with [`verifier_key`].
    pub verifier: Option<Sealed>,
}

impl PendingAuthorization {
    /// Whether the browser with this secret is the one that started.
    pub(super) fn is_of_browser(&self, secret: &SecretString) -> bool {
        constant_time::verify_slices_are_equal(hash(secret).as_bytes(), self.browser.as_bytes()).is_ok()
    }
}

/// The hash under which the table knows a secret.
pub(super) fn hash(secret: &SecretString) -> String {
    sha256(secret.expose_secret().as_bytes())
}

/// The key that seals a verifier. It is made of two secrets: the table has neither, and the provider has only the state.
fn verifier_key(browser: &SecretString, state: &SecretString) -> Result<NamedKey, VaultError> {
    let both = format!("verifier\0{}\0{}", browser.expose_secret(), state.expose_secret());
    NamedKey::new("verifier".to_owned(), digest::digest(&digest::SHA256, both.as_bytes()).as_ref())
}

/// Seals the PKCE verifier of an attempt.
pub(super) fn seal_verifier(
    attempt: &ConnectAttempt,
    browser: &SecretString,
    state: &SecretString,
    verifier: &SecretString,
) -> Result<Sealed, VaultError> {
    verifier_key(browser, state)?.seal(attempt, verifier.expose_secret().as_bytes().to_vec())
}

/// Opens the PKCE verifier of an attempt.
pub(super) fn open_verifier(
    attempt: &ConnectAttempt,
    browser: &SecretString,
    state: &SecretString,
    sealed: &Sealed,
) -> Result<SecretString, VaultError> {
    let text = String::from_utf8(verifier_key(browser, state)?.open(attempt, sealed)?);
    text.map(SecretString::from).map_err(|_| VaultError::DoesNotOpen)
}

impl Engine {
    /// The plugin of an attempt, if its audience and permissions are the same as when the link was made.
    pub(super) async fn plugin_of_attempt(&self, attempt: &ConnectAttempt) -> Result<Arc<Plugin>, ConnectError> {
        let plugin = self.plugin_if_any(&attempt.org, &attempt.plugin).await?.ok_or(ConnectError::Changed)?;
        if attempt.audience != self.audience(&plugin.manifest) {
            return Err(ConnectError::Changed);
        }
        match self.must_be_granted(&attempt.org, &plugin).await {
            Ok(()) => Ok(plugin),
            Err(Error::Forbidden(_)) => Err(ConnectError::Changed),
            Err(error) => Err(error.into()),
        }
    }
}
