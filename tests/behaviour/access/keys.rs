//! API keys: administrators create, list and revoke them.

use std::collections::BTreeSet;
use std::sync::Arc;

use overseer_engine::access::principal::Role;
use overseer_engine::engine::Engine;
use overseer_engine::outbound::config::Config;
use overseer_engine::plugin::catalog::Catalog;
use overseer_playground::Service;
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::app::{Answer, App};

const KEYS: &str = "/api/v1/keys";
const INTENTS: &str = "/api/plugin-engine";

async fn create(app: &App, body: Value) -> Value {
    let answer = app.post(KEYS, &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()
}

fn id_of(key: &str) -> String {
    key.split('_').nth(1).unwrap().to_owned()
}

async fn works(app: &App, key: &str) -> bool {
    let answer = app.send(key, Method::GET, INTENTS, None).await;
    if answer.status != StatusCode::OK {
        assert_eq!(answer.problem(401), "unauthenticated");
    }
    answer.status == StatusCode::OK
}

fn ids(list: &Value) -> Vec<String> {
    list["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn new_key_is_shown_once() {
    let app = App::start().await;
    for (body, administers) in [
        (json!({ "name": "for Ann", "roles": ["user"], "user_id": "ann" }), false),
        (json!({ "name": "Dienst – für alle", "roles": ["service"] }), false),
        (json!({ "name": "n".repeat(255), "roles": ["administrator", "user"], "user_id": "ann" }), true),
    ] {
        let made = create(&app, body.clone()).await;
        let key = made["key"].as_str().unwrap();
        assert_eq!(made["id"], json!(id_of(key)));
        assert_eq!((&made["name"], made.get("user_id")), (&body["name"], body.get("user_id")));
        assert_eq!(made["roles"], body["roles"]);
        assert_eq!(made["created_at"], "2026-11-21T09:00:00Z");
        assert!(made.get("hash").is_none() && made.get("org").is_none(), "{made}");
        let secret = key.split('_').nth(2).unwrap();
        assert!(secret.len() >= 43, "too short to be safe without a slow hash");

        assert!(works(&app, key).await);
        let listed = app.send(key, Method::GET, KEYS, None).await;
        assert_eq!(listed.status == StatusCode::OK, administers);
        // Neither list, nor event, nor store has the secret again.
        assert!(!app.get(KEYS).await.text.contains(secret));
        assert!(!format!("{:?}", app.events.lock().unwrap()).contains(secret));
    }
}

#[tokio::test]
async fn keys_are_unique() {
    let app = App::start().await;
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let made = create(&app, json!({ "name": "n", "roles": ["service"] })).await;
        assert!(seen.insert(made["key"].to_string()) && seen.insert(made["id"].to_string()));
    }
}

#[tokio::test]
async fn key_list_is_ordered_by_age() {
    let app = App::start().await;
    let mut expected = vec![id_of(&app.admin)];
    let mut secrets = vec![app.admin.split('_').nth(2).unwrap().to_owned()];
    for number in 0..4 {
        app.clock.advance(1);
        let made = create(&app, json!({ "name": format!("{number}"), "roles": ["service"] })).await;
        expected.push(made["id"].as_str().unwrap().to_owned());
        secrets.push(made["key"].as_str().unwrap().split('_').nth(2).unwrap().to_owned());
    }
    let whole = app.get(KEYS).await;
    assert_eq!(ids(&whole.json()), expected);
    assert_eq!(whole.json().get("next_cursor"), None);
    for key in whole.json()["keys"].as_array().unwrap() {
        for field in key.as_object().unwrap().keys() {
            assert!(["id", "name", "roles", "user_id", "created_at"].contains(&field.as_str()), "{field}");
        }
    }
    assert!(secrets.iter().all(|secret| !whole.text.contains(secret.as_str())));

    for limit in [1, 2, 5, 100] {
        let (mut found, mut query) = (Vec::new(), format!("limit={limit}"));
        loop {
            let page = app.get(&format!("{KEYS}?{query}")).await.json();
            assert!(ids(&page).len() <= limit);
            found.extend(ids(&page));
            let Some(cursor) = page.get("next_cursor") else { break };
            query = format!("limit={limit}&cursor={}", cursor.as_str().unwrap());
        }
        assert_eq!(found, expected, "limit {limit}");
    }
}

#[tokio::test]
async fn invalid_page_is_refused() {
    let app = App::start().await;
    for _ in 0..2 {
        create(&app, json!({ "name": "n", "roles": ["service"] })).await;
    }
    for query in ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=", "limit=1&limit=2", "page=1"] {
        assert_eq!(app.get(&format!("{KEYS}?{query}")).await.problem(400), "invalid_parameters", "{query}");
    }
    for cursor in ["nonsense", "", "eyJhIjoxfQ", "%00", "../.."] {
        let answer = app.get(&format!("{KEYS}?cursor={cursor}")).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{cursor}");
        assert_eq!(answer.pointers(), ["/cursor"]);
    }
    // The place in another organization's list says nothing in this one.
    let cursor = app.get(&format!("{KEYS}?limit=1")).await.json()["next_cursor"].as_str().unwrap().to_owned();
    let other = app.key("other", &[Role::Administrator], Some("o")).await;
    let answer = app.send(&other, Method::GET, &format!("{KEYS}?cursor={cursor}"), None).await;
    assert_eq!(answer.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn revoked_key_is_rejected() {
    let app = App::start().await;
    let made = create(&app, json!({ "name": "n", "roles": ["service"] })).await;
    let (key, path) = (made["key"].as_str().unwrap(), format!("{KEYS}/{}", made["id"].as_str().unwrap()));
    assert!(works(&app, key).await);
    app.clock.advance(10);
    let revoked = app.delete(&path).await;
    assert_eq!(revoked.status, StatusCode::OK);
    assert_eq!(revoked.json()["revoked_at"], "2026-11-21T09:00:10Z");
    let answer = app.send(key, Method::GET, INTENTS, None).await;
    assert_eq!(answer.problem(401), "unauthenticated");
    assert!(answer.json()["detail"].as_str().unwrap().contains("revoked"), "{}", answer.text);

    // Again changes nothing, and the list still shows it.
    app.clock.advance(10);
    assert_eq!(app.delete(&path).await.json()["revoked_at"], "2026-11-21T09:00:10Z");
    let list = app.get(KEYS).await.json();
    assert!(list["keys"].as_array().unwrap().iter().any(|one| one["revoked_at"] == "2026-11-21T09:00:10Z"));
    assert!(works(&app, &app.admin).await);

    // It never becomes good again, not even when it is no longer listed.
    app.clock.advance(31 * 86_400);
    assert!(!works(&app, key).await);
    assert_eq!(ids(&app.get(KEYS).await.json()), [id_of(&app.admin)]);
}

#[tokio::test]
async fn revoked_key_is_cached_for_a_minute_at_most() {
    let app = App::start().await;
    let made = create(&app, json!({ "name": "n", "roles": ["service"] })).await;
    let key = SecretString::from(made["key"].as_str().unwrap());
    let catalog = Catalog::built_in();
    let config = Config::read(&catalog, |_| None).unwrap();
    let second: Arc<Engine> = Engine::new(app.engine.ports.clone(), catalog, config).unwrap();
    second.authenticate(&key).await.unwrap();
    app.clock.advance(5);
    app.delete(&format!("{KEYS}/{}", made["id"].as_str().unwrap())).await.json();
    assert!(app.engine.authenticate(&key).await.is_err());
    app.clock.advance(54);
    assert!(second.authenticate(&key).await.is_ok());
    app.clock.advance(1);
    assert!(second.authenticate(&key).await.is_err());
}

#[tokio::test]
async fn key_cannot_revoke_itself() {
    let app = App::start().await;
    let answer = app.delete(&format!("{KEYS}/{}", id_of(&app.admin))).await;
    assert_eq!(answer.problem(400), "invalid_parameters");
    assert!(works(&app, &app.admin).await);
}

#[tokio::test]
async fn unknown_key_id_is_not_found() {
    let app = App::start().await;
    for id in ["0123456789abcdef", "x", "a-b", "%20", "..%2f", "a%23key", &"a".repeat(65), &"a".repeat(3000)] {
        assert_eq!(app.delete(&format!("{KEYS}/{id}")).await.problem(404), "not_found", "{id}");
    }
}

#[tokio::test]
async fn key_of_another_organization_is_not_found() {
    let app = App::start().await;
    let other = app.key("other", &[Role::Administrator], Some("o")).await;
    let answer = app.delete(&format!("{KEYS}/{}", id_of(&other))).await;
    // The message is the same as for an unknown key.
    assert_eq!(answer.problem(404), "not_found");
    let nobodys = app.delete(&format!("{KEYS}/0123456789abcdef")).await;
    assert_eq!(answer.json()["detail"], nobodys.json()["detail"]);
    assert!(works(&app, &other).await);
}

#[tokio::test]
async fn key_management_requires_an_administrator() {
    let app = App::start().await;
    let target = app.key("acme", &[Role::Service], None).await;
    for roles in [&[Role::User][..], &[Role::Service], &[Role::Service, Role::User]] {
        let key = app.key("acme", roles, Some("ann")).await;
        let body = json!({ "name": "mine", "roles": ["administrator"] });
        for (method, path, body) in [
            (Method::GET, KEYS.to_owned(), None),
            (Method::POST, KEYS.to_owned(), Some(&body)),
            (Method::DELETE, format!("{KEYS}/{}", id_of(&target)), None),
            (Method::DELETE, format!("{KEYS}/{}", id_of(&key)), None),
            (Method::DELETE, format!("{KEYS}/0123456789abcdef"), None),
        ] {
            let answer = app.send(&key, method, &path, body).await;
            assert_eq!(answer.problem(403), "forbidden", "{path}");
        }
    }
    assert!(works(&app, &target).await);
    // The administrator's own key, the target and the three.
    assert_eq!(ids(&app.get(KEYS).await.json()).len(), 5);
}

#[tokio::test]
async fn organizations_are_isolated() {
    let app = App::start().await;
    let other = app.key("other", &[Role::Administrator], Some("admin")).await;
    assert_eq!(ids(&app.get(KEYS).await.json()), [id_of(&app.admin)]);
    let theirs = app.send(&other, Method::GET, KEYS, None).await;
    assert_eq!(ids(&theirs.json()), [id_of(&other)]);

    // The same user's name in both, connected in one.
    let body = json!({ "tool": "slack", "intent": "send", "context": { "channel": "#general", "text": "hello" } });
    let as_other = async || app.send(&other, Method::POST, INTENTS, Some(&body)).await;
    assert_eq!(as_other().await.failure(), "not_connected");
    let tools = app.send(&other, Method::GET, INTENTS, None).await.json();
    assert!(tools["tools"].as_array().unwrap().iter().all(|tool| tool["connected"] == json!(false)));
    // Connected in both: each with its own.
    let connect = json!({ "token": "not-known-to-slack" });
    let path = "/api/plugin-engine/integrations/slack/connect";
    let connected: Answer = app.send(&other, Method::POST, path, Some(&connect)).await;
    assert_eq!(connected.status, StatusCode::OK);
    assert_eq!(as_other().await.failure(), "reconnect_required");
    app.post(INTENTS, &body).await.data();
    app.playground.accept_token(Service::Slack, "not-known-to-slack");
    as_other().await.data();
}

#[tokio::test]
async fn overlapping_organization_names_stay_apart() {
    let app = App::start().await;
    let mut seen = BTreeSet::new();
    for org in ["a", "a#keys", "a%23keys", "A", "a/..", "é", &"x".repeat(255)] {
        let key = app.key(org, &[Role::Administrator], Some("admin")).await;
        let list = app.send(&key, Method::GET, KEYS, None).await.json();
        assert_eq!(ids(&list), [id_of(&key)], "{org}");
        assert!(seen.insert(id_of(&key)));
    }
}

#[tokio::test]
async fn invalid_key_request_lists_every_problem() {
    let app = App::start().await;
    for (body, pointers) in [
        (json!({}), vec!["/name", "/roles"]),
        (json!({ "name": "n" }), vec!["/roles"]),
        (json!({ "name": "n", "roles": [] }), vec!["/roles"]),
        (json!({ "name": "n", "roles": ["user"] }), vec!["/user_id"]),
        (json!({ "name": "n", "roles": ["root"] }), vec!["/roles/0"]),
        (json!({ "name": "n", "roles": ["service", "Administrator", 5] }), vec!["/roles/1", "/roles/2"]),
        (json!({ "name": "n", "roles": "service" }), vec!["/roles"]),
        (json!({ "name": "", "roles": ["service"] }), vec!["/name"]),
        (json!({ "name": "n".repeat(256), "roles": ["service"] }), vec!["/name"]),
        (json!({ "name": "é".repeat(128), "roles": ["service"] }), vec!["/name"]),
        (json!({ "name": "a\nb", "roles": ["service"] }), vec!["/name"]),
        (json!({ "name": "n", "roles": ["service"], "user_id": "" }), vec!["/user_id"]),
        (json!({ "name": "n", "roles": ["service"], "userId": "ann" }), vec!["/userId"]),
        (json!({ "name": "n", "roles": ["service"], "organization_id": "other" }), vec!["/organization_id"]),
        (json!({ "name": 5, "roles": ["root"], "user_id": 7, "x": 1 }), vec!["/name", "/roles/0", "/user_id", "/x"]),
    ] {
        let answer = app.post(KEYS, &body).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{body}");
        assert_eq!(answer.pointers(), pointers, "{body}");
    }
    assert_eq!(ids(&app.get(KEYS).await.json()).len(), 1);
}

#[tokio::test]
async fn empty_name_is_a_problem_of_its_own() {
    let app = App::start().await;
    let answer = app.post(KEYS, &json!({ "name": "", "roles": [] })).await;
    assert_eq!(answer.problem(400), "invalid_parameters");
    assert_eq!(answer.pointers(), ["/name", "/roles"]);
}

#[tokio::test]
async fn unknown_role_lists_the_roles() {
    let app = App::start().await;
    let answer = app.post("/api/v1/keys", &json!({ "name": "n", "roles": ["root"] })).await;
    assert_eq!(answer.problem(400), "invalid_parameters");
    let error = &answer.json()["errors"][0];
    assert_eq!(error["pointer"], "/roles/0", "{error}");
    for role in ["administrator", "service", "user"] {
        assert!(error["message"].as_str().unwrap().contains(role), "{error}");
    }
}
