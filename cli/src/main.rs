//! Reads the command line and does what it says.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use overseer::arguments::{Arguments, Command};
use overseer::{key, serve};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("OVERSEER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let done = match &arguments.command {
        None => serve::run(&arguments).await,
        Some(Command::Key(command)) => key::run(&arguments, command).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing is left to do where even this cannot be written.
            let _ = writeln!(std::io::stderr(), "overseer: {failure}");
            ExitCode::FAILURE
        }
    }
}
