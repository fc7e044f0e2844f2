//! The credential of an account: what a call proves its identity to a service with, and its form in the vault.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use crate::core::redactor::SECRET_MIN_BYTES;

/// The longest token, key or password, in bytes.
pub const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// Refuses what cannot be a token: it must fit into a header, and be long enough for redaction to tell it from ordinary
/// text.
pub(crate) fn check_token(token: &SecretString) -> Result<(), String> {
    let token = token.expose_secret();
    if (SECRET_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!("must be {SECRET_MIN_BYTES} to {TOKEN_MAX_BYTES} printable ASCII characters, without spaces"))
}

/// Refuses what cannot be a client's secret. Providers choose its length; redaction knows only those of
/// [`SECRET_MIN_BYTES`] or more, but a secret is sent to the token endpoint only, whose responses are not shown.
pub(crate) fn check_client_secret(secret: &SecretString) -> Result<(), String> {
    check_text(secret, 1)
}

/// Refuses what cannot be a password (RFC 7617), or is too short for redaction to tell it from ordinary text.
pub(crate) fn check_password(password: &SecretString) -> Result<(), String> {
    check_text(password, SECRET_MIN_BYTES)
}

fn check_text(secret: &SecretString, min_bytes: usize) -> Result<(), String> {
    let secret = secret.expose_secret();
    if (min_bytes..=TOKEN_MAX_BYTES).contains(&secret.len()) && !secret.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("must be {min_bytes} to {TOKEN_MAX_BYTES} bytes of UTF-8 without control characters"))
}

/// A credential of one account. `Debug` prints none of its secrets.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Credential {
    /// The access token, the key or the password.
    pub token: SecretString,
    /// The user name, with a password.
    #[serde(default)]
    pub username: Option<String>,
    /// The token that the next access token is requested with.
    #[serde(default)]
    pub refresh_token: Option<SecretString>,
    /// When the token expires. Stored here as well as in the record: a refresh that is rolled forward after a crash has
    /// nothing else.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// The scopes that were granted, if the provider named them.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
}

impl Credential {
    /// A token without anything else.
    pub(crate) fn token(token: SecretString) -> Self {
        Self { token, username: None, refresh_token: None, expires_at: None, scopes: None }
    }

    /// The text for the vault.
    pub(crate) fn sealed_form(&self) -> SecretString {
        let Self { token, username, refresh_token, expires_at, scopes } = self;
        let refresh_token = refresh_token.as_ref().map(ExposeSecret::expose_secret);
        let form = json!({
            "token": token.expose_secret(), "username": username, "refresh_token": refresh_token,
            "expires_at": expires_at, "scopes": scopes,
        });
        form.to_string().into()
    }

    /// Reads the vault's text. `None` if it is not a credential.
    pub(crate) fn from_sealed_form(text: &SecretString) -> Option<Self> {
        serde_json::from_str(text.expose_secret()).ok()
    }

    /// The value of a header after its scheme: the token, or user name and password joined (RFC 7617, 2).
    pub(crate) fn joined(&self) -> SecretString {
        match &self.username {
            Some(name) => format!("{name}:{}", self.token.expose_secret()).into(),
            None => self.token.clone(),
        }
    }

    /// Everything that is redacted in a service's answer.
    pub(crate) fn secrets(&self) -> Vec<SecretString> {
        let mut secrets = vec![self.token.clone(), self.joined()];
        secrets.extend(self.refresh_token.clone());
        secrets
    }
}
