//! Stand-ins of Slack, Gmail and Notion. With them Overseer works in the first minute without an OAuth app, and its tests
//! see the vendors' real shapes, errors, OAuth flows and outages.
//!
//! Nothing here talks to a vendor: this process makes up every answer, keeps its state in memory, and sends a `server`
//! header that says so. Only tokens survive the process, see [`Playground::with_key`]. Everything is served under
//! `/playground`:
//!
//! - `/playground`: a page that lists received calls and has a form for each switch;
//! - `/playground/slack/api/…`, `/playground/gmail/gmail/v1/…`, `/playground/notion/v1/…`: the vendors;
//! - `/playground/oauth/{service}/authorize|consent|token|revoke`: an OAuth 2 server with PKCE, where the
//!   client is [`CLIENT_ID`] with [`CLIENT_SECRET`] (Slack's tokens are revoked by its method `auth.revoke`);
//! - `/playground/switches` and `/playground/received`: planned misbehaviour, and the received calls.
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

/// The `server` header of every response, which tells it from the vendor's.
const SERVER_NAME: &str = "overseer-playground (stand-in, not the real service)";

/// The current time in Unix seconds.
type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The stand-ins with all their state; clones share it.
#[derive(Clone)]
pub struct Playground {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

/// The state of all stand-ins.
struct State {
    switches: BTreeMap<Service, Switch>,
    log: log::Log,
    grants: oauth::Grants,
    slack: slack::Slack,
    gmail: gmail::Gmail,
    notion: notion::Notion,
}

impl Playground {
    /// A playground with seeded channels, mails and pages. `clock` returns the time in Unix seconds. It accepts no tokens of
    /// another playground.
    pub fn new(clock: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        Self::signing_with(clock, Key::generate(HMAC_SHA256, &SystemRandom::new()).ok())
    }

    /// As [`Playground::new`], but it also accepts tokens of an earlier playground with the same key: accounts stay
    /// connected over a restart. Refresh tokens that were used and tokens that were revoked there work again. Pending consents
    /// and codes are lost.
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

    /// Routes to merge into a bigger router; all paths begin with `/playground`.
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

    /// The number of vendor calls since the start, or since the list was cleared.
    pub fn received_total(&self) -> u64 {
        self.state().log.total()
    }

    /// Makes the next calls of a service misbehave. Replaces an earlier switch of the service. More than 1000 calls count as
    /// 1000.
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
