//! The six fields of a cron expression.

use std::collections::BTreeSet;

use super::number;

/// One of the six fields: its values, and their names.
pub(super) struct Field {
    name: &'static str,
    min: i16,
    pub(super) max: i16,
    /// Names of the values, starting at `min`.
    names: &'static [&'static str],
}

pub(super) const MINUTES: Field = Field { name: "minutes", min: 0, max: 59, names: &[] };
pub(super) const HOURS: Field = Field { name: "hours", min: 0, max: 23, names: &[] };
pub(super) const DAY_OF_MONTH: Field = Field { name: "day-of-month", min: 1, max: 31, names: &[] };
pub(super) const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
pub(super) const DAY_OF_WEEK: Field =
    Field { name: "day-of-week", min: 1, max: 7, names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] };
pub(super) const YEAR: Field = Field { name: "year", min: 1970, max: 2199, names: &[] };

impl Field {
    /// The values of a comma-separated list of values, ranges and steps.
    pub(super) fn list(&self, text: &str) -> Result<BTreeSet<i16>, String> {
        let mut values = BTreeSet::new();
        for item in text.split(',') {
            values.extend(self.item(item)?);
        }
        Ok(values)
    }

    /// The values of one list item: `*`, `5` or `5-9`, each also with a step: `*/2`, `5/2` (5 and later), `5-9/2`.
    pub(super) fn item(&self, text: &str) -> Result<impl Iterator<Item = i16> + use<>, String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let (low, high) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max),
            Some((low, high)) => (self.value(low)?, self.value(high)?),
            None if step.is_some() => (self.value(range)?, self.max),
            None => (self.value(range)?, self.value(range)?),
        };
        if low > high {
            let Self { name, min, max, .. } = self;
            return Err(format!("{name}: {range:?} goes backwards; write {low}-{max},{min}-{high}"));
        }
        let step = match step {
            None => 1,
            Some(text) => {
                let step = number(text).and_then(|step| i16::try_from(step).ok());
                let step = step.filter(|step| (1..=self.max).contains(step));
                step.ok_or_else(|| format!("{}: the step {text:?} must be 1 to {}", self.name, self.max))?
            }
        };
        Ok((low..=high).filter(move |value| (value - low) % step == 0))
    }

    /// The value of a number or a name.
    pub(super) fn value(&self, text: &str) -> Result<i16, String> {
        let by_name = (self.min..).zip(self.names).find(|(_, name)| **name == text).map(|(value, _)| value);
        let value = by_name.or_else(|| number(text).and_then(|value| i16::try_from(value).ok()));
        value.filter(|value| (self.min..=self.max).contains(value)).ok_or_else(|| {
            let Self { name, min, max, names } = self;
            let names = match names {
                [first, .., last] => format!(" or {first} to {last}"),
                _ => String::new(),
            };
            format!("{name}: {text:?} is no value; use {min} to {max}{names}")
        })
    }
}
