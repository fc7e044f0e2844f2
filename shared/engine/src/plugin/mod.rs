//! What a plugin is: its manifest and templates, the catalog of plugins that are built in, and the rules of its breaker.

pub mod breaker;
pub mod catalog;
pub(crate) mod digest;
pub mod manifest;
pub mod template;
