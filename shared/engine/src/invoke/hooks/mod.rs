//! Hooks: plugins that are asked at moments of an agent's work, and may let it go on, change it, or forbid it. An intent
//! finds all of its organization's in its one read (`record`); they are asked one after the other (`run`), over HTTP
//! (`request`) or in Overseer's own code (`policy`). Agents that run elsewhere tell of their moments themselves (`report`).

mod context;
mod policy;
mod report;
mod request;
mod run;

pub(crate) use context::HookContext;
pub use report::{ReportMoment, Reported, SESSION_MAX};
pub(crate) use run::Hooks;
pub use run::{HookDecision, HookRan};

/// The longest reason of a hook, in characters; the rest is cut off.
pub const HOOK_REASON_MAX: usize = 500;
