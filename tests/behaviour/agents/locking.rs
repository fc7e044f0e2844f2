//! Locking an agent: difference, lock, rollback, unlock.

use overseer_engine::agents::LOCKS_MAX;
use reqwest::Method;
use serde_json::{Value, json};

use super::{AGENT, CHANNEL, action, agent, booking, both, names, ok, put, set};
use crate::registry::Bench;
use crate::support::app::{Answer, App};

async fn post(app: &App, operation: &str, body: Value) -> Answer {
    app.post(&format!("{AGENT}/{operation}"), &body).await
}

fn hashes(locks: &Value) -> Vec<String> {
    locks["locks"].as_array().unwrap().iter().map(|lock| lock["hash"].as_str().unwrap().to_owned()).collect()
}

/// A channel that is locked to its first build, and whose plugins have changed since.
struct Changed {
    bench: Bench,
    first: Value,
    locked: Value,
}

impl Changed {
    async fn start() -> Self {
        let bench = both().await;
        let app = &bench.app;
        set(app, json!([{ "plugin": "booking" }, { "plugin": "crm" }])).await;
        let first = agent(app).await;
        let locked = ok(&post(app, "lock", json!({ "hash": first["hash"] })).await);

        // A newer version with another description, another action and other instructions; the other plugin is removed.
        let mut newer = booking(&bench, "1.1.0");
        newer["actions"] = json!([action("find"), action("cancel")]);
        newer["actions"][0]["description"] = json!("Finds appointments.");
        newer["actions"][0]["parameters"]["required"] = json!(["what"]);
        newer["instruction_template"] = json!("You book.");
        ok(&bench.register(&newer).await);
        ok(&app.post("/api/v1/plugins/booking/upgrade", &json!({ "version": "1.1.0" })).await);
        set(app, json!([{ "plugin": "booking", "data_adapter": "opendental" }])).await;
        app.clock.advance(60);
        Self { bench, first, locked }
    }
}

#[tokio::test]
async fn diff_of_an_unlocked_agent_is_a_conflict() {
    let bench = both().await;
    set(&bench.app, json!([{ "plugin": "booking" }, { "plugin": "crm" }])).await;
    assert_eq!(post(&bench.app, "diff", json!({})).await.problem(409), "conflict");
}

#[tokio::test]
async fn lock_records_who_locked_which_build() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "booking" }, { "plugin": "crm" }])).await;
    let first = agent(app).await;
    let locked = ok(&post(app, "lock", json!({ "hash": first["hash"] })).await);
    assert_eq!((&locked["hash"], &locked["tools"]), (&first["hash"], &first["tools"]));
    assert_eq!((&locked["locked"]["by"], &locked["locked"]["at"]), (&json!("admin"), &json!("2026-11-21T09:00:00Z")));
}

#[tokio::test]
async fn diff_of_an_unchanged_agent_is_empty() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "booking" }, { "plugin": "crm" }])).await;
    ok(&post(app, "lock", json!({})).await);
    let same = ok(&post(app, "diff", json!({})).await);
    assert_eq!((&same["same"], &same["tools_changed"], &same["plugins"]), (&json!(true), &json!([]), &json!([])));
}

#[tokio::test]
async fn locked_agent_has_no_newer_action() {
    let Changed { bench, .. } = Changed::start().await;
    let app = &bench.app;
    let new = json!({ "name": "lexi", "roles": ["agent"], "channel": "twilio", "agent_id": "lexi" });
    let made = ok(&app.post("/api/v1/keys", &new).await);
    let key = made["key"].as_str().unwrap();
    let cancel = json!({ "tool": "booking", "intent": "cancel", "userId": "ann" });
    let refused = app.send(key, Method::POST, "/api/plugin-engine", Some(&cancel)).await;
    assert_eq!(refused.problem(403), "forbidden", "{}", refused.text);
    let seen = app.send(key, Method::GET, "/api/plugin-engine?format=openai", None).await.text;
    assert!(seen.contains("booking__find") && !seen.contains("booking__cancel"), "{seen}");
}

#[tokio::test]
async fn locked_agent_keeps_its_build() {
    let Changed { bench, first, locked } = Changed::start().await;
    let app = &bench.app;
    let mut still = agent(app).await;
    assert_eq!(still["locked"], locked["locked"]);
    still["locked"] = Value::Null;
    let mut before = first.clone();
    before["locked"] = Value::Null;
    assert_eq!(still, before);
    let shown = ok(&app.get(&format!("{AGENT}?format=openai")).await);
    assert_eq!((&shown["hash"], &shown["locked"]), (&first["hash"], &locked["locked"]));
}

#[tokio::test]
async fn diff_lists_what_changed_since_the_lock() {
    let Changed { bench, first, locked } = Changed::start().await;
    let app = &bench.app;
    let diff = ok(&post(app, "diff", json!({})).await);
    assert_eq!((&diff["same"], &diff["locked"]), (&json!(false), &locked["locked"]));
    assert_eq!(diff["instructions"]["old"], first["instructions"]);
    assert_eq!(diff["instructions"]["new"], "You book.");
    let actions = |tools: &Value| -> Vec<String> {
        tools
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| format!("{}.{}", tool["plugin"], tool["action"]).replace('"', ""))
            .collect()
    };
    assert_eq!(actions(&diff["tools_added"]), ["booking.cancel"]);
    assert_eq!(actions(&diff["tools_removed"]), ["booking.create", "crm.find", "crm.AddLead"]);
    assert_eq!(actions(&diff["tools_changed"]), ["booking.find"]);
    assert_eq!(diff["tools_changed"][0]["fields"], json!(["name", "description", "parameters"]));
    assert_eq!(diff["tools_changed"][0]["old"]["description"], "Does find.");
    assert_eq!(diff["tools_changed"][0]["new"]["description"], "Finds appointments.");
    assert_eq!(
        diff["plugins"],
        json!([{ "name": "booking", "old": "1.0.0", "new": "1.1.0" }, { "name": "crm", "old": "2.1.0", "new": null }])
    );
    assert_eq!(diff["data_routing"][0]["old"]["name"], "local");
    assert_eq!(diff["data_routing"][0]["new"]["name"], "opendental");
}

#[tokio::test]
async fn lock_of_an_outdated_hash_is_a_conflict() {
    let Changed { bench, first, .. } = Changed::start().await;
    let app = &bench.app;
    assert_eq!(post(app, "lock", json!({ "hash": first["hash"] })).await.problem(409), "conflict");
}

#[tokio::test]
async fn new_lock_replaces_the_earlier_one() {
    let Changed { bench, first, .. } = Changed::start().await;
    let app = &bench.app;
    let diff = ok(&post(app, "diff", json!({})).await);
    let second = ok(&post(app, "lock", json!({})).await);
    assert_eq!((&second["hash"], names(&second)), (&diff["hash"], vec!["find", "cancel"]));
    let locks = ok(&app.get(&format!("{AGENT}/locks")).await);
    assert_eq!(json!(hashes(&locks)), json!([second["hash"], first["hash"]]));
    assert_eq!(locks["locked"]["hash"], second["hash"]);
}

#[tokio::test]
async fn repeated_lock_changes_nothing() {
    let Changed { bench, .. } = Changed::start().await;
    let app = &bench.app;
    let second = ok(&post(app, "lock", json!({})).await);
    app.clock.advance(60);
    assert_eq!(ok(&post(app, "lock", json!({})).await)["locked"], second["locked"]);
}

#[tokio::test]
async fn rollback_restores_an_earlier_lock() {
    let Changed { bench, first, .. } = Changed::start().await;
    let app = &bench.app;
    ok(&post(app, "lock", json!({})).await);
    app.clock.advance(60);
    let back = ok(&post(app, "rollback", json!({ "hash": first["hash"] })).await);
    assert_eq!((&back["hash"], &back["instructions"]), (&first["hash"], &first["instructions"]));
    assert_eq!(back["locked"]["at"], "2026-11-21T09:02:00Z");
    assert_eq!(agent(app).await["tools"], first["tools"]);
}

#[tokio::test]
async fn rollback_needs_the_hash_of_a_lock() {
    let Changed { bench, .. } = Changed::start().await;
    let app = &bench.app;
    assert_eq!(post(app, "rollback", json!({ "hash": "0".repeat(64) })).await.pointers(), ["/hash"]);
    assert_eq!(post(app, "rollback", json!({})).await.pointers(), ["/hash"]);
}

#[tokio::test]
async fn unlocked_agent_follows_its_channel() {
    let Changed { bench, .. } = Changed::start().await;
    let app = &bench.app;
    let current = ok(&post(app, "diff", json!({})).await)["hash"].clone();
    let free = ok(&post(app, "unlock", json!({})).await);
    assert_eq!((&free["hash"], free.get("locked")), (&current, None));
    assert_eq!(agent(app).await["hash"], current);
    // A second request to unlock changes nothing.
    ok(&post(app, "unlock", json!({})).await);
}

#[tokio::test]
async fn unlocked_agent_can_be_rolled_back() {
    let Changed { bench, first, .. } = Changed::start().await;
    let app = &bench.app;
    ok(&post(app, "unlock", json!({})).await);
    assert_eq!(ok(&post(app, "rollback", json!({ "hash": first["hash"] })).await)["hash"], first["hash"]);
}

#[tokio::test]
async fn every_change_of_a_lock_is_published() {
    let Changed { bench, first, .. } = Changed::start().await;
    let app = &bench.app;
    let second = ok(&post(app, "lock", json!({})).await);
    // Neither a repeated lock nor a repeated unlock is a change.
    ok(&post(app, "lock", json!({})).await);
    ok(&post(app, "rollback", json!({ "hash": first["hash"] })).await);
    for _ in 0..2 {
        ok(&post(app, "unlock", json!({})).await);
    }
    ok(&post(app, "rollback", json!({ "hash": first["hash"] })).await);

    let events = app.events.lock().unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).filter(|kind| kind.starts_with("agent.")).collect();
    assert_eq!(kinds, ["agent.locked", "agent.locked", "agent.rolled_back", "agent.unlocked", "agent.rolled_back"]);
    let rolled = events.iter().find(|event| event.kind == "agent.rolled_back").unwrap();
    assert_eq!((&rolled.detail["from"], &rolled.detail["to"]), (&second["hash"], &first["hash"]));
}

#[tokio::test]
async fn diff_reports_another_order_of_the_same_tools() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "booking" }, { "plugin": "crm" }])).await;
    ok(&post(app, "lock", json!({})).await);
    set(app, json!([{ "plugin": "booking", "priority": 1 }, { "plugin": "crm" }])).await;
    let diff = ok(&post(app, "diff", json!({})).await);
    assert_eq!((&diff["same"], &diff["order_changed"]), (&json!(false), &json!(true)));
    assert_eq!((&diff["tools_added"], &diff["tools_changed"]), (&json!([]), &json!([])));
}

/// Locks more builds than are kept. Returns their hashes, the newest first.
async fn lock_too_many(app: &App) -> Vec<String> {
    let mut made = Vec::new();
    for n in 0..=LOCKS_MAX {
        let channel = json!({ "plugin_assignments": [{ "plugin": "crm" }], "instructions": format!("Words {n}") });
        ok(&put(app, CHANNEL, &channel).await);
        made.push(ok(&post(app, "lock", json!({})).await)["hash"].as_str().unwrap().to_owned());
    }
    made.reverse();
    made
}

async fn stored_builds(app: &App) -> usize {
    app.table.items().await.iter().filter(|key| key.partition.contains("#builds#")).count()
}

#[tokio::test]
async fn latest_twenty_locks_are_kept() {
    let bench = both().await;
    let app = &bench.app;
    let made = lock_too_many(app).await;
    assert_eq!(hashes(&ok(&app.get(&format!("{AGENT}/locks")).await)), made[..LOCKS_MAX]);
    assert_eq!(stored_builds(app).await, LOCKS_MAX);
    assert_eq!(post(app, "rollback", json!({ "hash": made[LOCKS_MAX] })).await.pointers(), ["/hash"]);
}

#[tokio::test]
async fn rollback_makes_the_lock_the_latest() {
    let bench = both().await;
    let app = &bench.app;
    let made = lock_too_many(app).await;
    ok(&post(app, "rollback", json!({ "hash": made[LOCKS_MAX - 1] })).await);
    assert_eq!(hashes(&ok(&app.get(&format!("{AGENT}/locks")).await))[0], made[LOCKS_MAX - 1]);
}

#[tokio::test]
async fn deleted_channel_leaves_no_builds() {
    let bench = both().await;
    let app = &bench.app;
    lock_too_many(app).await;
    assert_eq!(stored_builds(app).await, LOCKS_MAX);
    ok(&app.delete(CHANNEL).await);
    assert_eq!(stored_builds(app).await, 0);
    assert!(!app.table.items().await.iter().any(|key| key.sort.starts_with("channel#")));
}

#[tokio::test]
async fn build_larger_than_an_item_is_not_locked() {
    let bench = both().await;
    let app = &bench.app;
    for name in ["one", "two"] {
        let mut manifest = bench.manifest(name, "1.0.0");
        manifest["actions"] = json!([action("look")]);
        manifest["actions"][0]["name"] = json!(format!("look_{name}"));
        manifest["actions"][0]["parameters"]["description"] = json!("x".repeat(200 * 1024));
        bench.install(&manifest).await;
    }
    set(app, json!([{ "plugin": "one" }])).await;
    ok(&post(app, "lock", json!({})).await);
    set(app, json!([{ "plugin": "one" }, { "plugin": "two" }])).await;
    let answer = post(app, "lock", json!({})).await;
    assert_eq!(answer.problem(409), "conflict");
    assert!(answer.text.contains("393216"), "{}", answer.text);
    // The earlier lock stays, and an unlocked agent may be larger.
    assert_eq!(names(&agent(app).await), ["look_one"]);
    ok(&post(app, "unlock", json!({})).await);
    assert_eq!(names(&agent(app).await), ["look_one", "look_two"]);
}
