//! What a plugin is: its manifest and templates, the catalog of plugins that this process has, and the rules of its breaker.

pub mod breaker;
pub mod catalog;
pub(crate) mod digest;
mod folder;
mod loaded;
pub mod manifest;
pub mod template;
