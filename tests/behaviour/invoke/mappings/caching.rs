//! Names that Overseer keeps after it has looked them up.

use overseer_engine::access::principal::Role;
use overseer_engine::core::intent::Intent;
use overseer_engine::core::outcome::Success;
use overseer_engine::invoke::runs::RequestOptions;
use reqwest::Method;
use serde_json::{Value, json};

use super::looking_up::{person, refusal, say_wrongly, with_people};
use super::{Chat, NAMES, ONE, TWO};

/// Another process over the same records says something in a room.
async fn elsewhere(chat: &Chat, context: Value) -> Value {
    let engine = chat.app.deaf();
    let principal = engine.authenticate(&chat.app.admin.as_str().into()).await.unwrap();
    let intent = json!({ "tool": "chat", "intent": "say", "context": context });
    let intent: Intent = serde_json::from_value(intent).unwrap();
    let Success { data, .. } =
        engine.execute(principal, intent, RequestOptions::default()).await.unwrap().answer.result.unwrap();
    data
}

#[tokio::test]
async fn looked_up_name_is_cached_across_processes() {
    let chat = Chat::start().await;
    assert_eq!(chat.room("general").await, "R001");
    chat.app.clock.advance(3599);
    assert_eq!(chat.room("general").await, "R001");
    assert_eq!(elsewhere(&chat, json!({ "room": "#GENERAL" })).await["room"], "R001");
    assert_eq!(chat.lookups(), 1);
    chat.set(ONE, &[("general", "R011")]);
    chat.app.clock.advance(1);
    assert_eq!(elsewhere(&chat, json!({ "room": "general" })).await["room"], "R011");
    assert_eq!(chat.room("general").await, "R011");
    assert_eq!(chat.lookups(), 2);
}

#[tokio::test]
async fn service_list_is_cached_for_a_minute() {
    let chat = Chat::start().await;
    assert_eq!(chat.room("general").await, "R001");
    chat.app.clock.advance(59);
    assert_eq!(chat.room("random").await, "R002");
    assert_eq!(chat.lookups(), 1, "the cached list has the name random");
}

#[tokio::test]
async fn missing_name_is_looked_up_every_six_seconds() {
    let chat = Chat::start().await;
    assert_eq!(chat.room("general").await, "R001");
    chat.app.clock.advance(59);
    refusal(&chat.say(json!({ "room": "new" })).await, "/context/room");
    assert_eq!(chat.lookups(), 2, "the cached list does not have the name new");
    chat.set(ONE, &[("new", "R003")]);
    chat.app.clock.advance(5);
    refusal(&chat.say(json!({ "room": "new" })).await, "/context/room");
    assert_eq!(chat.lookups(), 2);
    chat.app.clock.advance(1);
    assert_eq!(chat.room("new").await, "R003");
    assert_eq!(chat.lookups(), 3);
}

/// A chat whose room `new` was looked up as R003, and has been R004 at the service since.
async fn with_outdated_name() -> Chat {
    let chat = Chat::start().await;
    chat.set(ONE, &[("new", "R003")]);
    assert_eq!(chat.room("new").await, "R003");
    chat.set(ONE, &[("new", "R004")]);
    chat.app.clock.advance(60);
    chat
}

#[tokio::test]
async fn cached_name_outlives_the_service_list() {
    let chat = with_outdated_name().await;
    assert_eq!(chat.say(json!({ "rooms": ["new", "R001"] })).await.data()["rooms"], json!(["R003", "R001"]));
    assert_eq!(chat.lookups(), 1);
}

#[tokio::test]
async fn deleted_name_is_looked_up_anew() {
    let chat = with_outdated_name().await;
    chat.app.delete(&format!("{NAMES}?tool=chat&kind=room&name=new&userId=admin")).await.json();
    assert_eq!(chat.room("new").await, "R004");
    assert_eq!(chat.lookups(), 2);
}

#[tokio::test]
async fn new_workspace_drops_cached_names() {
    let chat = Chat::start().await;
    assert_eq!(chat.room("general").await, "R001");
    chat.app.connect("chat", TWO).await;
    assert_eq!(chat.room("general").await, "R901");
    assert_eq!(chat.room("general").await, "R901");
    assert_eq!(chat.lookups(), 2);
}

/// A chat with the workspace TWO as the default account, and ONE as the account `other`.
async fn with_two_accounts() -> Chat {
    let chat = Chat::start().await;
    chat.app.connect("chat", TWO).await;
    let other = json!({ "token": ONE, "alias": "other" });
    chat.app.post("/api/plugin-engine/integrations/chat/connect", &other).await.json();
    chat
}

#[tokio::test]
async fn cached_names_are_separate_by_account() {
    let chat = with_two_accounts().await;
    let body = json!({ "tool": "chat", "intent": "say", "integration": "other", "context": { "room": "general" } });
    for _ in 0..2 {
        assert_eq!(chat.app.post("/api/plugin-engine", &body).await.data()["room"], "R001");
        assert_eq!(chat.room("general").await, "R901");
    }
    assert_eq!(chat.lookups(), 2);
}

#[tokio::test]
async fn changed_default_account_changes_the_names() {
    let chat = with_two_accounts().await;
    assert_eq!(chat.room("general").await, "R901");
    let default = json!({ "alias": "other" });
    let path = "/api/plugin-engine/integrations/chat/default";
    chat.app.send(&chat.app.admin, Method::PUT, path, Some(&default)).await.json();
    assert_eq!(chat.room("general").await, "R001");
}

#[tokio::test]
async fn looked_up_name_belongs_to_its_user() {
    let chat = Chat::start().await;
    assert_eq!(chat.room("general").await, "R001");
    let ann = chat.app.key("acme", &[Role::User], Some("ann")).await;
    let connect = "/api/plugin-engine/integrations/chat/connect";
    chat.app.send(&ann, Method::POST, connect, Some(&json!({ "token": TWO }))).await.json();
    let say = json!({ "tool": "chat", "intent": "say", "context": { "room": "general" } });
    assert_eq!(chat.app.send(&ann, Method::POST, "/api/plugin-engine", Some(&say)).await.data()["room"], "R901");
    assert_eq!(chat.lookups(), 2);
}

#[tokio::test]
async fn refused_intent_caches_the_names_it_found() {
    let chat = Chat::start().await;
    say_wrongly(&chat).await.problem(400);
    chat.app.clock.advance(120);
    let lookups = chat.lookups();
    assert_eq!(chat.room("random").await, "R002");
    assert_eq!(chat.lookups(), lookups);
}

#[tokio::test]
async fn service_is_asked_once_for_each_name() {
    let chat = with_people().await;
    for given in ["ann", "BOB", "c", "c", "bob"] {
        person(&chat, given).await.data();
    }
    let asked: Vec<_> = chat.service.calls().into_iter().filter(|call| call.contains("query=")).collect();
    assert_eq!(asked, ["GET /rooms?query=ann", "GET /rooms?query=BOB", "GET /rooms?query=c"]);
}

#[tokio::test]
async fn cached_id_keeps_its_case() {
    let chat = with_people().await;
    assert_eq!(person(&chat, "c").await.data()["person"], "c");
    // Another id may differ in its case alone.
    refusal(&person(&chat, "C").await, "/context/person");
}
