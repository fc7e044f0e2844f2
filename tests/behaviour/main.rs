//! Behaviour, tested through the routes. One binary: it links once.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected should stop there"
)]
#![expect(unreachable_pub, reason = "a binary has nothing to reach; pub says what is for other files")]

mod access;
mod accounts;
mod agents;
mod events;
mod invoke;
mod lambda;
mod layout;
mod local;
mod plugins;
mod registry;
mod requests;
mod storage;
mod support;
mod tasks;
