//! Accounts: the credentials that plugins use at their services.
//!
//! An account belongs to a user or to an organization (`owner.rs`). Its credential lies sealed in the vault and no answer
//! shows it. The life of an account, one file for each step:
//!
//! | step | file |
//! | --- | --- |
//! | check a request to connect | `connect_request.rs` |
//! | connect with a key, a password, a token or client credentials | `connect.rs`, `new_account.rs` |
//! | connect with a browser: link, consent page, click | `authorize.rs` |
//! | connect with a browser: the provider's callback, the exchange of its code | `callback.rs` |
//! | wait for the application to confirm | `pending.rs` |
//! | find the account for an intent, with a credential that works | `lookup.rs`, `credential_cache.rs`, `usage.rs` |
//! | refresh its token | `refresh.rs`, `refresh_failure.rs` |
//! | disconnect it and revoke its token | `revoke.rs` |
//! | list accounts, choose the default | `view.rs` |
//!
//! `record.rs` holds the stored records, `state.rs` the states with their reasons and remedies, `clients.rs` the OAuth
//! clients, `attempt.rs` the records of a connection that is in progress in a browser.
//!
//! # The rule of consent: which click allows what
//!
//! 1. **Opening the link allows nothing** (`Engine::view_consent`). The page names the organization, the user, the service, the
//!    alias and the scopes. Programs open links, too: mail scanners, previews. Opening the link gives the browser a cookie.
//! 2. **The click on that page allows one thing** (`Engine::authorize`): this browser goes to the provider and asks for
//!    exactly what the page showed. Nothing is connected yet. A click without the cookie is refused.
//!    The button Cancel uses up the link instead (`Engine::cancel_connect`).
//! 3. **The click at the provider gives a code** (`Engine::callback`). The code counts only in the browser of step 2, at the
//!    plugin's own redirect URI and from the plugin's issuer, and once. `Engine::exchange` trades it for tokens.
//! 4. **Without `returnTo`, step 3 connects the account** for the user that the page named. Opening the link does not prove
//!    who the person is, so the page asks that only the person who requested the link goes on.
//! 5. **With `returnTo`, step 3 connects nothing.** The account is pending until the application confirms it with
//!    `connect/complete` (`Engine::complete`) for the user who is signed in where the browser came back. It has to be the
//!    user who started; an organization's account also needs an administrator. Another user's confirmation revokes the
//!    tokens at once, and after ten minutes without confirmation the engine revokes them, too.
//!
//! Without a browser there is no click: the caller's API key is the consent, and `owner.rs` decides for whom it may connect.
//! A credential serves only the address, hosts and sign-in that the plugin had when it was connected (`Engine::audience`):
//! after a change of those the user connects again.
//!
//! `docs/security.md` names the attack that each check stops.

mod attempt;
mod authorize;
mod callback;
mod clients;
mod connect;
mod connect_request;
mod credential_cache;
mod lookup;
mod new_account;
mod owner;
mod pending;
mod record;
mod refresh;
mod refresh_failure;
mod revoke;
mod state;
mod usage;
mod view;

pub use attempt::{CONNECTING_TIME, ConnectError};
pub use authorize::{ConnectLink, Offer, OfferedScope};
pub use callback::{Callback, CallbackOutcome, PARAMETER_MAX_BYTES};
pub use clients::{ClientInUse, ClientSource, NewClient};
pub use connect::Connecting;
pub use connect_request::Connect;
pub(crate) use credential_cache::CredentialCache;
pub(crate) use lookup::{AccountRequest, AccountResolution, AuthorizedAccount};
pub use owner::OwnerKind;
pub use pending::ConfirmAccount;
pub(crate) use pending::pending_work;
pub(crate) use record::AccountLookup;
pub use record::{ACCOUNTS_MAX, LastError};
pub use revoke::Disconnected;
pub(crate) use state::not_connected;
pub use state::{AccountState, StateReason};
pub use view::{AccountSelector, Integration, MakeDefault, PluginStatus, Scopes};

pub use crate::outbound::credential::TOKEN_MAX_BYTES;
