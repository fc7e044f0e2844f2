//! How long a service or a receiver asks to wait.

use std::time::Duration;

use jiff::Timestamp;

/// The seconds that a header such as `Retry-After` (RFC 9110, 10.2.3) asks to wait: a number of seconds, or a date. Some
/// services send fractions of a second, which are rounded up. `None` if the header cannot be read, or names a time before `now`.
pub(crate) fn seconds_of(text: &str, now: Timestamp) -> Option<u64> {
    let text = text.trim();
    if text.starts_with(|first: char| first.is_ascii_digit())
        && let Ok(seconds) = text.parse::<f64>()
    {
        // A number that no duration can hold is longer than any wait.
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        return Some(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    u64::try_from(at.as_second() - now.as_second()).ok()
}
