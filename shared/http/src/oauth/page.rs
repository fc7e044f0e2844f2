//! The three pages, as HTML without scripts.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use overseer_engine::accounts::Offer;
use overseer_engine::core::ids::Owner;

use crate::RawResponse;

/// Nothing is loaded or run, nobody frames the page to borrow the click, and no other site learns the link. `same-origin`
/// and not `no-referrer`, which would make browsers say `Origin: null` with the click. The form's target has no limit:
/// browsers would apply it to the provider's own redirects.
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
    /// Asks whether to go on.
    pub(super) fn asking(offer: &Offer) -> Self {
        let plugin = escape(&offer.plugin);
        let (org, user, alias) =
            (escape(offer.org.as_str()), escape(offer.user.as_str()), escape(offer.alias.as_str()));
        let whose = match offer.owner {
            Owner::User(_) => format!("the user <b>{user}</b>"),
            Owner::Organization => format!("everybody in <b>{org}</b> (asked for by the user <b>{user}</b>)"),
        };
        let scopes: Vec<String> = offer.scopes.iter().map(|scope| format!("<code>{}</code>", escape(scope))).collect();
        let scopes = if scopes.is_empty() { "what the service offers".to_owned() } else { scopes.join("<br>") };
        let body = format!(
            "<p>An agent of the organization <b>{org}</b> will be able to use your account at {plugin}, in your name.</p>\
             <dl><dt>Organization</dt><dd><b>{org}</b></dd><dt>Connected for</dt><dd>{whose}</dd>\
             <dt>Service</dt><dd>{plugin}</dd><dt>Kept as</dt><dd>{alias}</dd><dt>Asks for</dt><dd>{scopes}</dd></dl>\
             <p><b>Go on only if you asked for this yourself.</b> If somebody sent you this link, or one of the names above \
             is not yours, close this page.</p>\
             <form method=\"post\"><button>Continue to {}</button></form>",
            escape(&offer.host),
        );
        Self { status: StatusCode::OK, title: format!("Connect {plugin}"), body }
    }

    /// Says that it is done.
    pub(super) fn connected(plugin: &str, account: Option<&str>) -> Self {
        let plugin = escape(plugin);
        let account = account.map(|account| format!(" as <b>{}</b>", escape(account))).unwrap_or_default();
        let body = format!("<p>{plugin} is connected{account}. You can close this page.</p>");
        Self { status: StatusCode::OK, title: format!("{plugin} is connected"), body }
    }

    /// Says why it did not go on, and what to do.
    pub(super) fn stopped(status: StatusCode, why: &str) -> Self {
        let body = format!(
            "<p>{}</p><p>Nothing was connected. Go back to where you began, and ask for a new link.</p>",
            escape(why)
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
        // A page for a person stays one, whatever its status.
        response.extensions_mut().insert(RawResponse);
        response
    }
}

/// Text as it may stand in HTML, between tags and in quotes.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, letter| {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // What turns the direction of text could make a name look like another.
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
    fn no_name_becomes_markup_or_turns_the_text() {
        assert_eq!(escape("<a b=\"c\">&'d'\u{202e}e"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;d&#39;\u{fffd}e");
    }
}
