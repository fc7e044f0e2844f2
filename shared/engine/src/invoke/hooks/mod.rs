//! Hooks: plugins that are asked at points of an agent's work, and let it go on, change its data, or forbid it. An intent
//! reads its organization's hooks in its snapshot; they are asked one after the other (`run`), over HTTP (`request`) or in
//! Overseer's own code (`policy`). Agents that run elsewhere report their hook points themselves (`report`).

mod context;
mod policy;
mod report;
mod request;
mod run;

pub(crate) use context::HookContext;
pub use report::{ReportMoment, Reported, SESSION_MAX};
pub(crate) use run::Hooks;
pub use run::{HookDecision, HookRan};

/// The longest reason of a hook, in characters; a longer one is cut.
pub const HOOK_REASON_MAX: usize = 500;
