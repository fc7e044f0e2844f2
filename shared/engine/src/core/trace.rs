//! Spans with an outcome, around the engine's operations and the calls of its ports.

use tracing::field::{Value, debug};
use tracing::{Instrument as _, Span};

use crate::core::error::Error;

/// Runs a call in its span and records its `outcome` there: `ok`, or what `classify` says of the error. A disabled span costs
/// one comparison.
pub(crate) async fn traced<T, E, V: Value>(
    span: Span,
    classify: fn(&E) -> V,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    if span.is_disabled() {
        return call.await;
    }
    let result = call.instrument(span.clone()).await;
    match &result {
        Ok(_) => span.record("outcome", "ok"),
        Err(error) => span.record("outcome", classify(error)),
    };
    result
}

/// Runs an operation of the engine in its span and records its `outcome` there: `ok`, or the code of the error.
pub(crate) async fn operation<T>(span: Span, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    traced(span, |error: &Error| debug(error.code()), call).await
}
