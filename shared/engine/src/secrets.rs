//! Strikes a known secret out of whatever comes back from a service, which may echo what it was sent.
//!
//! This guards against carelessness: the secret as it is, percent-encoded, and within base64 of any alignment. A service
//! that is bent on telling its own credential can always disguise it.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

/// The shortest secret that is taken: striking out a shorter one would hit ordinary text.
pub const SECRET_MIN_BYTES: usize = 8;

/// What stands where a secret stood.
pub const STRUCK: &str = "[secret removed]";

/// Finds the forms of one secret.
pub(crate) struct Striker {
    forms: Option<AhoCorasick>,
}

impl Striker {
    /// For a call that carries `secret`, if any.
    pub(crate) fn new(secret: Option<&SecretString>) -> Self {
        let forms = secret.map(|secret| forms_of(secret.expose_secret()));
        let matcher =
            forms.and_then(|forms| AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(forms).ok());
        Self { forms: matcher }
    }

    /// The bytes without the secret.
    pub(crate) fn bytes(&self, bytes: bytes::Bytes) -> bytes::Bytes {
        match &self.forms {
            Some(forms) if forms.is_match(bytes.as_ref()) => {
                forms.replace_all_bytes(&bytes, &vec![STRUCK; forms.patterns_len()]).into()
            }
            Some(_) | None => bytes,
        }
    }

    /// The text without the secret.
    pub(crate) fn text(&self, text: String) -> String {
        match &self.forms {
            Some(forms) if forms.is_match(&text) => forms.replace_all(&text, &vec![STRUCK; forms.patterns_len()]),
            Some(_) | None => text,
        }
    }

    /// The value without the secret, in strings and in keys.
    pub(crate) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => Value::Object(
                fields.into_iter().map(|(key, value)| (self.text(key), self.value(value))).collect::<Map<_, _>>(),
            ),
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
        }
    }
}

fn forms_of(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string()];
    forms.push(utf8_percent_encode(secret, percent_encoding::CONTROLS).to_string());
    for offset in 0..3 {
        let mut shifted = vec![0; offset];
        shifted.extend_from_slice(secret.as_bytes());
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            // The characters at both ends depend on the neighbours as well.
            let first = (offset * 8).div_ceil(6);
            let last = shifted.len() * 8 / 6;
            forms.extend(encoded.get(first..last).map(str::to_owned));
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_is_struck_and_nothing_else() {
        let secret = "xoxb-1/2+3 é";
        let striker = Striker::new(Some(&SecretString::from(secret)));
        for prefix in ["", "B", "Be", "Bearer "] {
            for suffix in ["", "\"", "xy", "\r\n."] {
                for text in [
                    format!("{prefix}{secret}{suffix}"),
                    STANDARD.encode(format!("{prefix}{secret}{suffix}")),
                    URL_SAFE_NO_PAD.encode(format!("{prefix}{secret}{suffix}")),
                    format!("a={}&b", utf8_percent_encode(secret, NON_ALPHANUMERIC)),
                ] {
                    assert!(striker.text(text.clone()).contains(STRUCK), "{text}");
                    assert!(String::from_utf8(striker.bytes(text.clone().into()).to_vec()).unwrap().contains(STRUCK));
                }
            }
        }
        let struck = striker.value(json!({"a": [secret, 1, {secret: null}], "b": "xoxb-1"}));
        assert_eq!(struck, json!({"a": [STRUCK, 1, {STRUCK: null}], "b": "xoxb-1"}));
        assert_eq!(Striker::new(None).text("xoxb".into()), "xoxb");
    }
}
