//! What proves to a service whose call it is, as the vault keeps it.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use crate::core::redactor::SECRET_MIN_BYTES;

/// The longest token, key or password, in bytes.
pub const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// Refuses what cannot be a token: it must fit into a header, and be long enough to be told from ordinary text.
pub(crate) fn check_token(token: &SecretString) -> Result<(), String> {
    let token = token.expose_secret();
    if (SECRET_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!("must be {SECRET_MIN_BYTES} to {TOKEN_MAX_BYTES} printable ASCII characters, without spaces"))
}

/// Refuses what cannot be a password (RFC 7617), or is too short to be told from ordinary text.
pub(crate) fn check_password(password: &SecretString) -> Result<(), String> {
    let password = password.expose_secret();
    if (SECRET_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&password.len()) && !password.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("must be {SECRET_MIN_BYTES} to {TOKEN_MAX_BYTES} bytes of UTF-8 without control characters"))
}

/// A credential of one account. `Debug` shows none of its secrets.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Credential {
    /// The access token, the key or the password.
    pub token: SecretString,
    /// Goes with a password.
    #[serde(default)]
    pub username: Option<String>,
    /// Gets the next access token.
    #[serde(default)]
    pub refresh_token: Option<SecretString>,
    /// When the token stops being good. Kept here, too, for whoever finds the credential after a crash.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// The scopes that were granted, if the provider said.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
}

impl Credential {
    /// A token by itself.
    pub(crate) fn token(token: SecretString) -> Self {
        Self { token, username: None, refresh_token: None, expires_at: None, scopes: None }
    }

    /// As text for the vault.
    pub(crate) fn sealed_form(&self) -> SecretString {
        let Self { token, username, refresh_token, expires_at, scopes } = self;
        let refresh_token = refresh_token.as_ref().map(ExposeSecret::expose_secret);
        let form = json!({
            "token": token.expose_secret(), "username": username, "refresh_token": refresh_token,
            "expires_at": expires_at, "scopes": scopes,
        });
        form.to_string().into()
    }

    /// From the vault's text. What does not read was not written here.
    pub(crate) fn from_sealed_form(text: &SecretString) -> Option<Self> {
        serde_json::from_str(text.expose_secret()).ok()
    }

    /// What goes into a header after its scheme: the token, or name and password joined (RFC 7617, 2).
    pub(crate) fn joined(&self) -> SecretString {
        match &self.username {
            Some(name) => format!("{name}:{}", self.token.expose_secret()).into(),
            None => self.token.clone(),
        }
    }

    /// All that must not come back out of a service's answer.
    pub(crate) fn secrets(&self) -> Vec<SecretString> {
        let mut secrets = vec![self.token.clone(), self.joined()];
        secrets.extend(self.refresh_token.clone());
        secrets
    }
}
