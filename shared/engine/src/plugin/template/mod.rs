//! The templates in which a manifest writes requests and reads responses: a part of minijinja (`language`), with a budget for
//! what evaluation may cost (`work`).
//!
//! A string that is one `{{ expression }}` keeps the expression's type, and an absent value drops the key that it would
//! have filled. Any other string is text, in which an absent value is an error (`default` gives it one). Templates never see
//! a credential.

mod check;
mod context;
mod environment;
mod error;
mod expression;
mod filters;
mod language;
mod mail;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod work;

pub(crate) use check::{Names, UNKNOWN_NAME};
pub use context::Context;
pub use error::TemplateError;
pub use expression::Expression;
pub(crate) use filters::text_of;
pub use language::TEMPLATE_MAX_BYTES;
pub use text::Text;
pub use tree::Template;
pub use work::{TEXT_MAX, WORK_MAX};
