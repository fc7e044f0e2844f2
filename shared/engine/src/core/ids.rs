//! The names that the engine passes around, each its own type, parsed once where it comes in.
//!
//! A parsed name is safe to put into a key, a log line or a message; nothing inside the engine takes a bare `String`
//! where one of these is meant.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The longest name that people and agents may choose, in bytes of UTF-8.
pub const NAME_MAX_BYTES: usize = 255;

/// Why a name was refused. The text says what is allowed; the caller adds which field it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long or with control characters.
    #[error("must be 1 to 255 bytes of UTF-8 without control characters")]
    Free,
    /// Not of the form that plugins and aliases have.
    #[error("must begin with a small letter and hold only a-z, 0-9, _ and -, 63 characters at most")]
    Slug,
    /// Not of the form that actions have.
    #[error("must begin with a letter and hold only a-z, A-Z, 0-9, _ and -, 63 characters at most")]
    Word,
    /// Not an id that Overseer made.
    #[error("must be an id that Overseer made: 1 to 64 letters and digits")]
    Made,
}

pub(crate) fn free(text: &str) -> Result<(), NameError> {
    let fits = (1..=NAME_MAX_BYTES).contains(&text.len());
    if fits && !text.chars().any(char::is_control) { Ok(()) } else { Err(NameError::Free) }
}

/// A pattern that [`slug`] and the published JSON Schemas share.
const SLUG_PATTERN: &str = "^[a-z][a-z0-9_-]{0,62}$";

fn slug(text: &str) -> Result<(), NameError> {
    let mut characters = text.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_lowercase());
    let rest = characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    if first && rest && text.len() <= 63 { Ok(()) } else { Err(NameError::Slug) }
}

/// A pattern that [`word`] and the published JSON Schemas share.
const WORD_PATTERN: &str = "^[A-Za-z][A-Za-z0-9_-]{0,62}$";

fn word(text: &str) -> Result<(), NameError> {
    let mut characters = text.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if first && rest && text.len() <= 63 { Ok(()) } else { Err(NameError::Word) }
}

fn made(text: &str) -> Result<(), NameError> {
    let fits = (1..=64).contains(&text.len());
    if fits && text.chars().all(|c| c.is_ascii_alphanumeric()) { Ok(()) } else { Err(NameError::Made) }
}

fn free_schema() -> Schema {
    json_schema!({ "type": "string", "format": NAME_FORMAT })
}

fn slug_schema() -> Schema {
    json_schema!({ "type": "string", "pattern": SLUG_PATTERN })
}

fn word_schema() -> Schema {
    json_schema!({ "type": "string", "pattern": WORD_PATTERN })
}

fn made_schema() -> Schema {
    json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9]{1,64}$" })
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $rule:ident, $schema:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses a name; the error says what is allowed.
            pub fn parse(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $rule(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema()
            }
        }
    )*};
}

names! {
    /// The customer whose data is kept apart from all others.
    OrgId: free, free_schema;
    /// The person whose accounts are used.
    UserId: free, free_schema;
    /// The agent that asked.
    AgentId: free, free_schema;
    /// What a caller calls one intent, so that sending it again does not do it again.
    IdempotencyKey: free, free_schema;
    /// A plugin; `tool` in an intent.
    PluginName: slug, slug_schema;
    /// A way by which people reach an agent, such as `twilio`; it has plugins of its own.
    ChannelName: slug, slug_schema;
    /// An action of a plugin, or an alias of one; `intent` in an intent.
    ActionName: word, word_schema;
    /// A part of a plugin that its author named, such as a port or a source of data.
    PartName: word, word_schema;
    /// A permission that means nothing to Overseer itself.
    PermissionName: free, free_schema;
    /// Tells several accounts of one user at one plugin apart; `integration` in an intent.
    Alias: slug, slug_schema;
    /// What a friendly name is a name of, such as a channel.
    MappingKind: slug, slug_schema;
    /// What people and agents call something at a service.
    MappingName: free, free_schema;
    /// What a service calls something of its own.
    ExternalId: free, free_schema;
    /// The public half of an API key.
    KeyId: made, made_schema;
    /// A task.
    TaskId: made, made_schema;
    /// One execution of an action.
    RunId: made, made_schema;
    /// One recorded failure.
    FailureId: made, made_schema;
    /// A subscription to events.
    WebhookId: made, made_schema;
    /// One event on its way to one webhook.
    DeliveryId: made, made_schema;
    /// One request, on every answer and log line.
    RequestId: made, made_schema;
}

/// Whose an account is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// One user's, and nobody else's.
    User(UserId),
    /// The organization's: all of its users may use it.
    Organization,
}

/// For whom a friendly name is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// For what one agent intends, whoever it acts for.
    Agent(AgentId),
    /// For what is intended for one user.
    User(UserId),
    /// For all of the organization.
    Organization,
}

impl Default for Alias {
    /// The account that is meant when an intent names none.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// The format of names that people and agents choose, which schemas alone cannot describe.
pub(crate) const NAME_FORMAT: &str = "overseer-name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_at_their_edges() {
        assert!(OrgId::parse("ö".repeat(127)).is_ok());
        assert!(OrgId::parse("o".repeat(255)).is_ok());
        assert_eq!(OrgId::parse("o".repeat(256)), Err(NameError::Free));
        assert_eq!(OrgId::parse(""), Err(NameError::Free));
        assert_eq!(UserId::parse("a\nb"), Err(NameError::Free));
        assert!(PluginName::parse("a".repeat(63)).is_ok());
        for bad in ["", "A", "1a", "-a", "a b", &"a".repeat(64)] {
            assert_eq!(PluginName::parse(bad), Err(NameError::Slug), "{bad}");
        }
        assert!(ActionName::parse("GetAllPatients").is_ok() && ActionName::parse("A".repeat(63)).is_ok());
        for bad in ["", "1a", "-A", "_A", "A b", "Ä", &"A".repeat(64)] {
            assert_eq!(ActionName::parse(bad), Err(NameError::Word), "{bad}");
        }
        for bad in ["", "a-b", "ä", &"a".repeat(65)] {
            assert_eq!(KeyId::parse(bad), Err(NameError::Made), "{bad}");
        }
    }
}
