//! Behaviour, through the routes. One binary, so that it links once.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected should stop there"
)]
#![expect(unreachable_pub, reason = "a binary has nothing to reach; pub says what is for other files")]

mod accounts;
mod app;
mod breaker;
mod browser;
mod connect;
mod connecting;
mod counting;
mod cron;
mod errors;
mod explaining;
mod failures;
mod hooked;
mod keys;
mod lambda;
mod local;
mod mappings;
mod ministack;
mod oidc;
mod parts;
mod plugins;
mod process;
mod readme;
mod renewing;
mod requests;
mod retries;
mod runs;
mod scripted;
mod simulation;
mod table;
mod tasks;
mod vault;
