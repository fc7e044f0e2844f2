//! The page for people: received calls, and the switches. It is plain HTML without scripts or external resources.

use std::fmt::Write;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use overseer_pages::{Width, content_security_policy, escape};

use crate::call::{shortened, timestamp};
use crate::{Mode, Playground, Received, Service, Switch};

/// The page shows fewer calls than the log keeps.
const MOST_ROWS: usize = 100;
const MOST_CHARACTERS: usize = 4000;

pub(crate) fn routes() -> Router<Playground> {
    Router::new().route("/playground", get(show))
}

/// The rule for forms that only submit to this server.
pub(crate) const OWN_FORMS: Option<&str> = Some("'self'");

/// A page around a body of HTML, with a rule for its forms.
pub(crate) fn document(status: StatusCode, title: &str, body: &str, form_action: Option<&str>) -> Response {
    let body = format!(
        "<p class=\"note\"><strong>This is a stand-in.</strong> This process answered in place of Slack, Gmail \
         and Notion: nothing left this machine, and the received calls are lost when it stops.</p>{body}"
    );
    let page = overseer_pages::document(&format!("{title} · Playground"), Width::Wide, &body);
    let headers = [
        (CONTENT_SECURITY_POLICY, content_security_policy(form_action)),
        (CACHE_CONTROL, "no-store".to_owned()),
        // Not `no-referrer`: browsers then send `Origin: null` with a form.
        (REFERRER_POLICY, "same-origin".to_owned()),
    ];
    (status, headers, Html(page)).into_response()
}

async fn show(State(playground): State<Playground>) -> Response {
    let switches: Vec<Switch> = playground.state().switches.values().copied().collect();
    let received = playground.received();
    let total = playground.received_total();
    let mut body = String::from("<h1>Overseer playground</h1>");
    // Writing to a string cannot fail.
    let _ = write!(
        body,
        "<h2>Received</h2><p>{total} calls so far, newest first. \
         <a href=\"/playground\">Reload</a> · <a href=\"/playground/received\">as JSON</a></p>",
    );
    if received.is_empty() {
        body.push_str("<p>Nothing yet. Call a plugin that is connected to the playground.</p>");
    } else {
        body.push_str("<div class=\"scroll\"><table><tr><th>Time (UTC)<th>Service<th>Call<th>Status</tr>");
        body.extend(received.iter().rev().take(MOST_ROWS).map(row));
        body.push_str("</table></div>");
    }
    body.push_str(
        "<h2>Switches</h2><p>Make the next calls of a service misbehave, and see how Overseer handles it.</p>",
    );
    body.extend(Service::ALL.map(|service| form(service, &switches)));
    body.push_str("<p><a href=\"/playground/switches\">Active switches, as JSON</a></p>");
    document(StatusCode::OK, "Received calls", &body, OWN_FORMS)
}

fn row(received: &Received) -> String {
    let Received { time, service, method, path, body, status, note } = received;
    let details = serde_json::to_string_pretty(body).unwrap_or_default();
    let tone = if *status >= 400 { " class=\"bad\"" } else { "" };
    format!(
        "<tr><td>{}<td>{}<td class=\"summary\">{}<br><details><summary><small>{} {}</small></summary>\
         <pre class=\"wrap\">{}</pre></details><td{tone}>{status}</tr>",
        timestamp(*time),
        service.title(),
        escape(note),
        escape(method),
        escape(path),
        escape(&shortened(&details, MOST_CHARACTERS)),
    )
}

fn form(service: Service, switches: &[Switch]) -> String {
    let title = service.title();
    let active = switches.iter().find(|switch| switch.service == service);
    let left = active.map_or_else(
        || "behaves".to_owned(),
        |switch| format!("<span class=\"bad\">{} for {} more calls</span>", switch.mode.name(), switch.calls),
    );
    let options = Mode::ALL.map(|mode| format!("<option>{}</option>", mode.name())).concat();
    format!(
        "<form method=\"post\" action=\"/playground/switches\">\
         <input type=\"hidden\" name=\"service\" value=\"{service}\"><strong>{title}</strong> {left}\
         <label>mode <select name=\"mode\">{options}</select></label>\
         <label>calls <input type=\"number\" name=\"calls\" value=\"1\" min=\"0\" max=\"1000\"></label>\
         <label>retry after <input type=\"number\" name=\"retry_after\" value=\"30\" min=\"0\"></label>\
         <button>Set</button></form>"
    )
}

#[cfg(test)]
mod tests;
