//! The harness of the tests: the application under test, observable tables and stand-ins, and real counterparts.

pub mod app;
pub mod aws;
pub mod browser;
pub mod bundle;
pub mod counting;
#[expect(dead_code, reason = "tests/figures.rs uses the rest of it")]
pub mod gateway;
pub mod hooked;
pub mod lambdas;
pub mod memory;
pub mod ministack;
pub mod oidc;
pub mod own;
pub mod parts;
pub mod process;
pub mod scripted;
pub mod stand_ins;
