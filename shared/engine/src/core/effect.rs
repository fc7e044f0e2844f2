//! The effect of an action: what a second execution would mean.

use schemars::JsonSchema;
use serde::Deserialize;

/// What doing an action twice would mean, the harmless first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It changes nothing.
    Read,
    /// Twice is the same as once.
    Idempotent,
    /// The service knows a repetition by `idempotency_key`, which its request has to hold.
    Keyed,
    /// Twice is twice.
    Unsafe,
}

impl Effect {
    /// Whether doing it twice is the same as doing it once.
    pub fn is_repeatable(self) -> bool {
        match self {
            Self::Read | Self::Idempotent => true,
            Self::Keyed | Self::Unsafe => false,
        }
    }
}
