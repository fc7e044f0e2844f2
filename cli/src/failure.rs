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
    /// The port cannot be had for another reason.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        reason: std::io::Error,
    },
    /// The data folder does not do.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder with more plugins does not read.
    #[error("cannot read the plugins in {}: {reason}", .folder.display())]
    Plugins {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
    /// An environment variable is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No client for outbound calls.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The vault does not do what it should.
    #[error("the vault failed: {}", causes(.0))]
    Vault(#[from] VaultError),
    /// Nothing to rotate keys in.
    #[error("there is no data folder of Overseer at {}; say with --data where it is", .0.display())]
    NoFolder(PathBuf),
    /// An organization without a data key.
    #[error("the organization {0} has no data key: it keeps no secrets here, or there is none of that name")]
    NoDataKey(OrgId),
    /// A master key for one organization.
    #[error("the master key is every organization's; leave --organization out, or add --data-keys")]
    OneMasterKey,
    /// What is done at start failed.
    #[error("cannot make the organization, the key and the accounts of a first start: {}", inside(.0))]
    Setup(#[from] Error),
    /// It could not be told to stop.
    #[error("cannot listen for Ctrl-C: {0}")]
    Signals(std::io::Error),
    /// The server stopped by itself.
    #[error("the server stopped: {0}")]
    Serve(std::io::Error),
    /// The terminal does not take what is printed.
    #[error("cannot print: {0}")]
    Print(std::io::Error),
    /// The running server does not answer, or not as it should.
    #[error("{0}")]
    Server(String),
}

/// What went wrong inside, or what the error says where nothing did.
fn inside(error: &Error) -> String {
    error.source().map_or_else(|| error.to_string(), causes)
}
