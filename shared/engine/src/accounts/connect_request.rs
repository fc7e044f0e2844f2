//! The request to connect an account, and its checks: one small function for each field. All problems are reported at once.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::owner::OwnerKind;
use crate::core::error::Error;
use crate::core::ids;
use crate::core::ids::{Alias, UserId};
use crate::core::problem::FieldProblem;
use crate::core::redactor::SECRET_MIN_BYTES;
use crate::outbound::credential::{TOKEN_MAX_BYTES, check_password, check_token};
use crate::plugin::manifest::{Auth, Manifest, SCOPES_MAX, SCOPES_MAX_BYTES, is_scope};

/// The longest `returnTo`, in bytes.
const RETURN_TO_MAX_BYTES: usize = 2048;

/// The account to connect. Which fields are required depends on the plugin's kind of sign-in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connect {
    /// A token or key: 8 to 16,384 printable ASCII characters. For a plugin with OAuth it replaces the sign-in in a
    /// browser.
    #[schemars(with = "Option<String>", length(min = SECRET_MIN_BYTES, max = TOKEN_MAX_BYTES), regex(pattern = "^[!-~]*$"))]
    pub token: Option<SecretString>,
    /// The user name, for a plugin with a user name and password.
    pub username: Option<String>,
    /// The password for that user name.
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// The name that tells the owner's accounts at the service apart. Defaults to `default`.
    pub alias: Option<Alias>,
    /// The user who connects it. Defaults to the user that the API key is bound to.
    pub user_id: Option<UserId>,
    /// The kind of owner. Defaults to the user.
    pub owner: Option<OwnerKind>,
    /// The scopes to request instead of the plugin's own.
    pub scopes: Option<Vec<String>>,
    /// The URL that the browser returns to, with a code for `connect/complete`.
    #[schemars(with = "Option<String>")]
    pub return_to: Option<Url>,
}

/// Checks a request against the plugin's kind of sign-in. The error lists every problem. `allowed_return_to` are the URLs
/// that the operator allowed for `returnTo`.
pub(super) fn check_connect(manifest: &Manifest, connect: &Connect, allowed_return_to: &[Url]) -> Result<(), Error> {
    if matches!(manifest.auth, Auth::None) {
        return Err(Error::field("", format!("{} needs no account", manifest.display_name)));
    }
    let problems: Vec<FieldProblem> = unused_fields(manifest, connect)
        .into_iter()
        .chain(missing_fields(manifest, connect))
        .chain(token_problem(connect))
        .chain(password_problem(connect))
        .chain(username_problem(connect))
        .chain(scope_problems(connect))
        .chain(owner_problem(manifest, connect))
        .chain(return_to_problem(connect, allowed_return_to))
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
}

/// The fields that a kind of sign-in uses, among those that not every kind does.
fn used_fields(auth: &Auth, has_token: bool) -> &'static [&'static str] {
    match auth {
        Auth::None => &[],
        Auth::ApiKey(_) => &["/token"],
        Auth::Basic(_) => &["/username", "/password"],
        Auth::ClientCredentials(_) => &["/scopes"],
        // A token replaces the browser; the other two fields are for the browser.
        Auth::Oauth2(_) if has_token => &["/token"],
        Auth::Oauth2(_) => &["/token", "/scopes", "/returnTo"],
    }
}

/// The fields that a kind of sign-in requires.
fn required_fields(auth: &Auth) -> &'static [&'static str] {
    match auth {
        Auth::ApiKey(_) => &["/token"],
        Auth::Basic(_) => &["/username", "/password"],
        Auth::None | Auth::Oauth2(_) | Auth::ClientCredentials(_) => &[],
    }
}

/// The fields that the request has, among those that not every kind of sign-in uses.
fn present_fields(connect: &Connect) -> impl Iterator<Item = &'static str> {
    [
        connect.token.is_some().then_some("/token"),
        connect.username.is_some().then_some("/username"),
        connect.password.is_some().then_some("/password"),
        connect.scopes.is_some().then_some("/scopes"),
        connect.return_to.is_some().then_some("/returnTo"),
    ]
    .into_iter()
    .flatten()
}

fn unused_fields(manifest: &Manifest, connect: &Connect) -> Vec<FieldProblem> {
    let used = used_fields(&manifest.auth, connect.token.is_some());
    let message = format!("is not used to connect {} this way; leave it out", manifest.display_name);
    let unused = present_fields(connect).filter(|field| !used.contains(field));
    unused.map(|field| FieldProblem::new(field, message.as_str())).collect()
}

fn missing_fields(manifest: &Manifest, connect: &Connect) -> Vec<FieldProblem> {
    let present: Vec<_> = present_fields(connect).collect();
    let missing = required_fields(&manifest.auth).iter().filter(|field| !present.contains(field));
    missing.map(|field| FieldProblem::new(*field, "is required and missing")).collect()
}

fn token_problem(connect: &Connect) -> Option<FieldProblem> {
    let rule = check_token(connect.token.as_ref()?).err()?;
    Some(FieldProblem::new("/token", rule))
}

fn password_problem(connect: &Connect) -> Option<FieldProblem> {
    let rule = check_password(connect.password.as_ref()?).err()?;
    Some(FieldProblem::new("/password", rule))
}

fn username_problem(connect: &Connect) -> Option<FieldProblem> {
    let username = connect.username.as_ref()?;
    let invalid = ids::free(username).is_err() || username.contains(':');
    invalid.then(|| {
        FieldProblem::new("/username", "must be 1 to 255 bytes of UTF-8 without colons and control characters")
    })
}

fn scope_problems(connect: &Connect) -> Vec<FieldProblem> {
    let Some(scopes) = &connect.scopes else { return Vec::new() };
    let mut problems = Vec::new();
    if scopes.is_empty() || scopes.len() > SCOPES_MAX {
        let rule = format!("must be 1 to {SCOPES_MAX} scopes; leave it out for the plugin's own");
        problems.push(FieldProblem::new("/scopes", rule));
    }
    if scopes.iter().map(String::len).sum::<usize>() > SCOPES_MAX_BYTES {
        let rule = format!("must have at most {SCOPES_MAX_BYTES} characters together");
        problems.push(FieldProblem::new("/scopes", rule));
    }
    let invalid = scopes.iter().enumerate().filter(|(_, scope)| !is_scope(scope));
    problems.extend(
        invalid.map(|(index, _)| FieldProblem::new(format!("/scopes/{index}"), "is not a scope (RFC 6749, 3.3)")),
    );
    problems
}

fn owner_problem(manifest: &Manifest, connect: &Connect) -> Option<FieldProblem> {
    let client_credentials = matches!(manifest.auth, Auth::ClientCredentials(_));
    (client_credentials && connect.owner == Some(OwnerKind::User)).then(|| {
        let rule = format!("{} always acts for the organization; leave it out", manifest.display_name);
        FieldProblem::new("/owner", rule)
    })
}

fn return_to_problem(connect: &Connect, allowed: &[Url]) -> Option<FieldProblem> {
    let url = connect.return_to.as_ref()?;
    if url.as_str().len() <= RETURN_TO_MAX_BYTES && is_allowed_return_to(allowed, url) {
        return None;
    }
    let rule = "must be a URL that the operator allowed (OVERSEER_RETURN_TO), without a user, a fragment and \
                parameters called code or error, and have at most 2048 bytes";
    Some(FieldProblem::new("/returnTo", rule))
}

/// Whether a browser may be redirected to `url`: the operator allowed its origin, and its path or a parent of its path.
fn is_allowed_return_to(allowed: &[Url], url: &Url) -> bool {
    let anonymous = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    // An escaped dot or slash could leave the allowed path where a server decodes it.
    let escaped = ["%2e", "%2f", "%5c"].iter().any(|escape| url.path().to_ascii_lowercase().contains(escape));
    let reserved = url.query_pairs().any(|(name, _)| name == "code" || name == "error");
    anonymous
        && !escaped
        && !reserved
        && allowed.iter().any(|allowed| {
            let base = allowed.path().trim_end_matches('/');
            let below = url.path().strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            allowed.origin() == url.origin() && below
        })
}
