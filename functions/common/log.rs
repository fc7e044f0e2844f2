//! The log of a Lambda: one line of JSON per entry, on standard output. Its spans have Lambda's request id (`requestId`), the
//! trace id (`xrayTraceId`) and the request id of the caller's answer (`request_id`).

use lambda_http::Error;
use overseer_http::log::{JsonLines, span_events};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::JsonFields;

/// Crates that log events and requests with their secrets at the levels `debug` and `trace`. They are capped at `info`.
const SECRET_LOGGING: [&str; 9] = [
    "aws_config",
    "aws_runtime",
    "aws_smithy_http_client",
    "aws_smithy_runtime",
    "aws_smithy_runtime_api",
    "hyper_util",
    "lambda_http",
    "lambda_runtime",
    "lambda_runtime_api_client",
];

/// Starts the log at the level in `OVERSEER_LOG`, such as `debug`; if unset, `info`. Fails if it is not a valid filter.
pub fn init() -> Result<(), Error> {
    let level = std::env::var("OVERSEER_LOG").ok().filter(|value| !value.trim().is_empty());
    let filter = EnvFilter::try_new(level.as_deref().unwrap_or("info")).map_err(|error| {
        format!("the environment variable OVERSEER_LOG is invalid: {error}; set it to a level, such as info")
    })?;
    let capped = SECRET_LOGGING.iter().filter_map(|target| format!("{target}=info").parse().ok());
    let filter = capped.fold(filter, EnvFilter::add_directive);
    let closed = span_events(&filter);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_span_events(closed);
    log.fmt_fields(JsonFields::new()).event_format(JsonLines::default()).init();
    Ok(())
}
