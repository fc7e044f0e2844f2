//! A plugin as one organization has it: whether it is in use, its breaker, and what the organization set. One record
//! (`record`), which an intent reads together with everything else that it needs.

mod admin;
mod record;
mod update;
mod view;

pub use admin::{Disable, REASON_MAX, SetInstance};
pub use record::{BreakerState, Disabled};
pub(crate) use record::{ConfigSecrets, InUse, Installed, Instance, PreviousInstall, SeenInstance};
pub(crate) use update::Trial;
pub use view::{BreakerView, Breakers, InstanceView};
