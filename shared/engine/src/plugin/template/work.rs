//! What evaluating templates may cost. Steps are not enough to count: one step over large values takes as long, and as much
//! memory, as they are large. So each look at a value is paid for out of what one request or answer has.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

use minijinja::value::{Object, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// What all templates of one request or answer may look at and write together, in bytes. An answer has 4 MiB at most.
pub const WORK_MAX: u64 = 64 * 1024 * 1024;
/// The longest text that a template or a filter gives, in bytes.
pub const TEXT_MAX: usize = 4 * 1024 * 1024;
/// The largest value that a template gives, in bytes.
const VALUE_MAX: u64 = 24 * 1024 * 1024;
/// The most pieces that a text is cut into. A piece takes far more memory than a character.
pub(super) const PIECES_MAX: usize = 100_000;
/// What any value counts, beside the bytes of a text.
pub(super) const NODE: u64 = 8;
/// What a number counts that is written with hundreds of digits.
const LONG_NUMBER: u64 = 340;
/// How deep values may stand in each other; JSON is read to a depth of 128.
const DEPTH_MAX: u32 = 160;
/// What one evaluation costs whatever it does, and what a byte of its source costs.
const EVALUATION: u64 = 256;
const SOURCE_BYTE: u64 = 4;

/// The name by which filters find what is left. No template can write it.
pub(super) const LEFT: &str = " left";

/// What is left of [`WORK_MAX`].
#[derive(Debug)]
pub(super) struct WorkBudget(AtomicU64);

impl Object for WorkBudget {}

impl Default for WorkBudget {
    fn default() -> Self {
        Self(AtomicU64::new(WORK_MAX))
    }
}

impl WorkBudget {
    /// Takes away what something costs.
    pub(super) fn spend(&self, cost: u64) -> Result<(), Error> {
        let taken = self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
        taken.map(drop).map_err(|_| {
            let limit = WORK_MAX / (1024 * 1024);
            failed(format!(
                "it is too much work: all templates of one request or answer may look at and write {limit} MiB; ask the \
                 service for less, or use fewer filters"
            ))
        })
    }

    /// Takes away what an evaluation costs whatever it does.
    pub(super) fn begin(&self, source: &str) -> Result<(), Error> {
        self.spend(bytes(source.len()).saturating_mul(SOURCE_BYTE).saturating_add(EVALUATION))
    }

    /// Takes away what a look at the whole value costs.
    pub(super) fn charge_scan(&self, value: &Value) -> Result<(), Error> {
        let left = self.0.load(Ordering::Relaxed);
        // What is more than is left is refused by asking for it.
        self.spend(weight(value, left).unwrap_or(u64::MAX))
    }

    /// Takes away what it costs that a template gives the value.
    pub(super) fn give(&self, value: &Value) -> Result<(), Error> {
        match weight(value, VALUE_MAX) {
            Some(weight) => self.spend(weight),
            None => Err(failed(format!("its value has more than {} MiB", VALUE_MAX / (1024 * 1024)))),
        }
    }
}

/// What is left, for a filter.
fn remaining(state: &State<'_, '_>) -> Option<Value> {
    state.lookup(LEFT)
}

/// Takes away what a filter costs that looks at these values.
pub(super) fn charge_scan_of(state: &State<'_, '_>, values: &[Value]) -> Result<(), Error> {
    let Some(left) = remaining(state) else { return Ok(()) };
    let Some(work) = left.downcast_object_ref::<WorkBudget>() else { return Ok(()) };
    values.iter().try_for_each(|value| work.charge_scan(value))
}

/// What a filter gives, if it is not too long; its bytes are taken away.
pub(super) fn charge_output(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let Some(length) = value.as_bytes().map(<[u8]>::len) else { return Ok(value) };
    if length > TEXT_MAX {
        return Err(too_long());
    }
    if let Some(work) = remaining(state).as_ref().and_then(|left| left.downcast_object_ref::<WorkBudget>()) {
        work.spend(bytes(length))?;
    }
    Ok(value)
}

/// What a value weighs, if that is at most `most`: the bytes that it is written with, about, and [`NODE`] for each part.
fn weight(value: &Value, most: u64) -> Option<u64> {
    let mut left = most;
    weigh(value, DEPTH_MAX, &mut left)?;
    Some(most - left)
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

/// A value as text, if it is not too long.
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
    /// Whether more was to be written.
    pub full: bool,
}

impl Limited {
    /// What was written.
    pub(super) fn into_text(self) -> Result<String, Error> {
        String::from_utf8(self.bytes).map_err(|_| failed("the text is not UTF-8"))
    }

    fn fits(&mut self, piece: &[u8]) -> bool {
        self.full |= self.bytes.len().saturating_add(piece.len()) > TEXT_MAX;
        if !self.full {
            self.bytes.extend_from_slice(piece);
        }
        !self.full
    }
}

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.fits(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl io::Write for Limited {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.fits(piece) { Ok(piece.len()) } else { Err(io::Error::other("the text is too long")) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn failed(reason: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

pub(super) fn too_long() -> Error {
    failed(format!("the text that it gives is longer than {} MiB", TEXT_MAX / (1024 * 1024)))
}

/// A length as what it costs.
pub(super) fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
