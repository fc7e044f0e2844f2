//! Pure types of the domain: they do no I/O, and every folder may use them. Only `error` depends on the ports, whose errors it
//! wraps.

pub(crate) mod backoff;
pub mod effect;
pub mod error;
pub mod ids;
pub mod intent;
pub(crate) mod json;
pub mod outcome;
pub(crate) mod percent;
pub mod problem;
pub mod redactor;
pub(crate) mod retry_after;
pub mod schedule;
pub mod schema;
pub(crate) mod suggest;
pub(crate) mod trace;
pub mod work_report;
