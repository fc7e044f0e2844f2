//! Running an action: execute, attempt, call, and what is kept of it.

pub(crate) mod attempt;
pub(crate) mod call;
pub(crate) mod execute;
pub mod failures;
pub(crate) mod hook_points;
pub mod hooks;
pub mod mappings;
pub mod runs;
