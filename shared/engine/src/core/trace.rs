//! Spans with an outcome, around the engine's operations and the calls of its ports.

use futures_util::FutureExt as _;
use tracing::{Instrument as _, Span};

/// A result that spans record as their outcome.
pub(crate) trait SpanOutcome {
    /// Records which kind of result this is as the span's `outcome`, in `snake_case`, without any text of an error.
    fn record_in(&self, span: &Span);
}

/// Runs a call in its span and records its `outcome` there: `ok`, or the kind of the error. It adds no second copy of the call,
/// as an async function around it would.
pub(crate) fn traced<T, E: SpanOutcome>(
    span: Span,
    call: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    let ok = |_: &T, span: &Span| {
        span.record("outcome", "ok");
    };
    traced_by(span, call, ok)
}

/// As [`traced`], where a value can be a failure too: `record` records its outcome.
pub(crate) fn traced_by<T, E: SpanOutcome>(
    span: Span,
    call: impl Future<Output = Result<T, E>>,
    record: impl FnOnce(&T, &Span),
) -> impl Future<Output = Result<T, E>> {
    let recorded = span.clone();
    let record = move |result: &Result<T, E>| match result {
        Ok(value) => record(value, &recorded),
        Err(error) => error.record_in(&recorded),
    };
    call.inspect(record).instrument(span)
}
