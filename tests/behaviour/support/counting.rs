//! A table that counts its operations, and the number that each route may use.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use overseer_engine::access::principal::Role;
use overseer_engine::core::ids::{OrgId, PluginName};
use overseer_engine::ports::table::{Key, Read, TableError};
use overseer_engine::ports::vault::{Purpose, SecretId};
use overseer_engine::ports::{RandomIds, Vault as _, Work};
use overseer_engine::storage::vault::{EnvelopeVault, MasterKeys};
use reqwest::Method;
use secrecy::SecretBox;
use serde_json::{Value, json};

use crate::accounts::authorize::{Browser, leads_to, link};
use crate::support::app::{App, Options};
use crate::support::hooked::{Hooked, Hooks, Operation};

/// A table that counts round trips.
pub type Counting = Hooked<Counts>;

#[derive(Default)]
pub struct Counts {
    reads: AtomicUsize,
    writes: AtomicUsize,
    /// How often each put yields to other tasks first.
    turns: AtomicUsize,
    /// Every key that was ever put.
    keys: Mutex<BTreeSet<Key>>,
}

impl Counting {
    /// Makes each put slow from here on: of many concurrent updates of an item all but one lose each round.
    pub fn slow_down(&self) {
        self.hooks.turns.store(200, Ordering::SeqCst);
    }

    /// Reads and writes since the last call of this.
    pub fn take(&self) -> (usize, usize) {
        (self.hooks.reads.swap(0, Ordering::SeqCst), self.hooks.writes.swap(0, Ordering::SeqCst))
    }

    /// The keys of all current items. (A table cannot list itself; this one has recorded every key.)
    pub async fn items(&self) -> Vec<Key> {
        let keys: Vec<Key> = self.hooks.keys.lock().unwrap().iter().cloned().collect();
        let mut current = Vec::new();
        for key in keys {
            if self.inner.get(&key, Read::Consistent).await.unwrap().is_some() {
                current.push(key);
            }
        }
        current
    }
}

#[async_trait]
impl Hooks for Counts {
    async fn before(&self, operation: &Operation<'_>) -> Result<(), TableError> {
        let count = match operation {
            Operation::Get(_) | Operation::BatchGet(_) | Operation::List => &self.reads,
            Operation::Put(_) | Operation::Transact(_) => {
                self.keys.lock().unwrap().extend(operation.keys().into_iter().cloned());
                &self.writes
            }
            Operation::Add(key) => {
                self.keys.lock().unwrap().insert((*key).clone());
                &self.writes
            }
            Operation::Delete(_) => &self.writes,
        };
        if matches!(operation, Operation::Put(_)) {
            for _ in 0..self.turns.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// A description, the request, and the reads and writes that it may cost.
type Case<'a> = (&'a str, Method, &'a str, Option<&'a Value>, (usize, usize));

/// What docs/figures.md says that each route costs.
#[tokio::test]
async fn each_route_costs_the_documented_requests() {
    let app = App::start().await;
    let send = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0PLAYGEN1", "text": "hello" } });
    let read = json!({ "tool": "slack", "intent": "channels" });
    let named = json!({ "tool": "slack", "intent": "send", "context": { "channel": "#general", "text": "hello" } });
    let connect = json!({ "token": "xoxb-playground" });
    let key = json!({ "name": "one more", "roles": ["service"] });
    let id = app.post("/api/v1/keys", &key).await.json()["id"].as_str().unwrap().to_owned();
    app.post("/api/plugin-engine", &send).await.data();
    let revoke = format!("/api/v1/keys/{id}");
    let tools = "/api/plugin-engine";
    let slack = "/api/plugin-engine/integrations/slack/connect";
    let cases: [Case<'_>; 11] = [
        ("a warm intent with an effect", Method::POST, tools, Some(&send), (1, 2)),
        ("a warm intent that reads", Method::POST, tools, Some(&read), (1, 0)),
        ("the first with a name that is looked up", Method::POST, tools, Some(&named), (1, 3)),
        ("the next with that name", Method::POST, tools, Some(&named), (1, 2)),
        ("what can be done", Method::GET, tools, None, (2, 0)),
        ("the same for a model", Method::GET, "/api/plugin-engine?format=openai", None, (1, 0)),
        ("a token in place of another", Method::POST, slack, Some(&connect), (3, 3)),
        ("the first intent with it", Method::POST, tools, Some(&read), (2, 1)),
        ("a new key", Method::POST, "/api/v1/keys", Some(&key), (1, 1)),
        ("the keys", Method::GET, "/api/v1/keys", None, (2, 0)),
        ("a key less", Method::DELETE, &revoke, None, (2, 1)),
    ];
    app.table.take();
    for (what, method, path, body, expected) in cases {
        let answer = app.send(&app.admin, method, path, body).await;
        assert!(answer.status.is_success(), "{what}: {}", answer.text);
        assert_eq!(app.table.take(), expected, "{what}");
    }
    // An organization's first secret makes a data key. This process then caches it; another reads it once.
    let other = app.key("other", &[Role::Administrator], Some("admin")).await;
    app.send(&other, Method::GET, tools, None).await;
    for (plugin, expected) in [("slack", (3, 3)), ("notion", (2, 2))] {
        app.table.take();
        let connect = json!({ "token": format!("{plugin}-of-another") });
        let path = format!("/api/plugin-engine/integrations/{plugin}/connect");
        let answer = app.send(&other, Method::POST, &path, Some(&connect)).await;
        assert!(answer.status.is_success(), "{plugin}: {}", answer.text);
        assert_eq!(app.table.take(), expected, "the organization's first at {plugin}");
    }
    let master_key = SecretBox::new(Box::new([7; 32]));
    let keys = MasterKeys::new(&master_key, &[]).unwrap();
    let vault = EnvelopeVault::new(app.table.clone(), Arc::new(RandomIds), app.clock.clone(), keys);
    let purpose = Purpose::Client { plugin: PluginName::parse("slack").unwrap() };
    let id = SecretId { org: OrgId::parse("other").unwrap(), purpose, id: "s1".to_owned() };
    for (version, reads) in [("1", 1), ("2", 0)] {
        vault.put(&id, version, &"a secret".into()).await.unwrap();
        assert_eq!(app.table.take(), (reads, 1), "version {version}");
        vault.get(&id, version).await.unwrap().unwrap();
        assert_eq!(app.table.take(), (1, 0), "version {version}");
    }
    // The cached API key is read again after a minute.
    app.clock.advance(60);
    app.post(tools, &read).await.data();
    assert_eq!(app.table.take(), (2, 0));
}

/// The cost of an intent in a warm process: requests to the table, and calls of the service.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the counts are what is to be seen")]
async fn warm_intent_costs_the_documented_requests() {
    let app = App::start().await;
    let send = json!({ "tool": "slack", "intent": "send", "context": { "channel": "#general", "text": "hello" } });
    let read = json!({ "tool": "slack", "intent": "fetch", "context": { "channel": "#general" } });
    let mut keyed = send.clone();
    keyed["idempotencyKey"] = json!("k1");
    for warming in [&send, &read] {
        app.post("/api/plugin-engine", warming).await.data();
    }
    println!("{:<36} {:>5} {:>6} {:>5}", "a warm intent", "reads", "writes", "calls");
    for (what, intent, expected) in [
        ("that reads", &read, (1, 0, 1)),
        ("with an effect", &send, (1, 2, 1)),
        ("with an effect and a key", &keyed, (1, 2, 1)),
        ("with a key, sent again", &keyed, (1, 0, 0)),
    ] {
        let calls = app.playground.received_total();
        app.table.take();
        app.post("/api/plugin-engine", intent).await.data();
        let (reads, writes) = app.table.take();
        let cost = (reads, writes, app.playground.received_total() - calls);
        println!("{what:<36} {:>5} {:>6} {:>5}", cost.0, cost.1, cost.2);
        assert_eq!(cost, expected, "{what}");
    }
}

/// What docs/figures.md says that connecting by a browser, renewing and disconnecting cost.
#[tokio::test]
async fn each_account_step_costs_the_documented_requests() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    // The data key is cached from here on, for an hour.
    app.connect("gmail", "ya29.playground").await;
    app.table.take();
    let costs = |what: &str, expected: (usize, usize)| assert_eq!(app.table.take(), expected, "{what}");
    let slack = "/api/plugin-engine/integrations/slack";
    let read = json!({ "tool": "slack", "intent": "fetch", "context": { "channel": "C0PLAYGEN1" } });

    let url = link(&app, "slack", &json!({})).await;
    costs("the link", (1, 1));
    let mut browser = Browser::new(&app);
    browser.open(&url).await;
    costs("the page", (1, 0));
    let provider = leads_to(&browser.ask(Method::POST, &url, None).await);
    costs("the click", (1, 1));
    let back = browser.decide(&provider, "allow").await;
    assert!(browser.open(&back).await.status.is_success());
    costs("the return", (3, 3));
    app.post("/api/plugin-engine", &read).await.data();
    costs("the first intent", (2, 1));
    app.get(slack).await.json();
    costs("the status", (3, 0));
    app.get("/api/plugin-engine/integrations").await.json();
    costs("the list", (4, 0));
    app.clock.advance(3600);
    // This reads the API key and the data key again.
    app.connect("gmail", "ya29.playground").await;
    app.table.take();
    app.post("/api/plugin-engine", &read).await.data();
    costs("an intent that renews", (5, 5));
    app.delete(slack).await.json();
    costs("disconnecting", (5, 2));
}

/// What docs/figures.md says that tasks cost.
#[tokio::test]
async fn each_task_step_costs_the_documented_requests() {
    let app = App::start().await;
    let send = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0PLAYGEN1", "text": "hello" } });
    app.post("/api/plugin-engine", &send).await.data();
    let mut later = send.clone();
    later["scheduledTime"] = json!("2026-11-21T09:00:30Z");
    app.table.take();
    let costs = |what: &str, expected: (usize, usize)| assert_eq!(app.table.take(), expected, "{what}");
    let made = app.post("/api/plugin-engine", &later).await.json();
    costs("making it", (1, 1));
    let id = made["task"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/plugin-engine/tasks/{id}");
    app.get(&path).await.json();
    costs("looking at it", (1, 0));
    app.get("/api/plugin-engine/tasks").await.json();
    costs("the organization's list", (2, 0));
    app.get("/api/plugin-engine/tasks?userId=admin").await.json();
    costs("a user's list", (1, 0));
    app.clock.advance(30);
    let work = Work { org: OrgId::parse("acme").unwrap(), kind: "task".into(), id: format!("{id} admin"), revision: 1 };
    let report = app.engine.dispatch(work.clone(), None).await.unwrap();
    assert_eq!((report.claimed, report.succeeded), (1, 1));
    costs("running it", (3, 4));
    app.engine.dispatch(work, None).await.unwrap();
    costs("a second firing", (1, 0));
    app.engine.sweep().await.unwrap();
    costs("a sweep that finds nothing", (3, 0));
    app.delete(&path).await.json();
    costs("cancelling one that has ended", (1, 0));
}

/// What docs/figures.md says that failures cost.
#[tokio::test]
async fn each_error_log_step_costs_the_documented_requests() {
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let intend = "/api/plugin-engine";
    let send = json!({ "tool": "slack", "intent": "send", "context": { "channel": "#general", "text": "hello" } });
    let errors = "/api/plugin-engine/errors";
    app.get(intend).await.json();
    app.table.take();
    let costs = |what: &str, expected: (usize, usize)| assert_eq!(app.table.take(), expected, "{what}");
    app.post(intend, &send).await.failure();
    costs("an intent that fails: its account, and the fallbacks; the record, and the counter", (2, 2));
    let listed = app.get(errors).await.json();
    costs("the organization's list", (2, 0));
    app.get(&format!("{errors}?userId=admin")).await.json();
    costs("a user's list", (1, 0));
    let one = format!("{errors}/{}", listed["errors"][0]["id"].as_str().unwrap());
    app.get(&one).await.json();
    costs("looking at one's own", (1, 0));
    app.post(&format!("{one}/resolve"), &json!({})).await.json();
    costs("resolving it", (1, 1));
    app.post(&format!("{one}/resolve"), &json!({})).await.json();
    costs("resolving it again", (1, 0));
    app.get(&format!("{errors}/stats")).await.json();
    costs("statistics", (1, 0));
    app.get(&format!("{errors}/trends?by=day")).await.json();
    costs("trends", (1, 0));
    let fallbacks = format!("{errors}/fallbacks");
    app.send(&app.admin, Method::PUT, &fallbacks, Some(&json!({ "message": "Sorry." }))).await.json();
    costs("a fallback", (0, 1));
    app.get(&fallbacks).await.json();
    costs("the fallbacks", (1, 0));
    app.delete(&fallbacks).await.json();
    costs("a fallback less", (1, 1));
}
