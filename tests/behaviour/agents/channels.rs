//! Channels: their validation, their limits, and who may change them.

use overseer_engine::access::principal::Role;
use overseer_engine::agents::{ASSIGNMENTS_MAX, INSTRUCTIONS_MAX_BYTES};
use reqwest::Method;
use serde_json::{Value, json};

use super::{AGENT, CHANNEL, both, ok, put, set};
use crate::support::app::{Answer, App};

async fn put_if(app: &App, tag: &str, body: &Value) -> Answer {
    let request = app.request(Method::PUT, CHANNEL).header("authorization", format!("Bearer {}", app.admin));
    let request = request.header("if-match", tag).header("content-type", "application/json").body(body.to_string());
    Answer::of(request.send().await.unwrap()).await
}

async fn delete_if(app: &App, tag: &str) -> Answer {
    let request = app.request(Method::DELETE, CHANNEL).header("authorization", format!("Bearer {}", app.admin));
    Answer::of(request.header("if-match", tag).send().await.unwrap()).await
}

/// A channel with one plugin.
fn of(plugin: &str) -> Value {
    json!({ "plugin_assignments": [{ "plugin": plugin }] })
}

fn tag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn channel_is_stored_until_it_is_removed() {
    let bench = both().await;
    let app = &bench.app;
    let own = json!({ "type": "api", "endpoint": "https://crm.example", "credentials": "credential-id-123" });
    let crm = json!({ "plugin": "crm", "enabled": false, "priority": 3, "data_adapter": own });
    let made = set(app, json!([crm, { "plugin": "booking" }])).await;
    let booking = json!({ "plugin": "booking", "enabled": true, "priority": 0 });
    assert_eq!(made["plugin_assignments"], json!([booking, crm]));
    assert_eq!((&made["channel"], &made["updated_at"]), (&json!("twilio"), &json!("2026-11-21T09:00:00Z")));
    assert_eq!(ok(&app.get(CHANNEL).await), made);

    assert_eq!(ok(&app.delete(CHANNEL).await), made);
    assert_eq!(app.get(CHANNEL).await.problem(404), "not_found");
    assert_eq!(app.delete(CHANNEL).await.problem(404), "not_found");
    assert_eq!(app.get(AGENT).await.problem(404), "not_found");
}

#[tokio::test]
async fn every_change_of_a_channel_is_published() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "crm", "enabled": false, "priority": 3 }, { "plugin": "booking" }])).await;
    ok(&app.delete(CHANNEL).await);
    assert_eq!(app.delete(CHANNEL).await.problem(404), "not_found");
    let events = app.events.lock().unwrap();
    let of_twilio: Vec<_> = events.iter().filter(|event| event.detail["channel"] == "twilio").collect();
    assert_eq!(of_twilio.len(), 2, "{of_twilio:?}");
    assert!(of_twilio.iter().all(|event| event.kind == "channel.changed" && event.org.as_str() == "acme"));
    assert_eq!((&of_twilio[0].detail["plugins"], &of_twilio[1].detail["removed"]), (&json!(["booking"]), &json!(true)));
}

#[tokio::test]
async fn channels_are_listed_by_name() {
    let app = App::start().await;
    for name in ["twilio", "web", "a-b_c1", &"c".repeat(63)] {
        ok(&put(&app, &format!("/api/v1/channels/{name}"), &json!({ "plugin_assignments": [] })).await);
    }
    let names = |listed: &Value| -> Vec<String> {
        listed["channels"].as_array().unwrap().iter().map(|one| one["channel"].as_str().unwrap().to_owned()).collect()
    };
    let all = ok(&app.get("/api/v1/channels").await);
    assert_eq!(names(&all), ["a-b_c1", &"c".repeat(63), "twilio", "web"]);
    let first = ok(&app.get("/api/v1/channels?limit=3").await);
    let next = first["next_cursor"].as_str().unwrap();
    assert_eq!(names(&ok(&app.get(&format!("/api/v1/channels?limit=3&cursor={next}")).await)), ["web"]);
    assert_eq!(app.get("/api/v1/channels?limit=0").await.pointers(), ["/limit"]);
}

#[tokio::test]
async fn invalid_channel_is_refused_with_pointers() {
    let bench = both().await;
    let app = &bench.app;
    let at = |rest: &str| format!("/plugin_assignments/{rest}");
    for (assignments, pointers) in [
        (json!([{ "plugin": "nothing" }]), vec![at("0/plugin")]),
        (json!([{ "plugin": "crm" }, { "plugin": "crm", "enabled": false }]), vec![at("1/plugin")]),
        (json!([{ "plugin": "Crm" }, { "enabled": true }]), vec![at("0/plugin"), at("1/plugin")]),
        (json!([{ "plugin": "crm", "priority": 1001 }]), vec![at("0/priority")]),
        (json!([{ "plugin": "crm", "priority": -1 }]), vec![at("0/priority")]),
        (json!([{ "plugin": "crm", "priority": 1.5 }]), vec![at("0/priority")]),
        (json!([{ "plugin": "crm", "enabled": "yes", "more": 1 }]), vec![at("0/enabled"), at("0/more")]),
        (json!([{ "plugin": "booking", "data_adapter": "far" }]), vec![at("0/data_adapter")]),
        (json!([{ "plugin": "crm", "data_adapter": "local" }]), vec![at("0/data_adapter")]),
        (
            json!([{ "plugin": "crm", "data_adapter": { "type": "api", "auth": { "token": "hunter2" } } },
                   { "plugin": "booking", "data_adapter": { "url": "https://a:hunter2@b.example" } }]),
            vec![at("0/data_adapter/auth/token"), at("1/data_adapter/type"), at("1/data_adapter/url")],
        ),
        (json!({ "plugin": "crm" }), vec!["/plugin_assignments".to_owned()]),
    ] {
        let answer = put(app, CHANNEL, &json!({ "plugin_assignments": assignments })).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{assignments}");
        assert_eq!(answer.pointers(), pointers, "{assignments}");
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    assert_eq!(put(app, CHANNEL, &json!({})).await.pointers(), ["/plugin_assignments"]);
    assert_eq!(app.get("/api/v1/channels").await.json()["channels"], json!([]));
}

#[tokio::test]
async fn invalid_channel_name_is_refused() {
    let app = App::start().await;
    for name in ["Twilio", "1", &"c".repeat(64), "a%2Fb"] {
        let answer = put(&app, &format!("/api/v1/channels/{name}"), &json!({ "plugin_assignments": [] })).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{name}");
    }
    assert_eq!(app.get("/api/v1/channels").await.json()["channels"], json!([]));
}

#[tokio::test]
async fn channel_limits_are_inclusive() {
    let bench = both().await;
    let app = &bench.app;
    // Unknown plugins: their number is checked before their names.
    let many = |count: usize| -> Value { (0..count).map(|n| json!({ "plugin": format!("p{n}") })).collect() };
    let answer = put(app, CHANNEL, &json!({ "plugin_assignments": many(ASSIGNMENTS_MAX) })).await;
    assert_eq!(answer.pointers().len(), ASSIGNMENTS_MAX);
    let answer = put(app, CHANNEL, &json!({ "plugin_assignments": many(ASSIGNMENTS_MAX + 1) })).await;
    assert_eq!(answer.pointers(), ["/plugin_assignments"]);

    let with_instructions = |text: String| json!({ "plugin_assignments": [], "instructions": text });
    ok(&put(app, CHANNEL, &with_instructions("ä".repeat(INSTRUCTIONS_MAX_BYTES / 2))).await);
    let answer = put(app, CHANNEL, &with_instructions(format!("{}a", "ä".repeat(INSTRUCTIONS_MAX_BYTES / 2)))).await;
    assert_eq!(answer.pointers(), ["/instructions"]);
    assert_eq!(put(app, CHANNEL, &with_instructions(String::new())).await.pointers(), ["/instructions"]);
    // A quotation mark takes two bytes of JSON: the instructions fit, but the channel does not.
    let answer = put(app, CHANNEL, &with_instructions("\"".repeat(INSTRUCTIONS_MAX_BYTES))).await;
    assert_eq!(answer.pointers(), [""]);
    ok(&put(app, CHANNEL, &with_instructions("\"".repeat(INSTRUCTIONS_MAX_BYTES - 100))).await);
}

#[tokio::test]
async fn stale_etag_changes_nothing() {
    let bench = both().await;
    let app = &bench.app;
    // A channel that does not exist matches no tag.
    assert_eq!(put_if(app, "\"abc\"", &of("crm")).await.problem(412), "precondition_failed");
    let first = put(app, CHANNEL, &of("crm")).await;
    assert_eq!(tag(&first), tag(&app.get(CHANNEL).await));
    let second = put_if(app, &tag(&first), &of("booking")).await;
    assert!(second.status.is_success() && tag(&second) != tag(&first), "{}", second.text);
    for stale in [tag(&first), format!("W/{}", tag(&second)), "\"\"".to_owned(), "nonsense".to_owned()] {
        assert_eq!(put_if(app, &stale, &of("crm")).await.problem(412), "precondition_failed", "{stale}");
    }
    assert_eq!(delete_if(app, &tag(&first)).await.problem(412), "precondition_failed");
    assert_eq!(ok(&app.get(CHANNEL).await)["plugin_assignments"][0]["plugin"], "booking");
}

#[tokio::test]
async fn etag_depends_only_on_the_content() {
    let bench = both().await;
    let app = &bench.app;
    let first = put(app, CHANNEL, &of("crm")).await;
    let second = put(app, CHANNEL, &of("booking")).await;
    // A lock is no part of the content.
    ok(&app.post(&format!("{AGENT}/lock"), &json!({})).await);
    assert!(put_if(app, &format!("{}, {}", tag(&first), tag(&second)), &of("crm")).await.status.is_success());
    let same = put_if(app, "*", &of("crm")).await;
    assert_eq!(tag(&same), tag(&first));
    assert!(delete_if(app, &tag(&first)).await.status.is_success());
}

#[tokio::test]
async fn concurrent_changes_keep_the_lock() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "crm" }])).await;
    app.table.slow_down();
    let path = format!("{AGENT}/lock");
    let of = |priority: u16| json!({ "plugin_assignments": [{ "plugin": "crm", "priority": priority }] });
    let bodies: Vec<Value> = (1..=5).map(of).collect();
    let all = bodies.iter().map(|body| put(app, CHANNEL, body));
    let nothing = json!({});
    let (changed, locked) = tokio::join!(futures_util::future::join_all(all), app.post(&path, &nothing));
    assert!(changed.iter().all(|answer| answer.status.is_success()));
    let hash = ok(&locked)["hash"].clone();
    let now = ok(&app.get(CHANNEL).await);
    assert_eq!(now["locked"]["hash"], hash);
    assert_ne!(now["plugin_assignments"][0]["priority"], 0);
}

#[tokio::test]
async fn role_decides_who_may_set_channels() {
    let bench = both().await;
    let app = &bench.app;
    let body = json!({ "plugin_assignments": [{ "plugin": "crm" }] });
    ok(&put(app, CHANNEL, &body).await);
    for (role, sees, sets) in [
        (Role::PlatformAdministrator, true, true),
        (Role::Operator, true, false),
        (Role::Service, false, false),
        (Role::User, false, false),
    ] {
        let key = app.key("acme", &[role], Some("ann")).await;
        for (method, path, allowed) in [
            (Method::GET, "/api/v1/channels".to_owned(), sees),
            (Method::GET, CHANNEL.to_owned(), sees),
            (Method::GET, format!("{AGENT}/locks"), sees),
            (Method::PUT, CHANNEL.to_owned(), sets),
            (Method::POST, format!("{AGENT}/lock"), sets),
            (Method::POST, format!("{AGENT}/diff"), sees),
            (Method::POST, format!("{AGENT}/unlock"), sets),
            (Method::DELETE, CHANNEL.to_owned(), sets),
        ] {
            let sent = (method == Method::PUT).then_some(&body);
            let answer = app.send(&key, method.clone(), &path, sent).await;
            // A channel that is not locked has no difference: 409.
            let fine = answer.status.is_success() || answer.status.as_u16() == 409;
            assert_eq!(fine, allowed, "{role:?} {method} {path}: {}", answer.text);
            assert!(fine || answer.problem(403) == "forbidden");
        }
        ok(&put(app, CHANNEL, &body).await);
    }
}
