//! The stand-in of the Slack Web API. Failures are HTTP 200 with `"ok": false`, as at Slack.

use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::Service;
use crate::call::{Answer, Call, Fault, set, shortened};
use crate::oauth::{Grants, Holder};

pub(crate) const TEAM: &str = "T0PLAYGRND";
pub(crate) const TEAM_NAME: &str = "Playground";
/// The app, as a user of the workspace.
pub(crate) const USER: &str = "U0PLAYGRND";
/// The person who consents.
pub(crate) const PERSON: &str = "U0PLAYHUMN";
const BOT: &str = "B0PLAYGRND";
pub(crate) const APP: &str = "A0PLAYGRND";
const MOST_CHARACTERS: usize = 40_000;
const MOST_BLOCKS: usize = 50;
const MOST_SECONDS_AHEAD: i64 = 120 * 86_400;

/// The channels with their messages.
pub(crate) struct Slack {
    channels: Vec<Channel>,
    created: i64,
    sequence: u32,
}

struct Channel {
    id: &'static str,
    name: &'static str,
    purpose: &'static str,
    /// Oldest first, including replies in threads.
    messages: Vec<Value>,
}

/// A Slack error code, with the explanation that some codes carry.
struct Failure(&'static str, Option<String>);

impl From<&'static str> for Failure {
    fn from(code: &'static str) -> Self {
        Self(code, None)
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        let Failure(code, detail) = failure;
        let mut body = json!({"ok": false, "error": code});
        let mut note = code.to_owned();
        if let Some(detail) = detail {
            note = format!("{code}: {detail}");
            set(&mut body, "response_metadata", json!({"messages": [format!("[ERROR] {detail}")]}));
        }
        Self::failure(StatusCode::OK, body, note)
    }
}

pub(crate) fn fault(fault: Fault) -> Answer {
    let (status, code) = match fault {
        Fault::MissingToken => (StatusCode::OK, "not_authed"),
        Fault::UnknownToken => (StatusCode::OK, "invalid_auth"),
        Fault::ExpiredToken => (StatusCode::OK, "token_expired"),
        Fault::RevokedToken => (StatusCode::OK, "token_revoked"),
        Fault::Malformed => (StatusCode::OK, "invalid_json"),
        Fault::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "ratelimited"),
        Fault::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
        Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "post_body_too_large"),
    };
    Answer::failure(status, json!({"ok": false, "error": code}), code)
}

type Outcome = Result<Answer, Failure>;

impl Slack {
    pub(crate) fn new(now: i64) -> Self {
        let channel = |id, name, purpose| Channel { id, name, purpose, messages: Vec::new() };
        let mut slack = Self {
            channels: vec![
                channel("C0PLAYGEN1", "general", "What everyone should know"),
                channel("C0PLAYRND2", "random", "Everything else"),
                channel("C0PLAYALR3", "alerts", "What needs a look"),
                channel("C0PLAYDEP4", "deployments", "What went out"),
                channel("C0PLAYSUP5", "support", "Questions from customers"),
            ],
            created: now,
            sequence: 0,
        };
        let earlier = now.saturating_sub(3600).max(0);
        for text in ["Welcome to the playground.", "Nothing said here leaves this machine."] {
            let message = slack.message(text, earlier, &Map::new());
            if let Some(general) = slack.channels.first_mut() {
                general.messages.push(message);
            }
        }
        slack
    }

    pub(crate) fn answer(&mut self, call: &Call<'_>, grants: &mut Grants) -> Answer {
        let mut arguments: Map<String, Value> =
            call.query.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        arguments.extend(call.body.as_object().cloned().unwrap_or_default());
        let outcome = match call.path {
            "auth.test" => Ok(identity(call.holder)),
            "auth.revoke" => Ok(revoke(&arguments, call, grants)),
            "chat.postMessage" => self.post(&arguments, call.now),
            "chat.scheduleMessage" => self.schedule(&arguments, call.now),
            "conversations.list" => self.list(&arguments),
            "conversations.history" => self.history(&arguments),
            _ => Err(Failure::from("unknown_method")),
        };
        outcome.unwrap_or_else(Answer::from)
    }

    fn post(&mut self, arguments: &Map<String, Value>, now: i64) -> Outcome {
        let position = self.channel(arguments)?;
        let text = content(arguments)?;
        let thread = match string(arguments, "thread_ts")? {
            Some(given) if moment(given).is_none() => {
                return Err(Failure("invalid_thread_ts", Some(format!("{given} is not a valid thread_ts"))));
            }
            thread => thread,
        };
        let mut message = self.message(&text, now, arguments);
        let channel = self.channels.get_mut(position).ok_or("channel_not_found")?;
        // Slack posts a reply to an unknown thread as a message outside of any thread.
        if let Some(thread) = thread.filter(|thread| channel.messages.iter().any(|one| ts(one) == *thread)) {
            set(&mut message, "thread_ts", thread.into());
        }
        channel.messages.push(message.clone());
        let note = format!("#{}: {}", channel.name, shortened(&text, 200));
        Ok(Answer::success(json!({"ok": true, "channel": channel.id, "ts": ts(&message), "message": message}), note))
    }

    fn schedule(&mut self, arguments: &Map<String, Value>, now: i64) -> Outcome {
        let position = self.channel(arguments)?;
        let text = content(arguments)?;
        let post_at = match arguments.get("post_at") {
            Some(_) => integer(arguments, "post_at").ok_or("invalid_time")?,
            None => return Err(missing("post_at")),
        };
        if post_at <= now {
            return Err("time_in_past".into());
        }
        if post_at > now.saturating_add(MOST_SECONDS_AHEAD) {
            return Err("time_too_far".into());
        }
        let mut message = self.message(&text, now, arguments);
        set(&mut message, "type", "delayed_message".into());
        if let Some(fields) = message.as_object_mut() {
            fields.remove("ts");
        }
        let channel = self.channels.get(position).ok_or("channel_not_found")?;
        let id = format!("Q0PLAY{:05}", self.sequence);
        let when = crate::call::timestamp(post_at);
        let note = format!("#{} at {when}: {}", channel.name, shortened(&text, 200));
        Ok(Answer::success(
            json!({
                "ok": true, "channel": channel.id, "scheduled_message_id": id, "post_at": post_at,
                "message": message,
            }),
            note,
        ))
    }

    fn list(&self, arguments: &Map<String, Value>) -> Outcome {
        let limit = limit(arguments, 1000)?;
        let start = match cursor(arguments, "team:")? {
            None => 0,
            Some(id) => self.channels.iter().position(|channel| channel.id == id).ok_or("invalid_cursor")?,
        };
        let mut rest = self.channels.iter().skip(start);
        let channels: Vec<Value> = rest.by_ref().take(limit).map(|channel| self.describe(channel)).collect();
        let next = rest.next().map(|channel| BASE64_STANDARD.encode(format!("team:{}", channel.id)));
        let note = format!("{} channels listed", channels.len());
        Ok(Answer::success(
            json!({
                "ok": true, "channels": channels,
                "response_metadata": {"next_cursor": next.unwrap_or_default()},
            }),
            note,
        ))
    }

    fn history(&self, arguments: &Map<String, Value>) -> Outcome {
        let id = string(arguments, "channel")?.ok_or_else(|| missing("channel"))?;
        let channel = self.channels.iter().find(|channel| channel.id == id).ok_or("channel_not_found")?;
        let limit = limit(arguments, 999)?;
        let newest = match cursor(arguments, "next_ts:")? {
            None => None,
            Some(ts) => Some(moment(&ts).ok_or("invalid_cursor")?),
        };
        let bound = |name| match scalar(arguments, name) {
            None => Ok(None),
            Some(given) => moment(&given).map(Some).ok_or(Failure::from(if name == "oldest" {
                "invalid_ts_oldest"
            } else {
                "invalid_ts_latest"
            })),
        };
        let (oldest, latest) = (bound("oldest")?, bound("latest")?);
        let inclusive = is_true(arguments, "inclusive");
        let mut rest = channel.messages.iter().rev().filter(|message| {
            let at = moment(ts(message));
            let (after, before) = (at > oldest, latest.is_none() || at < latest);
            let edge = inclusive && (at == oldest || at == latest);
            message.get("thread_ts").is_none()
                && (edge || (after && before))
                && newest.is_none_or(|newest| at <= Some(newest))
        });
        let messages: Vec<&Value> = rest.by_ref().take(limit).collect();
        let next = rest.next().map(|message| BASE64_STANDARD.encode(format!("next_ts:{}", ts(message))));
        let note = format!("#{}: {} messages read", channel.name, messages.len());
        Ok(Answer::success(
            json!({
                "ok": true, "messages": messages, "has_more": next.is_some(), "pin_count": 0,
                "response_metadata": {"next_cursor": next.unwrap_or_default()},
            }),
            note,
        ))
    }

    /// The position of the channel that the call names: by id, by name, or by name with `#`.
    fn channel(&self, arguments: &Map<String, Value>) -> Result<usize, Failure> {
        let given = string(arguments, "channel")?.ok_or_else(|| missing("channel"))?;
        let name = given.strip_prefix('#').unwrap_or(given);
        let found = |channel: &Channel| channel.id == given || channel.name == name;
        Ok(self.channels.iter().position(found).ok_or("channel_not_found")?)
    }

    fn message(&mut self, text: &str, now: i64, arguments: &Map<String, Value>) -> Value {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = json!({
            "type": "message", "user": USER, "bot_id": BOT, "app_id": APP, "team": TEAM, "text": text,
            "ts": format!("{now}.{:06}", self.sequence % 1_000_000),
        });
        for name in ["blocks", "attachments"] {
            if let Ok(Some(items)) = array(arguments, name) {
                set(&mut message, name, items);
            }
        }
        message
    }

    fn describe(&self, channel: &Channel) -> Value {
        json!({
            "id": channel.id, "name": channel.name, "name_normalized": channel.name,
            "is_channel": true, "is_group": false, "is_im": false, "is_mpim": false, "is_private": false,
            "is_archived": false, "is_general": channel.name == "general", "is_member": true,
            "is_shared": false, "is_org_shared": false, "is_ext_shared": false,
            "created": self.created, "creator": USER, "context_team_id": TEAM, "num_members": 3,
            "topic": {"value": "", "creator": "", "last_set": 0},
            "purpose": {"value": channel.purpose, "creator": USER, "last_set": self.created},
        })
    }
}

fn identity(holder: Holder) -> Answer {
    let mut body = json!({
        "ok": true, "url": "https://playground.slack.com/", "team": TEAM_NAME, "user": "you",
        "team_id": TEAM, "user_id": PERSON, "is_enterprise_install": false,
    });
    if holder == Holder::App {
        set(&mut body, "user", "overseer".into());
        set(&mut body, "user_id", USER.into());
        set(&mut body, "bot_id", BOT.into());
    }
    Answer::success(body, "token tested")
}

/// Revokes the token of the call. A standing token is not revoked, and the answer says so.
fn revoke(arguments: &Map<String, Value>, call: &Call<'_>, grants: &mut Grants) -> Answer {
    let is_test = is_true(arguments, "test");
    let revoked = !is_test && grants.revoke(Service::Slack, call.token, call.now);
    let note = if revoked { "token revoked" } else { "token not revoked" };
    Answer::success(json!({"ok": true, "revoked": revoked}), note)
}

/// The text of a message; it may only be empty beside blocks or attachments.
fn content(arguments: &Map<String, Value>) -> Result<String, Failure> {
    let text = string(arguments, "text")?.unwrap_or_default();
    let blocks = array(arguments, "blocks")?;
    let attachments = array(arguments, "attachments")?;
    let filled =
        |items: &Option<Value>| items.as_ref().and_then(Value::as_array).is_some_and(|items| !items.is_empty());
    if text.is_empty() && !filled(&blocks) && !filled(&attachments) {
        return Err("no_text".into());
    }
    if text.chars().count() > MOST_CHARACTERS {
        return Err("msg_too_long".into());
    }
    Ok(text.to_owned())
}

/// An array, which forms carry as JSON in a string.
fn array(arguments: &Map<String, Value>, name: &str) -> Result<Option<Value>, Failure> {
    let code = if name == "blocks" { "invalid_blocks" } else { "invalid_attachments" };
    let parsed = match arguments.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| code)?,
        Some(value) => value.clone(),
    };
    let valid = parsed.as_array().is_some_and(|items| items.len() <= MOST_BLOCKS);
    if valid { Ok(Some(parsed)) } else { Err(code.into()) }
}

fn string<'a>(arguments: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Failure> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Failure("invalid_arguments", Some(format!("must be a string: {name}")))),
    }
}

fn missing(name: &str) -> Failure {
    Failure("invalid_arguments", Some(format!("missing required field: {name}")))
}

/// A number, a string or a boolean as text; empty counts as absent.
fn scalar(arguments: &Map<String, Value>, name: &str) -> Option<String> {
    let text = match arguments.get(name)? {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    };
    (!text.is_empty()).then_some(text)
}

fn is_true(arguments: &Map<String, Value>, name: &str) -> bool {
    matches!(scalar(arguments, name).as_deref(), Some("true" | "1"))
}

fn integer(arguments: &Map<String, Value>, name: &str) -> Option<i64> {
    scalar(arguments, name)?.parse().ok()
}

fn limit(arguments: &Map<String, Value>, most: usize) -> Result<usize, Failure> {
    let Some(given) = scalar(arguments, "limit") else { return Ok(100) };
    let limit: Option<usize> = given.parse().ok();
    Ok(limit.filter(|limit| (1..=most).contains(limit)).ok_or("invalid_limit")?)
}

fn cursor(arguments: &Map<String, Value>, prefix: &str) -> Result<Option<String>, Failure> {
    let Some(given) = scalar(arguments, "cursor") else { return Ok(None) };
    let decoded = BASE64_STANDARD.decode(given).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let position = decoded.as_deref().and_then(|text| text.strip_prefix(prefix)).map(str::to_owned);
    Ok(Some(position.ok_or("invalid_cursor")?))
}

fn ts(message: &Value) -> &str {
    message.get("ts").and_then(Value::as_str).unwrap_or_default()
}

/// A `ts` as seconds and microseconds, to compare.
fn moment(ts: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = ts.split_once('.').unwrap_or((ts, ""));
    Some((seconds.parse().ok()?, format!("{fraction:0<6}").parse().ok()?))
}

#[cfg(test)]
mod tests;
