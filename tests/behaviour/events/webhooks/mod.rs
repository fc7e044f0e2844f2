//! Webhooks to an organization's servers: subscribed, written with the change, signed, sent, retried.

mod losing;
mod sending;
mod subscribing;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overseer_engine::access::principal::Role;
use overseer_engine::core::ids::OrgId;
use overseer_engine::core::work_report::WorkReport;
use overseer_engine::engine::Engine;
use overseer_engine::outbound::address::AllowedAddress;
use overseer_engine::ports::Work;
use overseer_engine::ports::table::Query;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::app::{App, Options};

const WEBHOOKS: &str = "/api/v1/webhooks";
const KEYS: &str = "/api/v1/keys";

/// What a receiver got.
#[derive(Clone)]
pub struct Got {
    pub path: String,
    pub headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The signatures that are good with `secret`, checked by what Standard Webhooks and RFC 2104 say.
    pub fn signed_with(&self, secret: &str) -> usize {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        assert!((24..=64).contains(&key.len()), "{} bytes", key.len());
        let text = [self.header("webhook-id"), ".", self.header("webhook-timestamp"), "."].concat();
        let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &[text.as_bytes(), &self.body].concat())));
        self.header("webhook-signature").split(' ').filter(|signature| *signature == expected).count()
    }
}

/// RFC 2104, for a key of at most a block.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA256, digest};
    let padded = |pad: u8| (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ pad).collect::<Vec<u8>>();
    let inner = digest(&SHA256, &[&padded(0x36), text].concat());
    digest(&SHA256, &[&padded(0x5c), inner.as_ref()].concat()).as_ref().to_vec()
}

/// A real server of an organization. It sends the answers that the test queued, then 204.
#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<VecDeque<Response>>>,
}

async fn receive(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    receiver.got.lock().unwrap().push(Got { path: uri.path().to_owned(), headers, body });
    let answer = receiver.answers.lock().unwrap().pop_front();
    answer.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response())
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Self { address, got: Arc::default(), answers: Arc::default() };
        let routes = Router::new().fallback(any(receive)).with_state(receiver.clone());
        tokio::spawn(axum::serve(listener, routes).into_future());
        receiver
    }

    /// An Overseer that may call it, and no account that is connected.
    async fn app(&self) -> App {
        let allowed = vec![AllowedAddress::Socket(self.address)];
        App::with(Options { allowed, unconnected: true, ..Options::default() }).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub fn answer(&self, answer: impl axum::response::IntoResponse) {
        self.answers.lock().unwrap().push_back(answer.into_response());
    }

    /// Waits until it has got so many.
    async fn has(&self, count: usize) -> Vec<Got> {
        while self.got().len() < count {
            tokio::task::yield_now().await;
        }
        self.got()
    }
}

/// Subscribes with that key; gives the id and the secret.
async fn subscribe(app: &App, key: &str, url: &str, events: &[&str]) -> (String, String) {
    let answer = app.send(key, Method::POST, WEBHOOKS, Some(&json!({ "url": url, "events": events }))).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let made = answer.json();
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

/// Makes an API key, which is an event.
async fn event(app: &App, name: &str) -> Value {
    let answer = app.post(KEYS, &json!({ "name": name, "roles": ["service"] })).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

/// The deliveries of a webhook of `acme`, the latest first.
async fn deliveries(app: &App, id: &str) -> Vec<Value> {
    let answer = app.get(&format!("{WEBHOOKS}/{id}/deliveries?limit=100")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["deliveries"].as_array().unwrap().clone()
}

/// Waits until the latest delivery of a webhook is so; gives it.
async fn reached(app: &App, id: &str, status: &str) -> Value {
    loop {
        let all = deliveries(app, id).await;
        if all.first().is_some_and(|one| one["status"] == status && one["sending"] == false) {
            return all[0].clone();
        }
        tokio::task::yield_now().await;
    }
}

fn acme() -> OrgId {
    OrgId::parse("acme").unwrap()
}

/// The work of each event in the outbox of `acme`.
async fn outbox(app: &App) -> Vec<Work> {
    let page = app.table.inner.query(Query::partition("org#acme#outbox", 100)).await.unwrap();
    let ids = page.entries.into_iter().map(|item| item.stored.key.sort);
    ids.map(|id| Work { org: acme(), kind: "event".into(), id, revision: 0 }).collect()
}

/// The alarm of a delivery.
fn alarm(webhook: &str, delivery: &Value) -> Work {
    let id = format!("{webhook} {}", delivery["id"].as_str().unwrap());
    Work { org: acme(), kind: "delivery".into(), id, revision: 0 }
}

/// An Overseer none of whose alarms goes off, with one webhook and one delivery of it that waits.
async fn waiting(receiver: &Receiver) -> (App, Arc<Engine>, String, Work) {
    let app = receiver.app().await;
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    let deaf = app.deaf();
    make_key(&deaf).await;
    for work in outbox(&app).await {
        deaf.dispatch(work, None).await.unwrap();
    }
    let work = alarm(&id, &deliveries(&app, &id).await[0]);
    (app, deaf, id, work)
}

/// Makes an API key in `acme` by that engine.
async fn make_key(engine: &Arc<Engine>) {
    let new = serde_json::from_value(json!({ "name": "a", "roles": ["service"] })).unwrap();
    engine.create_api_key(&acme(), new).await.unwrap();
}

#[tokio::test]
async fn event_is_delivered_once() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, secret) = subscribe(&app, &app.admin, &receiver.url("/hook?a=b"), &["api_key.created"]).await;
    let made = event(&app, "told").await;
    let got = receiver.has(1).await.remove(0);
    assert_eq!((got.path.as_str(), got.header("content-type")), ("/hook", "application/json"));
    assert_eq!(got.signed_with(&secret), 1);
    assert_eq!(got.header("webhook-signature").split(' ').count(), 1);
    assert_eq!(got.header("webhook-timestamp"), crate::support::app::START_S.to_string());
    let told = got.json();
    assert_eq!((&told["type"], &told["timestamp"]), (&json!("api_key.created"), &json!("2026-11-21T09:00:00Z")));
    assert_eq!((&told["data"]["id"], &told["data"]["name"]), (&made["id"], &json!("told")));
    assert_eq!(told.as_object().unwrap().len(), 3);

    let delivery = reached(&app, &id, "succeeded").await;
    assert_eq!(delivery["id"], got.header("webhook-id"));
    assert_eq!((&delivery["type"], &delivery["attempts"][0]["status"]), (&json!("api_key.created"), &json!(204)));
    assert!(delivery["attempts"][0]["duration_ms"].is_u64() && delivery.get("next_attempt_at").is_none());
    // What it did not ask for it is not told, and what it was told it is not told again.
    app.delete(&format!("{KEYS}/{}", made["id"].as_str().unwrap())).await.json();
    assert!(outbox(&app).await.len() <= 1);
    for work in outbox(&app).await {
        app.engine.dispatch(work, None).await.unwrap();
    }
    assert_eq!(app.engine.sweep().await.unwrap().due, 0);
    assert_eq!((receiver.got().len(), deliveries(&app, &id).await.len()), (1, 1));
}

#[tokio::test]
async fn webhooks_get_the_events_of_the_bus() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, secret) = subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    app.events.lock().unwrap().clear();
    let key = event(&app, "a").await;
    app.delete(&format!("{KEYS}/{}", key["id"].as_str().unwrap())).await.json();
    let plugin = "/api/v1/plugins/slack";
    for what in ["disable", "enable"] {
        app.post(&format!("{plugin}/{what}"), &json!({})).await.json();
    }
    app.send(&app.admin, Method::PATCH, plugin, Some(&json!({ "record_reads": true }))).await.json();
    app.connect("slack", "xoxb-playground").await;
    app.delete("/api/plugin-engine/integrations/slack").await.json();
    let task = json!({ "tool": "slack", "intent": "fetch", "context": { "channel": "C0PLAYGEN1" },
                       "maxAttempts": 1, "scheduledTime": "2026-11-21T09:00:00Z" });
    app.post("/api/plugin-engine", &task).await.json();
    let got = receiver.has(8).await;
    let mut told: Vec<_> = got.iter().map(|got| (got.json()["type"].clone(), got.json()["data"].clone())).collect();
    while app.events.lock().unwrap().len() < 8 {
        tokio::task::yield_now().await;
    }
    let mut heard: Vec<_> =
        app.events.lock().unwrap().iter().map(|event| (json!(event.kind), event.detail.clone())).collect();
    for all in [&mut told, &mut heard] {
        all.sort_by_key(|(kind, _)| kind.to_string());
    }
    assert_eq!(told, heard);
    let kinds: Vec<_> = told.iter().map(|(kind, _)| kind.as_str().unwrap()).collect();
    let expected = [
        "api_key.created",
        "api_key.revoked",
        "integration.connected",
        "integration.disconnected",
        "plugin.configured",
        "plugin.disabled",
        "plugin.enabled",
        "task.failed",
    ];
    assert_eq!(kinds, expected);
    let mut ids: Vec<_> = got.iter().map(|got| got.header("webhook-id").to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 8, "each has an id of its own");
    assert!(got.iter().all(|got| got.signed_with(&secret) == 1));
    assert_eq!(deliveries(&app, &id).await.len(), 8);
}

#[tokio::test]
async fn events_stay_within_their_organization() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let globex = app.key("globex", &[Role::Administrator], Some("gus")).await;
    let (own, own_secret) = subscribe(&app, &app.admin, &receiver.url("/acme"), &["*"]).await;
    let (foreign, foreign_secret) = subscribe(&app, &globex, &receiver.url("/globex"), &["*"]).await;
    for number in 0..5 {
        for (key, org) in [(&app.admin, "acme"), (&globex, "globex")] {
            let body = json!({ "name": format!("{org} {number}"), "roles": ["service"] });
            app.send(key, Method::POST, KEYS, Some(&body)).await.json();
        }
    }
    let got = receiver.has(10).await;
    for (org, secret, other) in [("acme", &own_secret, &foreign_secret), ("globex", &foreign_secret, &own_secret)] {
        let own: Vec<_> = got.iter().filter(|got| got.path == format!("/{org}")).collect();
        assert_eq!(own.len(), 5);
        for got in own {
            assert!(got.json()["data"]["name"].as_str().unwrap().starts_with(org), "{org}: {}", got.json());
            assert_eq!((got.signed_with(secret), got.signed_with(other)), (1, 0));
        }
    }
    reached(&app, &own, "succeeded").await;
    // Nor can it see or change anything there.
    let delivery = deliveries(&app, &own).await[0]["id"].as_str().unwrap().to_owned();
    for (method, path, body) in [
        (Method::GET, format!("{WEBHOOKS}/{own}"), None),
        (Method::PATCH, format!("{WEBHOOKS}/{own}"), Some(json!({ "active": false }))),
        (Method::DELETE, format!("{WEBHOOKS}/{own}"), None),
        (Method::POST, format!("{WEBHOOKS}/{own}/rotate"), None),
        (Method::GET, format!("{WEBHOOKS}/{own}/deliveries"), None),
        (Method::POST, format!("{WEBHOOKS}/{own}/deliveries/{delivery}/retry"), None),
        (Method::POST, format!("{WEBHOOKS}/{foreign}/deliveries/{delivery}/retry"), None),
    ] {
        let answer = app.send(&globex, method.clone(), &path, body.as_ref()).await;
        assert_eq!(answer.problem(404), "not_found", "{method} {path}");
    }
    let listed = app.send(&globex, Method::GET, WEBHOOKS, None).await.json();
    assert_eq!((listed["webhooks"].as_array().unwrap().len(), &listed["webhooks"][0]["id"]), (1, &json!(foreign)));
    // An alarm that names another's work finds nothing.
    let stray = Work { org: OrgId::parse("globex").unwrap(), ..alarm(&own, &json!({ "id": delivery })) };
    assert_eq!(app.engine.dispatch(stray, None).await.unwrap(), WorkReport::default());
    assert_eq!(receiver.got().len(), 10);
}
