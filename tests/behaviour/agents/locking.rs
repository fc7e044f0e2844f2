//! What is locked stays, whatever is configured since: what would change, going back, and letting go.

use overseer_engine::agents::LOCKS_MAX;
use reqwest::Method;
use serde_json::{Value, json};

use super::{AGENT, CHANNEL, action, agent, booking, both, names, ok, put, set};
use crate::support::app::{Answer, App};

async fn does(app: &App, what: &str, body: Value) -> Answer {
    app.post(&format!("{AGENT}/{what}"), &body).await
}

fn hashes(locks: &Value) -> Vec<String> {
    locks["locks"].as_array().unwrap().iter().map(|lock| lock["hash"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_locked_stays_until_somebody_decides_otherwise() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "booking" }, { "plugin": "crm" }])).await;
    assert_eq!(does(app, "diff", json!({})).await.problem(409), "conflict");
    let first = agent(app).await;
    let locked = ok(&does(app, "lock", json!({ "hash": first["hash"] })).await);
    assert_eq!((&locked["hash"], &locked["tools"]), (&first["hash"], &first["tools"]));
    assert_eq!((&locked["locked"]["by"], &locked["locked"]["at"]), (&json!("admin"), &json!("2026-11-21T09:00:00Z")));
    let same = ok(&does(app, "diff", json!({})).await);
    assert_eq!((&same["same"], &same["tools_changed"], &same["plugins"]), (&json!(true), &json!([]), &json!([])));

    // A newer version with another description and another action, less of the other plugin, and other words.
    let mut newer = booking(&bench, "1.1.0");
    newer["actions"] = json!([action("find"), action("cancel")]);
    newer["actions"][0]["description"] = json!("Finds appointments.");
    newer["actions"][0]["parameters"]["required"] = json!(["what"]);
    newer["instruction_template"] = json!("You book.");
    ok(&bench.register(&newer).await);
    ok(&app.post("/api/v1/plugins/booking/upgrade", &json!({ "version": "1.1.0" })).await);
    set(app, json!([{ "plugin": "booking", "data_adapter": "opendental" }])).await;
    app.clock.advance(60);

    // What came after the lock is not for the agent: neither to do nor to see.
    let new = json!({ "name": "lexi", "roles": ["agent"], "channel": "twilio", "agent_id": "lexi" });
    let made = ok(&app.post("/api/v1/keys", &new).await);
    let key = made["key"].as_str().unwrap();
    let cancel = json!({ "tool": "booking", "intent": "cancel", "userId": "ann" });
    let refused = app.send(key, Method::POST, "/api/plugin-engine", Some(&cancel)).await;
    assert_eq!(refused.problem(403), "forbidden", "{}", refused.text);
    let seen = app.send(key, Method::GET, "/api/plugin-engine?format=openai", None).await.text;
    assert!(seen.contains("booking__find") && !seen.contains("booking__cancel"), "{seen}");

    let mut still = agent(app).await;
    assert_eq!(still["locked"], locked["locked"]);
    still["locked"] = Value::Null;
    let mut before = first.clone();
    before["locked"] = Value::Null;
    assert_eq!(still, before);
    let shown = ok(&app.get(&format!("{AGENT}?format=openai")).await);
    assert_eq!((&shown["hash"], &shown["locked"]), (&first["hash"], &locked["locked"]));

    let diff = ok(&does(app, "diff", json!({})).await);
    assert_eq!((&diff["same"], &diff["locked"]), (&json!(false), &locked["locked"]));
    assert_eq!(diff["instructions"]["old"], first["instructions"]);
    assert_eq!(diff["instructions"]["new"], "You book.");
    let called = |tools: &Value| -> Vec<String> {
        tools
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| format!("{}.{}", tool["plugin"], tool["action"]).replace('"', ""))
            .collect()
    };
    assert_eq!(called(&diff["tools_added"]), ["booking.cancel"]);
    assert_eq!(called(&diff["tools_removed"]), ["booking.create", "crm.find", "crm.AddLead"]);
    assert_eq!(called(&diff["tools_changed"]), ["booking.find"]);
    assert_eq!(diff["tools_changed"][0]["fields"], json!(["name", "description", "parameters"]));
    assert_eq!(diff["tools_changed"][0]["old"]["description"], "Does find.");
    assert_eq!(diff["tools_changed"][0]["new"]["description"], "Finds appointments.");
    assert_eq!(
        diff["plugins"],
        json!([{ "name": "booking", "old": "1.0.0", "new": "1.1.0" }, { "name": "crm", "old": "2.1.0", "new": null }])
    );
    assert_eq!(diff["data_routing"][0]["old"]["name"], "local");
    assert_eq!(diff["data_routing"][0]["new"]["name"], "opendental");

    // Somebody who looked at the first locks nothing else.
    assert_eq!(does(app, "lock", json!({ "hash": first["hash"] })).await.problem(409), "conflict");
    let second = ok(&does(app, "lock", json!({})).await);
    assert_eq!((&second["hash"], names(&second)), (&diff["hash"], vec!["find", "cancel"]));
    let locks = ok(&app.get(&format!("{AGENT}/locks")).await);
    assert_eq!(json!(hashes(&locks)), json!([second["hash"], first["hash"]]));
    assert_eq!(locks["locked"]["hash"], second["hash"]);
    // The same again changes nothing.
    app.clock.advance(60);
    assert_eq!(ok(&does(app, "lock", json!({})).await)["locked"], second["locked"]);

    let back = ok(&does(app, "rollback", json!({ "hash": first["hash"] })).await);
    assert_eq!((&back["hash"], &back["instructions"]), (&first["hash"], &first["instructions"]));
    assert_eq!(back["locked"]["at"], "2026-11-21T09:02:00Z");
    assert_eq!(agent(app).await["tools"], first["tools"]);
    assert_eq!(does(app, "rollback", json!({ "hash": "0".repeat(64) })).await.pointers(), ["/hash"]);
    assert_eq!(does(app, "rollback", json!({})).await.pointers(), ["/hash"]);

    let free = ok(&does(app, "unlock", json!({})).await);
    assert_eq!((&free["hash"], free.get("locked")), (&second["hash"], None));
    assert_eq!(agent(app).await["hash"], second["hash"]);
    ok(&does(app, "unlock", json!({})).await);
    // What was locked can still be gone back to.
    assert_eq!(ok(&does(app, "rollback", json!({ "hash": first["hash"] })).await)["hash"], first["hash"]);

    let events = app.events.lock().unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).filter(|kind| kind.starts_with("agent.")).collect();
    assert_eq!(kinds, ["agent.locked", "agent.locked", "agent.rolled_back", "agent.unlocked", "agent.rolled_back"]);
    let rolled = events.iter().find(|event| event.kind == "agent.rolled_back").unwrap();
    assert_eq!((&rolled.detail["from"], &rolled.detail["to"]), (&second["hash"], &first["hash"]));
}

#[tokio::test]
async fn another_order_of_the_same_tools_is_said() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "booking" }, { "plugin": "crm" }])).await;
    ok(&does(app, "lock", json!({})).await);
    set(app, json!([{ "plugin": "booking", "priority": 1 }, { "plugin": "crm" }])).await;
    let diff = ok(&does(app, "diff", json!({})).await);
    assert_eq!((&diff["same"], &diff["order_changed"]), (&json!(false), &json!(true)));
    assert_eq!((&diff["tools_added"], &diff["tools_changed"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn the_last_twenty_locks_are_kept() {
    let bench = both().await;
    let app = &bench.app;
    let mut made = Vec::new();
    for n in 0..=LOCKS_MAX {
        let words = json!({ "plugin_assignments": [{ "plugin": "crm" }], "instructions": format!("Words {n}") });
        ok(&put(app, CHANNEL, &words).await);
        made.push(ok(&does(app, "lock", json!({})).await)["hash"].as_str().unwrap().to_owned());
    }
    let locks = ok(&app.get(&format!("{AGENT}/locks")).await);
    made.reverse();
    assert_eq!(hashes(&locks), made[..LOCKS_MAX]);
    let kept = || async { app.table.items().await.iter().filter(|key| key.partition.contains("#builds#")).count() };
    assert_eq!(kept().await, LOCKS_MAX);
    assert_eq!(does(app, "rollback", json!({ "hash": made[LOCKS_MAX] })).await.pointers(), ["/hash"]);
    // Going back makes it the latest.
    ok(&does(app, "rollback", json!({ "hash": made[LOCKS_MAX - 1] })).await);
    assert_eq!(hashes(&ok(&app.get(&format!("{AGENT}/locks")).await))[0], made[LOCKS_MAX - 1]);
    // With the channel everything goes.
    ok(&app.delete(CHANNEL).await);
    assert_eq!(kept().await, 0);
    assert!(!app.table.items().await.iter().any(|key| key.sort.starts_with("channel#")));
}

#[tokio::test]
async fn what_fits_into_no_item_is_not_locked() {
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
    ok(&does(app, "lock", json!({})).await);
    set(app, json!([{ "plugin": "one" }, { "plugin": "two" }])).await;
    let answer = does(app, "lock", json!({})).await;
    assert_eq!(answer.problem(409), "conflict");
    assert!(answer.text.contains("393216"), "{}", answer.text);
    // It stays what it was locked to, and without a lock it is built all the same.
    assert_eq!(names(&agent(app).await), ["look_one"]);
    ok(&does(app, "unlock", json!({})).await);
    assert_eq!(names(&agent(app).await), ["look_one", "look_two"]);
}
