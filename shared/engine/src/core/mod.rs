//! Pure types of the domain, at the bottom: they do no I/O, and every folder may use them. `error` alone stands above the
//! ports, whose errors it names.

pub mod error;
pub mod ids;
pub mod intent;
pub mod outcome;
pub mod redactor;
pub mod schedule;
pub mod schema;
