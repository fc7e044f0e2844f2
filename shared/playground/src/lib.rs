//! Stand-ins of Slack, Gmail and Notion, so that Overseer works in the first minute without any OAuth
//! app, and so that its tests meet the vendors' real shapes, errors, OAuth flows and bad days.
//!
//! Nothing here talks to a vendor: every answer is made up in this process, kept in memory, and carries
//! a `server` header that says so. Only tokens outlive the process, see [`Playground::with_key`]. Everything is served under `/playground`:
//!
//! - `/playground`: a page that shows what arrived and has a form for each switch;
//! - `/playground/slack/api/…`, `/playground/gmail/gmail/v1/…`, `/playground/notion/v1/…`: the vendors;
//! - `/playground/oauth/{service}/authorize|consent|token|revoke`: an OAuth 2 server with PKCE, where the
//!   client is [`CLIENT_ID`] with [`CLIENT_SECRET`] (Slack's tokens are revoked by its method `auth.revoke`);
//! - `/playground/switches` and `/playground/received`: misbehaviour to come, calls that came.
//!
//! A test consents by posting `decision=allow` and the form's hidden `request` to `consent`.
//!
//! A newcomer needs no OAuth: [`Service::standing_token`] is always accepted.

mod call;
mod gate;
mod gmail;
mod identifier;
mod log;
mod mail;
mod notion;
mod oauth;
mod page;
mod service;
mod slack;
mod switch;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac::{HMAC_SHA256, Key};
use aws_lc_rs::rand::SystemRandom;
use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::SERVER;
use axum::middleware::map_response;
use axum::response::Response;
pub use log::Received;
pub use notion::{NOTION_HOME_PAGE, NOTION_TASKS_DATABASE};
pub use oauth::{CLIENT_ID, CLIENT_SECRET};
pub use service::Service;
pub use switch::{Mode, Switch};

/// What every response says of itself, so that nobody takes it for the vendor's.
const SERVER_NAME: &str = "overseer-playground (stand-in, not the real service)";

/// Unix seconds, from wherever the owner takes them.
type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The stand-ins with all their state; clones share it.
#[derive(Clone)]
pub struct Playground {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

/// Everything the playground remembers.
struct State {
    switches: BTreeMap<Service, Switch>,
    log: log::Log,
    grants: oauth::Grants,
    slack: slack::Slack,
    gmail: gmail::Gmail,
    notion: notion::Notion,
}

impl Playground {
    /// A playground with its seeded channels, mails and pages. `clock` answers the time in unix seconds.
    /// It accepts no tokens that another one granted.
    pub fn new(clock: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        Self::signing_with(clock, Key::generate(HMAC_SHA256, &SystemRandom::new()).ok())
    }

    /// As [`Playground::new`], but it also accepts the tokens that an earlier one with the same key granted, so that
    /// accounts stay connected over a restart. What was used or revoked there is forgotten, and works again. Pending
    /// consents and codes are lost.
    pub fn with_key(clock: Arc<dyn Fn() -> i64 + Send + Sync>, key: [u8; 32]) -> Self {
        Self::signing_with(clock, Some(Key::new(HMAC_SHA256, &key)))
    }

    fn signing_with(clock: Clock, key: Option<Key>) -> Self {
        let now = clock();
        let state = State {
            switches: BTreeMap::new(),
            log: log::Log::default(),
            grants: oauth::Grants::new(key),
            slack: slack::Slack::new(now),
            gmail: gmail::Gmail::new(now),
            notion: notion::Notion::new(now),
        };
        Self { clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Routes with absolute paths, all of which begin with `/playground`, to merge into a bigger router.
    pub fn router(&self) -> Router {
        Router::new()
            .merge(gate::routes())
            .merge(oauth::routes())
            .merge(page::routes())
            .merge(switch::routes())
            .layer(map_response(name_server))
            .with_state(self.clone())
    }

    /// The latest vendor calls (at most 500), newest last.
    pub fn received(&self) -> Vec<Received> {
        self.state().log.entries()
    }

    /// How many vendor calls came since the start, or since the list was cleared.
    pub fn received_total(&self) -> u64 {
        self.state().log.total()
    }

    /// Makes the next calls of a service misbehave; replaces what was left of an earlier switch.
    /// More than 1000 calls count as 1000.
    pub fn set_switch(&self, switch: Switch) {
        let mut state = self.state();
        if switch.calls == 0 {
            state.switches.remove(&switch.service);
        } else {
            let calls = switch.calls.min(switch::MOST_CALLS);
            state.switches.insert(switch.service, Switch { calls, ..switch });
        }
    }

    /// Accepts one more token that never expires; for tests that follow a canary token.
    pub fn accept_token(&self, service: Service, token: &str) {
        self.state().grants.accept(service, token);
    }

    fn now(&self) -> i64 {
        (self.clock)()
    }

    /// A panic while the lock was held leaves at worst a half-written stand-in, never an unsafe one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn name_server(mut response: Response) -> Response {
    response.headers_mut().insert(SERVER, HeaderValue::from_static(SERVER_NAME));
    response
}
