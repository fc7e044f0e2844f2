//! The error log. Every intent that fails is recorded without its secrets and counted by the hour; callers list and resolve
//! the records. The organization's fallbacks say what the agent tells the person.

mod fallbacks;
mod list;
mod log;
mod record;
mod redaction;
mod resolve;
mod secret_names;
mod statistics;

pub use fallbacks::{FALLBACK_MAX, Fallback, NewFallback};
pub use list::FailureFilter;
pub(crate) use log::Failed;
pub use record::{FailureView, KEPT, MESSAGE_MAX, Resolved, ResolvedBy};
pub use redaction::{KEPT_MAX_BYTES, STRING_MAX};
pub(crate) use redaction::{SchemaRedactor, redacted};
pub use resolve::{ManyResolved, NOTE_MAX, RESOLVE_MAX, ResolveMany};
pub(crate) use secret_names::looks_secret;
pub use statistics::{
    ActionCount, CodeCount, DAYS_MAX, GroupBy, HOURS_MAX, Point, Statistics, StatisticsQuery, ToolCount, Trends,
    TrendsQuery,
};
