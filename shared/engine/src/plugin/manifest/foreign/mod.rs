//! Reads the three older forms of a manifest: each is translated into Overseer's own form. Unknown keys of these forms are
//! ignored. What an action leaves out gets the worst meaning: its effect is `unsafe`.

mod domain;
mod environment;
mod fields;
mod form;
mod module;
#[cfg(test)]
mod tests;

pub(super) use form::{Form, read};
