//! The stand-in of the Gmail API: one mailbox with seeded mails, sent mails and drafts.

use std::collections::HashSet;

use axum::http::{Method, StatusCode};
use base64::Engine;
use serde_json::{Value, json};

use crate::call::{Answer, Call, Fault, set};
use crate::identifier::hexadecimal;
use crate::mail::{BASE64_URL, Mail, Recipients, inbox};

/// The address of the mailbox.
pub(crate) const ADDRESS: &str = "you@playground.example";
const HISTORY: &str = "1000";
const MOST_RESULTS: usize = 500;
const OPERATORS: [&str; 8] = ["from", "to", "subject", "is", "in", "label", "newer_than", "older_than"];

/// One mailbox.
pub(crate) struct Gmail {
    /// Oldest first.
    entries: Vec<Entry>,
    sequence: u64,
}

struct Entry {
    id: String,
    thread: String,
    labels: Vec<&'static str>,
    time: i64,
    mail: Mail,
}

/// A Google error: HTTP status, reason, canonical status and message.
struct Failure(StatusCode, &'static str, &'static str, String);

/// One condition of a search, in lower case.
struct Term {
    /// An operator of [`OPERATORS`], or "" for a plain word.
    operator: String,
    word: String,
}

type Outcome = Result<Answer, Failure>;

fn invalid(message: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, "invalidArgument", "INVALID_ARGUMENT", message.into())
}

fn not_found() -> Failure {
    let message = "Requested entity was not found.".to_owned();
    Failure(StatusCode::NOT_FOUND, "notFound", "NOT_FOUND", message)
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        let Failure(status, reason, canonical, message) = failure;
        let body = json!({"error": {
            "code": status.as_u16(),
            "message": message,
            "errors": [{"message": message, "domain": "global", "reason": reason}],
            "status": canonical,
        }});
        Self::failure(status, body, message)
    }
}

pub(crate) fn fault(fault: Fault) -> Answer {
    let failure =
        |status, reason, canonical, message: &str| Answer::from(Failure(status, reason, canonical, message.to_owned()));
    match fault {
        Fault::MissingToken | Fault::UnknownToken | Fault::ExpiredToken | Fault::RevokedToken => {
            let body = json!({"error": {
                "code": 401,
                "message": "Request had invalid authentication credentials. Expected OAuth 2 access token, \
                            login cookie or other valid authentication credential. See \
                            https://developers.google.com/identity/sign-in/web/devconsole-project.",
                "errors": [{
                    "message": "Invalid Credentials", "domain": "global", "reason": "authError",
                    "location": "Authorization", "locationType": "header",
                }],
                "status": "UNAUTHENTICATED",
            }});
            Answer::failure(StatusCode::UNAUTHORIZED, body, "Invalid Credentials")
        }
        Fault::RateLimited => failure(
            StatusCode::TOO_MANY_REQUESTS,
            "rateLimitExceeded",
            "RESOURCE_EXHAUSTED",
            "User-rate limit exceeded.",
        ),
        Fault::Internal => {
            failure(StatusCode::INTERNAL_SERVER_ERROR, "backendError", "INTERNAL", "Internal error encountered.")
        }
        Fault::Malformed => {
            failure(StatusCode::BAD_REQUEST, "parseError", "INVALID_ARGUMENT", "Invalid JSON payload received.")
        }
        Fault::TooLarge => failure(
            StatusCode::PAYLOAD_TOO_LARGE,
            "uploadTooLarge",
            "INVALID_ARGUMENT",
            "Request payload size exceeds the limit: 8388608 bytes.",
        ),
    }
}

impl Gmail {
    pub(crate) fn new(now: i64) -> Self {
        let mut gmail = Self { entries: Vec::new(), sequence: 0 };
        for (mail, age) in inbox().into_iter().zip([90_000, 60_000, 30_000, 7_200, 600]) {
            gmail.add(mail, None, vec!["INBOX", "UNREAD"], now.saturating_sub(age).max(0));
        }
        gmail
    }

    pub(crate) fn answer(&mut self, call: &Call<'_>) -> Answer {
        let segments = call.segments();
        let outcome = match segments.as_slice() {
            ["users", user, ..] if *user != "me" => {
                let message = format!("Delegation denied for {user}");
                Err(Failure(StatusCode::FORBIDDEN, "forbidden", "PERMISSION_DENIED", message))
            }
            ["users", _, "profile"] if call.method == Method::GET => Ok(self.profile()),
            ["users", _, "messages", "send"] if call.method == Method::POST => self.send(call),
            ["users", _, "drafts"] if call.method == Method::POST => self.draft(call),
            ["users", _, "messages"] if call.method == Method::GET => self.list(call),
            ["users", _, "messages", id] if call.method == Method::GET => self.read(call, id),
            _ => Err(not_found()),
        };
        outcome.unwrap_or_else(Answer::from)
    }

    fn profile(&self) -> Answer {
        let threads: HashSet<&str> = self.entries.iter().map(|entry| entry.thread.as_str()).collect();
        let body = json!({
            "emailAddress": ADDRESS, "messagesTotal": self.entries.len(), "threadsTotal": threads.len(),
            "historyId": HISTORY,
        });
        Answer::success(body, "profile read")
    }

    fn send(&mut self, call: &Call<'_>) -> Outcome {
        let mail = decode(call.body)?;
        match mail.recipients {
            Recipients::None => return Err(invalid("Recipient address required")),
            Recipients::Invalid => return Err(invalid("Invalid To header")),
            Recipients::Valid => {}
        }
        let thread = self.thread(call.body)?;
        let entry = self.add(mail, thread, vec!["SENT"], call.now);
        let note = format!("to {}: {}", entry.mail.to, entry.mail.subject);
        Ok(Answer::success(entry.reference(true), note))
    }

    fn draft(&mut self, call: &Call<'_>) -> Outcome {
        let message = call.body.get("message").unwrap_or(&Value::Null);
        let mail = decode(message)?;
        let thread = self.thread(message)?;
        let id = format!("r{}", 7_000_000_000_000_000_000_u64.saturating_add(self.sequence));
        let entry = self.add(mail, thread, vec!["DRAFT"], call.now);
        let note = format!("draft to {}: {}", entry.mail.to, entry.mail.subject);
        Ok(Answer::success(json!({"id": id, "message": entry.reference(true)}), note))
    }

    fn list(&self, call: &Call<'_>) -> Outcome {
        let most = match call.parameter("maxResults") {
            None => 100,
            Some(given) => given
                .parse()
                .ok()
                .filter(|most| *most > 0_usize)
                .ok_or_else(|| invalid(format!("Invalid value at 'max_results' (TYPE_UINT32), \"{given}\"")))?,
        };
        let labels: Vec<&str> = call.parameters("labelIds").collect();
        let query = call.parameter("q").unwrap_or_default();
        let terms = terms(query)?;
        let matching: Vec<&Entry> = self
            .entries
            .iter()
            .rev()
            .filter(|entry| labels.iter().all(|label| entry.labels.contains(label)))
            .filter(|entry| terms.iter().all(|term| entry.matches(term, call.now)))
            .collect();
        let start = match call.parameter("pageToken") {
            None => 0,
            Some(token) => matching
                .iter()
                .position(|entry| entry.page_token() == token)
                .ok_or_else(|| invalid("Invalid pageToken"))?,
        };
        let mut rest = matching.iter().skip(start);
        let messages: Vec<Value> =
            rest.by_ref().take(most.min(MOST_RESULTS)).map(|entry| entry.reference(false)).collect();
        let note = if query.is_empty() { "mails listed".to_owned() } else { format!("search: {query}") };
        let mut body = json!({"resultSizeEstimate": matching.len()});
        if !messages.is_empty() {
            set(&mut body, "messages", messages.into());
        }
        if let Some(next) = rest.next() {
            set(&mut body, "nextPageToken", next.page_token().into());
        }
        Ok(Answer::success(body, note))
    }

    fn read(&self, call: &Call<'_>, id: &str) -> Outcome {
        let entry = self.entries.iter().find(|entry| entry.id == id).ok_or_else(not_found)?;
        let mut body = entry.reference(true);
        set(&mut body, "snippet", entry.mail.snippet.clone().into());
        set(&mut body, "internalDate", entry.time.saturating_mul(1000).to_string().into());
        set(&mut body, "sizeEstimate", entry.mail.raw.len().into());
        set(&mut body, "historyId", HISTORY.into());
        match call.parameter("format").unwrap_or("full").to_ascii_lowercase().as_str() {
            "full" => set(&mut body, "payload", entry.mail.payload.clone()),
            "metadata" => {
                let wanted: Vec<&str> = call.parameters("metadataHeaders").collect();
                set(&mut body, "payload", metadata(&entry.mail.payload, &wanted));
            }
            "minimal" => {}
            "raw" => set(&mut body, "raw", BASE64_URL.encode(&entry.mail.raw).into()),
            other => return Err(invalid(format!("Invalid value at 'format', \"{other}\""))),
        }
        Ok(Answer::success(body, format!("read: {}", entry.mail.subject)))
    }

    /// The thread that the message names; it must exist.
    fn thread(&self, message: &Value) -> Result<Option<String>, Failure> {
        match message.get("threadId").and_then(Value::as_str) {
            None => Ok(None),
            Some(id) if self.entries.iter().any(|entry| entry.thread == id) => Ok(Some(id.to_owned())),
            Some(_) => Err(not_found()),
        }
    }

    fn add(&mut self, mail: Mail, thread: Option<String>, labels: Vec<&'static str>, time: i64) -> &Entry {
        self.sequence = self.sequence.wrapping_add(1);
        let id = hexadecimal(&format!("gmail {}", self.sequence), 16);
        let thread = thread.unwrap_or_else(|| id.clone());
        self.entries.push_mut(Entry { id, thread, labels, time, mail })
    }
}

impl Entry {
    fn reference(&self, labels: bool) -> Value {
        let mut reference = json!({"id": self.id, "threadId": self.thread});
        if labels {
            set(&mut reference, "labelIds", self.labels.clone().into());
        }
        reference
    }

    fn page_token(&self) -> String {
        hexadecimal(&format!("page {}", self.id), 20)
    }

    fn matches(&self, term: &Term, now: i64) -> bool {
        let Term { operator, word } = term;
        let contains = |text: &str| text.to_lowercase().contains(word);
        let Mail { from, to, subject, snippet, .. } = &self.mail;
        match operator.as_str() {
            "from" => contains(from),
            "to" => contains(to),
            "subject" => contains(subject),
            "newer_than" => age(word).is_some_and(|age| self.time > now.saturating_sub(age)),
            "older_than" => age(word).is_some_and(|age| self.time <= now.saturating_sub(age)),
            "is" | "in" | "label" => self.labels.iter().any(|label| label.eq_ignore_ascii_case(word)),
            _ => [subject, snippet, from].into_iter().any(|text| contains(text)),
        }
    }
}

fn decode(message: &Value) -> Result<Mail, Failure> {
    let raw = message.get("raw").and_then(Value::as_str).filter(|raw| !raw.is_empty()).ok_or_else(|| {
        invalid("'raw' RFC822 payload message string or uploading message via /upload/* URL required")
    })?;
    let bytes = BASE64_URL
        .decode(raw)
        .map_err(|_| invalid("Invalid value at 'raw' (TYPE_BYTES), Base64 decoding failed for the value of 'raw'"))?;
    Mail::parse(bytes).map_err(invalid)
}

/// Only the headers of a mail; only the wanted ones if the caller names any.
fn metadata(payload: &Value, wanted: &[&str]) -> Value {
    let is_wanted = |header: &&Value| {
        let name = header.get("name").and_then(Value::as_str).unwrap_or_default();
        wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    let headers = payload.get("headers").and_then(Value::as_array);
    let headers: Vec<&Value> = headers.into_iter().flatten().filter(is_wanted).collect();
    json!({"mimeType": payload.get("mimeType"), "headers": headers})
}

/// The seconds in an age such as `7d`, `2m` or `1y`.
fn age(text: &str) -> Option<i64> {
    let units = [('d', 1), ('m', 30), ('y', 365)];
    let (number, days) = units.iter().find_map(|(unit, days)| Some((text.strip_suffix(*unit)?, days)))?;
    number.parse::<i64>().ok()?.checked_mul(days * 86_400)
}

/// The terms of a search. Gmail knows more operators; an unknown one is refused here, since as a plain word it would match
/// nothing.
fn terms(query: &str) -> Result<Vec<Term>, Failure> {
    let mut quoted = false;
    let pieces = query.split(|character: char| {
        quoted ^= character == '"';
        !quoted && character.is_whitespace()
    });
    let mut terms = Vec::new();
    for piece in pieces.map(str::to_lowercase) {
        let (operator, word) = piece.split_once(':').unwrap_or(("", piece.as_str()));
        let known = operator.is_empty() || OPERATORS.contains(&operator);
        if !known && operator.chars().all(|letter| letter.is_ascii_alphabetic() || letter == '_')
            || piece.starts_with(['-', '{', '('])
            || piece == "or"
            || operator.ends_with("er_than") && age(word).is_none()
        {
            let known = OPERATORS.join(":, ");
            return Err(invalid(format!("The stand-in does not know {piece:?}; it knows words and {known}:")));
        }
        let (operator, word) = if known { (operator, word) } else { ("", piece.as_str()) };
        terms.push(Term { operator: operator.to_owned(), word: word.replace('"', "") });
    }
    terms.retain(|term| !term.word.is_empty());
    Ok(terms)
}

#[cfg(test)]
mod tests;
