//! `/api/plugin-engine/oauth`: what a browser sees while its user connects an account. Nobody is signed in here: the ticket
//! in the link says what is to be connected, and a cookie that it is still the same browser.

mod page;

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use overseer_engine::accounts::{CONNECTING_TIME, Callback, CallbackOutcome, ConnectError, PARAMETER_MAX_BYTES};
use overseer_engine::engine::Engine;
use page::Page;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::Routes;

/// Where links to connect begin. What follows is a secret of ten minutes, which no log is to have.
pub(crate) const START: &str = "/api/plugin-engine/oauth/start/";

/// Where providers send browsers back to.
pub(crate) const CALLBACK: &str = "/api/plugin-engine/oauth/callback";

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route(&format!("{START}{{ticket}}"), get(consent).post(authorize))
        .route(&format!("{CALLBACK}/{{plugin}}"), get(callback))
        // No redirect URI is this one: what comes here is refused, with a page that says so.
        .route(CALLBACK, get(callback))
}

/// The ticket of a link. What is not UTF-8 is none, and whoever opened it gets a page all the same.
type Ticket = Result<Path<SecretString>, PathRejection>;

/// The page that says what is about to be connected, and asks. Looking at it changes nothing but the cookie.
async fn consent(State(engine): State<Arc<Engine>>, ticket: Ticket, headers: HeaderMap) -> Response {
    let Ok(Path(ticket)) = ticket else { return stopped_page(&ConnectError::UnknownLink) };
    let offer = match engine.consent(&ticket).await {
        Ok(offer) => offer,
        Err(stopped) => return stopped_page(&stopped),
    };
    let secret = browser(&engine, &headers).unwrap_or_else(|| engine.ports.ids.hex(32).into());
    with_cookie(&engine, &secret, Page::asking(&offer).into_response())
}

/// The click on that page. A page of another site cannot do it: the cookie is not sent with its requests, and those of
/// another host of the same site say where they come from.
async fn authorize(State(engine): State<Arc<Engine>>, ticket: Ticket, headers: HeaderMap) -> Response {
    let Ok(Path(ticket)) = ticket else { return stopped_page(&ConnectError::UnknownLink) };
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return Page::stopped(StatusCode::FORBIDDEN, "The click did not come from this page.").into_response();
    }
    let Some(browser) = browser(&engine, &headers) else {
        return Page::stopped(
            StatusCode::BAD_REQUEST,
            "This browser did not keep the cookie of the page before. Allow cookies for this site, and open the link again.",
        )
        .into_response();
    };
    match engine.authorize(&ticket, &browser).await {
        // The state is good for ten minutes from now, so that the cookie has to be as well.
        Ok(url) => with_cookie(&engine, &browser, see_other(&url)),
        Err(stopped) => stopped_page(&stopped),
    }
}

async fn callback(
    State(engine): State<Arc<Engine>>,
    plugin: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let landing = match read(&uri) {
        Ok(callback) => {
            let plugin = plugin.as_ref().ok().map(|Path(plugin)| plugin.as_str());
            engine.callback(plugin, callback, browser(&engine, &headers)).await
        }
        Err(what) => Err(ConnectError::Malformed(what)),
    };
    match landing {
        Ok(CallbackOutcome::Connected(plugin, account)) => Page::connected(&plugin, account.as_deref()).into_response(),
        Ok(CallbackOutcome::Redirect(url)) => see_other(&url),
        Err(stopped) => stopped_page(&stopped),
    }
}

/// The parameters of a provider's answer, each at most once and not too long.
fn read(uri: &Uri) -> Result<Callback, &'static str> {
    let pairs: Query<Vec<(String, String)>> = Query::try_from_uri(uri).map_err(|_| "its parameters cannot be read")?;
    let mut callback = Callback::default();
    for (name, value) in pairs.0 {
        let read = ["state", "code", "iss", "error"].contains(&name.as_str());
        if read && value.len() > PARAMETER_MAX_BYTES {
            return Err("a parameter is too long");
        }
        let twice = match name.as_str() {
            "state" => callback.state.replace(value.into()).is_some(),
            "code" => callback.code.replace(value.into()).is_some(),
            "iss" => callback.iss.replace(value).is_some(),
            "error" => callback.error.replace(value).is_some(),
            // Providers may send more (RFC 6749, 4.1.2).
            _ => false,
        };
        if twice {
            return Err("a parameter is there twice");
        }
    }
    // What has no value counts as left out (RFC 6749, 3.1).
    let there = |value: &SecretString| !value.expose_secret().is_empty();
    callback.state = callback.state.filter(there);
    callback.code = callback.code.filter(there);
    Ok(callback)
}

/// The cookie's name. `__Host-` keeps other hosts of the same site from setting it, which browsers know for https alone.
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

/// The browser's secret, if it has one that was made here.
fn browser(engine: &Engine, headers: &HeaderMap) -> Option<SecretString> {
    let name = cookie_name(engine);
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    let mut values = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(found, _)| *found == name);
    let (_, value) = values.next()?;
    let made_here = value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit());
    // Two of one name: somebody else set one of them.
    (made_here && values.next().is_none()).then(|| value.into())
}

fn see_other(url: &Url) -> Response {
    let Ok(to) = HeaderValue::from_str(url.as_str()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    (StatusCode::SEE_OTHER, page::HEADERS, [(LOCATION, to)]).into_response()
}

fn stopped_page(stopped: &ConnectError) -> Response {
    let status = match stopped {
        ConnectError::Failed(error) => {
            // Logs it, as every problem is.
            crate::Problem::log(error);
            StatusCode::INTERNAL_SERVER_ERROR
        }
        ConnectError::OtherBrowser => StatusCode::FORBIDDEN,
        ConnectError::UnknownLink
        | ConnectError::OtherProvider
        | ConnectError::Malformed(_)
        | ConnectError::Denied
        | ConnectError::Provider(_)
        | ConnectError::Changed => StatusCode::BAD_REQUEST,
    };
    Page::stopped(status, &stopped.to_string()).into_response()
}
