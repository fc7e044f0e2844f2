//! The HTTP surface: routers, authentication and problem+json, used by every function and by the local server.
//!
//! Each block of routes is a module with a `routes` function that makes a router without state. [`service`] puts around
//! them what every answer has: a request id, a log line, and problems in one form.

pub mod agents;
mod caller;
pub mod calls;
pub mod channels;
pub mod cron;
mod envelope;
pub mod errors;
mod etag;
mod guard;
pub mod health;
pub mod hooks;
pub mod input;
pub mod integrations;
pub mod intent;
pub mod keys;
pub mod mappings;
pub mod oauth;
pub mod plugins;
mod problem;
pub mod registry;
pub mod runs;
pub mod tasks;
pub mod webhooks;

use std::sync::Arc;

use axum::Router;
pub use envelope::{Deadline, ErrorCode, RawResponse, local_service, service};
use overseer_engine::engine::Engine;
pub use problem::Problem;

/// A block of routes over one engine.
pub type Routes = Router<Arc<Engine>>;
