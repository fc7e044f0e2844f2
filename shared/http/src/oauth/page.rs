//! The pages of connecting an account (consent, connected, not connected), as HTML without scripts.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use overseer_engine::accounts::{ConnectError, Offer, OfferedScope};
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::Owner;
use overseer_pages::{Width, content_security_policy, document, escape};

use crate::RawResponse;

/// No other site can frame the page (clickjacking) or learns the link. The referrer policy is `same-origin` because
/// `no-referrer` makes browsers send `Origin: null` with the form.
pub(super) const HEADERS: [(HeaderName, HeaderValue); 2] =
    [(REFERRER_POLICY, HeaderValue::from_static("same-origin")), (X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))];

/// A page.
pub(super) struct Page {
    status: StatusCode,
    title: String,
    body: String,
}

impl Page {
    /// Says which account will be connected for whom, and asks the user to continue or cancel. If the user pressed the button of
    /// an older page, it begins with the reason why that did not count.
    pub(super) fn consent(offer: &Offer, reason: Option<&ConnectError>) -> Result<Self, Error> {
        let shown = offer.fingerprint()?;
        let reason = reason.map(|reason| format!("<p><strong>{}</strong></p>", escape(&reason.to_string())));
        let status = if reason.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
        let plugin = escape(&offer.plugin);
        let (org, user, alias) =
            (escape(offer.org.as_str()), escape(offer.user.as_str()), escape(offer.alias.as_str()));
        let beneficiary = match offer.owner {
            Owner::User(_) => format!("the user {user}"),
            Owner::Organization => format!("everyone in {org}, requested by the user {user}"),
        };
        let scopes: String = offer.scopes.iter().map(scope).collect();
        let scopes = if scopes.is_empty() { "<li>You choose them at the service</li>".to_owned() } else { scopes };
        let host = escape(&offer.host);
        let body = format!(
            "<h1>Connect {plugin}</h1>{reason}\
             <p>Agents of the organization {org} will be able to use your {plugin} account on your behalf.</p>\
             <dl><dt>Organization</dt><dd>{org}</dd><dt>Connected for</dt><dd>{beneficiary}</dd>\
             <dt>Service</dt><dd>{plugin}</dd><dt>Account name</dt><dd>{alias}</dd>\
             <dt>Permissions</dt><dd><ul class=\"plain\">{scopes}</ul></dd></dl>\
             <p class=\"note\"><strong>Continue only if you requested this yourself.</strong> If someone else sent you this \
             link, or one of the names above is not yours, cancel.</p>\
             <form method=\"post\"><input type=\"hidden\" name=\"shown\" value=\"{shown}\">\
             <button name=\"decision\" value=\"continue\">Continue to {plugin} ({host})</button>\
             <button class=\"second\" name=\"decision\" value=\"cancel\">Cancel</button></form>",
            reason = reason.unwrap_or_default(),
        );
        Ok(Self { status, title: format!("Connect {}", offer.plugin), body })
    }

    /// Says that the account is connected.
    pub(super) fn connected(plugin: &str, account: Option<&str>) -> Self {
        let account = account.map(|account| format!(" as {}", escape(account))).unwrap_or_default();
        let body = format!(
            "<h1>{plugin} is connected</h1><p>{plugin} is connected{account}. You can close this page.</p>",
            plugin = escape(plugin)
        );
        Self { status: StatusCode::OK, title: format!("{plugin} is connected"), body }
    }

    /// Says that the user cancelled.
    pub(super) fn cancelled() -> Self {
        let body =
            "<h1>Cancelled</h1><p>No account was connected, and the link no longer works. You can close this page.</p>";
        Self { status: StatusCode::OK, title: "Cancelled".to_owned(), body: body.to_owned() }
    }

    /// Says why no account was connected, and what to do.
    pub(super) fn not_connected(status: StatusCode, reason: &str) -> Self {
        let body = format!(
            "<h1>Not connected</h1><p>{}</p><p>No account was connected. Go back to where you started and request a new link.</p>",
            escape(reason)
        );
        Self { status, title: "Not connected".to_owned(), body }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Self { status, title, body } = self;
        let html = document(&title, Width::Narrow, &body);
        // No `form-action`: browsers would apply it to the provider's own redirects as well.
        let policy = [(CONTENT_SECURITY_POLICY, content_security_policy(None))];
        let html_type = [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
        let mut response = (status, HEADERS, policy, html_type, html).into_response();
        // The envelope must not replace a page by a problem.
        response.extensions_mut().insert(RawResponse);
        response
    }
}

/// A scope in the plugin's words with its name, or its name alone.
fn scope(scope: &OfferedScope) -> String {
    let name = escape(&scope.name);
    match &scope.description {
        Some(description) => format!("<li>{}<br><small><code>{name}</code></small></li>", escape(description)),
        None => format!("<li><code>{name}</code></li>"),
    }
}
