//! Which plugins of an organization are asked at moments of an agent's work: the list that an intent reads (`record`), and the
//! secrets with which requests to them are signed (`admin`).

mod admin;
mod record;

pub use admin::HookSecretMade;
pub(crate) use admin::must_be_signable;
pub(crate) use record::{HookIndex, HookedPlugin, changed as hooks_changed};

pub use crate::registry::hooks::record::HookView;

/// The most plugins of an organization whose hooks are asked.
pub const HOOKED_MAX: usize = 10;
