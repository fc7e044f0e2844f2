//! Why the command cannot go on: one clear sentence for the person at the terminal.

use std::error::Error as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use overseer_engine::core::error::{Error, causes};
use overseer_engine::core::ids::OrgId;
use overseer_engine::outbound::client::ClientError;
use overseer_engine::outbound::config::ConfigError;
use overseer_engine::ports::vault::VaultError;
use overseer_local::folder::FolderError;

/// Why the command cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The port is taken.
    #[error("port {} is in use; stop what uses it, or choose another with --port", .0.port())]
    PortInUse(SocketAddr),
    /// The port cannot be opened for another reason.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address on this machine.
        address: SocketAddr,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder of `--plugins` cannot be read.
    #[error("cannot read the plugins in {}: {reason}", .folder.display())]
    Plugins {
        /// The folder of `--plugins`.
        folder: PathBuf,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// An environment variable is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client for outbound calls cannot be built.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The vault failed.
    #[error("the vault failed: {}", causes(.0))]
    Vault(#[from] VaultError),
    /// There is no data folder whose keys could be rotated.
    #[error("there is no data folder of Overseer at {}; name it with --data", .0.display())]
    NoFolder(PathBuf),
    /// `--organization` names an organization without a data key.
    #[error("the organization {0} has no data key: it keeps no secrets here, or it does not exist")]
    NoDataKey(OrgId),
    /// `--organization` with `--master-key` alone.
    #[error("all organizations share the master key; leave --organization out, or add --data-keys")]
    OneMasterKey,
    /// The setup of a first start failed.
    #[error("cannot make the organization, the key and the accounts of a first start: {}", inside(.0))]
    Setup(#[from] Error),
    /// The signal handlers cannot be installed.
    #[error("cannot listen for Ctrl-C: {0}")]
    Signals(std::io::Error),
    /// Standard output cannot be written.
    #[error("cannot print: {0}")]
    Print(std::io::Error),
    /// The running server cannot be reached, or refused the call.
    #[error("{0}")]
    Server(String),
}

/// The causes of an error, or its own text if it has none.
fn inside(error: &Error) -> String {
    error.source().map_or_else(|| error.to_string(), causes)
}
