//! The scopes that a plugin's actions need, with words for the user who consents.

use schemars::JsonSchema;
use serde::Deserialize;

/// The most characters of a scope's description.
const DESCRIPTION_MAX: usize = 200;

/// The scopes that the actions need, each a name or `{name, description}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "Vec<ScopeEntry>")]
pub struct ScopeList {
    names: Vec<String>,
    /// The description at the same index, if the manifest has one.
    descriptions: Vec<Option<String>>,
}

/// A scope of a manifest.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a scope is its name, or {name, description}")]
enum ScopeEntry {
    /// The scope's name at the provider.
    Name(String),
    /// The name, and what the scope allows in words for the user who consents.
    Described(DescribedScope),
}

/// A scope in words.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DescribedScope {
    /// The scope's name at the provider.
    name: String,
    /// What it allows, such as `Read messages in public channels`: 1 to 200 characters.
    description: String,
}

impl From<Vec<ScopeEntry>> for ScopeList {
    fn from(entries: Vec<ScopeEntry>) -> Self {
        let entries = entries.into_iter().map(|entry| match entry {
            ScopeEntry::Name(name) => (name, None),
            ScopeEntry::Described(DescribedScope { name, description }) => (name, Some(description)),
        });
        let (names, descriptions) = entries.unzip();
        Self { names, descriptions }
    }
}

impl ScopeList {
    /// The names, as the provider has them.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What a scope allows, in the manifest's words.
    pub fn description(&self, scope: &str) -> Option<&str> {
        let index = self.names.iter().position(|name| name == scope)?;
        self.descriptions.get(index)?.as_deref()
    }

    /// The problems of the descriptions.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let described = self.names.iter().zip(&self.descriptions);
        described.filter_map(|(name, description)| {
            let description = description.as_ref()?;
            let characters = if description.trim().is_empty() { 0 } else { description.chars().count() };
            let is_valid = (1..=DESCRIPTION_MAX).contains(&characters);
            (!is_valid).then(|| {
                format!("scopes: the description of {name:?} has {characters} characters; write 1 to {DESCRIPTION_MAX}")
            })
        })
    }
}
