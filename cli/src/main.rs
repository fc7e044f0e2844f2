//! Reads the command line and does what it says.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use overseer::arguments::{Arguments, Command, VaultCommand};
use overseer::failure::Failure;
use overseer::{key, serve, vault};
use overseer_engine::outbound::config::ConfigError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
    let set = std::env::var("OVERSEER_LOG").ok().filter(|value| !value.trim().is_empty());
    // What watches the folder of plugins tells of each of its own steps.
    let wanted = set.unwrap_or_else(|| "info,notify=warn".to_owned());
    let wrong = |reason: String| ConfigError {
        name: "OVERSEER_LOG".to_owned(),
        expected: format!("{reason}; write a level, such as info or debug"),
    };
    // A word that is no level would be taken for the name of a module, and silence everything else.
    let bare = wanted.split(',').find(|part| !part.contains('=') && part.trim().parse::<LevelFilter>().is_err());
    if let Some(bare) = bare {
        return Err(wrong(format!("{bare:?} is not a level")).into());
    }
    let filter = EnvFilter::try_new(&wanted).map_err(|error| wrong(error.to_string()))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match &arguments.command {
        None => serve::run(arguments).await,
        Some(Command::Key(command)) => key::run(arguments, command).await,
        Some(Command::Vault(VaultCommand::Rotate(wanted))) => vault::rotate(arguments, wanted).await,
    }
}
