//! The registry: plugins beyond the built-in catalog, registered for one organization or for all of them.
//!
//! A registered manifest is stored as its original text, once for each version, and never changes. An organization's instance
//! names the version that the organization uses. Where to find what:
//!
//! | question | file |
//! | --- | --- |
//! | When may a plugin use a permission? The rule of consent | `permissions` |
//! | How does a plugin get enabled, upgraded, rolled back, uninstalled? | `enable`, `upgrade`, `uninstall` |
//! | What prevents enabling a version: its runtime, other plugins | `obstacles` |
//! | Which version does an organization use right now? | `lookup` |
//! | How is a version registered, listed, deactivated? | `register`, `registrations`; stored by `record` |
//! | The organization's record of a plugin, its breaker and settings | [`instances`] |
//! | Which plugins take part in an agent's work through hooks? | [`hooks`] |
//! | The configuration of an instance and its secrets | `configure`, `policy` |

mod configure;
mod enable;
pub mod hooks;
pub mod instances;
mod lifecycle;
mod lookup;
mod obstacles;
mod permissions;
pub(crate) mod policy;
mod record;
mod register;
mod registrations;
mod uninstall;
mod upgrade;

pub use configure::{ConfigView, SetConfig};
pub(crate) use configure::{check_config, config_secret_id};
pub use enable::Install;
pub use lifecycle::{Lifecycle, LifecycleState};
pub(crate) use lookup::{PluginCache, contention};
pub use record::{RegisteredVersion, RegistryScope};
pub use register::{Register, VERSIONS_MAX};
pub use registrations::{Registration, RegistrationText};
pub use upgrade::UpgradePreview;
