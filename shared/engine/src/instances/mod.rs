//! A plugin as one organization has it: whether it is in use, its breaker, and what the organization set. One record
//! (`record`), which an intent reads together with everything else that it needs.

mod administering;
mod changing;
mod record;
mod showing;

pub use administering::{Disable, REASON_MAX, SetInstance};
pub(crate) use changing::Trial;
pub use record::Disabled;
pub(crate) use record::{Before, ConfigSecrets, InUse, Installed, Instance, SeenInstance};
pub use showing::{BreakerState, BreakerView, Breakers, InstanceView};
