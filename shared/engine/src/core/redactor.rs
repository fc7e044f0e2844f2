//! Redaction of known secrets: replaces every occurrence of given secret strings in text and JSON. Use it where the code
//! holds the secret itself, such as an account's token in what the service returns, which may echo what it was sent.
//!
//! Which *parameters* of an action are secret, by their names and by `x-secret` in the schema, is decided in
//! `invoke/failures/redaction.rs` (names: `invoke/failures/secret_names.rs`). Its `SchemaRedactor` collects their values and
//! has the `Redactor` here remove them.
//!
//! Recognised are the secret itself, its JSON-escaped and percent-encoded forms, and its base64 form at every alignment.
//! This protects against accidents. A malicious service can always disguise its own credential.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::core::percent::UNRESERVED;

/// The shortest secret that is redacted, in bytes: a shorter one would match ordinary text.
pub const SECRET_MIN_BYTES: usize = 8;

/// The replacement of a secret.
pub const REDACTED: &str = "[secret removed]";

/// Replaces all forms of some secrets.
pub(crate) struct Redactor {
    /// The longest first, since a shorter form within a longer one would leave the rest of it behind.
    forms: Vec<String>,
}

impl Redactor {
    /// A redactor for a call that carries `secrets`. Those shorter than [`SECRET_MIN_BYTES`] are ignored.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let secrets =
            secrets.into_iter().map(ExposeSecret::expose_secret).filter(|text| text.len() >= SECRET_MIN_BYTES);
        let mut forms: Vec<String> = secrets.flat_map(forms_of).collect();
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { forms }
    }

    /// The text without secrets.
    pub(crate) fn text(&self, mut text: String) -> String {
        for form in self.forms.iter().map(String::as_str) {
            if text.contains(form) {
                text = text.replace(form, REDACTED);
            }
        }
        text
    }

    /// The value without secrets, in strings, keys and numbers (a secret of digits may appear as a number).
    pub(crate) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => Value::Object(
                fields.into_iter().map(|(key, value)| (self.text(key), self.value(value))).collect::<Map<_, _>>(),
            ),
            Value::Number(number) => {
                let text = number.to_string();
                if self.forms.iter().any(|form| text.contains(form.as_str())) { REDACTED.into() } else { number.into() }
            }
            plain @ (Value::Null | Value::Bool(_)) => plain,
        }
    }
}

/// The texts in which a secret may appear.
fn forms_of(secret: &str) -> Vec<String> {
    let json = Value::from(secret).to_string();
    let mut forms = vec![secret.to_owned(), json.trim_matches('"').to_owned(), secret.replace('/', "\\/")];
    for set in [NON_ALPHANUMERIC, UNRESERVED] {
        let upper = utf8_percent_encode(secret, set).to_string();
        let lower = utf8_percent_encode(secret, set).map(|part| match part.strip_prefix('%') {
            Some(digits) => format!("%{}", digits.to_ascii_lowercase()),
            None => part.to_owned(),
        });
        forms.extend([lower.collect(), upper]);
    }
    for offset in 0..3 {
        let mut shifted = vec![0; offset];
        shifted.extend_from_slice(secret.as_bytes());
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            // The first and the last character also depend on the neighbouring bytes.
            let first = (offset * 8).div_ceil(6);
            let last = shifted.len() * 8 / 6;
            forms.extend(encoded.get(first..last).map(str::to_owned));
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_a_secret_is_redacted() {
        let secret = "xoxb-1/2+3 é";
        let redactor = Redactor::new(&[SecretString::from(secret)]);
        for prefix in ["", "B", "Be", "Bearer "] {
            for suffix in ["", "\"", "xy", "\r\n."] {
                for text in [
                    format!("{prefix}{secret}{suffix}"),
                    STANDARD.encode(format!("{prefix}{secret}{suffix}")),
                    URL_SAFE_NO_PAD.encode(format!("{prefix}{secret}{suffix}")),
                    "a=xoxb%2D1%2F2%2B3%20%C3%A9&b".to_owned(),
                    "a=xoxb-1%2f2%2b3%20%c3%a9&b".to_owned(),
                    r#"{"a": "xoxb-1\/2+3 é"}"#.to_owned(),
                ] {
                    assert!(redactor.text(text.clone()).contains(REDACTED), "{text}");
                }
            }
        }
        let redacted = redactor.value(json!({"a": [secret, 1, {secret: null}], "b": "xoxb-1"}));
        assert_eq!(redacted, json!({"a": [REDACTED, 1, {REDACTED: null}], "b": "xoxb-1"}));
        let digits = Redactor::new(&[SecretString::from("1234567890")]);
        assert_eq!(digits.value(json!([1_234_567_890, 12])), json!([REDACTED, 12]));
        assert_eq!(Redactor::new(None::<&SecretString>).text("xoxb".into()), "xoxb");
    }
}
