//! The filters that a manifest may use beside minijinja's own. Each is general: a service's peculiarities stay in its
//! manifest. The README of `plugins/` lists them for authors.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::{TemplateError, mail};

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("base64", |value: &Value| STANDARD.encode(bytes_of(value)));
    environment.add_filter("base64url", |value: &Value| URL_SAFE_NO_PAD.encode(bytes_of(value)));
    environment.add_filter("base64url_decode", base64url_decode);
    environment.add_filter("chunks", chunks);
    environment.add_filter("epoch", epoch);
    environment.add_filter("mail_header", mail::header);
    environment.add_filter("mail_text", mail::text);
    environment.add_filter("mime_message", mail::message);
}

/// An error that the caller can mend: `pointer` names the parameter.
pub(super) fn parameter_error(pointer: impl Into<String>, problem: impl Into<String>) -> Error {
    let cause = TemplateError::Parameter { parameter: pointer.into(), problem: problem.into() };
    Error::new(ErrorKind::InvalidOperation, "a parameter cannot be used").with_source(cause)
}

fn bytes_of(value: &Value) -> Vec<u8> {
    value.as_bytes().map_or_else(|| value.to_string().into_bytes(), <[u8]>::to_vec)
}

/// Decodes base64url, with or without padding, to text; bytes that are not UTF-8 become U+FFFD.
fn base64url_decode(value: &str) -> Result<String, Error> {
    decode_base64url(value)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the value is not base64url"))
}

pub(super) fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// Cuts text into pieces of at most `length` characters, between words or lines where one ends in the second half.
fn chunks(text: &str, length: usize) -> Result<Vec<String>, Error> {
    if length == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "chunks needs a length of at least 1"));
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((cut, _)) = rest.char_indices().nth(length) {
        let (head, _) = rest.split_at(cut);
        let end = head
            .rfind(char::is_whitespace)
            .filter(|end| *end > cut / 2)
            .map_or(cut, |end| end + head.split_at(end).1.chars().next().map_or(0, char::len_utf8));
        let (piece, tail) = rest.split_at(end);
        pieces.push(piece.to_owned());
        rest = tail;
    }
    if !rest.is_empty() {
        pieces.push(rest.to_owned());
    }
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
        for text in ["", "short", "one two three four five", "αβγδεζηθικλμν", "a\nb\nc\nd", "longwordwithoutspaces"]
        {
            for length in 1..30 {
                let pieces = chunks(text, length).unwrap();
                assert_eq!(pieces.concat(), text);
                assert!(pieces.iter().all(|piece| (1..=length).contains(&piece.chars().count())), "{text} {length}");
            }
        }
        assert!(chunks("a", 0).is_err());
    }
}
