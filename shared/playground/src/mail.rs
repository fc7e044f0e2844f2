//! Mails: from RFC 5322 text to the JSON of Gmail, and the seeded inbox.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail_parser::{Address, Header, HeaderName, Message, MessageParser, MimeHeaders, PartType};
use serde_json::{Value, json};

use crate::call::set;
use crate::identifier::hexadecimal;

/// Writes padding as Gmail does, and reads with or without it.
pub(crate) const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Deeper parts are left out.
const MOST_DEPTH: usize = 20;
const MOST_PARTS: usize = 500;

/// A parsed mail.
pub(crate) struct Mail {
    pub(crate) raw: Vec<u8>,
    pub(crate) payload: Value,
    pub(crate) snippet: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) recipients: Recipients,
}

/// Whether a mail has valid recipients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Recipients {
    None,
    Invalid,
    Valid,
}

impl Mail {
    /// Parses a mail; the error is Gmail's message.
    pub(crate) fn parse(raw: Vec<u8>) -> Result<Self, &'static str> {
        // The parser's result nests as deeply as the mail, and drops recursively. Every level has this header.
        let header = b"content-type";
        let levels = raw.windows(header.len()).filter(|window| window.eq_ignore_ascii_case(header)).count();
        if levels > MOST_PARTS {
            return Err("Message has too many parts");
        }
        let message = MessageParser::default().parse(&raw).ok_or("Recipient address required")?;
        let snippet = message.body_preview(200).unwrap_or_default();
        let lists: Vec<&Address<'_>> = [message.to(), message.cc(), message.bcc()].into_iter().flatten().collect();
        let mut mail = Self {
            payload: part(&message, 0, "", 0).unwrap_or_default(),
            snippet: escaped(&snippet.split_whitespace().collect::<Vec<_>>().join(" ")),
            from: message.from().map(addresses).unwrap_or_default(),
            to: lists.iter().map(|list| addresses(list)).collect::<Vec<_>>().join(", "),
            subject: message.subject().unwrap_or_default().to_owned(),
            recipients: recipients(&lists),
            raw: Vec::new(),
        };
        mail.raw = raw;
        Ok(mail)
    }
}

fn recipients(lists: &[&Address<'_>]) -> Recipients {
    let mut recipients = lists.iter().flat_map(|list| list.iter()).peekable();
    if recipients.peek().is_none() {
        Recipients::None
    } else if recipients.all(|recipient| recipient.address().is_some_and(|address| address.contains('@'))) {
        Recipients::Valid
    } else {
        Recipients::Invalid
    }
}

fn addresses(list: &Address<'_>) -> String {
    let formatted = list.iter().map(|entry| match (entry.name(), entry.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => String::new(),
    });
    formatted.collect::<Vec<_>>().join(", ")
}

/// Gmail's snippets are HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn part(message: &Message<'_>, index: u32, id: &str, depth: usize) -> Option<Value> {
    let part = message.part(index).filter(|_| depth <= MOST_DEPTH)?;
    let headers: Vec<Value> =
        part.headers.iter().map(|header| json!({"name": header.name(), "value": text(message, header)})).collect();
    let kind = part.content_type().map_or_else(
        || "text/plain".to_owned(),
        |kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("plain")).to_ascii_lowercase(),
    );
    let name = part.attachment_name().unwrap_or_default();
    let mut described = json!({"partId": id, "mimeType": kind, "filename": name, "headers": headers});
    let contents = match &part.body {
        PartType::Multipart(children) => {
            set(&mut described, "body", json!({"size": 0}));
            let children = children.iter().enumerate().filter_map(|(position, child)| {
                let id = if id.is_empty() { position.to_string() } else { format!("{id}.{position}") };
                self::part(message, *child, &id, depth.saturating_add(1))
            });
            set(&mut described, "parts", children.collect());
            return Some(described);
        }
        PartType::Text(text) | PartType::Html(text) => text.as_bytes(),
        PartType::Binary(bytes) | PartType::InlineBinary(bytes) => bytes,
        PartType::Message(inner) => inner.raw_message(),
    };
    let body = if name.is_empty() {
        json!({"size": contents.len(), "data": BASE64_URL.encode(contents)})
    } else {
        let attachment = format!("ANGjdJ{}", hexadecimal(&format!("{id} {name}"), 40));
        json!({"size": contents.len(), "attachmentId": attachment})
    };
    set(&mut described, "body", body);
    Some(described)
}

/// A header's value for people: decoded if it is a subject or addresses, else raw.
fn text(message: &Message<'_>, header: &Header<'_>) -> String {
    if let Some(list) = header.value().as_address() {
        return addresses(list);
    }
    if let (HeaderName::Subject, Some(text)) = (&header.name, header.value().as_text()) {
        return text.to_owned();
    }
    let start = usize::try_from(header.offset_start()).unwrap_or(usize::MAX);
    let end = usize::try_from(header.offset_end()).unwrap_or(usize::MAX);
    let raw = message.raw_message().get(start..end).unwrap_or_default();
    String::from_utf8_lossy(raw).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The seeded inbox, oldest first.
pub(crate) fn inbox() -> Vec<Mail> {
    let umlauts = BASE64_URL.encode("Schöne Grüße aus Köln – bis später!").replace('-', "+").replace('_', "/");
    let texts = [
        "From: Ada Lovelace <ada@example.com>\r\nTo: you@playground.example\r\n\
         Subject: Lunch on Thursday?\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         Shall we meet at noon? The usual place.\r\n"
            .to_owned(),
        "From: Newsletter <news@example.org>\r\nTo: you@playground.example\r\n\
         Subject: This week in plugins\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=\"alternative\"\r\n\r\n\
         --alternative\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThree new plugins this week.\r\n\
         --alternative\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\
         <p>Three <b>new</b> plugins this week.</p>\r\n--alternative--\r\n"
            .to_owned(),
        "From: Billing <billing@example.net>\r\nTo: you@playground.example\r\n\
         Subject: Invoice 2024-117\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"mixed\"\r\n\r\n\
         --mixed\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThe invoice is attached.\r\n\
         --mixed\r\nContent-Type: application/pdf; name=\"invoice.pdf\"\r\n\
         Content-Disposition: attachment; filename=\"invoice.pdf\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQKJcOkw7zDtsOfCg==\r\n--mixed--\r\n"
            .to_owned(),
        "From: Status <status@example.com>\r\nTo: you@playground.example\r\n\
         Subject: All systems operational\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\
         <html><body><h1>All systems operational</h1><p>No incident today.</p></body></html>\r\n"
            .to_owned(),
        format!(
            "From: =?UTF-8?Q?J=C3=BCrgen_M=C3=BCller?= <juergen@example.de>\r\n\
             To: you@playground.example\r\nSubject: =?UTF-8?B?R3LDvMOfZSBhdXMgS8O2bG4=?=\r\n\
             MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{umlauts}\r\n"
        ),
    ];
    texts.into_iter().filter_map(|text| Mail::parse(text.into_bytes()).ok()).collect()
}
