//! The three vendors that the playground stands in for, with their names, tokens and paths.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A vendor that has a stand-in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The Slack Web API.
    Slack,
    /// The Gmail API, version 1.
    Gmail,
    /// The Notion API, version 2022-06-28.
    Notion,
}

impl Service {
    /// Every service, in the order in which the page lists them.
    pub const ALL: [Self; 3] = [Self::Slack, Self::Gmail, Self::Notion];

    /// The name in paths and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Gmail => "gmail",
            Self::Notion => "notion",
        }
    }

    /// The name as people write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Slack => "Slack",
            Self::Gmail => "Gmail",
            Self::Notion => "Notion",
        }
    }

    /// A token that is always accepted and never expires.
    pub fn standing_token(self) -> &'static str {
        match self {
            Self::Slack => "xoxb-playground",
            Self::Gmail => "ya29.playground",
            Self::Notion => "ntn_playground",
        }
    }

    /// The path that replaces the vendor's base URL.
    pub fn base_path(self) -> &'static str {
        match self {
            Self::Slack => "/playground/slack/api",
            Self::Gmail => "/playground/gmail/gmail/v1",
            Self::Notion => "/playground/notion/v1",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|service| service.name() == text)
            .ok_or_else(|| format!("no service is named '{text}': use slack, gmail or notion"))
    }
}
