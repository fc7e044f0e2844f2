//! The pages of connecting an account (consent, connected, not connected), as HTML without scripts.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use overseer_engine::accounts::Offer;
use overseer_engine::core::ids::Owner;

use crate::RawResponse;

/// The page loads and runs nothing, no other site can frame it (clickjacking), and no other site learns the link. The referrer
/// policy is `same-origin` because `no-referrer` makes browsers send `Origin: null` with the form. There is no `form-action`:
/// browsers would apply it to the provider's own redirects as well.
pub(super) const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;color:#1c1c1c}\
    dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem}dt{color:#595959}dd{margin:0;overflow-wrap:anywhere}\
    button{font:inherit;padding:.5rem 1.2rem;border:0;border-radius:.4rem;background:#0b57d0;color:#fff;cursor:pointer}";

/// A page.
pub(super) struct Page {
    status: StatusCode,
    title: String,
    body: String,
}

impl Page {
    /// Says which account will be connected for whom, and asks the user to continue.
    pub(super) fn consent(offer: &Offer) -> Self {
        let plugin = escape(&offer.plugin);
        let (org, user, alias) =
            (escape(offer.org.as_str()), escape(offer.user.as_str()), escape(offer.alias.as_str()));
        let beneficiary = match offer.owner {
            Owner::User(_) => format!("the user <b>{user}</b>"),
            Owner::Organization => format!("everyone in <b>{org}</b> (requested by the user <b>{user}</b>)"),
        };
        let scopes: Vec<String> = offer.scopes.iter().map(|scope| format!("<code>{}</code>", escape(scope))).collect();
        let scopes = if scopes.is_empty() { "chosen by the service".to_owned() } else { scopes.join("<br>") };
        let body = format!(
            "<p>Agents of the organization <b>{org}</b> will be able to use your {plugin} account on your behalf.</p>\
             <dl><dt>Organization</dt><dd><b>{org}</b></dd><dt>Connected for</dt><dd>{beneficiary}</dd>\
             <dt>Service</dt><dd>{plugin}</dd><dt>Account name</dt><dd>{alias}</dd><dt>Permissions</dt><dd>{scopes}</dd></dl>\
             <p><b>Continue only if you requested this yourself.</b> If someone else sent you this link, or one of the names \
             above is not yours, close this page.</p>\
             <form method=\"post\"><button>Continue to {}</button></form>",
            escape(&offer.host),
        );
        Self { status: StatusCode::OK, title: format!("Connect {plugin}"), body }
    }

    /// Says that the account is connected.
    pub(super) fn connected(plugin: &str, account: Option<&str>) -> Self {
        let plugin = escape(plugin);
        let account = account.map(|account| format!(" as <b>{}</b>", escape(account))).unwrap_or_default();
        let body = format!("<p>{plugin} is connected{account}. You can close this page.</p>");
        Self { status: StatusCode::OK, title: format!("{plugin} is connected"), body }
    }

    /// Says why no account was connected, and what to do.
    pub(super) fn not_connected(status: StatusCode, reason: &str) -> Self {
        let body = format!(
            "<p>{}</p><p>No account was connected. Go back to where you started and request a new link.</p>",
            escape(reason)
        );
        Self { status, title: "Not connected".to_owned(), body }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Self { status, title, body } = self;
        let html = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title} · Overseer</title>\
             <style>{STYLE}</style><h1>{title}</h1>{body}"
        );
        let html_type = [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
        let mut response = (status, HEADERS, html_type, html).into_response();
        // The envelope must not replace a page by a problem.
        response.extensions_mut().insert(RawResponse);
        response
    }
}

/// Escapes text for HTML, between tags and in quotes.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, letter| {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Characters that change the direction of text could disguise a name.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            plain => escaped.push(plain),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_has_no_markup() {
        assert_eq!(escape("<a b=\"c\">&'d'"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;d&#39;");
    }

    #[test]
    fn escaped_text_keeps_its_direction() {
        assert_eq!(escape("d\u{202e}e"), "d\u{fffd}e");
    }
}
