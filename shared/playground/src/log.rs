//! The received calls, for the page and for tests. Tokens are never stored here.

use std::collections::VecDeque;

use base64::Engine;
use serde::Serialize;
use serde_json::Value;

use crate::Service;
use crate::call::shortened;
use crate::mail::BASE64_URL;

const MOST_ENTRIES: usize = 500;
const MOST_CHARACTERS: usize = 65_536;
const MASK: &str = "[token]";

/// One vendor call that the playground received.
#[derive(Clone, Debug, Serialize)]
pub struct Received {
    /// Unix seconds.
    pub time: i64,
    /// The vendor that was called.
    pub service: Service,
    /// The HTTP method.
    pub method: String,
    /// The whole path, without the query.
    pub path: String,
    /// The body as JSON (a form becomes an object, an unparsable body a string), or the query's fields if there is no body.
    /// Next to Gmail's `raw` there is `decoded`, the mail as text. `[token]` replaces the token of the call.
    pub body: Value,
    /// The HTTP status of the answer.
    pub status: u16,
    /// A summary for people: the effect of the call, the vendor's error, or the switch that applied.
    pub note: String,
}

/// The latest calls, and the number of all.
#[derive(Default)]
pub(crate) struct Log {
    entries: VecDeque<Received>,
    total: u64,
}

impl Log {
    /// Stores a call without its token.
    pub(crate) fn add(&mut self, mut received: Received, token: Option<&str>) {
        if received.service == Service::Gmail {
            decode_mail(&mut received.body);
        }
        clean(&mut received.body, token);
        received.note = masked(&shortened(&received.note, 300), token);
        received.path = masked(&received.path, token);
        if self.entries.len() >= MOST_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(received);
        self.total = self.total.saturating_add(1);
    }

    pub(crate) fn entries(&self) -> Vec<Received> {
        self.entries.iter().cloned().collect()
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn masked(text: &str, token: Option<&str>) -> String {
    match token {
        Some(token) if !token.is_empty() => text.replace(token, MASK),
        Some(_) | None => text.to_owned(),
    }
}

fn clean(value: &mut Value, token: Option<&str>) {
    match value {
        Value::String(text) => *text = shortened(&masked(text, token), MOST_CHARACTERS),
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, token)),
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                if matches!(key.as_str(), "token" | "access_token" | "refresh_token" | "client_secret") {
                    *field = MASK.into();
                }
                clean(field, token);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn decode_mail(body: &mut Value) {
    for pointer in ["", "/message"] {
        let Some(message) = body.pointer_mut(pointer).and_then(Value::as_object_mut) else { continue };
        let decoded = message.get("raw").and_then(Value::as_str).and_then(|raw| BASE64_URL.decode(raw).ok());
        if let Some(bytes) = decoded {
            message.insert("decoded".to_owned(), String::from_utf8_lossy(&bytes).into_owned().into());
        }
    }
}
