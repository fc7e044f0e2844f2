//! The rules of a manifest that its types cannot express.

mod action;
mod auth;
mod manifest;
mod templates;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use values::is_scope;
