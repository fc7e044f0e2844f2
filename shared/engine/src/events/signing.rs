//! Signatures of requests to organizations' own servers, by Standard Webhooks (<https://www.standardwebhooks.com>): for
//! deliveries, and for the hooks of plugins.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use quick_cache::sync::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::OLD_SECRET_SIGNS;
use crate::engine::Engine;
use crate::outbound::client::OutboundRequest;
use crate::ports::Ids;
use crate::ports::vault::{SecretId, VaultError};

/// The prefix of every secret.
pub const SECRET_PREFIX: &str = "whsec_";
/// The random bytes of a secret. Standard Webhooks requires 24 to 64.
const SECRET_BYTES: usize = 32;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The most signing keys that a process keeps in memory.
const KEYS_CACHED_MAX: usize = 1_000;

/// The most replaced secrets that sign at once.
const OLD_SECRETS_MAX: usize = 3;

/// The versions of one secret that sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signing {
    /// The secret's id in the vault.
    pub secret: String,
    /// The current version. Its name is random, because a request may have written a version to the vault and failed before
    /// recording it.
    pub version: String,
    /// Replaced versions that still sign, the latest last.
    pub old: Vec<OldSecret>,
}

/// A replaced version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OldSecret {
    pub version: String,
    /// Until when it signs beside the current one.
    pub until: Timestamp,
}

/// The signing keys that this process has read.
pub(crate) struct EventState {
    /// By secret and version. A version never changes, so an entry is never stale.
    signing_keys: Cache<(SecretId, String), SecretString>,
}

impl Default for EventState {
    fn default() -> Self {
        Self { signing_keys: Cache::new(KEYS_CACHED_MAX) }
    }
}

impl Signing {
    /// Names for a secret that the caller is about to store.
    pub(crate) fn new(ids: &(dyn Ids + 'static)) -> Self {
        Self { secret: ids.hex(16), version: ids.hex(8), old: Vec::new() }
    }

    /// The versions that sign now, the newest first.
    pub(crate) fn versions(&self, now: Timestamp) -> Vec<&str> {
        let old = self.old.iter().rev().filter(|old| old.until > now).map(|old| old.version.as_str());
        std::iter::once(self.version.as_str()).chain(old).collect()
    }

    /// Until when any replaced version signs.
    pub(crate) fn old_signs_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.old.iter().map(|old| old.until).filter(|until| *until > now).max()
    }

    /// Makes `version` the current one. Gives the versions that no longer sign.
    pub(crate) fn rotate(&mut self, version: &str, now: Timestamp) -> Vec<String> {
        let version = std::mem::replace(&mut self.version, version.to_owned());
        self.old.push(OldSecret { version, until: now + OLD_SECRET_SIGNS });
        let excess = self.old.len().saturating_sub(OLD_SECRETS_MAX);
        let mut dropped: Vec<_> = self.old.drain(..excess).map(|old| old.version).collect();
        dropped.extend(self.old.extract_if(.., |old| old.until <= now).map(|old| old.version));
        dropped
    }
}

/// Why a signed request could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignedPostError {
    /// The vault failed.
    #[error("the signing secret could not be read, so nothing was sent")]
    Secret(#[source] VaultError),
    /// The vault has no usable secret.
    #[error("it could not be signed; make a new secret")]
    Unsigned,
    /// The URL is not https, and not an address that the operator allows.
    #[error("its URL is not https, and the operator does not allow its address")]
    Address,
}

impl Engine {
    /// A POST of `body`, signed with every version that signs at `at`. `id` identifies the message across attempts;
    /// `secret_id` is the secret of `signing` in the vault.
    pub(crate) async fn signed_post(
        &self,
        url: &Url,
        id: &str,
        at: Timestamp,
        body: String,
        secret_id: &SecretId,
        signing: &Signing,
    ) -> Result<OutboundRequest, SignedPostError> {
        // Plain `http` only to addresses that the operator allows, such as those of the same machine.
        if url.scheme() != "https" && !self.outbound.allows(url) {
            return Err(SignedPostError::Address);
        }
        let mut secrets = Vec::new();
        for version in signing.versions(at) {
            let cache_key = (secret_id.clone(), version.to_owned());
            if let Some(secret) = self.event_state.signing_keys.get(&cache_key) {
                secrets.push(secret);
                continue;
            }
            match self.ports.vault.get(secret_id, version).await {
                Ok(Some(secret)) => {
                    self.event_state.signing_keys.insert(cache_key, secret.clone());
                    secrets.push(secret);
                }
                // Not written yet, just deleted, or sealed with a lost key: the other versions sign.
                Ok(None) | Err(VaultError::DoesNotOpen) => {}
                Err(error) => return Err(SignedPostError::Secret(error)),
            }
        }
        let headers = headers(&secrets, id, at, body.as_bytes()).map_err(|SigningError| SignedPostError::Unsigned)?;
        Ok(OutboundRequest { method: Method::POST, url: url.clone(), headers, body: Bytes::from(body) })
    }
}

/// A message could not be signed: a malformed secret, or an id that no header can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message could not be signed")]
pub struct SigningError;

/// A new secret: `whsec_` and 32 random bytes in base64.
pub fn new_secret(ids: &dyn Ids) -> SecretString {
    let mut bytes = [0; SECRET_BYTES];
    ids.fill(&mut bytes);
    format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes)).into()
}

/// The headers of a message with this JSON body, signed with each of `secrets`. `id` identifies the message and is the same
/// at each attempt; `at` is the time of the attempt.
pub fn headers(secrets: &[SecretString], id: &str, at: Timestamp, body: &[u8]) -> Result<HeaderMap, SigningError> {
    let seconds = at.as_second();
    let mut signed = format!("{id}.{seconds}.").into_bytes();
    signed.extend_from_slice(body);
    let sign = |secret: &SecretString| {
        let key = secret.expose_secret().strip_prefix(SECRET_PREFIX).and_then(|key| STANDARD.decode(key).ok());
        let key = key.filter(|key| !key.is_empty());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.ok_or(SigningError)?), &signed);
        Ok(format!("v1,{}", STANDARD.encode(tag)))
    };
    let signatures = secrets.iter().map(sign).collect::<Result<Vec<_>, _>>()?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| SigningError);
    if signatures.is_empty() {
        return Err(SigningError);
    }
    Ok(HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ID, value(id)?),
        (TIMESTAMP, HeaderValue::from(seconds)),
        (SIGNATURE, value(&signatures.join(" "))?),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::RandomIds;

    /// The example of the libraries of Standard Webhooks
    /// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/rust/src/lib.rs>).
    #[test]
    fn signature_equals_that_of_other_libraries() {
        let secret = SecretString::from("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let at = Timestamp::from_second(1_649_367_553).unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signed = headers(&[secret], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", at, body).unwrap();
        assert_eq!(signed["webhook-signature"], "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        assert_eq!(signed["webhook-id"], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk");
        assert_eq!(signed["webhook-timestamp"], "1649367553");
    }

    #[test]
    fn malformed_secret_signs_nothing() {
        for wrong in ["", "whsec_", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_ä", "whsec_a"] {
            let signed = headers(&[SecretString::from(wrong)], "a", Timestamp::UNIX_EPOCH, b"");
            assert_eq!(signed, Err(SigningError), "{wrong}");
        }
        assert_eq!(headers(&[], "a", Timestamp::UNIX_EPOCH, b""), Err(SigningError));
        let fine = new_secret(&RandomIds);
        assert!(headers(&[fine], "a\n", Timestamp::UNIX_EPOCH, b"").is_err());
    }

    #[test]
    fn new_secrets_are_unique() {
        assert_ne!(new_secret(&RandomIds).expose_secret(), new_secret(&RandomIds).expose_secret());
    }

    #[test]
    fn new_secret_encodes_32_bytes() {
        let bytes = new_secret(&RandomIds)
            .expose_secret()
            .strip_prefix(SECRET_PREFIX)
            .and_then(|key| STANDARD.decode(key).ok());
        assert_eq!(bytes.unwrap().len(), 32);
    }
}
