//! The plugins of an organization that take part in its agents' work through hooks.
//!
//! `index` is the list that a call reads to find them; it also says which hooks are called. `secret` makes the secrets that
//! sign the requests to hooks. `invoke::hooks` calls them.

mod index;
mod secret;

pub use index::HookView;
pub(crate) use index::{HookIndex, HookedPlugin};
pub(super) use index::{calls_hooks_over_http, index_removal, index_update};
pub use secret::NewHookSecret;

/// The most plugins of an organization whose hooks are called.
pub const HOOKED_MAX: usize = 10;
