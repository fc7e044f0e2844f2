//! The registry: plugins that are not in the built-in catalog, by organization or for all of them. A manifest is kept as the
//! text that was given, once for each version, and never changes; an organization's instance says which version it uses.

mod configuring;
mod finding;
mod installing;
mod lifecycle;
mod record;
mod registering;

pub(crate) use configuring::check_config;
pub use configuring::{ConfigView, SetConfig};
pub(crate) use finding::{TextId, changes_all_the_time};
pub(crate) use installing::granted;
pub use installing::{Install, UpgradeShown};
pub(crate) use lifecycle::Running;
pub use lifecycle::{Life, LifeState};
pub(crate) use record::Digest;
pub use record::{RegisteredVersion, RegistryScope};
pub use registering::{Register, Registration, RegistrationText, VERSIONS_MAX};
