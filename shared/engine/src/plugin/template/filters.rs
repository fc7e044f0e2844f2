//! All filters, tests and functions that a manifest may use. Most are minijinja's; Overseer's own are general, and what is
//! special to a service stays in its manifest. `docs/plugin-reference.md` lists them for authors. Each use is charged to the budget
//! (`work`), and texts and lists that they return are limited.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters, functions};

use super::mail;
use super::work::{self, Limited, PIECES_MAX, charge_output, charge_scan_of, failed, text_of as limited_text};
use crate::plugin::template::mail::decode_base64url;

/// The only function.
pub(super) const FUNCTION: &str = "dict";
/// Filters that return numbers.
pub(super) const NUMBERS: [&str; 7] = ["abs", "count", "epoch", "float", "int", "length", "round"];
/// Filters that return texts or bytes.
pub(super) const TEXTS: [&str; 15] = [
    "base64",
    "base64url",
    "base64url_decode",
    "bool",
    "capitalize",
    "join",
    "lower",
    "mail_text",
    "mime_message",
    "replace",
    "string",
    "title",
    "tojson",
    "trim",
    "upper",
];
/// Filters that return one of their arguments, or a value within one.
pub(super) const ONE_OF: [&str; 7] = ["d", "default", "first", "last", "mail_header", "max", "min"];

/// How a filter or a test uses its arguments, which decides what it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArgumentUse {
    /// Returns an argument, or looks at its type only: free.
    PassThrough,
    /// Reads its arguments.
    Reads,
    /// Reads its arguments, the first of them as a text.
    ReadsText,
    /// Reads its arguments and iterates over the first.
    Iterates,
}

/// A filter or a test: its name, how it uses its arguments, and its function.
type NamedFilter = (&'static str, ArgumentUse, Value);

static FILTERS: LazyLock<Vec<NamedFilter>> = LazyLock::new(|| {
    use ArgumentUse::{Iterates, PassThrough, Reads, ReadsText};
    vec![
        ("abs", Reads, Value::from_function(filters::abs)),
        ("bool", Reads, Value::from_function(filters::bool)),
        ("capitalize", ReadsText, Value::from_function(filters::capitalize)),
        ("chain", Reads, Value::from_function(filters::chain)),
        ("count", Reads, Value::from_function(filters::length)),
        ("d", PassThrough, Value::from_function(filters::default)),
        ("default", PassThrough, Value::from_function(filters::default)),
        ("dictsort", Iterates, Value::from_function(filters::dictsort)),
        ("first", Reads, Value::from_function(filters::first)),
        ("float", Reads, Value::from_function(filters::float)),
        ("int", Reads, Value::from_function(filters::int)),
        ("items", Iterates, Value::from_function(filters::items)),
        ("last", Reads, Value::from_function(filters::last)),
        ("length", Reads, Value::from_function(filters::length)),
        ("list", Iterates, Value::from_function(filters::list)),
        ("lower", ReadsText, Value::from_function(filters::lower)),
        ("map", Iterates, Value::from_function(filters::map)),
        ("max", Iterates, Value::from_function(filters::max)),
        ("min", Iterates, Value::from_function(filters::min)),
        ("reject", Iterates, Value::from_function(filters::reject)),
        ("rejectattr", Iterates, Value::from_function(filters::rejectattr)),
        ("reverse", Iterates, Value::from_function(filters::reverse)),
        ("round", Reads, Value::from_function(filters::round)),
        ("select", Iterates, Value::from_function(filters::select)),
        ("selectattr", Iterates, Value::from_function(filters::selectattr)),
        ("sort", Iterates, Value::from_function(filters::sort)),
        ("title", ReadsText, Value::from_function(filters::title)),
        ("trim", ReadsText, Value::from_function(filters::trim)),
        ("unique", Iterates, Value::from_function(filters::unique)),
        ("upper", ReadsText, Value::from_function(filters::upper)),
        // Replacements for minijinja's, whose results have no limit.
        ("join", Reads, Value::from_function(join)),
        ("lines", ReadsText, Value::from_function(lines)),
        ("replace", ReadsText, Value::from_function(replace)),
        ("split", ReadsText, Value::from_function(split)),
        ("string", Reads, Value::from_function(string)),
        ("tojson", Reads, Value::from_function(tojson)),
        // Overseer's own.
        ("base64", Reads, Value::from_function(base64)),
        ("base64url", Reads, Value::from_function(base64url)),
        ("base64url_decode", ReadsText, Value::from_function(base64url_decode)),
        ("chunks", ReadsText, Value::from_function(chunks)),
        ("epoch", Reads, Value::from_function(epoch)),
        ("mail_attachments", Reads, Value::from_function(mail::attachments)),
        ("mail_header", Reads, Value::from_function(mail::header)),
        ("mail_text", Reads, Value::from_function(mail::text)),
        ("mime_message", Reads, Value::from_function(mail::message)),
    ]
});

static TESTS: LazyLock<Vec<NamedFilter>> = LazyLock::new(|| {
    use ArgumentUse::{PassThrough, Reads};
    let mut all = vec![
        ("boolean", PassThrough, Value::from_function(minijinja::tests::is_boolean)),
        ("defined", PassThrough, Value::from_function(minijinja::tests::is_defined)),
        ("divisibleby", PassThrough, Value::from_function(minijinja::tests::is_divisibleby)),
        ("endingwith", Reads, Value::from_function(minijinja::tests::is_endingwith)),
        ("even", PassThrough, Value::from_function(minijinja::tests::is_even)),
        ("false", PassThrough, Value::from_function(minijinja::tests::is_false)),
        ("float", PassThrough, Value::from_function(minijinja::tests::is_float)),
        ("in", Reads, Value::from_function(minijinja::tests::is_in)),
        ("integer", PassThrough, Value::from_function(minijinja::tests::is_integer)),
        ("iterable", PassThrough, Value::from_function(minijinja::tests::is_iterable)),
        ("mapping", PassThrough, Value::from_function(minijinja::tests::is_mapping)),
        ("none", PassThrough, Value::from_function(minijinja::tests::is_none)),
        ("number", PassThrough, Value::from_function(minijinja::tests::is_number)),
        ("odd", PassThrough, Value::from_function(minijinja::tests::is_odd)),
        ("sequence", PassThrough, Value::from_function(minijinja::tests::is_sequence)),
        ("startingwith", Reads, Value::from_function(minijinja::tests::is_startingwith)),
        ("string", PassThrough, Value::from_function(minijinja::tests::is_string)),
        ("true", PassThrough, Value::from_function(minijinja::tests::is_true)),
        ("undefined", PassThrough, Value::from_function(minijinja::tests::is_undefined)),
    ];
    for (names, test) in [
        (["==", "eq", "equalto"], Value::from_function(minijinja::tests::is_eq)),
        (["!=", "ne", "ne"], Value::from_function(minijinja::tests::is_ne)),
        (["<", "lt", "lessthan"], Value::from_function(minijinja::tests::is_lt)),
        (["<=", "le", "le"], Value::from_function(minijinja::tests::is_le)),
        ([">", "gt", "greaterthan"], Value::from_function(minijinja::tests::is_gt)),
        ([">=", "ge", "ge"], Value::from_function(minijinja::tests::is_ge)),
    ] {
        all.extend(names.map(|name| (name, Reads, test.clone())));
    }
    all
});

/// Whether there is a filter of that name.
pub(super) fn is_filter(name: &str) -> bool {
    FILTERS.iter().any(|(known, ..)| *known == name)
}

/// Whether there is a test of that name.
pub(super) fn is_test(name: &str) -> bool {
    TESTS.iter().any(|(known, ..)| *known == name)
}

pub(super) fn add(environment: &mut Environment<'_>) {
    for (name, argument_use, filter) in FILTERS.iter() {
        environment.add_filter(*name, metered(*argument_use, filter.clone()));
    }
    for (name, argument_use, test) in TESTS.iter() {
        environment.add_test(*name, metered(*argument_use, test.clone()));
    }
    environment.add_function(FUNCTION, metered(ArgumentUse::Reads, Value::from_function(functions::dict)));
}

/// A function whose use is charged to the budget.
fn metered(
    argument_use: ArgumentUse,
    function: Value,
) -> impl Fn(&mut State<'_, '_>, Rest<ValueOrKwargs>) -> Result<Value, Error> + Send + Sync {
    move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
        let mut arguments = arguments.into_values();
        if argument_use == ArgumentUse::PassThrough {
            return function.call(state, &arguments);
        }
        charge_scan_of(state, &arguments)?;
        if let Some(first) = arguments.first_mut() {
            match argument_use {
                ArgumentUse::ReadsText if first.as_str().is_none() && !first.is_undefined() && !first.is_none() => {
                    *first = Value::from(limited_text(first)?.into_owned());
                }
                ArgumentUse::Iterates if first.as_str().is_some_and(|text| text.len() > PIECES_MAX) => {
                    return Err(too_many_pieces());
                }
                ArgumentUse::PassThrough | ArgumentUse::Reads | ArgumentUse::ReadsText | ArgumentUse::Iterates => {}
            }
        }
        let value = function.call(state, &arguments)?;
        charge_output(state, value)
    }
}

fn too_many_pieces() -> Error {
    failed(format!("the text would be split into more than {PIECES_MAX} pieces"))
}

/// A list of pieces; an error if there are too many.
fn pieces<'a>(all: impl Iterator<Item = &'a str>) -> Result<Vec<Value>, Error> {
    let pieces: Vec<Value> = all.take(PIECES_MAX + 1).map(Value::from).collect();
    if pieces.len() > PIECES_MAX { Err(too_many_pieces()) } else { Ok(pieces) }
}

fn lines(text: &str) -> Result<Vec<Value>, Error> {
    pieces(text.lines())
}

/// Splits at a separator, or between words.
fn split(text: &str, separator: Option<&str>) -> Result<Vec<Value>, Error> {
    match separator {
        None => pieces(text.split_whitespace()),
        Some("") => Err(failed("split needs a separator that is not empty")),
        Some(separator) => pieces(text.split(separator)),
    }
}

/// The elements as one text, with a separator between them.
fn join(list: &Value, separator: Option<&str>) -> Result<String, Error> {
    let mut joined = Limited::default();
    for (index, item) in list.try_iter()?.enumerate() {
        let separator = separator.filter(|_| index > 0).unwrap_or_default();
        write!(joined, "{separator}{item}").map_err(|_| work::too_long())?;
    }
    joined.into_text()
}

fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    let mut replaced = Limited::default();
    for (index, piece) in text.split(from).enumerate() {
        let to = if index > 0 { to } else { "" };
        write!(replaced, "{to}{piece}").map_err(|_| work::too_long())?;
    }
    replaced.into_text()
}

fn string(value: &Value) -> Result<String, Error> {
    limited_text(value).map(std::borrow::Cow::into_owned)
}

fn tojson(value: &Value) -> Result<String, Error> {
    let mut written = Limited::default();
    match serde_json::to_writer(&mut written, value) {
        Ok(()) => written.into_text(),
        Err(_) if written.full => Err(work::too_long()),
        Err(error) => Err(failed(format!("the value is not JSON: {error}"))),
    }
}

fn base64(value: &Value) -> Result<String, Error> {
    bytes_of(value).map(|bytes| STANDARD.encode(bytes))
}

fn base64url(value: &Value) -> Result<String, Error> {
    bytes_of(value).map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
}

fn bytes_of(value: &Value) -> Result<std::borrow::Cow<'_, [u8]>, Error> {
    match value.as_bytes() {
        Some(bytes) => Ok(bytes.into()),
        None => Ok(limited_text(value)?.into_owned().into_bytes().into()),
    }
}

/// Decodes base64url, with or without padding, to text; bytes that are not UTF-8 become U+FFFD.
fn base64url_decode(value: &str) -> Result<String, Error> {
    decode_base64url(value)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the value is not base64url"))
}

/// Splits a text into pieces of at most `length` UTF-16 units (as JavaScript counts), between words or lines if one ends in
/// the second half of a piece. A single character may be longer than a `length` of 1.
fn chunks(text: &str, length: usize) -> Result<Vec<String>, Error> {
    if length == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "chunks needs a length of at least 1"));
    }
    let mut pieces = vec![String::new()];
    let mut units = 0;
    // The last possible end of the current piece: its byte offset, and the units before it.
    let mut end: Option<(usize, usize)> = None;
    for character in text.chars() {
        if units > 0 && units + character.len_utf16() > length {
            let (at, before) = end.take().filter(|(_, before)| *before > length / 2).unwrap_or((usize::MAX, units));
            units -= before;
            let tail = pieces.last_mut().filter(|piece| at < piece.len()).map(|piece| piece.split_off(at));
            pieces.push(tail.unwrap_or_default());
            if pieces.len() > PIECES_MAX {
                return Err(too_many_pieces());
            }
        }
        let Some(piece) = pieces.last_mut() else { continue };
        piece.push(character);
        units += character.len_utf16();
        if character.is_whitespace() {
            end = Some((piece.len(), units));
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    Ok(pieces)
}

/// Seconds since 1970 of an RFC 3339 time; a number is returned unchanged.
fn epoch(_: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::Number {
        return Ok(value.clone());
    }
    let text = value.as_str().unwrap_or_default();
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        Error::new(ErrorKind::InvalidOperation, "the value is neither an RFC 3339 time nor a number of seconds")
    })?;
    Ok(Value::from(time.as_second()))
}

/// A value as the text of a query or a form, without quotes. `None` for null, arrays and objects.
pub(crate) fn text_of(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Bool(truth) => Some(truth.to_string()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_preserve_the_text() {
        for text in
            ["", "short", "one two three four five", "αβγδεζηθικλμν", "a\nb\nc\nd", "😀 😀😀", "longwordwithoutspaces"]
        {
            for length in 1..30 {
                let pieces = chunks(text, length).unwrap();
                assert_eq!(pieces.concat(), text);
                let fits = |piece: &String| (1..=length.max(2)).contains(&piece.encode_utf16().count());
                assert!(pieces.iter().all(fits), "{text} {length}");
            }
        }
        assert_eq!(chunks("one two three", 8).unwrap(), ["one two ", "three"]);
        assert_eq!(chunks("😀😀😀", 4).unwrap(), ["😀😀", "😀"]);
        assert!(chunks("a", 0).is_err());
    }
}
