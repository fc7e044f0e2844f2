//! Reads the command line and does what it says.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use overseer::arguments::{Arguments, Command};
use overseer::failure::Failure;
use overseer::{key, serve};
use overseer_engine::config::ConfigError;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing is left to do where even this cannot be written.
            let _ = writeln!(std::io::stderr(), "overseer: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let wanted = std::env::var("OVERSEER_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&wanted).map_err(|error| ConfigError {
        name: "OVERSEER_LOG".to_owned(),
        expected: format!("{error}; write a level, such as info or debug"),
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match &arguments.command {
        None => serve::run(arguments).await,
        Some(Command::Key(command)) => key::run(arguments, command).await,
    }
}
