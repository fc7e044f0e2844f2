//! The stored records of a registered plugin: one small item for the plugin and its versions, and one item for the text of
//! each version.

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

/// Who can use a registered plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum RegistryScope {
    /// The organization that registered it.
    Organization,
    /// Every organization; a platform administrator registered it.
    Global,
}

impl RegistryScope {
    /// Refuses a caller who may not change registrations of this scope.
    pub(super) fn must_be_administered_by(self, principal: &Principal) -> Result<(), Error> {
        match self {
            Self::Organization => principal.must_administer(),
            Self::Global => principal.must_administer_platform(),
        }
    }

    /// The organization that owns a registration of this scope; `None` for the platform.
    pub(crate) fn owner_org(self, org: &OrgId) -> Option<&OrgId> {
        match self {
            Self::Organization => Some(org),
            Self::Global => None,
        }
    }
}

/// The stored record of a registered plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RegisteredPlugin {
    pub name: PluginName,
    pub versions: BTreeMap<Version, RegistryEntry>,
}

/// One version in that record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RegistryEntry {
    pub digest: Digest,
    #[serde(flatten)]
    pub view: RegisteredVersion,
}

/// A version of a registered plugin, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredVersion {
    /// 24 lower-case letters and digits, the first a letter: the form of a CUID2 (<https://github.com/paralleldrive/cuid2>).
    pub id: String,
    /// The version as the manifest declares it.
    pub version: Version,
    /// The image's name, for an environment (a container).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// The image's registry, for an environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_url: Option<String>,
    /// Whether organizations can enable it. Organizations that use it keep it.
    pub is_active: bool,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When `is_active` last changed.
    pub updated_at: Timestamp,
    /// The API key that registered it. For global plugins only platform administrators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// The user who registered it, if that key is bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
}

impl RegisteredVersion {
    /// Without key and user if the caller may belong to another organization than they do.
    pub(super) fn redacted_for(self, principal: &Principal, scope: RegistryScope) -> Self {
        if scope == RegistryScope::Organization || principal.must_administer_platform().is_ok() {
            return self;
        }
        Self { key: None, by: None, ..self }
    }
}

impl RegisteredPlugin {
    pub(super) fn item(&self, owner: Option<&OrgId>) -> Result<NewItem, TableError> {
        NewItem::new(keys::registered(owner, &self.name), self)
    }
}

/// The stored text of a manifest, in Base64: JSON would escape quotation marks and the like, and a text of the largest size
/// must fit into one item whatever it contains.
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
