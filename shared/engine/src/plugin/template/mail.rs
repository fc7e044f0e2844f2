//! Mail in templates: writes a MIME message (RFC 5322, 2045) from parameters, and reads the tree of parts in the responses of
//! mail services.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mail_builder::MessageBuilder;
use mail_builder::headers::Header as _;
use mail_builder::headers::address::Address;
use mail_builder::headers::raw::Raw;
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use crate::plugin::template::error::parameter_error;

/// The deepest nesting of parts that is read.
const PARTS_DEPTH: usize = 20;

/// The message for `{to, cc?, bcc?, reply_to?, subject, body?, html?, attachments?: [{filename, content_type?, content}]}`,
/// with a Date from the call's clock. Addresses are one string (separated by commas) or a list of strings. The service adds
/// the sender, since it knows the account.
pub(super) fn message(state: &State<'_, '_>, parameters: &Value) -> Result<Value, Error> {
    let field = |name: &str| parameters.get_attr(name).ok().filter(|value| !value.is_undefined() && !value.is_none());
    let mut message = MessageBuilder::new();
    for (name, header) in [("to", "To"), ("cc", "Cc"), ("bcc", "Bcc"), ("reply_to", "Reply-To")] {
        if let Some(value) = field(name) {
            message = message.header(header, addresses(name, &value)?);
        }
    }
    let subject = field("subject").map(|value| value.to_string()).unwrap_or_default();
    if subject.chars().any(char::is_control) {
        return Err(parameter_error("/subject", "must be one line without control characters"));
    }
    message = if subject.contains("=?") {
        message.header("Subject", Raw::new(encoded_words(&subject)))
    } else {
        message.subject(subject)
    };
    if let Some(now) = state.lookup("now").and_then(|now| now.as_str()?.parse::<jiff::Timestamp>().ok()) {
        message = message.date(now.as_second());
    }
    let (body, html) = (field("body"), field("html"));
    if body.is_some() || html.is_none() {
        message = message.text_body(body.map(|value| value.to_string()).unwrap_or_default());
    }
    if let Some(html) = html {
        message = message.html_body(html.to_string());
    }
    if let Some(attachments) = field("attachments") {
        for (index, attachment) in attachments.try_iter()?.enumerate() {
            let part = |name: &str| {
                let value = attachment.get_attr(name).ok().filter(|value| !value.is_undefined());
                let text = value.map(|value| value.to_string());
                match text {
                    Some(text) if name != "content" && text.chars().any(char::is_control) => Err(parameter_error(
                        format!("/attachments/{index}/{name}"),
                        "must be one line without control characters",
                    )),
                    text => Ok(text),
                }
            };
            let content_type = part("content_type")?.unwrap_or_else(|| "application/octet-stream".to_owned());
            let content = STANDARD.decode(part("content")?.unwrap_or_default()).map_err(|_| {
                parameter_error(format!("/attachments/{index}/content"), "must be the file in base64, padded")
            })?;
            message = message.attachment(content_type, part("filename")?.unwrap_or_default(), content);
        }
    }
    Ok(Value::from_bytes(serialize(message)))
}

/// The message's bytes, without a Message-ID: the service adds it, and the library would invent one at `localhost`.
fn serialize(mut message: MessageBuilder<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in std::mem::take(&mut message.headers) {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        value.write_header(&mut bytes, name.len() + 2);
    }
    bytes.extend_from_slice(b"MIME-Version: 1.0\r\n");
    message.serialize_body(&mut bytes);
    bytes
}

/// Text as encoded words (RFC 2047), for a text that would otherwise be read as one.
fn encoded_words(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for character in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + character.len_utf8() <= 45 => word.push(character),
            Some(_) | None => words.push(character.to_string()),
        }
    }
    words.iter().map(|word| format!("=?UTF-8?B?{}?=", STANDARD.encode(word))).collect::<Vec<_>>().join("\r\n ")
}

fn addresses(parameter: &str, value: &Value) -> Result<Address<'static>, Error> {
    let texts: Vec<(String, String)> = if value.kind() == ValueKind::Seq {
        let numbered = value.try_iter()?.enumerate();
        numbered.map(|(index, one)| (format!("/{parameter}/{index}"), one.to_string())).collect()
    } else {
        vec![(format!("/{parameter}"), value.to_string())]
    };
    let mut list = Vec::new();
    for (pointer, text) in texts {
        for entry in split_addresses(&text) {
            let Some((name, address)) = mailbox(entry) else {
                return Err(parameter_error(
                    pointer,
                    "must hold addresses such as ann@example.com or Ann <ann@example.com>, separated by commas",
                ));
            };
            list.push(Address::new_address(name, address));
        }
    }
    Ok(Address::new_list(list))
}

/// Splits at commas outside of quotes and angle brackets.
fn split_addresses(text: &str) -> Vec<&str> {
    let (mut quoted, mut bracketed, mut escaped) = (false, false, false);
    text.split(|character: char| {
        let is_separator = character == ',' && !quoted && !bracketed;
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            _ => {}
        }
        is_separator
    })
    .collect()
}

/// Parses `address` or `name <address>`, the forms of RFC 5322, 3.4 that are in use.
fn mailbox(text: &str) -> Option<(Option<String>, String)> {
    let text = text.trim();
    let (name, address) = match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, address)) => (name.trim(), address.trim()),
        None => ("", text),
    };
    let (local, domain) = address.rsplit_once('@')?;
    // A domain beyond ASCII is sent in its ASCII form (RFC 5890); a local part has none.
    let domain = if domain.is_ascii() { domain.to_owned() } else { url::Host::parse(domain).ok()?.to_string() };
    let plain = |part: &str| {
        !part.is_empty()
            && part.is_ascii()
            && !part
                .chars()
                .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | ',' | ';' | '"' | '@'))
    };
    if !plain(local) || !plain(&domain) || name.chars().any(char::is_control) {
        return None;
    }
    let name = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(name);
    let name = name.replace("\\\"", "\"");
    Some(((!name.is_empty()).then_some(name), format!("{local}@{domain}")))
}

/// The value of a header in a list of `{name, value}`, ignoring the case of its name; undefined if there is none.
pub(super) fn header(headers: &Value, name: &str) -> Value {
    let found = headers.try_iter().ok().and_then(|mut headers| {
        headers.find(|header| {
            header.get_attr("name").is_ok_and(|found| found.as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))
        })
    });
    found.and_then(|header| header.get_attr("value").ok()).unwrap_or(Value::UNDEFINED)
}

/// The text of a tree of parts `{mimeType, body: {data}, parts: […]}`: the first part of the wanted type that is not a file,
/// decoded from base64url; undefined if there is none.
pub(super) fn text(payload: &Value, wanted: &str) -> Value {
    find_text(payload, wanted, PARTS_DEPTH).map_or(Value::UNDEFINED, Value::from)
}

/// The files in a tree of parts, each as `{filename, mime_type, size, attachment_id}`.
pub(super) fn attachments(payload: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    let mut parts = vec![(payload.clone(), PARTS_DEPTH)];
    while let Some((part, depth)) = parts.pop() {
        let field = |of: &Value, name: &str| of.get_attr(name).unwrap_or(Value::UNDEFINED);
        let (filename, body) = (field(&part, "filename"), field(&part, "body"));
        if filename.as_str().is_some_and(|name| !name.is_empty()) {
            found.push(Value::from_pairs([
                ("filename", filename),
                ("mime_type", field(&part, "mimeType")),
                ("size", field(&body, "size")),
                ("attachment_id", field(&body, "attachmentId")),
            ]));
        }
        if let (Some(depth), Ok(inner)) = (depth.checked_sub(1), field(&part, "parts").try_iter()) {
            // The stack is in reverse, so that the files keep their order.
            let mut inner: Vec<_> = inner.map(|part| (part, depth)).collect();
            inner.reverse();
            parts.extend(inner);
        }
    }
    found
}

fn find_text(part: &Value, wanted: &str, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    let field = |value: &Value, name: &str| value.get_attr(name).ok().filter(|found| !found.is_undefined());
    let is_file = field(part, "filename").is_some_and(|name| name.as_str().is_some_and(|name| !name.is_empty()));
    let media_type = field(part, "mimeType");
    if !is_file && media_type.is_some_and(|found| found.as_str().is_some_and(|f| f.eq_ignore_ascii_case(wanted))) {
        let data = field(part, "body").and_then(|body| field(&body, "data"));
        if let Some(bytes) = data.and_then(|data| decode_base64url(data.as_str()?)) {
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    field(part, "parts")?.try_iter().ok()?.find_map(|inner| find_text(&inner, wanted, depth))
}

pub(crate) fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        assert_eq!(mailbox("a@b.c"), Some((None, "a@b.c".into())));
        assert_eq!(mailbox(" Ann Lee <a@b.c> "), Some((Some("Ann Lee".into()), "a@b.c".into())));
        assert_eq!(mailbox("\"Lee, \\\"A\\\"\" <a@b.c>"), Some((Some("Lee, \"A\"".into()), "a@b.c".into())));
        assert_eq!(mailbox("ann@müller.example"), Some((None, "ann@xn--mller-kva.example".into())));
        for bad in ["", "ännchen@b.c", "a", "@b", "a@", "a@b@c", "a b@c", "x <a@b", "a@b\r\nBcc: e@f", "a@b;c@d", "<>"]
        {
            assert_eq!(mailbox(bad), None, "{bad}");
        }
        assert_eq!(split_addresses("a@b, \"x, y\" <c@d>"), ["a@b", " \"x, y\" <c@d>"]);
    }
}
