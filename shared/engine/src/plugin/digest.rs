//! The digest of a manifest.

use serde::{Deserialize, Serialize};

use crate::ports::ids::sha256;

/// The SHA-256 of a manifest's text, which identifies the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(text: &str) -> Self {
        Self(sha256(text.as_bytes()))
    }
}
