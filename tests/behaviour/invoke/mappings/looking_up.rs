//! How Overseer resolves a name in an intent to an id.

use overseer_playground::{NOTION_HOME_PAGE, NOTION_TASKS_DATABASE};
use serde_json::{Value, json};

use super::{Chat, ONE, with};
use crate::support::app::{Answer, App};

/// The message of the only problem of a refused intent.
#[track_caller]
pub(super) fn refusal(answer: &Answer, pointer: &str) -> String {
    assert_eq!(answer.problem(400), "invalid_parameters");
    assert_eq!(answer.pointers(), [pointer], "{}", answer.text);
    answer.json()["errors"][0]["message"].as_str().unwrap().to_owned()
}

/// Rooms that each scope names `general`: the organization R100, the user R200, the agent R300.
async fn with_scopes() -> Chat {
    let chat = Chat::start().await;
    assert_eq!(chat.room("general").await, "R001");
    for (scope, id) in
        [(json!({}), "R100"), (json!({ "userId": "admin" }), "R200"), (json!({ "agentId": "agent_1" }), "R300")]
    {
        chat.name("general", id, scope).await;
        assert_eq!(chat.room("general").await, id);
    }
    chat
}

/// An intent of another agent in the room `general`.
fn of_another_agent() -> Value {
    json!({ "agentId": "agent_2", "tool": "chat", "intent": "say", "context": { "room": "general" } })
}

#[tokio::test]
async fn most_specific_mapping_has_precedence() {
    let chat = with_scopes().await;
    assert_eq!(chat.room("general").await, "R300");
    assert_eq!(chat.lookups(), 1);
}

#[tokio::test]
async fn mapping_of_an_agent_is_for_that_agent() {
    let chat = with_scopes().await;
    assert_eq!(chat.app.post("/api/plugin-engine", &of_another_agent()).await.data()["room"], "R200");
}

#[tokio::test]
async fn mapping_of_a_user_is_for_that_user() {
    let chat = with_scopes().await;
    let connect = json!({ "token": ONE, "owner": "organization" });
    chat.app.post("/api/plugin-engine/integrations/chat/connect", &connect).await.json();
    let body = with(of_another_agent(), json!({ "userId": "ann" }));
    assert_eq!(chat.app.post("/api/plugin-engine", &body).await.data()["room"], "R100");
}

#[tokio::test]
async fn written_mapping_overrides_an_id() {
    let chat = Chat::start().await;
    chat.name("R001", "R777", json!({})).await;
    assert_eq!((chat.room("R001").await, chat.room("R002").await), ("R777".to_owned(), "R002".to_owned()));
    assert_eq!(chat.lookups(), 0);
}

#[tokio::test]
async fn expired_name_is_ignored() {
    let chat = Chat::start().await;
    chat.name("general", "R300", json!({ "agentId": "agent_1", "expiresAt": "2026-11-21T09:01:00Z" })).await;
    chat.name("general", "R200", json!({ "userId": "admin", "expiresAt": "2026-11-21T09:02:00Z" })).await;
    for (seconds, id) in [(0, "R300"), (59, "R300"), (1, "R200"), (59, "R200"), (1, "R001")] {
        chat.app.clock.advance(seconds);
        assert_eq!(chat.room("general").await, id);
    }
}

#[tokio::test]
async fn name_is_compared_without_case_or_prefix() {
    let chat = Chat::start().await;
    for (number, name) in ["general", "#general", " #General ", "GENERAL", "# general"].into_iter().enumerate() {
        assert_eq!(chat.room(name).await, "R001", "{name}");
        assert_eq!(chat.lookups(), 1, "{number}");
    }
    chat.name(" #ÄRGER", "R100", json!({})).await;
    assert_eq!(chat.room("ärger").await, "R100");
}

#[tokio::test]
async fn id_is_compared_with_its_case() {
    let chat = Chat::start().await;
    for id in ["R555", "R001"] {
        assert_eq!(chat.room(id).await, id);
    }
    refusal(&chat.say(json!({ "room": "r555" })).await, "/context/room");
}

#[tokio::test]
async fn catalog_has_the_declared_kinds_of_names() {
    let chat = Chat::start().await;
    assert_eq!(chat.app.engine.catalog.plugin("chat").unwrap().manifest.mappings.len(), 3);
}

#[tokio::test]
async fn ambiguous_name_is_refused_with_its_candidates() {
    let chat = Chat::start().await;
    let message = refusal(&chat.say(json!({ "room": "#twins" })).await, "/context/room");
    for said in ["\"#twins\" (R003)", "\"#Twins\" (R004)", "A room: R and three digits."] {
        assert!(message.contains(said), "{message}");
    }
    assert_eq!((chat.lookups(), chat.said()), (1, 0));
}

#[tokio::test]
async fn written_mapping_decides_an_ambiguous_name() {
    let chat = Chat::start().await;
    chat.name("twins", "R003", json!({})).await;
    assert_eq!(chat.room("twins").await, "R003");
}

#[tokio::test]
async fn room_listed_twice_is_not_ambiguous() {
    let chat = Chat::start().await;
    chat.set(ONE, &[("same", "R001"), ("Same", "R001")]);
    assert_eq!(chat.room("same").await, "R001");
}

#[tokio::test]
async fn unknown_name_gets_suggestions() {
    let chat = Chat::start().await;
    chat.name("generic", "R100", json!({ "agentId": "agent_1" })).await;
    chat.name("generosity", "R100", json!({ "agentId": "agent_2" })).await;
    let message = refusal(&chat.say(json!({ "room": "genral" })).await, "/context/room");
    assert!(message.contains("did you mean #General or #generic?"), "{message}");
}

#[tokio::test]
async fn unknown_name_gets_the_listing_action() {
    let chat = Chat::start().await;
    let message = refusal(&chat.say(json!({ "room": "xyzzy" })).await, "/context/room");
    assert!(message.contains("rooms lists those there are"), "{message}");
    assert!(!message.contains("xyzzy"), "{message}");
}

/// An intent with four names that are wrong, and one that is right.
pub(super) async fn say_wrongly(chat: &Chat) -> Answer {
    chat.say(json!({ "rooms": ["random", "twins", "nowhere"], "room": "nowhere", "person": "" })).await
}

#[tokio::test]
async fn each_unresolved_name_is_reported() {
    let chat = Chat::start().await;
    let answer = say_wrongly(&chat).await;
    answer.problem(400);
    let pointers = ["/context/person", "/context/room", "/context/rooms/1", "/context/rooms/2"];
    assert_eq!(answer.pointers(), pointers);
    assert_eq!(chat.said(), 0);
}

#[tokio::test]
async fn names_in_a_list_are_each_resolved() {
    let chat = Chat::start().await;
    let context =
        json!({ "rooms": ["general", "R555", "random", "general", "#General"], "room": "random", "short": "random" });
    let said = chat.say(context).await.data();
    assert_eq!(said["rooms"], json!(["R001", "R555", "R002", "R001", "R001"]));
    assert_eq!((&said["room"], &said["short"]), (&json!("R002"), &json!("R002")));
    assert_eq!(chat.lookups(), 1);
}

#[tokio::test]
async fn list_is_limited_to_twenty_names() {
    let chat = Chat::start().await;
    let many = |count: usize| (0..count).map(|number| json!(format!("R{number:03}"))).collect::<Vec<_>>();
    assert_eq!(chat.say(json!({ "rooms": many(20) })).await.data()["rooms"], json!(many(20)));
    let message = refusal(&chat.say(json!({ "rooms": many(21) })).await, "/context/rooms/20");
    assert!(message.contains("20"), "{message}");
    assert_eq!((chat.lookups(), chat.said()), (0, 1));
}

#[tokio::test]
async fn resolved_id_is_validated_as_a_value() {
    let chat = Chat::start().await;
    chat.name("mars", "an id of its own", json!({})).await;
    refusal(&chat.say(json!({ "short": "mars" })).await, "/context/short");
}

/// People whose names and ids resemble each other.
pub(super) async fn with_people() -> Chat {
    let chat = Chat::start().await;
    chat.set(ONE, &[("Ann", "Xa"), ("xA", "b"), ("Bob", "c"), ("both", "d"), ("e", "both")]);
    chat
}

pub(super) async fn person(chat: &Chat, given: &str) -> Answer {
    chat.say(json!({ "person": given })).await
}

#[tokio::test]
async fn listed_id_is_taken_as_it_is() {
    let chat = with_people().await;
    for (given, id) in [("ann", "Xa"), ("BOB", "c"), ("c", "c"), ("c", "c"), ("bob", "c")] {
        assert_eq!(person(&chat, given).await.data()["person"], id, "{given}");
    }
}

#[tokio::test]
async fn id_that_is_also_a_name_is_ambiguous() {
    let chat = with_people().await;
    assert_eq!(person(&chat, "ann").await.data()["person"], "Xa");
    assert!(refusal(&person(&chat, "Xa").await, "/context/person").contains("\"Ann\" (Xa)"));
    let message = refusal(&person(&chat, "both").await, "/context/person");
    assert!(message.contains("(d)") && message.contains("(both)"), "{message}");
}

#[tokio::test]
async fn unmapped_name_without_lookup_stays() {
    let chat = Chat::start().await;
    let said = chat.say(json!({ "place": "Anywhere", "to": "Berlin", "to_what": "place" })).await.data();
    assert_eq!((&said["place"], &said["to"]), (&json!("Anywhere"), &json!("Berlin")));
}

#[tokio::test]
async fn parameter_may_give_the_kind_of_name() {
    let chat = Chat::start().await;
    let berlin = json!({ "tool": "chat", "kind": "place", "name": "berlin", "externalId": "p1" });
    chat.put(berlin).await.json();
    chat.set(ONE, &[("berlin", "R005")]);
    for (kind, id) in [("place", "p1"), ("room", "R005")] {
        assert_eq!(chat.say(json!({ "to": "Berlin", "to_what": kind })).await.data()["to"], id, "{kind}");
    }
}

#[tokio::test]
async fn failed_lookup_stops_the_intent() {
    let chat = Chat::start().await;
    chat.rooms.lock().unwrap().clear();
    let answer = chat.say(json!({ "room": "general" })).await;
    assert_eq!(answer.failure(), "unavailable");
    let failed = answer.json();
    assert!(
        failed["message"].as_str().unwrap().starts_with("the name at /context/room could not be looked up"),
        "{failed}"
    );
    assert_eq!((&failed["error"]["retryable"], &failed["metadata"]["attempts"]), (&json!(true), &json!(0)));
    assert_eq!(failed["error"].get("mayHaveHappened"), None);
    assert_eq!(chat.said(), 0);
}

#[tokio::test]
async fn id_needs_no_lookup() {
    let chat = Chat::start().await;
    chat.rooms.lock().unwrap().clear();
    assert_eq!(chat.room("R001").await, "R001");
    assert_eq!(chat.lookups(), 0);
}

#[tokio::test]
async fn name_lookup_needs_an_account() {
    let chat = Chat::start().await;
    let of_ann = json!({ "userId": "ann", "tool": "chat", "intent": "say", "context": { "room": "general" } });
    assert_eq!(chat.app.post("/api/plugin-engine", &of_ann).await.failure(), "not_connected");
}

#[tokio::test]
async fn task_resolves_names_when_it_runs() {
    let chat = Chat::start().await;
    let task = |name: &str| {
        json!({ "tool": "chat", "intent": "say", "context": { "room": name }, "maxAttempts": 1,
                "scheduledTime": "2026-11-21T10:00:00Z" })
    };
    let mut paths = Vec::new();
    for name in ["#party", "nowhere"] {
        let made = chat.app.post("/api/plugin-engine", &task(name)).await.json();
        paths.push(made["task"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(chat.lookups(), 0);
    chat.name("party", "R100", json!({ "userId": "admin" })).await;
    chat.app.clock.advance(3600);
    let mut ended = Vec::new();
    for id in paths {
        let work = overseer_engine::ports::Work {
            org: overseer_engine::core::ids::OrgId::parse("acme").unwrap(),
            kind: "task".into(),
            id: format!("{id} admin"),
            revision: 1,
        };
        // The timer's own firing may be the one that counts.
        chat.app.engine.dispatch(work, None).await.unwrap();
        let path = format!("/api/plugin-engine/tasks/{id}");
        let mut task = chat.app.get(&path).await.json();
        while task["status"] == "running" {
            tokio::task::yield_now().await;
            task = chat.app.get(&path).await.json();
        }
        ended.push(task);
    }
    assert_eq!((&ended[0]["status"], &ended[0]["result"]["data"]["room"]), (&json!("succeeded"), &json!("R100")));
    // The task keeps the name, which may stand for something else the next time.
    assert_eq!(ended[0]["context"]["room"], json!("#party"), "{}", ended[0]);
    assert_eq!((&ended[1]["status"], &ended[1]["attempts"][0]["code"]), (&json!("failed"), &json!("rejected")));
    assert_eq!((chat.lookups(), chat.said()), (1, 1));
}

#[tokio::test]
async fn slack_takes_channel_names_in_place_of_ids() {
    let app = App::start().await;
    for name in ["random", "#Random", "C0PLAYRND2"] {
        let sent = app.intend("slack", "send", json!({ "channel": name, "text": "hello" })).await.data();
        assert_eq!(sent["channel"], "C0PLAYRND2");
        app.intend("slack", "fetch", json!({ "channel": name })).await.data();
    }
    let at = json!({ "channel": "random", "text": "later", "post_at": "2026-11-21T10:00:00Z" });
    assert_eq!(app.intend("slack", "schedule", at).await.data()["channel"], "C0PLAYRND2");
    let calls = app.playground.received();
    let lists: Vec<_> = calls.iter().filter(|call| call.path.ends_with("conversations.list")).collect();
    assert_eq!(lists.len(), 1);
    assert_eq!(lists[0].body["types"], "public_channel,private_channel");
}

#[tokio::test]
async fn slack_suggests_the_nearest_channel() {
    let app = App::start().await;
    let answer = app.intend("slack", "send", json!({ "channel": "#genral", "text": "hello" })).await;
    let message = refusal(&answer, "/context/channel");
    assert!(message.contains("did you mean #general?") && message.contains("C…"), "{message}");
}

#[tokio::test]
async fn notion_takes_titles_in_place_of_ids() {
    let app = App::start().await;
    let row = json!({ "parent_id": "tasks", "parent_type": "database", "title": "Buy milk" });
    app.intend("notion", "create", row).await.data();
    assert_eq!(app.last_received().body["parent"], json!({ "database_id": NOTION_TASKS_DATABASE }));
    let plan = json!({ "parent_id": NOTION_HOME_PAGE, "title": "The plan" });
    let plan = app.intend("notion", "create", plan).await.data();
    app.intend("notion", "append", json!({ "page_id": "the PLAN", "content": "one" })).await.data();
    let path = format!("/playground/notion/v1/blocks/{}/children", plan["id"].as_str().unwrap());
    assert_eq!(app.last_received().path, path);
    // A row is a page, under any name of its title property.
    app.intend("notion", "update", json!({ "page_id": "Buy milk", "title": "Buy oat milk" })).await.data();
    let rows = app.intend("notion", "query", json!({ "database_id": "Tasks" })).await.data();
    assert_eq!(rows["results"].as_array().unwrap().len(), 6, "the playground's five and the new one");
    let searches = app.playground.received().iter().filter(|call| call.path.ends_with("/search")).count();
    assert_eq!(searches, 3, "the database, the page and the row, each once");
}

#[tokio::test]
async fn notion_page_is_not_taken_as_a_database() {
    let app = App::start().await;
    let plan = json!({ "parent_id": NOTION_HOME_PAGE, "title": "The plan" });
    app.intend("notion", "create", plan).await.data();
    let message =
        refusal(&app.intend("notion", "query", json!({ "database_id": "the plan" })).await, "/context/database_id");
    assert!(message.contains("32 hexadecimal digits"), "{message}");
}
