//! The HTTP surface: routers, authentication and problem+json, used by every function and by the local server.
//!
//! Each group of routes is a module with a function `routes`. A handler parses the request, makes one call to the engine and
//! replies. [`service`] wraps the routes in what every answer has: a request id, a log line, and problems in one form.

pub mod agents;
mod caller;
pub mod calls;
pub mod channels;
pub mod cron;
mod drain;
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
mod listing;
pub mod log;
pub mod mappings;
pub mod oauth;
pub mod plugins;
mod problem;
pub mod registry;
mod request_headers;
pub mod runs;
pub mod tasks;
pub mod webhooks;

use std::sync::Arc;

use axum::Router;
pub use envelope::{Deadline, ErrorCode, RawResponse, local_service, service};
use overseer_engine::engine::Engine;
pub use problem::Problem;

/// A group of routes, without its engine yet.
pub type Routes = Router<Arc<Engine>>;
