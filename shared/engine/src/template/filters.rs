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
    environment.add_filter("mail_attachments", mail::attachments);
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
