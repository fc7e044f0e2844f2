//! A `rate`: a number and a unit, such as `15 minutes`.

use super::{number, unwrapped};

pub(super) const RATE_FORM: &str = "a whole number from 1 and minutes, hours or days, such as 15 minutes";

/// The seconds of a rate.
pub(super) fn rate_s(text: &str) -> Result<i64, String> {
    let text = text.to_ascii_lowercase();
    let seconds = || {
        let (value, unit) = unwrapped(&text, "rate").split_once(char::is_whitespace)?;
        let unit_s = match unit.trim() {
            "minute" | "minutes" => 60,
            "hour" | "hours" => 60 * 60,
            "day" | "days" => 24 * 60 * 60,
            _ => return None,
        };
        number(value).filter(|value| *value > 0).map(|value| i64::from(value) * unit_s)
    };
    seconds().ok_or_else(|| format!("must be {RATE_FORM}"))
}
