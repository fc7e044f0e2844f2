//! What is stored of a registered plugin: one small item for the plugin with all its versions, and the text of each version
//! in an item of its own.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{KeyId, OrgId, PluginName, UserId};
use crate::plugin::digest::Digest;
use crate::ports::table::{Key, NewItem, TableError};
use crate::storage::keys;

/// For whom a plugin is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum RegistryScope {
    /// For the organization that registered it.
    Organization,
    /// For every organization, by a platform administrator.
    Global,
}

impl RegistryScope {
    /// Refuses whoever may not change what is registered there.
    pub(super) fn must_be_administered_by(self, principal: &Principal) -> Result<(), Error> {
        match self {
            Self::Organization => principal.must_administer(),
            Self::Global => principal.must_administer_platform(),
        }
    }

    /// Whose it is: an organization's, or nobody's in particular.
    pub(crate) fn owner_org(self, org: &OrgId) -> Option<&OrgId> {
        match self {
            Self::Organization => Some(org),
            Self::Global => None,
        }
    }
}

/// A registered plugin, with its versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Registered {
    pub name: PluginName,
    pub versions: BTreeMap<Version, RegistryEntry>,
}

/// A version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RegistryEntry {
    pub digest: Digest,
    #[serde(flatten)]
    pub view: RegisteredVersion,
}

/// A version of a registered plugin, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredVersion {
    /// 24 small letters and digits, the first a letter: the form of a CUID2 (<https://github.com/paralleldrive/cuid2>).
    pub id: String,
    /// The version.
    pub version: Version,
    /// Of an environment, the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// Of an environment, where the image comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_url: Option<String>,
    /// Whether it can be enabled. Where it is in use it stays in use.
    pub is_active: bool,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was changed last: whether it is active is all that can.
    pub updated_at: Timestamp,
    /// With which API key it was registered; of what is for all, only platform administrators are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// By which user, where the key is bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
}

impl RegisteredVersion {
    /// Without who registered it, where that may be somebody of another organization.
    pub(super) fn redacted_for(self, principal: &Principal, scope: RegistryScope) -> Self {
        if scope == RegistryScope::Organization || principal.must_administer_platform().is_ok() {
            return self;
        }
        Self { key: None, by: None, ..self }
    }
}

impl Registered {
    pub(super) fn item(&self, whose: Option<&OrgId>) -> Result<NewItem, TableError> {
        NewItem::new(keys::registered(whose, &self.name), self)
    }
}

/// A manifest's text as it is stored: in Base64, since quotation marks and the like take more room in JSON, and a text of
/// the largest size has to fit whatever it says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ManifestText {
    base64: String,
}

impl ManifestText {
    pub(super) fn item(key: Key, text: &str) -> Result<NewItem, TableError> {
        NewItem::new(key, &Self { base64: STANDARD.encode(text) })
    }

    pub(super) fn read(&self) -> Result<String, TableError> {
        let bytes = STANDARD.decode(&self.base64).map_err(|error| TableError::Record(Box::new(error)))?;
        String::from_utf8(bytes).map_err(|error| TableError::Record(Box::new(error)))
    }
}
