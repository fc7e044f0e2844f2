//! The registry: plugins that are not in the built-in catalog, by organization or for all of them. A manifest is kept as the
//! text that was given, once for each version, and never changes; an organization's instance says which version it uses.

mod configuring;
mod finding;
mod installing;
mod lifecycle;
mod record;
mod registering;

use std::collections::BTreeSet;

use crate::manifest::{Manifest, Permission};

pub use configuring::{ConfigView, SetConfig};
pub(crate) use configuring::{check_config, config_secret_id};
pub(crate) use finding::{TextId, changes_all_the_time};
pub use installing::{Install, UpgradeShown};
pub(crate) use installing::{granted, meanwhile};
pub(crate) use lifecycle::Running;
pub use lifecycle::{Life, LifeState};
pub(crate) use record::Digest;
pub use record::{RegisteredVersion, RegistryScope};
pub use registering::{Register, Registration, RegistrationText, VERSIONS_MAX};

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
