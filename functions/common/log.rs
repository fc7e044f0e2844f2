//! The log of a Lambda: a line of JSON for each entry, on standard output. The spans around it have the request id of
//! Lambda (`requestId`) and the trace id (`xrayTraceId`), and the request id that the caller was told (`request_id`).

use lambda_http::Error;
use tracing_subscriber::EnvFilter;

/// What logs events and requests as they are, secrets and all, at the finest levels.
const LOUD: [&str; 9] = [
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

/// Begins to log what `OVERSEER_LOG` says: a level, such as `info` (if unset) or `debug`.
pub fn init() -> Result<(), Error> {
    let wanted = std::env::var("OVERSEER_LOG").ok().filter(|value| !value.trim().is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or("info")).map_err(|error| {
        format!("the environment variable OVERSEER_LOG is wrong: {error}; write a level, such as info")
    })?;
    let capped = LOUD.iter().filter_map(|target| format!("{target}=info").parse().ok());
    let filter = capped.fold(filter, EnvFilter::add_directive);
    tracing_subscriber::fmt().json().with_env_filter(filter).flatten_event(true).with_target(false).init();
    Ok(())
}
