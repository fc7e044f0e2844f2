//! Reads the command line, starts the log and runs the command.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use overseer::arguments::{Arguments, Command, LogFormat, VaultCommand};
use overseer::failure::Failure;
use overseer::{key, log, serve, vault};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = log::init(arguments.log_format) {
        print_failure(&error.into());
        return ExitCode::FAILURE;
    }
    let Err(failure) = run(&arguments).await else { return ExitCode::SUCCESS };
    match arguments.log_format {
        LogFormat::Text => print_failure(&failure),
        // Every line on standard error is JSON then, the last one too.
        LogFormat::Json => tracing::error!(%failure, "overseer failed"),
    }
    ExitCode::FAILURE
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        None => serve::run(arguments).await,
        Some(Command::Key(command)) => key::run(arguments, command).await,
        Some(Command::Vault(VaultCommand::Rotate(rotate))) => vault::rotate(arguments, rotate).await,
    }
}

fn print_failure(failure: &Failure) {
    // There is no other place to report that standard error is closed.
    let _ = writeln!(std::io::stderr(), "overseer: {failure}");
}
