//! The filters, tests and functions that a manifest may use: no others are there. Most are minijinja's; those of ours are
//! general, and a service's peculiarities stay in its manifest. The README of `plugins/` lists them for authors. Each use is
//! paid for (`work`), and none gives a text or a list that is out of proportion.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters, functions};

use super::mail;
use super::work::{self, Limited, PIECES_MAX, charge_output, charge_scan_of, failed, text_of as limited_text};
use crate::plugin::template::mail::decode_base64url;

/// The one function.
pub(super) const FUNCTION: &str = "dict";
/// Filters that give numbers.
pub(super) const NUMBERS: [&str; 7] = ["abs", "count", "epoch", "float", "int", "length", "round"];
/// Filters that give texts, or bytes.
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
/// Filters that give one of the values that they are given, or of those within.
pub(super) const ONE_OF: [&str; 7] = ["d", "default", "first", "last", "mail_header", "max", "min"];

/// What a filter or a test does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It passes it on.
    Passes,
    /// It looks at it.
    Looks,
    /// It takes the first as a text.
    TakesText,
    /// It goes through the parts of the first.
    GoesThrough,
}

/// A filter or a test: its name, what it does, and its function.
type NamedFilter = (&'static str, Use, Value);

static FILTERS: LazyLock<Vec<NamedFilter>> = LazyLock::new(|| {
    use Use::{GoesThrough, Looks, Passes, TakesText};
    vec![
        ("abs", Looks, Value::from_function(filters::abs)),
        ("bool", Looks, Value::from_function(filters::bool)),
        ("capitalize", TakesText, Value::from_function(filters::capitalize)),
        ("chain", Looks, Value::from_function(filters::chain)),
        ("count", Looks, Value::from_function(filters::length)),
        ("d", Passes, Value::from_function(filters::default)),
        ("default", Passes, Value::from_function(filters::default)),
        ("dictsort", GoesThrough, Value::from_function(filters::dictsort)),
        ("first", Looks, Value::from_function(filters::first)),
        ("float", Looks, Value::from_function(filters::float)),
        ("int", Looks, Value::from_function(filters::int)),
        ("items", GoesThrough, Value::from_function(filters::items)),
        ("last", Looks, Value::from_function(filters::last)),
        ("length", Looks, Value::from_function(filters::length)),
        ("list", GoesThrough, Value::from_function(filters::list)),
        ("lower", TakesText, Value::from_function(filters::lower)),
        ("map", GoesThrough, Value::from_function(filters::map)),
        ("max", GoesThrough, Value::from_function(filters::max)),
        ("min", GoesThrough, Value::from_function(filters::min)),
        ("reject", GoesThrough, Value::from_function(filters::reject)),
        ("rejectattr", GoesThrough, Value::from_function(filters::rejectattr)),
        ("reverse", GoesThrough, Value::from_function(filters::reverse)),
        ("round", Looks, Value::from_function(filters::round)),
        ("select", GoesThrough, Value::from_function(filters::select)),
        ("selectattr", GoesThrough, Value::from_function(filters::selectattr)),
        ("sort", GoesThrough, Value::from_function(filters::sort)),
        ("title", TakesText, Value::from_function(filters::title)),
        ("trim", TakesText, Value::from_function(filters::trim)),
        ("unique", GoesThrough, Value::from_function(filters::unique)),
        ("upper", TakesText, Value::from_function(filters::upper)),
        // In the place of minijinja's, whose results are as long as somebody wants.
        ("join", Looks, Value::from_function(join)),
        ("lines", TakesText, Value::from_function(lines)),
        ("replace", TakesText, Value::from_function(replace)),
        ("split", TakesText, Value::from_function(split)),
        ("string", Looks, Value::from_function(string)),
        ("tojson", Looks, Value::from_function(tojson)),
        // Beside minijinja's.
        ("base64", Looks, Value::from_function(base64)),
        ("base64url", Looks, Value::from_function(base64url)),
        ("base64url_decode", TakesText, Value::from_function(base64url_decode)),
        ("chunks", TakesText, Value::from_function(chunks)),
        ("epoch", Looks, Value::from_function(epoch)),
        ("mail_attachments", Looks, Value::from_function(mail::attachments)),
        ("mail_header", Looks, Value::from_function(mail::header)),
        ("mail_text", Looks, Value::from_function(mail::text)),
        ("mime_message", Looks, Value::from_function(mail::message)),
    ]
});

static TESTS: LazyLock<Vec<NamedFilter>> = LazyLock::new(|| {
    use Use::{Looks, Passes};
    let mut all = vec![
        ("boolean", Passes, Value::from_function(minijinja::tests::is_boolean)),
        ("defined", Passes, Value::from_function(minijinja::tests::is_defined)),
        ("divisibleby", Passes, Value::from_function(minijinja::tests::is_divisibleby)),
        ("endingwith", Looks, Value::from_function(minijinja::tests::is_endingwith)),
        ("even", Passes, Value::from_function(minijinja::tests::is_even)),
        ("false", Passes, Value::from_function(minijinja::tests::is_false)),
        ("float", Passes, Value::from_function(minijinja::tests::is_float)),
        ("in", Looks, Value::from_function(minijinja::tests::is_in)),
        ("integer", Passes, Value::from_function(minijinja::tests::is_integer)),
        ("iterable", Passes, Value::from_function(minijinja::tests::is_iterable)),
        ("mapping", Passes, Value::from_function(minijinja::tests::is_mapping)),
        ("none", Passes, Value::from_function(minijinja::tests::is_none)),
        ("number", Passes, Value::from_function(minijinja::tests::is_number)),
        ("odd", Passes, Value::from_function(minijinja::tests::is_odd)),
        ("sequence", Passes, Value::from_function(minijinja::tests::is_sequence)),
        ("startingwith", Looks, Value::from_function(minijinja::tests::is_startingwith)),
        ("string", Passes, Value::from_function(minijinja::tests::is_string)),
        ("true", Passes, Value::from_function(minijinja::tests::is_true)),
        ("undefined", Passes, Value::from_function(minijinja::tests::is_undefined)),
    ];
    for (names, test) in [
        (["==", "eq", "equalto"], Value::from_function(minijinja::tests::is_eq)),
        (["!=", "ne", "ne"], Value::from_function(minijinja::tests::is_ne)),
        (["<", "lt", "lessthan"], Value::from_function(minijinja::tests::is_lt)),
        (["<=", "le", "le"], Value::from_function(minijinja::tests::is_le)),
        ([">", "gt", "greaterthan"], Value::from_function(minijinja::tests::is_gt)),
        ([">=", "ge", "ge"], Value::from_function(minijinja::tests::is_ge)),
    ] {
        all.extend(names.map(|name| (name, Looks, test.clone())));
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
    for (name, use_of, filter) in FILTERS.iter() {
        environment.add_filter(*name, paid(*use_of, filter.clone()));
    }
    for (name, use_of, test) in TESTS.iter() {
        environment.add_test(*name, paid(*use_of, test.clone()));
    }
    environment.add_function(FUNCTION, paid(Use::Looks, Value::from_function(functions::dict)));
}

/// A function that is paid for.
fn paid(
    use_of: Use,
    function: Value,
) -> impl Fn(&mut State<'_, '_>, Rest<ValueOrKwargs>) -> Result<Value, Error> + Send + Sync {
    move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
        let mut arguments = arguments.into_values();
        if use_of == Use::Passes {
            return function.call(state, &arguments);
        }
        charge_scan_of(state, &arguments)?;
        if let Some(first) = arguments.first_mut() {
            match use_of {
                Use::TakesText if first.as_str().is_none() && !first.is_undefined() && !first.is_none() => {
                    *first = Value::from(limited_text(first)?.into_owned());
                }
                Use::GoesThrough if first.as_str().is_some_and(|text| text.len() > PIECES_MAX) => {
                    return Err(too_many_pieces());
                }
                Use::Passes | Use::Looks | Use::TakesText | Use::GoesThrough => {}
            }
        }
        let value = function.call(state, &arguments)?;
        charge_output(state, value)
    }
}

fn too_many_pieces() -> Error {
    failed(format!("the text would be cut into more than {PIECES_MAX} pieces"))
}

/// A list of no more pieces than there may be.
fn pieces<'a>(all: impl Iterator<Item = &'a str>) -> Result<Vec<Value>, Error> {
    let pieces: Vec<Value> = all.take(PIECES_MAX + 1).map(Value::from).collect();
    if pieces.len() > PIECES_MAX { Err(too_many_pieces()) } else { Ok(pieces) }
}

fn lines(text: &str) -> Result<Vec<Value>, Error> {
    pieces(text.lines())
}

/// Cuts at a separator, or between words.
fn split(text: &str, separator: Option<&str>) -> Result<Vec<Value>, Error> {
    match separator {
        None => pieces(text.split_whitespace()),
        Some("") => Err(failed("split needs a separator that is not empty")),
        Some(separator) => pieces(text.split(separator)),
    }
}

/// The elements as one text, with something between them.
fn join(list: &Value, between: Option<&str>) -> Result<String, Error> {
    let mut joined = Limited::default();
    for (index, item) in list.try_iter()?.enumerate() {
        let between = between.filter(|_| index > 0).unwrap_or_default();
        write!(joined, "{between}{item}").map_err(|_| work::too_long())?;
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

/// Cuts text into pieces of at most `length` UTF-16 units, which is how services that think in JavaScript count, and
/// between words or lines where one ends in the second half. A single character may be longer than `length` 1.
fn chunks(text: &str, length: usize) -> Result<Vec<String>, Error> {
    if length == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "chunks needs a length of at least 1"));
    }
    let mut pieces = vec![String::new()];
    let mut units = 0;
    // Where the piece that is being written may end, and the units until there.
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

/// Seconds since 1970 of an RFC 3339 time; a number is taken to be that already.
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

/// A value as it would stand in a query or a form: text without quotes. Nothing for null, arrays and objects.
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
    fn chunks_lose_nothing_and_keep_their_length() {
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
