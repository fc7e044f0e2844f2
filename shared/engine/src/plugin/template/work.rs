//! The work budget of templates. Counting steps is not enough: one step over a large value takes time and memory in proportion
//! to its size. Therefore each read of a value is charged to the budget of the request or response.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

use minijinja::value::{Object, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// The bytes that all templates of one request or response may read and write together. A response has at most 4 MiB.
pub const WORK_MAX: u64 = 64 * 1024 * 1024;
/// The longest text that a template or a filter may return, in bytes.
pub const TEXT_MAX: usize = 4 * 1024 * 1024;
/// The largest value that a template may return, in bytes.
const VALUE_MAX: u64 = 24 * 1024 * 1024;
/// The most pieces that a text may be split into. A piece takes far more memory than a character.
pub(super) const PIECES_MAX: usize = 100_000;
/// The cost of any value, in addition to the bytes of a text.
pub(super) const NODE: u64 = 8;
/// The cost of a number whose text has hundreds of digits.
const LONG_NUMBER: u64 = 340;
/// The deepest nesting of values; JSON is read to a depth of 128.
const DEPTH_MAX: u32 = 160;
/// The fixed cost of one evaluation.
const EVALUATION: u64 = 256;
/// The cost of each byte of the evaluated source.
const SOURCE_BYTE: u64 = 4;

/// The variable in which filters find the budget. Its space keeps templates from naming it.
pub(super) const BUDGET: &str = " left";

/// The remaining part of [`WORK_MAX`].
#[derive(Debug)]
pub(super) struct WorkBudget(AtomicU64);

impl Object for WorkBudget {}

impl Default for WorkBudget {
    fn default() -> Self {
        Self(AtomicU64::new(WORK_MAX))
    }
}

impl WorkBudget {
    /// Charges a cost. An error if the budget does not have it.
    pub(super) fn spend(&self, cost: u64) -> Result<(), Error> {
        let charged = self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
        charged.map(drop).map_err(|_| {
            let limit = WORK_MAX / (1024 * 1024);
            failed(format!(
                "it is too much work: all templates of one request or response may read and write {limit} MiB; request \
                 less from the service, or use fewer filters"
            ))
        })
    }

    /// Charges the cost that an evaluation has before it reads any value.
    pub(super) fn charge_evaluation(&self, source: &str) -> Result<(), Error> {
        self.spend(bytes(source.len()).saturating_mul(SOURCE_BYTE).saturating_add(EVALUATION))
    }

    /// Charges for reading the whole value.
    pub(super) fn charge_scan(&self, value: &Value) -> Result<(), Error> {
        let left = self.0.load(Ordering::Relaxed);
        // A weight above the budget is refused by `spend`.
        self.spend(weight(value, left).unwrap_or(u64::MAX))
    }

    /// Charges for returning the value from a template.
    pub(super) fn charge_value(&self, value: &Value) -> Result<(), Error> {
        match weight(value, VALUE_MAX) {
            Some(weight) => self.spend(weight),
            None => Err(failed(format!("its value has more than {} MiB", VALUE_MAX / (1024 * 1024)))),
        }
    }
}

/// The budget, for a filter.
fn budget(state: &State<'_, '_>) -> Option<Value> {
    state.lookup(BUDGET)
}

/// Charges for a filter's reading of these values.
pub(super) fn charge_scan_of(state: &State<'_, '_>, values: &[Value]) -> Result<(), Error> {
    let Some(budget) = budget(state) else { return Ok(()) };
    let Some(budget) = budget.downcast_object_ref::<WorkBudget>() else { return Ok(()) };
    values.iter().try_for_each(|value| budget.charge_scan(value))
}

/// A filter's result, if it is not too long, after charging for its bytes.
pub(super) fn charge_output(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let Some(length) = value.as_bytes().map(<[u8]>::len) else { return Ok(value) };
    if length > TEXT_MAX {
        return Err(too_long());
    }
    if let Some(budget) = budget(state).as_ref().and_then(|budget| budget.downcast_object_ref::<WorkBudget>()) {
        budget.spend(bytes(length))?;
    }
    Ok(value)
}

/// The weight of a value, if it is at most `max`: about the bytes of its text, and [`NODE`] for each part.
fn weight(value: &Value, max: u64) -> Option<u64> {
    let mut left = max;
    weigh(value, DEPTH_MAX, &mut left)?;
    Some(max - left)
}

fn weigh(value: &Value, depth: u32, left: &mut u64) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    let own = match value.as_bytes() {
        Some(text) => bytes(text.len()),
        None if value.kind() == ValueKind::Number && !value.is_integer() => {
            let size = f64::try_from(value.clone()).unwrap_or_default().abs();
            if (1e-5..=1e15).contains(&size) { NODE } else { LONG_NUMBER }
        }
        None => 0,
    };
    *left = left.checked_sub(own.saturating_add(NODE))?;
    let kind = value.kind();
    if kind == ValueKind::Map {
        for key in value.try_iter().ok()? {
            weigh(&key, depth, left)?;
            weigh(&value.get_item(&key).ok()?, depth, left)?;
        }
    } else if kind == ValueKind::Seq || kind == ValueKind::Iterable {
        for item in value.try_iter().ok()? {
            weigh(&item, depth, left)?;
        }
    }
    Some(())
}

/// A value as text; an error if it is too long.
pub(super) fn text_of(value: &Value) -> Result<Cow<'_, str>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Cow::Borrowed(text));
    }
    let mut text = Limited::default();
    match fmt::write(&mut text, format_args!("{value}")) {
        Ok(()) => text.into_text().map(Cow::Owned),
        Err(_) => Err(too_long()),
    }
}

/// Text that grows up to [`TEXT_MAX`].
#[derive(Debug, Default)]
pub(super) struct Limited {
    bytes: Vec<u8>,
    /// Whether more than fits was written.
    pub full: bool,
}

impl Limited {
    /// The written text.
    pub(super) fn into_text(self) -> Result<String, Error> {
        String::from_utf8(self.bytes).map_err(|_| failed("the text is not UTF-8"))
    }

    fn append(&mut self, piece: &[u8]) -> bool {
        self.full |= self.bytes.len().saturating_add(piece.len()) > TEXT_MAX;
        if !self.full {
            self.bytes.extend_from_slice(piece);
        }
        !self.full
    }
}

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.append(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl io::Write for Limited {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.append(piece) { Ok(piece.len()) } else { Err(io::Error::other("the text is too long")) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn failed(reason: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

pub(super) fn too_long() -> Error {
    failed(format!("its text is longer than {} MiB", TEXT_MAX / (1024 * 1024)))
}

/// The cost of a length in bytes.
pub(super) fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
