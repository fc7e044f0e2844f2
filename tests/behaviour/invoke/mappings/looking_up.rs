//! How Overseer resolves a name in an intent to an id.

use overseer_engine::access::principal::Role;
use overseer_engine::core::intent::Intent;
use overseer_engine::core::outcome::Success;
use overseer_engine::invoke::runs::RequestOptions;
use overseer_playground::{NOTION_HOME_PAGE, NOTION_TASKS_DATABASE};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Chat, NAMES, ONE, TWO, with};
use crate::support::app::{Answer, App};

/// The message of the only problem of a refused intent.
#[track_caller]
fn refusal(answer: &Answer, pointer: &str) -> String {
    assert_eq!(answer.problem(400), "invalid_parameters");
    assert_eq!(answer.pointers(), [pointer], "{}", answer.text);
    answer.json()["errors"][0]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn agent_mapping_has_precedence() {
    let chat = Chat::start().await;
    assert_eq!(chat.room("general").await, "R001");
    for (scope, id) in
        [(json!({}), "R100"), (json!({ "userId": "admin" }), "R200"), (json!({ "agentId": "agent_1" }), "R300")]
    {
        chat.name("general", id, scope).await;
        assert_eq!(chat.room("general").await, id);
    }
    // Another agent and another user have none of their own.
    let body = json!({ "agentId": "agent_2", "tool": "chat", "intent": "say", "context": { "room": "general" } });
    assert_eq!(chat.app.post("/api/plugin-engine", &body).await.data()["room"], "R200");
    let connect = json!({ "token": ONE, "owner": "organization" });
    chat.app.post("/api/plugin-engine/integrations/chat/connect", &connect).await.json();
    let body = with(body, json!({ "userId": "ann" }));
    assert_eq!(chat.app.post("/api/plugin-engine", &body).await.data()["room"], "R100");
    // A mapping that a user wrote for an id overrides the id.
    chat.name("R001", "R777", json!({})).await;
    assert_eq!((chat.room("R001").await, chat.room("R002").await), ("R777".to_owned(), "R002".to_owned()));
    assert_eq!(chat.lookups(), 1);
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
async fn prefix_case_and_spaces_make_no_difference() {
    let chat = Chat::start().await;
    for (number, name) in ["general", "#general", " #General ", "GENERAL", "# general"].into_iter().enumerate() {
        assert_eq!(chat.room(name).await, "R001", "{name}");
        assert_eq!(chat.lookups(), 1, "{number}");
    }
    chat.name(" #ÄRGER", "R100", json!({})).await;
    assert_eq!(chat.room("ärger").await, "R100");
    // Ids are as they are.
    for id in ["R555", "R001"] {
        assert_eq!(chat.room(id).await, id);
    }
    refusal(&chat.say(json!({ "room": "r555" })).await, "/context/room");
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
    // A written mapping decides; and a room that the service lists twice counts once.
    chat.name("twins", "R003", json!({})).await;
    assert_eq!(chat.room("twins").await, "R003");
    chat.set(ONE, &[("same", "R001"), ("Same", "R001")]);
    chat.app.clock.advance(6);
    assert_eq!(chat.room("same").await, "R001");
}

#[tokio::test]
async fn unknown_name_gets_suggestions() {
    let chat = Chat::start().await;
    chat.name("generic", "R100", json!({ "agentId": "agent_1" })).await;
    chat.name("generosity", "R100", json!({ "agentId": "agent_2" })).await;
    let message = refusal(&chat.say(json!({ "room": "genral" })).await, "/context/room");
    assert!(message.contains("did you mean #General or #generic?"), "{message}");
    let message = refusal(&chat.say(json!({ "room": "xyzzy" })).await, "/context/room");
    assert!(message.contains("rooms lists those there are"), "{message}");
    assert!(!message.contains("xyzzy"), "{message}");
    // Everything that is wrong is said at once, and what was found is remembered all the same.
    let answer = chat.say(json!({ "rooms": ["random", "twins", "nowhere"], "room": "nowhere", "person": "" })).await;
    answer.problem(400);
    let pointers = ["/context/person", "/context/room", "/context/rooms/1", "/context/rooms/2"];
    assert_eq!(answer.pointers(), pointers);
    assert_eq!(chat.said(), 0);
    chat.app.clock.advance(120);
    let lookups = chat.lookups();
    assert_eq!(chat.room("random").await, "R002");
    assert_eq!(chat.lookups(), lookups);
}

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
    assert_eq!(chat.lookups(), 1, "random was in the same list");
    refusal(&chat.say(json!({ "room": "new" })).await, "/context/room");
    assert_eq!(chat.lookups(), 2, "new was not");
    chat.set(ONE, &[("new", "R003")]);
    chat.app.clock.advance(5);
    refusal(&chat.say(json!({ "room": "new" })).await, "/context/room");
    assert_eq!(chat.lookups(), 2);
    chat.app.clock.advance(1);
    assert_eq!(chat.room("new").await, "R003");
    assert_eq!(chat.lookups(), 3);
    chat.set(ONE, &[("new", "R004")]);
    chat.app.clock.advance(60);
    assert_eq!(
        chat.say(json!({ "rooms": ["new", "R001"] })).await.data()["rooms"],
        json!(["R003", "R001"]),
        "remembered"
    );
    chat.app.delete(&format!("{NAMES}?tool=chat&kind=room&name=new&userId=admin")).await.json();
    assert_eq!(chat.room("new").await, "R004");
    assert_eq!(chat.lookups(), 4);
}

#[tokio::test]
async fn new_workspace_drops_cached_names() {
    let chat = Chat::start().await;
    let connect = "/api/plugin-engine/integrations/chat/connect";
    assert_eq!(chat.room("general").await, "R001");
    chat.app.connect("chat", TWO).await;
    assert_eq!(chat.room("general").await, "R901");
    assert_eq!(chat.room("general").await, "R901");
    assert_eq!(chat.lookups(), 2);
    // Two accounts side by side each have their own.
    chat.app.post(connect, &json!({ "token": ONE, "alias": "other" })).await.json();
    let body = json!({ "tool": "chat", "intent": "say", "integration": "other", "context": { "room": "general" } });
    for _ in 0..2 {
        assert_eq!(chat.app.post("/api/plugin-engine", &body).await.data()["room"], "R001");
        assert_eq!(chat.room("general").await, "R901");
    }
    assert_eq!(chat.lookups(), 3);
    // So has the default, once it is another.
    let default = json!({ "alias": "other" });
    let path = "/api/plugin-engine/integrations/chat/default";
    chat.app.send(&chat.app.admin, Method::PUT, path, Some(&default)).await.json();
    assert_eq!(chat.room("general").await, "R001");
}

#[tokio::test]
async fn names_in_a_list_are_each_resolved() {
    let chat = Chat::start().await;
    let context =
        json!({ "rooms": ["general", "R555", "random", "general", "#General"], "room": "random", "short": "random" });
    let said = chat.say(context).await.data();
    assert_eq!(said["rooms"], json!(["R001", "R555", "R002", "R001", "R001"]));
    assert_eq!((&said["room"], &said["short"]), (&json!("R002"), &json!("R002")));
    let many = |count: usize| (0..count).map(|number| json!(format!("R{number:03}"))).collect::<Vec<_>>();
    assert_eq!(chat.say(json!({ "rooms": many(20) })).await.data()["rooms"], json!(many(20)));
    let message = refusal(&chat.say(json!({ "rooms": many(21) })).await, "/context/rooms/20");
    assert!(message.contains("20"), "{message}");
    assert_eq!((chat.lookups(), chat.said()), (1, 2));
    // An id that took a name's place is checked as any other value.
    chat.name("mars", "an id of its own", json!({})).await;
    refusal(&chat.say(json!({ "short": "mars" })).await, "/context/short");
}

#[tokio::test]
async fn listed_id_is_taken_as_it_is() {
    let chat = Chat::start().await;
    chat.set(ONE, &[("Ann", "Xa"), ("xA", "b"), ("Bob", "c"), ("both", "d"), ("e", "both")]);
    let person = async |given: &str| chat.say(json!({ "person": given })).await;
    for (given, id) in [("ann", "Xa"), ("BOB", "c"), ("c", "c"), ("c", "c"), ("bob", "c")] {
        assert_eq!(person(given).await.data()["person"], id, "{given}");
    }
    // The service was asked for each name, and only once.
    let asked: Vec<_> = chat.service.calls().into_iter().filter(|call| call.contains("query=")).collect();
    assert_eq!(asked, ["GET /rooms?query=ann", "GET /rooms?query=BOB", "GET /rooms?query=c"]);
    // An id is remembered as it was written, since another may differ in its case alone.
    assert!(refusal(&person("Xa").await, "/context/person").contains("\"Ann\" (Xa)"));
    refusal(&person("C").await, "/context/person");
    let message = refusal(&person("both").await, "/context/person");
    assert!(message.contains("(d)") && message.contains("(both)"), "{message}");
    let places = json!({ "place": "Anywhere", "to": "Berlin", "to_what": "place" });
    let said = chat.say(places.clone()).await.data();
    assert_eq!((&said["place"], &said["to"]), (&json!("Anywhere"), &json!("Berlin")));
    let berlin = json!({ "tool": "chat", "kind": "place", "name": "berlin", "externalId": "p1" });
    chat.put(berlin).await.json();
    assert_eq!(chat.say(places).await.data()["to"], "p1");
    chat.set(ONE, &[("berlin", "R005")]);
    assert_eq!(chat.say(json!({ "to": "Berlin", "to_what": "room" })).await.data()["to"], "R005");
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
    // What is no name is not asked about.
    assert_eq!(chat.room("R001").await, "R001");
    let nobody = json!({ "userId": "ann", "tool": "chat", "intent": "say", "context": { "room": "general" } });
    assert_eq!(chat.app.post("/api/plugin-engine", &nobody).await.failure(), "not_connected");
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
    // A page is not a database.
    let message =
        refusal(&app.intend("notion", "query", json!({ "database_id": "the plan" })).await, "/context/database_id");
    assert!(message.contains("32 hexadecimal digits"), "{message}");
}
