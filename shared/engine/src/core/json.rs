//! Reads JSON so that nothing of it is lost in silence. JSON of callers is refused where a value would be (RFC 8259, 4 and 6);
//! that of services is kept as far as it can be, because a call that has happened must not fail for one bad string.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Bound, RangeBounds};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::core::problem::{FieldProblem, pointer_part};

/// The numbers that are rounded at most after their decimal point. [`Number`] keeps the integers −2⁶³ to 2⁶⁴ − 1 as such, so
/// that one of these bounds as `f64` is another integer, rounded.
const KEPT: (Bound<f64>, Bound<f64>) =
    (Bound::Excluded(-9_223_372_036_854_775_808.0), Bound::Excluded(18_446_744_073_709_551_616.0));
/// The byte-order mark of UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The value of JSON that a caller sends, and a problem for each key that an object has twice and for each number that
/// would be rounded because it is an integer below −2⁶³ or above 2⁶⁴ − 1. An error if it is not JSON.
pub(crate) fn read_strictly(json: &[u8]) -> Result<(Value, Vec<FieldProblem>), serde_json::Error> {
    let found = RefCell::default();
    let value = read(json, &found)?;
    let problems = found.into_inner().into_iter().map(|Finding { pointer, kind }| {
        let message = match kind {
            FindingKind::DuplicateKey => "is a key twice in the same object; leave one of them out",
            FindingKind::RoundedNumber => {
                "is a number outside -2^63 to 2^64 - 1, which would be rounded; send it as a string"
            }
        };
        FieldProblem::new(pointer, message)
    });
    Ok((value, problems.collect()))
}

/// The value of JSON that a service answers with. A byte-order mark is passed over; bytes that are not UTF-8 and halves of
/// surrogate pairs become U+FFFD; numbers that would be rounded become strings; of a key that is there twice the last value counts.
pub(crate) fn read_leniently(json: &[u8]) -> Option<Value> {
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let found = RefCell::default();
    let value = read(json, &found);
    let is_rounded = || found.borrow().iter().any(|finding| finding.kind == FindingKind::RoundedNumber);
    match value {
        Ok(value) if !is_rounded() => Some(value),
        Ok(_) | Err(_) => serde_json::from_str(&repaired(&String::from_utf8_lossy(json))).ok(),
    }
}

fn read(json: &[u8], found: &RefCell<Vec<Finding>>) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = JsonReader { path: JsonPath::Root, found }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Something that [`Value`] cannot hold.
struct Finding {
    pointer: String,
    kind: FindingKind,
}

#[derive(PartialEq, Eq)]
enum FindingKind {
    DuplicateKey,
    RoundedNumber,
}

/// Where a value is.
#[derive(Clone, Copy)]
enum JsonPath<'a> {
    Root,
    Key(&'a JsonPath<'a>, &'a str),
    Index(&'a JsonPath<'a>, usize),
}

impl fmt::Display for JsonPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) => write!(f, "{parent}/{}", pointer_part(key)),
            Self::Index(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// Reads one value as [`Value`] does, and notes what is lost.
struct JsonReader<'a> {
    path: JsonPath<'a>,
    found: &'a RefCell<Vec<Finding>>,
}

impl JsonReader<'_> {
    fn note(&self, path: JsonPath<'_>, kind: FindingKind) {
        self.found.borrow_mut().push(Finding { pointer: path.to_string(), kind });
    }
}

impl<'de> DeserializeSeed<'de> for JsonReader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonReader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        if !KEPT.contains(&value) {
            self.note(self.path, FindingKind::RoundedNumber);
        }
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items
            .next_element_seed(JsonReader { path: JsonPath::Index(&self.path, values.len()), found: self.found })?
        {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = JsonPath::Key(&self.path, &key);
            let value = entries.next_value_seed(JsonReader { path, found: self.found })?;
            if object.contains_key(&key) {
                self.note(path, FindingKind::DuplicateKey);
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// The text with halves of surrogate pairs replaced by U+FFFD, and with quotes around numbers that would be rounded.
fn repaired(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 16);
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            '"' => split_string(rest),
            '-' | '0'..='9' => split_number(rest),
            _ => rest.split_at(first.len_utf8()),
        };
        match first {
            '"' => push_string(&mut text, token),
            '-' | '0'..='9' if is_rounded(token) => text.extend(["\"", token, "\""]),
            _ => text.push_str(token),
        }
        rest = after;
    }
    text
}

/// Splits after the string that the text begins with.
fn split_string(text: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find_map(|(at, letter)| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends.then_some(at + 1)
    });
    text.split_at(end.unwrap_or(text.len()))
}

/// Splits after the number that the text begins with.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !matches!(letter, '-' | '+' | '.' | 'e' | 'E' | '0'..='9'));
    text.split_at(end.unwrap_or(text.len()))
}

fn is_rounded(number: &str) -> bool {
    let is_integer = number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
    !is_integer && number.parse::<f64>().is_ok_and(|value| !KEPT.contains(&value))
}

/// Appends a string with its quotes. An escaped half of a surrogate pair (`\ud800` to `\udfff`) that has no other half becomes
/// `\ufffd`.
fn push_string(text: &mut String, string: &str) {
    let mut rest = string;
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        text.push('\\');
        let unit = |escape: &str| u16::from_str_radix(escape.strip_prefix('u')?.get(..4)?, 16).ok();
        let first = unit(escape);
        let second = escape.get(5..).and_then(|after| unit(after.strip_prefix('\\')?));
        let length = match (first, second) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 11,
            (Some(0xd800..=0xdfff), _) => {
                text.push_str("ufffd");
                rest = escape.get(5..).unwrap_or_default();
                continue;
            }
            _ => escape.chars().next().map_or(0, char::len_utf8),
        };
        let (kept, after) = escape.split_at(length);
        text.push_str(kept);
        rest = after;
    }
    text.push_str(rest);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(json: &str) -> Vec<String> {
        let (_, problems) = read_strictly(json.as_bytes()).unwrap();
        problems.into_iter().map(|problem| problem.pointer).collect()
    }

    #[test]
    fn duplicate_keys_are_found_at_any_depth() {
        assert_eq!(pointers(r#"{"a":{"b":1,"b":2},"c":[{},{"d/~":1,"d/~":1}],"a":1}"#), ["/a/b", "/c/1/d~1~0", "/a"]);
        assert_eq!(pointers(r#"{"a":1,"\u0061":2}"#), ["/a"]);
        assert_eq!(pointers(r#"{"a":{"a":1},"b":{"a":1}}"#), [""; 0]);
    }

    #[test]
    fn rounded_numbers_are_found() {
        assert_eq!(pointers("[18446744073709551615,-9223372036854775808,1.5,1e18]"), [""; 0]);
        assert_eq!(pointers("[18446744073709551616,-9223372036854775809,1e20]"), ["/0", "/1", "/2"]);
    }

    #[test]
    fn valid_json_reads_as_serde_reads_it() {
        for text in [r#"{"a":[null,true,-1,1.5,"\ud83d\ude00",{}]}"#, "[]", "\"x\"", " 7 "] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read_strictly(text.as_bytes()).unwrap().0, value, "{text}");
            assert_eq!(read_leniently(text.as_bytes()).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn invalid_json_is_an_error() {
        for text in ["", "{", "[1] 2", "{\"a\"}", "nul"] {
            assert!(read_strictly(text.as_bytes()).is_err(), "{text}");
            assert_eq!(read_leniently(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn byte_order_mark_of_an_answer_is_passed_over() {
        assert_eq!(read_leniently(b"\xef\xbb\xbf{\"a\":1}"), Some(json!({ "a": 1 })));
    }

    #[test]
    fn bad_byte_of_an_answer_costs_one_character() {
        assert_eq!(read_leniently(b"{\"a\":\"x\xffy\",\"b\":1}"), Some(json!({ "a": "x\u{fffd}y", "b": 1 })));
    }

    #[test]
    fn lone_surrogate_of_an_answer_costs_one_character() {
        for (text, expected) in [
            (r#"["\ud800"]"#, "\u{fffd}"),
            (r#"["a\ud800b"]"#, "a\u{fffd}b"),
            (r#"["\udc00\ud83d\ude00"]"#, "\u{fffd}\u{1f600}"),
            (r#"["\ud83d\ud83d\ude00"]"#, "\u{fffd}\u{1f600}"),
            (r#"["\ud800\n\\ud800\""]"#, "\u{fffd}\n\\ud800\""),
            (r#"["\ud800é"]"#, "\u{fffd}é"),
        ] {
            assert_eq!(read_leniently(text.as_bytes()), Some(json!([expected])), "{text}");
        }
    }

    #[test]
    fn large_number_of_an_answer_becomes_a_string() {
        let answer = br#"{"id":18446744073709551616,"n":[-9223372036854775809,1],"t":"18446744073709551616 \ud800"}"#;
        let expected = json!({
            "id": "18446744073709551616", "n": ["-9223372036854775809", 1], "t": "18446744073709551616 \u{fffd}",
        });
        assert_eq!(read_leniently(answer), Some(expected));
    }
}
