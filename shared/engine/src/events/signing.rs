//! Signs what is sent to an organization's own servers, as Standard Webhooks says (<https://www.standardwebhooks.com>): for
//! deliveries here, and for the hooks of plugins.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::OLD_SECRET_SIGNS;
use crate::engine::Engine;
use crate::outbound::client::OutboundRequest;
use crate::ports::Ids;
use crate::ports::vault::{SecretId, VaultError};

/// What a secret begins with.
pub const SECRET_PREFIX: &str = "whsec_";
/// The random bytes of a secret; Standard Webhooks asks for 24 to 64.
const SECRET_BYTES: usize = 32;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How many secrets that were replaced sign at once, at most.
const OLD_SECRETS_MAX: usize = 3;

/// What signs: versions of one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signing {
    /// Names the secret in the vault.
    pub secret: String,
    /// The version that signs: random, since somebody may have written one and never come to name it.
    pub version: String,
    /// Those that were replaced and sign as well, the latest last.
    pub old: Vec<OldSecret>,
}

/// A version of a secret that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OldSecret {
    pub version: String,
    /// Until when it signs as well.
    pub until: Timestamp,
}

impl Signing {
    /// With a secret that is about to be stored.
    pub(crate) fn new(ids: &(dyn Ids + 'static)) -> Self {
        Self { secret: ids.hex(16), version: ids.hex(8), old: Vec::new() }
    }

    /// The versions that sign now, the newest first.
    pub(crate) fn versions(&self, now: Timestamp) -> Vec<&str> {
        let old = self.old.iter().rev().filter(|old| old.until > now).map(|old| old.version.as_str());
        std::iter::once(self.version.as_str()).chain(old).collect()
    }

    /// Until when one that was replaced signs as well.
    pub(crate) fn old_signs_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.old.iter().map(|old| old.until).filter(|until| *until > now).max()
    }

    /// Puts a new version in the place of the one that signs, and gives those that sign no more.
    pub(crate) fn rotate(&mut self, version: &str, now: Timestamp) -> Vec<String> {
        let version = std::mem::replace(&mut self.version, version.to_owned());
        self.old.push(OldSecret { version, until: now + OLD_SECRET_SIGNS });
        let forgotten = self.old.len().saturating_sub(OLD_SECRETS_MAX);
        let mut gone: Vec<_> = self.old.drain(..forgotten).map(|old| old.version).collect();
        gone.extend(self.old.extract_if(.., |old| old.until <= now).map(|old| old.version));
        gone
    }
}

/// Why there is no signed request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotPosted {
    /// What signs could not be read.
    #[error("the secret could not be read, so that nothing was sent")]
    Secret(#[source] VaultError),
    /// There is nothing that signs any more, or it is none of ours.
    #[error("it could not be signed; make its secret anew")]
    Unsigned,
    /// The URL is neither https nor at an address that the operator allows.
    #[error("its URL is not https, and the operator does not allow its address")]
    Address,
}

impl Engine {
    /// A request that posts `body`, signed with all that signs now. `place` is where its versions are in the vault.
    pub(crate) async fn signed_post(
        &self,
        url: &Url,
        (id, at): (&str, Timestamp),
        body: String,
        (place, signing): (&SecretId, &Signing),
    ) -> Result<OutboundRequest, NotPosted> {
        // `http` is for this machine only, and there for what the operator allows.
        if url.scheme() != "https" && !self.outbound.allows(url) {
            return Err(NotPosted::Address);
        }
        let mut secrets = Vec::new();
        for version in signing.versions(at) {
            let wanted = (place.clone(), version.to_owned());
            if let Some(secret) = self.event_state.signing_keys.get(&wanted) {
                secrets.push(secret);
                continue;
            }
            match self.ports.vault.get(place, version).await {
                Ok(Some(secret)) => {
                    // A version never changes, so that what was read once is remembered.
                    self.event_state.signing_keys.insert(wanted, secret.clone());
                    secrets.push(secret);
                }
                // One that is about to be written, that has just been given up, or that nobody can open any more signs
                // nothing; the others do.
                Ok(None) | Err(VaultError::DoesNotOpen) => {}
                Err(error) => return Err(NotPosted::Secret(error)),
            }
        }
        let headers = headers(&secrets, id, at, body.as_bytes()).map_err(|NotSigned| NotPosted::Unsigned)?;
        Ok(OutboundRequest { method: Method::POST, url: url.clone(), headers, body: Bytes::from(body) })
    }
}

/// A message could not be signed: a secret that is none of ours, or an id that no header carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message could not be signed")]
pub struct NotSigned;

/// A new secret: `whsec_` and 32 random bytes in base64.
pub fn new_secret(ids: &dyn Ids) -> SecretString {
    let mut bytes = [0; SECRET_BYTES];
    ids.fill(&mut bytes);
    format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes)).into()
}

/// The headers of a message with this JSON body, signed with each of `secrets`. `id` is that of the message and the same at
/// each attempt; `at` is the time of the attempt.
pub fn headers(secrets: &[SecretString], id: &str, at: Timestamp, body: &[u8]) -> Result<HeaderMap, NotSigned> {
    let seconds = at.as_second();
    let mut signed = format!("{id}.{seconds}.").into_bytes();
    signed.extend_from_slice(body);
    let sign = |secret: &SecretString| {
        let key = secret.expose_secret().strip_prefix(SECRET_PREFIX).and_then(|key| STANDARD.decode(key).ok());
        let key = key.filter(|key| !key.is_empty());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.ok_or(NotSigned)?), &signed);
        Ok(format!("v1,{}", STANDARD.encode(tag)))
    };
    let signatures = secrets.iter().map(sign).collect::<Result<Vec<_>, _>>()?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| NotSigned);
    if signatures.is_empty() {
        return Err(NotSigned);
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
    fn signs_as_others_do() {
        let secret = SecretString::from("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let at = Timestamp::from_second(1_649_367_553).unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signed = headers(&[secret], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", at, body).unwrap();
        assert_eq!(signed["webhook-signature"], "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        assert_eq!(signed["webhook-id"], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk");
        assert_eq!(signed["webhook-timestamp"], "1649367553");
    }

    #[test]
    fn what_is_no_secret_signs_nothing() {
        for wrong in ["", "whsec_", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_ä", "whsec_a"] {
            let signed = headers(&[SecretString::from(wrong)], "a", Timestamp::UNIX_EPOCH, b"");
            assert_eq!(signed, Err(NotSigned), "{wrong}");
        }
        assert_eq!(headers(&[], "a", Timestamp::UNIX_EPOCH, b""), Err(NotSigned));
        let fine = new_secret(&RandomIds);
        assert!(headers(&[fine], "a\n", Timestamp::UNIX_EPOCH, b"").is_err());
    }

    #[test]
    fn a_secret_has_its_form() {
        let (one, other) = (new_secret(&RandomIds), new_secret(&RandomIds));
        assert_ne!(one.expose_secret(), other.expose_secret());
        let bytes = one.expose_secret().strip_prefix(SECRET_PREFIX).and_then(|key| STANDARD.decode(key).ok());
        assert_eq!(bytes.unwrap().len(), 32);
    }
}
