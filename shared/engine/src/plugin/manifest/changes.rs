//! What changed between two versions of a manifest.

use serde::Serialize;

use super::{Hook, Permission};
use crate::core::ids::ActionName;

/// What changed between two versions of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a separate question")]
pub struct Changes {
    /// Actions that the new version lacks, by their names.
    pub actions_removed: Vec<ActionName>,
    /// Actions that the old version lacks.
    pub actions_added: Vec<ActionName>,
    /// Actions that changed.
    pub actions_changed: Vec<ActionChanged>,
    /// Permissions that the new version lacks.
    pub permissions_removed: Vec<Permission>,
    /// Permissions that the old version lacks.
    pub permissions_added: Vec<Permission>,
    /// Scopes of the service that are no longer requested.
    pub scopes_removed: Vec<String>,
    /// Scopes of the service that are newly requested.
    pub scopes_added: Vec<String>,
    /// Hooks that the new version lacks.
    pub hooks_removed: Vec<Hook>,
    /// Hooks that the old version lacks.
    pub hooks_added: Vec<Hook>,
    /// Whether a hook of both versions is called at another URL, or for more tools.
    pub hooks_widened: bool,
    /// Texts that models read and that changed, of the plugin and of actions that stay.
    pub description_changed: Vec<TextChanged>,
    /// Whether calls authenticate to the service in another way.
    pub auth_changed: bool,
    /// Whether requests may go elsewhere: the base URL or the permitted hosts changed.
    pub hosts_changed: bool,
    /// Whether users have to connect their accounts again. A credential is never sent to a host that its user did not
    /// connect it for, and never gains scopes that its user did not consent to.
    pub reconnect: bool,
    /// Whether the schema of an instance's configuration changed. It says nothing about whether a configuration still
    /// validates.
    pub config_schema_changed: bool,
    /// The manifest's other keys that changed in meaning.
    pub keys_changed: Vec<&'static str>,
}

/// An action that changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActionChanged {
    /// The action.
    pub name: ActionName,
    /// The action's keys that changed in meaning.
    pub keys: Vec<&'static str>,
}

/// A text that models read and that changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextChanged {
    /// The text's path in the manifest, such as `actions.send.parameters/properties/to/description`.
    pub place: String,
    /// The old text, if there was one.
    pub old: Option<String>,
    /// The new text, if there is one.
    pub new: Option<String>,
}

impl Changes {
    /// Whether the new version may do or reach more than the old one, so that an administrator has to consent again.
    pub fn widens(&self) -> bool {
        let unchanged = [self.permissions_added.is_empty(), self.hooks_added.is_empty(), self.scopes_added.is_empty()];
        self.hosts_changed || self.reconnect || self.hooks_widened || unchanged.contains(&false)
    }

    /// Whether nothing changed in meaning.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
