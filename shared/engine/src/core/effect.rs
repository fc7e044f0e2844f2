//! The effect of an action: what a second execution would mean.

use schemars::JsonSchema;
use serde::Deserialize;

/// What a second execution of an action would mean, the harmless first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// A second execution has the same result as one.
    Idempotent,
    /// The service deduplicates by `idempotency_key`, which the request has to contain.
    Keyed,
    /// A second execution has a second effect.
    Unsafe,
}

impl Effect {
    /// Whether a second execution has no further effect, even without an idempotency key.
    pub fn is_repeatable(self) -> bool {
        match self {
            Self::Read | Self::Idempotent => true,
            Self::Keyed | Self::Unsafe => false,
        }
    }
}
