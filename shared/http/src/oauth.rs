//! `/api/plugin-engine/oauth`: the pages in a user's browser while an account is connected. These routes have no sign-in: the
//! ticket in the link says which account is connected, and a cookie proves that each step comes from the same browser.

mod page;

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, PathRejection};
use axum::extract::{Form, Path, Query, State};
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use overseer_engine::accounts::{CONNECTING_TIME, Callback, CallbackOutcome, ConnectError, PARAMETER_MAX_BYTES};
use overseer_engine::engine::Engine;
use page::Page;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::Routes;

/// The beginning of connect links. After it comes the ticket, a secret for ten minutes that must not be logged.
pub(crate) const START: &str = "/api/plugin-engine/oauth/start/";

/// The beginning of redirect URIs.
pub(crate) const CALLBACK: &str = "/api/plugin-engine/oauth/callback";

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route(&format!("{START}{{ticket}}"), get(view_consent).post(authorize))
        .route(&format!("{CALLBACK}/{{plugin}}"), get(callback))
        // No redirect URI lacks the plugin: requests here are refused with a page.
        .route(CALLBACK, get(callback))
}

/// The ticket of a link. One that is not UTF-8 is unknown, and its user gets a page too.
type Ticket = Result<Path<SecretString>, PathRejection>;

/// The consent page: says what will be connected, and asks the user to continue. Opening it sets the cookie and changes
/// nothing else.
async fn view_consent(State(engine): State<Arc<Engine>>, ticket: Ticket, headers: HeaderMap) -> Response {
    let Ok(Path(ticket)) = ticket else { return error_page(&ConnectError::UnknownLink) };
    let secret = browser_secret(&engine, &headers).unwrap_or_else(|| engine.ports.ids.hex(32).into());
    consent_page(&engine, &ticket, &secret, None).await
}

/// The consent page with what the provider would be asked for now, and, if it is shown again, with the reason.
async fn consent_page(
    engine: &Engine,
    ticket: &SecretString,
    browser: &SecretString,
    reason: Option<&ConnectError>,
) -> Response {
    let offer = match engine.view_consent(ticket).await {
        Ok(offer) => offer,
        Err(error) => return error_page(&error),
    };
    match Page::consent(&offer, reason) {
        Ok(page) => with_cookie(engine, browser, page.into_response()),
        Err(error) => error_page(&error.into()),
    }
}

/// What the consent page's form sends.
#[derive(Deserialize)]
struct ConsentForm {
    /// The button that the user pressed.
    decision: Decision,
    /// The fingerprint of what the page showed.
    #[serde(default)]
    shown: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Continue,
    Cancel,
}

/// The buttons of the consent page: redirects to the provider, or cancels. Pages of other sites cannot press them: browsers do
/// not send the cookie with their requests, and tell in `Sec-Fetch-Site` when another host of the same site sends one.
async fn authorize(
    State(engine): State<Arc<Engine>>,
    ticket: Ticket,
    headers: HeaderMap,
    form: Result<Form<ConsentForm>, FormRejection>,
) -> Response {
    let Ok(Path(ticket)) = ticket else { return error_page(&ConnectError::UnknownLink) };
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return Page::not_connected(StatusCode::FORBIDDEN, "The request did not come from this page.").into_response();
    }
    let Some(browser) = browser_secret(&engine, &headers) else {
        return Page::not_connected(
            StatusCode::BAD_REQUEST,
            "This browser did not keep the cookie of the consent page. Allow cookies for this site and open the link again.",
        )
        .into_response();
    };
    let Ok(Form(ConsentForm { decision, shown })) = form else {
        return Page::not_connected(StatusCode::BAD_REQUEST, "The form is not that of this page.").into_response();
    };
    match decision {
        Decision::Continue => match engine.authorize(&ticket, &browser, &shown).await {
            // The state is valid for ten minutes from now, so the cookie must be, too.
            Ok(url) => with_cookie(&engine, &browser, see_other(&url)),
            Err(error @ ConnectError::OfferChanged) => consent_page(&engine, &ticket, &browser, Some(&error)).await,
            Err(error) => error_page(&error),
        },
        Decision::Cancel => match engine.cancel_connect(&ticket).await {
            Ok(Some(url)) => see_other(&url),
            Ok(None) => Page::cancelled().into_response(),
            Err(error) => error_page(&error),
        },
    }
}

/// The provider's redirect: exchanges its code for tokens, and says in a page whether the account is connected.
async fn callback(
    State(engine): State<Arc<Engine>>,
    plugin: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let outcome = match parse_callback(&uri) {
        Ok(callback) => {
            let plugin = plugin.as_ref().ok().map(|Path(plugin)| plugin.as_str());
            engine.callback(plugin, callback, browser_secret(&engine, &headers)).await
        }
        Err(problem) => Err(ConnectError::Malformed(problem)),
    };
    match outcome {
        Ok(CallbackOutcome::Connected(plugin, account)) => Page::connected(&plugin, account.as_deref()).into_response(),
        Ok(CallbackOutcome::Redirect(url)) => see_other(&url),
        Err(error) => error_page(&error),
    }
}

/// The parameters of a provider's redirect. The error is a message: a parameter that is repeated or longer than
/// [`PARAMETER_MAX_BYTES`].
fn parse_callback(uri: &Uri) -> Result<Callback, &'static str> {
    let pairs: Query<Vec<(String, String)>> = Query::try_from_uri(uri).map_err(|_| "its parameters cannot be read")?;
    let mut callback = Callback::default();
    for (name, value) in pairs.0 {
        let is_known = ["state", "code", "iss", "error"].contains(&name.as_str());
        if is_known && value.len() > PARAMETER_MAX_BYTES {
            return Err("a parameter is too long");
        }
        let is_repeated = match name.as_str() {
            "state" => callback.state.replace(value.into()).is_some(),
            "code" => callback.code.replace(value.into()).is_some(),
            "iss" => callback.iss.replace(value).is_some(),
            "error" => callback.error.replace(value).is_some(),
            // Providers may send further parameters (RFC 6749, 4.1.2).
            _ => false,
        };
        if is_repeated {
            return Err("a parameter appears twice");
        }
    }
    // A parameter without a value counts as left out (RFC 6749, 3.1).
    let has_value = |value: &SecretString| !value.expose_secret().is_empty();
    callback.state = callback.state.filter(has_value);
    callback.code = callback.code.filter(has_value);
    Ok(callback)
}

/// The cookie's name. The prefix `__Host-` prevents other hosts of the same site from setting it; browsers accept it over
/// https only.
fn cookie_name(engine: &Engine) -> &'static str {
    if is_https(engine) { "__Host-overseer-connect" } else { "overseer-connect" }
}

fn is_https(engine: &Engine) -> bool {
    engine.config.public_url.as_ref().is_some_and(|url| url.scheme() == "https")
}

fn with_cookie(engine: &Engine, secret: &SecretString, mut response: Response) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(&cookie(engine, secret)) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn cookie(engine: &Engine, secret: &SecretString) -> String {
    let name = cookie_name(engine);
    let secure = if is_https(engine) { "; Secure" } else { "" };
    let age = CONNECTING_TIME.as_secs();
    format!("{name}={}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}", secret.expose_secret())
}

/// The secret in the browser's cookie, if it has the form of one of Overseer's.
fn browser_secret(engine: &Engine, headers: &HeaderMap) -> Option<SecretString> {
    let name = cookie_name(engine);
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    let mut values = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(cookie, _)| *cookie == name);
    let (_, value) = values.next()?;
    let is_well_formed = value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit());
    // Of two cookies with this name, another host set one.
    (is_well_formed && values.next().is_none()).then(|| value.into())
}

fn see_other(url: &Url) -> Response {
    let Ok(location) = HeaderValue::from_str(url.as_str()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    (StatusCode::SEE_OTHER, page::HEADERS, [(LOCATION, location)]).into_response()
}

fn error_page(error: &ConnectError) -> Response {
    let status = match error {
        ConnectError::Failed(cause) => {
            crate::Problem::log(cause);
            StatusCode::INTERNAL_SERVER_ERROR
        }
        ConnectError::OtherBrowser => StatusCode::FORBIDDEN,
        ConnectError::UnknownLink
        | ConnectError::OtherProvider
        | ConnectError::Malformed(_)
        | ConnectError::Denied
        | ConnectError::Provider(_)
        | ConnectError::Changed
        | ConnectError::OfferChanged => StatusCode::BAD_REQUEST,
    };
    Page::not_connected(status, &error.to_string()).into_response()
}
