//! The registry: plugins that are not in the built-in catalog, by organization or for all of them. A manifest is kept as the
//! text that was given, once for each version, and never changes; an organization's instance says which version it uses.

mod configure;
pub mod hooks;
mod install;
pub mod instances;
mod lifecycle;
mod lookup;
pub(crate) mod policy;
mod record;
mod register;

use std::collections::BTreeSet;

pub use configure::{ConfigView, SetConfig};
pub(crate) use configure::{check_config, config_secret_id};
pub use install::{Install, UpgradeShown};
pub(crate) use install::{granted, version_changed};
pub use lifecycle::{Lifecycle, LifecycleState};
pub(crate) use lookup::{PluginCache, contention};
pub use record::{RegisteredVersion, RegistryScope};
pub use register::{Register, Registration, RegistrationText, VERSIONS_MAX};

use crate::plugin::manifest::{Manifest, Permission};

impl Manifest {
    /// The permissions without which nothing goes: those for where its service is, and for where credentials are sent to
    /// get tokens and to give them back.
    pub(crate) fn needed(&self) -> impl Iterator<Item = Permission> {
        let provider = self.auth.provider();
        let tokens = provider.map(|provider| &provider.token_url);
        let revocation = provider.and_then(|provider| provider.revocation_url.as_ref());
        let urls = [self.runtime.base_url(), tokens, revocation];
        urls.into_iter().flatten().filter_map(|url| Some(Permission::Network(url.host_str()?.to_owned())))
    }

    /// Its permissions, without those that were granted.
    pub(crate) fn not_among(&self, granted: &BTreeSet<Permission>) -> BTreeSet<Permission> {
        self.permissions.iter().filter(|permission| !granted.contains(permission)).cloned().collect()
    }
}
