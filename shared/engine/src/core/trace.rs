//! Spans with an outcome, around the engine's operations and the calls of its ports.

use tracing::{Instrument as _, Span};

/// An error that spans record as their outcome.
pub(crate) trait SpanOutcome {
    /// Records which kind of error this is as the span's `outcome`, without any text of the error.
    fn record_in(&self, span: &Span);
}

/// Runs a call in its span and records its `outcome` there: `ok`, or the kind of the error. A disabled span costs one
/// comparison.
pub(crate) async fn traced<T, E: SpanOutcome>(span: Span, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    if span.is_disabled() {
        return call.await;
    }
    let result = call.instrument(span.clone()).await;
    match &result {
        Ok(_) => {
            span.record("outcome", "ok");
        }
        Err(error) => error.record_in(&span),
    }
    result
}
