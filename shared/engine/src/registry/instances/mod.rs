//! A plugin as one organization has it: whether it is enabled, its breakers, and what the organization set.
//!
//! All of it is one stored record (`record`), which a call reads together with everything else that it needs. `update`
//! writes it by compare-and-set, `health` counts failures and trials in it, `admin` has the changes that administrators make
//! beside enabling and upgrading, and `view` shows it.

mod admin;
mod health;
mod record;
mod update;
mod view;

pub use admin::{Disable, REASON_MAX, SetInstance};
pub(crate) use health::{Trial, TrialStart};
pub(crate) use record::{Availability, ConfigSecrets, Installed, Instance, LoadedInstance, PreviousInstall};
pub use record::{BreakerState, Disabled};
pub(super) use update::version_changed;
pub use view::{BreakerView, Breakers, InstanceView};
