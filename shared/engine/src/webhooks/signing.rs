//! Signs what is sent to an organization's own servers, as Standard Webhooks says (<https://www.standardwebhooks.com>): for
//! deliveries here, and for whatever else calls such a server.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use crate::ports::Ids;

/// What a secret begins with.
pub const SECRET_PREFIX: &str = "whsec_";
/// The random bytes of a secret; Standard Webhooks asks for 24 to 64.
const SECRET_BYTES: usize = 32;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

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
