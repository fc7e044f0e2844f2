//! The schedule of a recurring task: `cron` as EventBridge Scheduler writes it, or a fixed `rate`.
//!
//! Overseer parses both itself, because the libraries follow other rules: they accept `?` for `*`, have no year field, and
//! move a local time that a clock change skips instead of leaving it out.

mod cron;
mod definition;
mod field;
mod rate;
mod timetable;
mod zone;

pub use definition::{CatchUp, Schedule};
pub use timetable::Timetable;

/// The text inside `name(…)`, or else the whole text.
fn unwrapped<'a>(text: &'a str, name: &str) -> &'a str {
    let text = text.trim();
    let inner = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('(')?.strip_suffix(')'));
    inner.unwrap_or(text).trim()
}

/// A number of digits only: `str::parse` would accept a sign.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
