//! The way of a browser back from the provider (RFC 6749, 4.1.2; RFC 9207; RFC 9700): the callback, and the exchange of its
//! code for tokens.
//!
//! A callback passes these checks in this order: the state is known, the browser is the one that started, the state is used
//! for the first time, the plugin is unchanged, the address and the issuer are this plugin's, the client is unchanged, the
//! verifier opens. Until the browser is known nothing is deleted, so another browser cannot spoil an attempt.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tracing::field::{Empty, display};
use tracing::{Span, debug_span};
use url::Url;

use super::attempt::{ConnectAttempt, ConnectError, PendingAuthorization, hash, open_verifier, with_error};
use super::new_account::{ConnectTarget, NewAccount};
use super::refresh::credential_of;
use crate::core::error::{Error, causes};
use crate::core::trace::{SpanOutcome, traced};
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::outbound::oauth::{TokenError, Tokens, safe_code};
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::table::{Condition, Key, Read, TableError, Version, Write};
use crate::storage::keys;
use crate::storage::seal::Sealed;

/// The longest state, code, `iss` or `error` that a provider may send, in bytes.
pub const PARAMETER_MAX_BYTES: usize = 4096;

/// The parameters that a provider redirects a browser back with.
#[derive(Debug, Default)]
pub struct Callback {
    /// Identifies the attempt.
    pub state: Option<SecretString>,
    /// The authorization code.
    pub code: Option<SecretString>,
    /// The issuer (RFC 9207).
    pub iss: Option<String>,
    /// The provider's error code, where there is no authorization code.
    pub error: Option<String>,
}

/// What the browser gets at the end of a callback.
#[derive(Clone, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// A page: the account is connected. The plugin's display name and the account's name.
    Connected(String, Option<String>),
    /// A redirect to the application that started, with a code to confirm or with an error.
    Redirect(Url),
}

impl Engine {
    /// Step 3: the provider redirects a browser back, to the address of `plugin`. `browser` is the browser's secret, if it
    /// sent one.
    pub async fn callback(
        self: &Arc<Self>,
        plugin: Option<&str>,
        callback: Callback,
        browser: Option<SecretString>,
    ) -> Result<CallbackOutcome, ConnectError> {
        let span = debug_span!("callback", org = Empty, plugin = Empty, outcome = Empty);
        let answered = span.clone();
        let finished = traced(span, async {
            let state = callback.state.as_ref().ok_or(ConnectError::Malformed("it has no state"))?;
            let key = keys::state(&hash(state));
            let item = self.ports.table.get(&key, Read::Consistent).await?.ok_or(ConnectError::UnknownLink)?;
            let authorization: PendingAuthorization = item.record()?;
            answered.record("org", display(&authorization.attempt.org));
            answered.record("plugin", display(&authorization.attempt.plugin));
            // Before anything is deleted: another browser must not be able to spoil the attempt.
            let browser = browser.ok_or(ConnectError::OtherBrowser)?;
            if !authorization.is_of_browser(&browser) {
                return Err(ConnectError::OtherBrowser.into());
            }
            let engine = Arc::clone(self);
            let plugin = plugin.map(str::to_owned);
            let finished = self.run_to_completion(async move {
                engine.finish_callback(plugin.as_deref(), callback, &browser, key, item.version, authorization).await
            });
            finished.await
        });
        finished.await.or_else(FailedCallback::redirect)
    }

    /// Uses up the state, exchanges the code, and decides what the browser gets.
    async fn finish_callback(
        &self,
        plugin: Option<&str>,
        callback: Callback,
        browser: &SecretString,
        state_key: Key,
        state_version: Version,
        authorization: PendingAuthorization,
    ) -> Result<CallbackOutcome, FailedCallback> {
        let PendingAuthorization { attempt, ticket, verifier, .. } = authorization;
        let (ticket_hash, ticket_version) = ticket;
        let consumed = vec![
            Write::Delete(state_key, Condition::Version(state_version)),
            Write::Delete(keys::ticket(&ticket_hash), Condition::Version(ticket_version)),
        ];
        match self.ports.table.transact(consumed).await {
            Ok(_) => {}
            Err(TableError::Condition { .. }) => return Err(ConnectError::UnknownLink.into()),
            Err(error) => return Err(error.into()),
        }
        let return_to = attempt.return_to.clone();
        let exchanged = self.exchange(plugin, callback, browser, verifier, attempt).await;
        exchanged.map_err(|error| FailedCallback { error, return_to })
    }

    /// Step 4: checks that the callback is the provider's answer to this attempt, exchanges its code for tokens, and stores
    /// the account: connected, or pending where the application has to confirm it.
    async fn exchange(
        &self,
        callback_plugin: Option<&str>,
        callback: Callback,
        browser: &SecretString,
        sealed_verifier: Option<Sealed>,
        attempt: ConnectAttempt,
    ) -> Result<CallbackOutcome, ConnectError> {
        let plugin = self.plugin_of_attempt(&attempt).await?;
        let manifest = &plugin.manifest;
        self.check_redirect_uri(&attempt, callback_plugin)?;
        self.check_issuer(manifest, callback.iss.as_ref())?;
        let code = authorization_code(&attempt, callback.code, callback.error.as_deref())?;
        let state = callback.state.unwrap_or_default();
        let requested_at = self.ports.clock.now();
        let deadline = Instant::now() + self.config.limits.budget;
        let grant = CodeGrant { code, state, browser, sealed_verifier };
        let tokens = self.exchange_code(manifest, &attempt, grant, deadline).await?;
        let name = tokens.account.clone();
        let credential = credential_of(tokens, requested_at, None);
        let name = match name {
            Some(name) => Some(name),
            None => self.account_name(manifest, &attempt, &credential, deadline).await,
        };
        self.store_authorized(manifest, attempt, credential, name).await
    }

    /// Checks that the callback came to the redirect URI of the attempt's own plugin.
    fn check_redirect_uri(&self, attempt: &ConnectAttempt, callback_plugin: Option<&str>) -> Result<(), ConnectError> {
        // The name is compared as well as the URI: a path such as `x%2F..%2Fslack` makes the same URI.
        let own_name = callback_plugin.is_some_and(|name| name == self.callback_name(&attempt.org, &attempt.plugin));
        let redirect_uri = self.redirect_uri(&attempt.org, &attempt.plugin);
        if own_name && redirect_uri.as_ref() == Some(&attempt.redirect_uri) {
            return Ok(());
        }
        Err(ConnectError::OtherProvider)
    }

    /// Checks `iss` where the manifest names the issuer (RFC 9207). A stand-in has none.
    fn check_issuer(&self, manifest: &Manifest, iss: Option<&String>) -> Result<(), ConnectError> {
        let Auth::Oauth2(oauth) = &manifest.auth else { return Err(ConnectError::Changed) };
        if let Some(issuer) = &oauth.issuer
            && !self.config.stand_ins.contains_key(&manifest.name)
            && iss != Some(issuer)
        {
            return Err(ConnectError::OtherProvider);
        }
        Ok(())
    }

    /// Exchanges the code, through the client that the link was made for.
    async fn exchange_code(
        &self,
        manifest: &Manifest,
        attempt: &ConnectAttempt,
        grant: CodeGrant<'_>,
        deadline: Instant,
    ) -> Result<Tokens, ConnectError> {
        let client = self.client(&attempt.org, manifest).await?.filter(|client| client.id == attempt.client_id);
        let client = client.ok_or(ConnectError::Changed)?;
        let CodeGrant { code, state, browser, sealed_verifier } = grant;
        let verifier = sealed_verifier.map(|sealed| open_verifier(attempt, browser, &state, &sealed));
        let verifier = verifier.transpose().map_err(Error::from)?;
        let protocol = self.protocol(manifest, &client, deadline).ok_or(ConnectError::Changed)?;
        protocol.exchange(&code, &attempt.redirect_uri, verifier.as_ref()).await.map_err(|error| {
            tracing::warn!(org = %attempt.org, plugin = %attempt.plugin, error = %causes(&error), "code exchange failed");
            ConnectError::Provider(match error {
                TokenError::InvalidGrant => "invalid_grant".to_owned(),
                TokenError::Refused(code) => code,
                TokenError::Unavailable(_) | TokenError::Unknown(_) => "it gave no tokens; try again".to_owned(),
            })
        })
    }

    /// The account's name by the manifest's test. A failed test does not matter: the provider has just issued the tokens.
    async fn account_name(
        &self,
        manifest: &Manifest,
        attempt: &ConnectAttempt,
        credential: &Credential,
        deadline: Instant,
    ) -> Option<String> {
        manifest.auth.test()?;
        match self.test_credential(&attempt.org, manifest, &attempt.user, credential, deadline).await {
            Ok(name) => name,
            Err(failure) => {
                tracing::warn!(org = %attempt.org, plugin = %manifest.name, error = failure.message, "account name lookup failed");
                None
            }
        }
    }

    /// Stores the account: connected, or, where the attempt has a `returnTo`, pending.
    async fn store_authorized(
        &self,
        manifest: &Manifest,
        attempt: ConnectAttempt,
        credential: Credential,
        name: Option<String>,
    ) -> Result<CallbackOutcome, ConnectError> {
        let ConnectAttempt { org, user, owner, alias, requested_scopes, client_id, return_to, .. } = attempt;
        let target = ConnectTarget { user, owner, alias, requested_scopes };
        let new = NewAccount { target, credential, client_id: Some(client_id), name };
        match return_to {
            None => {
                let connected = self.connect_account(&org, manifest, new).await?;
                Ok(CallbackOutcome::Connected(manifest.display_name.clone(), connected.account))
            }
            Some(mut url) => {
                let code = self.store_pending(&org, manifest, new).await?;
                url.query_pairs_mut().append_pair("code", code.expose_secret());
                Ok(CallbackOutcome::Redirect(url))
            }
        }
    }
}

/// What a code is exchanged with.
struct CodeGrant<'a> {
    code: SecretString,
    state: SecretString,
    browser: &'a SecretString,
    sealed_verifier: Option<Sealed>,
}

/// The code of a callback, or the error that the provider sent instead.
fn authorization_code(
    attempt: &ConnectAttempt,
    code: Option<SecretString>,
    error: Option<&str>,
) -> Result<SecretString, ConnectError> {
    match error {
        None => code.ok_or(ConnectError::Malformed("it has no code")),
        Some(error) => {
            let code = safe_code(error);
            tracing::info!(org = %attempt.org, plugin = %attempt.plugin, error = code, "authorization refused");
            Err(if error == "access_denied" { ConnectError::Denied } else { ConnectError::Provider(code) })
        }
    }
}

/// A callback that connected nothing, and the application that started it.
struct FailedCallback {
    error: ConnectError,
    return_to: Option<Url>,
}

impl<E: Into<ConnectError>> From<E> for FailedCallback {
    fn from(error: E) -> Self {
        Self { error: error.into(), return_to: None }
    }
}

impl SpanOutcome for FailedCallback {
    fn record_in(&self, span: &Span) {
        self.error.record_in(span);
    }
}

impl FailedCallback {
    /// Redirects the browser to the application with an error code, where there is an application and the error is one that
    /// it may know. A response that is not the asked provider's is never passed on.
    fn redirect(self) -> Result<CallbackOutcome, ConnectError> {
        let Self { error, return_to } = self;
        let code = match &error {
            ConnectError::Denied => "access_denied",
            ConnectError::Provider(_) | ConnectError::Failed(_) => "server_error",
            ConnectError::Changed
            | ConnectError::OfferChanged
            | ConnectError::UnknownLink
            | ConnectError::OtherBrowser
            | ConnectError::OtherProvider
            | ConnectError::Malformed(_) => return Err(error),
        };
        let Some(url) = return_to else { return Err(error) };
        if let ConnectError::Failed(error) = &error {
            tracing::error!(error = %causes(error), "failed to connect account");
        }
        Ok(CallbackOutcome::Redirect(with_error(url, code)))
    }
}
