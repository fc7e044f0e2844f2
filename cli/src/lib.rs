//! The `overseer` command. Without arguments it serves every route on one port of this machine, with everything embedded.

pub mod arguments;
pub mod connections;
pub mod failure;
pub mod key;
pub mod log;
mod pages;
pub mod serve;
pub mod server;
pub mod setup;
pub mod vault;
mod watch;
mod worker;
