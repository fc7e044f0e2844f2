//! The manifest: how an author describes a plugin, in YAML or JSON.
//!
//! The types here are the format; the JSON Schema at `/schemas/plugin-manifest.json` is generated from them. An unknown
//! key is an error. `check` holds the rules that types cannot express. `foreign` reads three older formats into the same
//! types.

mod action;
mod audience;
mod auth;
mod changes;
mod check;
mod compatibility;
mod config;
mod container;
mod declarations;
mod diff;
mod document;
mod foreign;
mod hook_rules;
mod hooks;
mod limits;
mod name_rules;
mod names;
mod parse;
mod problems;
mod request;
mod response;
mod runtime;
mod scopes;

pub(crate) use action::IDEMPOTENCY_KEY;
pub use action::{Action, EACH_MAX, Each, Paginate};
pub use auth::{
    ApiKey, Auth, Basic, ClientAuthentication, ClientCredentials, ConnectionTest, Oauth2, Provider, Revocation,
    TokenRequest, TokenResponse,
};
pub(crate) use auth::{SCOPES_MAX, SCOPES_MAX_BYTES};
pub use changes::{ActionChanged, Changes, TextChanged};
pub(crate) use check::is_scope;
pub use container::{
    Bounds, Container, Image, Ingress, IngressPath, OptionalVariable, Plain, Port, PullPolicy, RequiredVariable,
    Resources, Variables, Volume,
};
pub use declarations::{DataAdapter, DataAdapterKind, Dependencies, Hook, Permission, VersionRange};
pub use diff::diff;
pub use document::{ATTEMPTS_MAX, Manifest, Retry};
pub use hooks::{DeclaredHook, OnFailure};
pub use names::{IdPattern, Lookup, NameKind};
pub use parse::{MANIFEST_DEPTH_MAX, MANIFEST_MAX_BYTES};
pub use problems::ManifestError;
pub use request::{Method, RawBody, Request};
pub use response::{BodyFormat, Data, ErrorReading, Response};
pub use runtime::{Module, Runtime};
pub use scopes::ScopeList;

/// The default of flags that are on where a manifest leaves them out.
fn default_true() -> bool {
    true
}
