//! The log of the command: one line for each event, on standard error, as text or as JSON.

use std::io::IsTerminal as _;

use overseer_engine::outbound::config::ConfigError;
use overseer_http::log::{JsonLines, span_events};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::JsonFields;

use crate::arguments::LogFormat;

const VARIABLE: &str = "OVERSEER_LOG";
/// `notify` logs each of its own steps at the level info.
const DEFAULT_FILTER: &str = "info,notify=warn";

/// Starts the log in this format, with the filter in `OVERSEER_LOG`.
pub fn init(format: LogFormat) -> Result<(), ConfigError> {
    let filter = filter()?;
    let closed = span_events(&filter);
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_span_events(closed);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.fmt_fields(JsonFields::new()).event_format(JsonLines::default()).init(),
    }
    Ok(())
}

fn filter() -> Result<EnvFilter, ConfigError> {
    let configured = std::env::var(VARIABLE).ok().filter(|value| !value.trim().is_empty());
    let directives = configured.unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    // `EnvFilter` would take a misspelled level for the name of a module, and silence everything else.
    let is_unknown = |part: &&str| !part.contains('=') && part.trim().parse::<LevelFilter>().is_err();
    if let Some(unknown) = directives.split(',').find(is_unknown) {
        return Err(invalid(&format!("{unknown:?} is not a level")));
    }
    EnvFilter::try_new(&directives).map_err(|error| invalid(&error.to_string()))
}

fn invalid(reason: &str) -> ConfigError {
    ConfigError { name: VARIABLE.to_owned(), expected: format!("{reason}; write a level, such as info or debug") }
}
