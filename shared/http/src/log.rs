//! The log, of the functions and of the local server.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FmtSpan, Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Which spans are lines of their own: at debug the closed ones, so that one request reads as a tree; else none.
#[must_use]
pub fn span_events(filter: &EnvFilter) -> FmtSpan {
    if filter.max_level_hint() >= Some(LevelFilter::DEBUG) { FmtSpan::CLOSE } else { FmtSpan::NONE }
}

/// One JSON object for each line, with the event's fields beside `level` and `message`. `spans` lists the spans around it. The
/// line of a closed span has that span as `span`; other lines have none, because `spans` ends with it.
pub struct JsonLines {
    event: Format<Json>,
    closed_span: Format<Json>,
}

impl Default for JsonLines {
    fn default() -> Self {
        let format = || Format::default().json().flatten_event(true);
        Self { event: format().with_current_span(false), closed_span: format().with_current_span(true) }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // The subscriber makes the event of a closed span a child of that span; the code's own events name no parent.
        let format = if event.parent().is_some() { &self.closed_span } else { &self.event };
        format.format_event(context, writer, event)
    }
}
