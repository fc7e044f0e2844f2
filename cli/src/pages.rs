//! The pages for people: `/`, and the documentation under `/docs`, so that it is there offline.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use overseer_http::RawResponse;
use overseer_pages::{Width, content_security_policy, document, escape};

/// A page of the documentation, rendered by `build.rs`.
struct Page {
    /// The file's name without `.md`.
    name: &'static str,
    title: &'static str,
    /// The first paragraph, as text.
    summary: &'static str,
    html: &'static str,
}

static PAGES: &[Page] = include!(concat!(env!("OUT_DIR"), "/docs.rs"));

/// The routes of the pages.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(home).fallback(not_found))
        .route("/docs", get(contents))
        .route("/docs/all", get(all))
        .route("/docs/{name}", get(page))
}

/// The first page, for browsers. Other clients get the problem `not_found`, as for every path that has no route.
async fn home(request: Request) -> Response {
    let accepts_html = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("text/html"));
    if !request.headers().get_all(ACCEPT).iter().any(accepts_html) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let body = "<h1>Overseer</h1>\
        <p>This is the local server. Agents use it through its API; people use these pages.</p>\
        <ul><li><a href=\"/docs\">Documentation</a>, with the <a href=\"/docs/quickstart\">quickstart</a></li>\
        <li><a href=\"/playground\">Playground</a>: what the stand-ins of Slack, Gmail and Notion received</li>\
        <li><a href=\"/health\">Health</a></li>\
        <li><a href=\"/schemas/plugin-manifest.json\">JSON Schema of manifests</a></li></ul>\
        <p>The API begins at <code>/api/plugin-engine</code> and wants a key: \
        <code>Authorization: Bearer …</code>. The administrator's key is in the file <code>admin-key</code> of the data \
        folder.</p>";
    html("Local server", Width::Narrow, body)
}

/// The problem of a path that has no route. Without it `/` would refuse other methods than GET as one that has.
async fn not_found() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// The list of pages.
async fn contents() -> Response {
    let mut body = String::from(
        "<h1>Documentation</h1><p>To search, open <a href=\"/docs/all\">all pages as one</a> and use the search of your \
         browser.</p><ul>",
    );
    for Page { name, title, summary, .. } in PAGES {
        let (title, summary) = (escape(title), escape(summary));
        // Writing to a string cannot fail.
        let _ = write!(body, "<li><a href=\"/docs/{name}\">{title}</a><br><small>{summary}</small></li>");
    }
    body.push_str("</ul>");
    html("Documentation", Width::Wide, &body)
}

async fn page(Path(name): Path<String>) -> Response {
    let Some(page) = PAGES.iter().find(|page| page.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let body = format!("<p><a href=\"/docs\">Documentation</a></p>{}", page.html);
    html(page.title, Width::Wide, &body)
}

/// All pages one after the other, for the search of a browser.
async fn all() -> Response {
    let mut body = String::from("<p><a href=\"/docs\">Documentation</a></p>");
    for Page { name, html, .. } in PAGES {
        // Two pages may have a heading of the same name.
        let html = html.replace(" id=\"", &format!(" id=\"{name}--")).replace("href=\"#", &format!("href=\"#{name}--"));
        // Writing to a string cannot fail.
        let _ = write!(body, "<section>{html}</section><hr>");
    }
    html("All pages", Width::Wide, &body)
}

fn html(title: &str, width: Width, body: &str) -> Response {
    let headers = [
        (CONTENT_SECURITY_POLICY, content_security_policy(Some("'none'"))),
        (REFERRER_POLICY, "same-origin".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    let mut response = (headers, Html(document(title, width, body))).into_response();
    response.extensions_mut().insert(RawResponse);
    response
}
