//! Hooks: plugins that are asked at moments of an agent's work, and may let it go on, change it, or forbid it. An intent
//! finds all of its organization's in its one read (`record`); they are asked one after the other (`running`), over HTTP
//! (`asking`) or in Overseer's own code (`policy`). Agents that run elsewhere tell of their moments themselves (`reporting`).

mod asking;
mod managing;
mod policy;
mod record;
mod reporting;
mod running;

pub(crate) use managing::must_be_signable;
pub use managing::{HookSecretMade, HookView};
pub(crate) use policy::config_problems;
pub(crate) use record::changed as hooks_changed;
pub use reporting::{ReportMoment, Reported, SESSION_MAX};
pub use running::{HookDecision, HookRan};
pub(crate) use running::{Hooks, Moment};

/// The most plugins of an organization whose hooks are asked.
pub const HOOKED_MAX: usize = 10;
/// The longest reason of a hook, in characters; the rest is cut off.
pub const HOOK_REASON_MAX: usize = 500;
