//! The minijinja environments in which templates are compiled.

use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior};
use percent_encoding::utf8_percent_encode;

use super::{filters, work};
use crate::core::percent::UNRESERVED;

fn environment(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_recursion_limit(64);
    environment.set_undefined_behavior(undefined);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    filters::add(&mut environment);
    environment
}

/// For bare expressions: an attribute of an undefined value is undefined.
pub(super) static EXPRESSIONS: LazyLock<Environment<'static>> =
    LazyLock::new(|| environment(UndefinedBehavior::Chainable));
/// For texts: writing an undefined value is an error.
pub(super) static TEXTS: LazyLock<Environment<'static>> = LazyLock::new(|| environment(UndefinedBehavior::SemiStrict));
/// For paths: like texts, with every value percent-encoded so that it cannot leave its path segment.
pub(super) static PATHS: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = environment(UndefinedBehavior::SemiStrict);
    environment.set_formatter(|out, _, value| {
        if value.is_undefined() {
            return Err(minijinja::Error::from(minijinja::ErrorKind::UndefinedError));
        }
        let text = work::text_of(value)?;
        let mut pieces = utf8_percent_encode(&text, UNRESERVED);
        pieces.try_for_each(|piece| out.write_str(piece)).map_err(minijinja::Error::from)
    });
    environment
});
