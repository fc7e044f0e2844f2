//! Running an action, and its stored records.

pub mod breaker;
pub mod errors;
pub mod failures;
pub mod hooks;
pub mod mappings;
pub mod retries;
pub mod runs;
