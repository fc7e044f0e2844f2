//! Self-contained signed tokens: every process with the key accepts them, also one that did not issue them.

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac::{Key, sign, verify};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::Service;

/// The prefixes of tokens; `Token::prefix` says which token has which.
const PREFIXES: [&str; 7] = ["xoxe.xoxb-1-", "xoxe.xoxp-1-", "xoxe-1-", "ya29.", "1//0", "ntn_", "nrt_"];

/// The claims of a token.
#[derive(Deserialize, Serialize)]
pub(super) struct Token {
    pub(super) service: Service,
    pub(super) kind: Kind,
    pub(super) holder: Holder,
    /// All tokens of one consent share a family.
    pub(super) family: String,
    pub(super) id: String,
    pub(super) scope: String,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Access { expires: i64 },
    Refresh,
}

/// The party that acts with a token. Only Slack issues tokens of the consenting person besides those of the app.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Holder {
    App,
    Person,
}

impl Token {
    pub(super) fn sign(&self, key: &Key) -> Result<String, Unspecified> {
        let claims = serde_json::to_vec(self).map_err(|_| Unspecified)?;
        let signature = sign(key, &claims);
        let body = BASE64_URL_SAFE_NO_PAD.encode([signature.as_ref(), &claims].concat());
        Ok(format!("{}{body}", self.prefix()))
    }

    /// The token in a text, if the key signed it. Unsigned claims are never parsed.
    pub(super) fn read(key: &Key, text: &str) -> Option<Self> {
        let body = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix))?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(body).ok()?;
        let (signature, claims) = bytes.split_at_checked(SHA256_OUTPUT_LEN)?;
        verify(key, claims, signature).ok()?;
        // The prefix is not signed.
        serde_json::from_slice(claims).ok().filter(|token: &Self| text.starts_with(token.prefix()))
    }

    fn prefix(&self) -> &'static str {
        match (self.service, self.kind, self.holder) {
            (Service::Slack, Kind::Access { .. }, Holder::App) => "xoxe.xoxb-1-",
            (Service::Slack, Kind::Access { .. }, Holder::Person) => "xoxe.xoxp-1-",
            (Service::Slack, Kind::Refresh, _) => "xoxe-1-",
            (Service::Gmail, Kind::Access { .. }, _) => "ya29.",
            (Service::Gmail, Kind::Refresh, _) => "1//0",
            (Service::Notion, Kind::Access { .. }, _) => "ntn_",
            (Service::Notion, Kind::Refresh, _) => "nrt_",
        }
    }
}
