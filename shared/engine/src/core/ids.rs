//! The names and ids of the domain. Each has its own type and is parsed once, at the edge.
//!
//! A parsed name is safe in a key, a log line and a message. The engine never passes a bare `String` for one of these.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The longest name that people and agents may choose, in bytes.
pub const NAME_MAX_BYTES: usize = 255;

/// Why a name was refused. The text says what is allowed; the caller of `parse` adds the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long or with control characters.
    #[error("must be 1 to 255 bytes of UTF-8 without control characters")]
    Free,
    /// Not in the form of plugin names and aliases.
    #[error("must begin with a small letter and contain only a-z, 0-9, _ and -, 63 characters at most")]
    Slug,
    /// Not in the form of action names.
    #[error("must begin with a letter and contain only a-z, A-Z, 0-9, _ and -, 63 characters at most")]
    Word,
    /// Not in the form of ids that Overseer makes.
    #[error("must be an id that Overseer made: 1 to 64 letters and digits")]
    Made,
}

pub(crate) fn free(text: &str) -> Result<(), NameError> {
    let fits = (1..=NAME_MAX_BYTES).contains(&text.len());
    if fits && !text.chars().any(char::is_control) { Ok(()) } else { Err(NameError::Free) }
}

/// The rule of [`slug`], for the published JSON Schemas.
const SLUG_PATTERN: &str = "^[a-z][a-z0-9_-]{0,62}$";

fn slug(text: &str) -> Result<(), NameError> {
    let mut characters = text.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_lowercase());
    let rest = characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    if first && rest && text.len() <= 63 { Ok(()) } else { Err(NameError::Slug) }
}

/// The rule of [`word`], for the published JSON Schemas.
const WORD_PATTERN: &str = "^[A-Za-z][A-Za-z0-9_-]{0,62}$";

fn word(text: &str) -> Result<(), NameError> {
    let mut characters = text.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if first && rest && text.len() <= 63 { Ok(()) } else { Err(NameError::Word) }
}

fn check_generated_id(text: &str) -> Result<(), NameError> {
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

fn generated_id_schema() -> Schema {
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
    /// An organization: the tenant whose data is separate from all others.
    OrgId: free, free_schema;
    /// A user: the person whose accounts are used.
    UserId: free, free_schema;
    /// An agent.
    AgentId: free, free_schema;
    /// A caller's idempotency key for one intent: a retry with the same key does not execute it again.
    IdempotencyKey: free, free_schema;
    /// A plugin; `tool` in an intent.
    PluginName: slug, slug_schema;
    /// A channel by which people reach an agent, such as `twilio`. It has its own set of plugins.
    ChannelName: slug, slug_schema;
    /// An action of a plugin, or an alias of one; `intent` in an intent.
    ActionName: word, word_schema;
    /// A part of a plugin that its author named, such as a port or a data adapter.
    PartName: word, word_schema;
    /// A permission that only the author's own code understands.
    PermissionName: free, free_schema;
    /// Distinguishes several accounts of one user at one plugin; `integration` in an intent.
    Alias: slug, slug_schema;
    /// A kind of friendly names, such as those of channels.
    MappingKind: slug, slug_schema;
    /// A friendly name: what people and agents call an object of a service.
    MappingName: free, free_schema;
    /// A service's own id of an object.
    ExternalId: free, free_schema;
    /// The public half of an API key.
    KeyId: check_generated_id, generated_id_schema;
    /// A task.
    TaskId: check_generated_id, generated_id_schema;
    /// One execution of an action.
    RunId: check_generated_id, generated_id_schema;
    /// One recorded failure.
    FailureId: check_generated_id, generated_id_schema;
    /// A subscription to events.
    WebhookId: check_generated_id, generated_id_schema;
    /// The delivery of one event to one webhook.
    DeliveryId: check_generated_id, generated_id_schema;
    /// One request; in every response and log line.
    RequestId: check_generated_id, generated_id_schema;
}

/// The owner of an account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// One user, who alone may use it.
    User(UserId),
    /// The organization: all of its users may use it.
    Organization,
}

/// The scope of a friendly name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The intents of one agent, for any user.
    Agent(AgentId),
    /// The intents for one user.
    User(UserId),
    /// All intents of the organization.
    Organization,
}

impl Default for Alias {
    /// The alias of the account that is used if an intent names none.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// The JSON Schema format of names that people and agents choose. Patterns cannot limit bytes.
pub(crate) const NAME_FORMAT: &str = "overseer-name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_limited() {
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
