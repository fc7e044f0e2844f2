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
mod agents;
mod alarms;
mod app;
mod aws;
mod breaker;
mod browser;
mod bundle;
mod bus;
mod connect;
mod connecting;
mod counting;
mod cron;
mod errors;
mod explaining;
mod failures;
#[expect(dead_code, reason = "tests/figures.rs uses the rest of it")]
mod gateway;
mod hooked;
mod hooks;
mod keys;
mod lambda;
mod lambdas;
mod local;
mod mappings;
mod memory;
mod ministack;
mod oidc;
mod parts;
mod plugins;
mod process;
mod readme;
mod registry;
mod renewing;
mod requests;
mod retries;
mod roles;
mod runs;
mod scripted;
mod simulation;
mod stand_ins;
mod table;
mod tasks;
mod template;
mod two_organizations;
mod vault;
mod webhooks;
