//! The test sends a token through every operation and searches all output for it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use overseer_engine::core::ids::OrgId;
use overseer_engine::outbound::address::AllowedAddress;
use overseer_engine::ports::Work;
use overseer_engine::ports::table::Read;
use overseer_playground::{Mode, NOTION_HOME_PAGE, NOTION_TASKS_DATABASE, Service};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::app::{Answer, App, Options};

/// What RFC 3986 leaves as it is, as every encoder for URLs does.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Every form in which a token could be read out of a text. In base64 the token stands at any of three offsets.
fn forms(token: &str) -> Vec<String> {
    let percent = utf8_percent_encode(token, UNRESERVED).to_string();
    let escaped = json!(token).to_string();
    let mut forms = vec![
        token.to_owned(),
        percent.to_lowercase(),
        percent,
        utf8_percent_encode(token, NON_ALPHANUMERIC).to_string(),
        escaped.trim_matches('"').to_owned(),
        escaped.trim_matches('"').replace('/', "\\/"),
        // Half of it is as bad as the whole.
        token.chars().take(token.len() / 2).collect(),
        escaped.trim_matches('"').chars().take(token.len() / 2).collect(),
    ];
    for padding in ["", "x", "xx"] {
        let text = format!("{padding}{token}");
        for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            forms.push(encoded.chars().skip(4).take(encoded.len() - 8).collect());
        }
    }
    forms
}

#[track_caller]
pub fn clean(text: &str, token: &str, place: &str) {
    for form in forms(token) {
        assert!(!text.contains(&form), "{place} has the token as {form}: {text}");
    }
}

#[track_caller]
fn clean_answer(answer: &Answer, token: &str) {
    clean(&answer.text, token, "an answer");
    clean(&format!("{:?}", answer.headers), token, "a header");
}

/// Everything that is stored, of every kind.
async fn stored(app: &App) -> Vec<String> {
    let mut kinds = std::collections::BTreeSet::new();
    let mut bodies = Vec::new();
    for key in app.table.items().await {
        let item = app.engine.ports.table.get(&key, Read::Consistent).await.unwrap().unwrap();
        kinds.insert(key.sort.split('#').next().unwrap().to_owned());
        if let Some(part) = key.partition.split("#secret#").nth(1) {
            assert!(!part.is_empty());
            kinds.insert("a secret".to_owned());
        }
        bodies.push(format!("{key:?} {}", item.stored.body));
    }
    for kind in ["integrations", "failure", "run", "key", "instance", "task", "found", "a secret"] {
        assert!(kinds.contains(kind), "nothing of {kind} is stored: {kinds:?}");
    }
    bodies
}

/// For each service a call that succeeds by reading, by doing, and one that the service refuses.
fn calls(service: Service) -> [(&'static str, Value); 3] {
    let nobody = "99999999-9999-4999-8999-999999999999";
    match service {
        Service::Slack => [
            ("fetch", json!({ "channel": "C0PLAYGEN1" })),
            ("send", json!({ "channel": "#general", "text": "hello" })),
            ("send", json!({ "channel": "C0NOWHERE", "text": "hello" })),
        ],
        Service::Gmail => [
            ("fetch", json!({ "limit": 3 })),
            ("send", json!({ "to": "a@example.com", "subject": "s", "body": "b" })),
            ("fetch", json!({ "page_token": "nonsense" })),
        ],
        Service::Notion => [
            ("query", json!({ "database_id": NOTION_TASKS_DATABASE })),
            ("append", json!({ "page_id": NOTION_HOME_PAGE, "content": "c" })),
            ("update", json!({ "page_id": nobody, "title": "t" })),
        ],
    }
}

#[tokio::test]
async fn token_never_leaves_in_any_mode() {
    let everything = Log::default();
    let heard = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(everything.clone());
    tracing::subscriber::set_global_default(heard.finish()).unwrap();
    let long = format!("canary\"/+{}", "a1/\\".repeat(100));
    let budget = Some(Duration::from_millis(200));
    for token in ["canary-3f9a7c21d", "canary/3f9a+7c21/d==", "canary\"3f9a\\7c21\"d<&>", long.as_str()] {
        let app = App::with(Options { budget, ..Options::default() }).await;
        for service in Service::ALL {
            app.playground.accept_token(service, token);
            let path = format!("/api/plugin-engine/integrations/{service}/connect");
            clean_answer(&app.post(&path, &json!({ "token": token })).await, token);
            // Otherwise most of the calls would not be made.
            let limits = json!({ "breaker": { "failures": 100 }, "record_reads": true });
            let set = app.send(&app.admin, Method::PATCH, &format!("/api/v1/plugins/{service}"), Some(&limits)).await;
            assert_eq!(set.status, StatusCode::OK, "{}", set.text);
            for (intent, context) in calls(service) {
                clean_answer(&app.intend(service.name(), intent, context.clone()).await, token);
                for mode in Mode::ALL {
                    // Every call of the intent, and none of the next.
                    app.misbehave(service, mode, 10);
                    let answer = app.intend(service.name(), intent, context.clone()).await;
                    clean_answer(&answer, token);
                    // Under a key the answer is kept, and given again.
                    for again in [false, true] {
                        let key = format!("{service} {intent} {} {context}", mode.name());
                        let body =
                            json!({ "tool": service, "intent": intent, "context": context, "idempotencyKey": key });
                        let answer = app.post("/api/plugin-engine", &body).await;
                        assert!(answer.status.is_success(), "{again}: {}", answer.text);
                        clean_answer(&answer, token);
                    }
                    app.misbehave(service, mode, 0);
                }
                let task = json!({ "tool": service, "intent": intent, "context": context,
                                   "scheduledTime": "2026-11-21T09:00:00Z" });
                let made = app.post("/api/plugin-engine", &task).await.json();
                let id = format!("{} admin", made["task"]["id"].as_str().unwrap());
                let org = OrgId::parse("acme").unwrap();
                app.engine.dispatch(Work { org, kind: "task".into(), id, revision: 1 }, None).await.unwrap();
            }
            // Text of the caller that holds the token is the caller's own, but the account's token is struck all the same.
            let text = format!("my token is {token}");
            if service == Service::Slack {
                clean_answer(&app.intend("slack", "send", json!({ "channel": "#general", "text": text })).await, token);
            }
        }
        for list in ["", "/tasks", "/runs", "/errors", "/errors/stats", "/integrations"] {
            clean_answer(&app.get(&format!("/api/plugin-engine{list}")).await, token);
        }
        clean(&format!("{:?}", app.events.lock().unwrap()), token, "an event");
        for body in stored(&app).await {
            clean(&body, token, "a stored item");
        }
        let logged = everything.take();
        assert!(logged.contains("event breaker.opened") || logged.contains("intent failed"), "no log");
        for line in logged.lines() {
            clean(line, token, "the log");
        }
    }
}

/// All that is logged, at every level.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn take(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.0.lock().unwrap())).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A service that echoes the token, encoded by `disguise`, as data or as an error.
async fn echoing(token: &str, disguise: fn(&str) -> String) -> App {
    let answer = async move |headers: HeaderMap, body: Bytes| {
        let said = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let status = if body.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        (
            status,
            [("x-debug", said.clone())],
            format!("{{\"code\": \"bad\", \"message\": \"you are {}\"}}", disguise(&said)),
        )
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().fallback(any(answer))).into_future());
    let response = json!({
        "error": { "code": "body.code", "message": "body.message" }, "external_id": "body.message",
        "message": "{{ headers['x-debug'] }} {{ body.message }}",
        "data": { "all": "{{ body }}", "headers": "{{ headers }}", "cut": "{{ body.message[:-1] }}" },
    });
    let manifest = json!({
        "name": "echo", "version": "1.0.0", "display_name": "Echo", "description": "Says it again.",
        "runtime": { "type": "http", "base_url": format!("http://{address}") }, "permissions": ["network:127.0.0.1"],
        "auth": crate::support::app::oauth2(),
        "actions": [
            { "name": "say", "description": "d", "effect": "read", "request": { "path": "/" }, "response": response },
            { "name": "fail", "description": "d", "effect": "unsafe", "response": response,
              "request": { "method": "POST", "path": "/", "json": {} } },
        ],
    });
    let allowed = vec![AllowedAddress::Socket(address)];
    let app = App::with(Options { plugins: vec![manifest.to_string()], allowed, ..Options::default() }).await;
    app.connect("echo", token).await;
    app
}

/// Says the token back, and looks for it in what the caller gets.
async fn struck(token: &str, disguise: fn(&str) -> String) {
    let app = echoing(token, disguise).await;
    let said = app.intend("echo", "say", json!({})).await;
    clean_answer(&said, token);
    assert!(said.data()["all"]["message"].as_str().unwrap().starts_with("you are "), "{}", said.text);
    let failed = app.intend("echo", "fail", json!({})).await;
    assert_eq!(failed.failure(), "rejected");
    clean_answer(&failed, token);
}

#[tokio::test]
async fn token_is_redacted_in_base64() {
    for token in ["canary-3f9a7c21d", "canary/3f9a+7c21/d=="] {
        struck(token, str::to_owned).await;
        struck(token, |token| STANDARD_NO_PAD.encode(format!("user:{token}"))).await;
        struck(token, |token| URL_SAFE_NO_PAD.encode(token)).await;
        struck(token, |token| utf8_percent_encode(token, NON_ALPHANUMERIC).to_string()).await;
    }
}

#[tokio::test]
async fn token_is_redacted_percent_encoded() {
    for token in ["ya29.canary-3f9a/7c21", "canary_3f9a+7c21/d=="] {
        struck(token, |token| utf8_percent_encode(token, UNRESERVED).to_string()).await;
        struck(token, |token| utf8_percent_encode(token, UNRESERVED).to_string().to_lowercase()).await;
    }
}

#[tokio::test]
async fn token_is_redacted_in_escaped_json() {
    for token in ["canary/3f9a/7c21", "canary\"3f9a\\7c21", "canary<3f9a>7c21"] {
        // Slashes as PHP writes them, angle brackets as Go does.
        struck(token, |token| {
            let escaped = json!(token).to_string().trim_matches('"').replace('/', "\\/");
            escaped.replace('<', "\\u003c").replace('>', "\\u003e")
        })
        .await;
    }
}

#[tokio::test]
async fn token_is_redacted_before_truncation() {
    for token in [format!("canary-{}", "3f9a7c21".repeat(50)), format!("canary/\"{}", "3f9a7c21".repeat(50))] {
        struck(&token, |token| json!(token).to_string().trim_matches('"').replace('/', "\\/")).await;
    }
}

#[tokio::test]
async fn redacted_answer_stays_valid_json() {
    // A key of digits, and an answer that has the same digits as a number.
    let app = echoing("1234567890", |token| format!("x\", \"account\": {token}, \"y\": \"")).await;
    let answer = app.intend("echo", "say", json!({})).await;
    clean_answer(&answer, "1234567890");
    assert_eq!(answer.data()["all"]["code"], "bad");
}
