//! Mappings: written, listed, read and deleted.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Chat, NAMES, with};
use crate::support::app::Answer;

pub(super) const ROOM: &str = "tool=chat&kind=room";

pub(super) fn named(answer: &Answer) -> Vec<String> {
    let listed = answer.json();
    let listed = listed["mappings"].as_array().unwrap_or_else(|| panic!("{listed}"));
    listed.iter().map(|mapping| mapping["name"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn room(name: &str, more: Value) -> Value {
    with(json!({ "tool": "chat", "kind": "room", "name": name, "externalId": "R100" }), more)
}

#[tokio::test]
async fn mapping_lifecycle_is_complete() {
    let chat = Chat::start().await;
    let metadata = json!({ "why": ["a", { "b": null }] });
    let more = json!({ "userId": "ann", "metadata": metadata, "expiresAt": "2026-11-22T10:00:00+01:00" });
    let expected = json!({
        "tool": "chat", "kind": "room", "name": "#Team", "externalId": "R100", "scope": "user", "userId": "ann",
        "provenance": "manual", "metadata": metadata, "updatedAt": "2026-11-21T09:00:00Z",
        "expiresAt": "2026-11-22T09:00:00Z",
    });
    assert_eq!(chat.name("#Team", "R100", more).await, expected);
    let list = format!("{NAMES}?userId=ann");
    assert_eq!(chat.app.get(&list).await.json(), json!({ "mappings": [expected] }));
    chat.app.clock.advance(60);
    let expected = json!({
        "tool": "chat", "kind": "room", "name": "team", "externalId": "R200", "scope": "user", "userId": "ann",
        "provenance": "manual", "updatedAt": "2026-11-21T09:01:00Z",
    });
    assert_eq!(chat.name("team", "R200", json!({ "userId": "ann" })).await, expected);
    assert_eq!(chat.app.get(&list).await.json(), json!({ "mappings": [expected] }));
    let of_agent = chat.name("team", "R300", json!({ "agentId": "agent_1" })).await;
    assert_eq!((&of_agent["scope"], &of_agent["agentId"]), (&json!("agent"), &json!("agent_1")));
    assert_eq!(chat.name("team", "R400", json!({})).await["scope"], "organization");

    let one = |scope: &str| format!("{NAMES}?{ROOM}&name=%23TEAM{scope}");
    assert_eq!(chat.app.delete(&one("&userId=ann")).await.json(), json!({ "removed": [expected] }));
    for scope in ["&userId=ann", "&userId=bob", "&agentId=agent_2"] {
        assert_eq!(chat.app.delete(&one(scope)).await.problem(404), "not_found");
    }
    for scope in ["&agentId=agent_1", ""] {
        assert_eq!(chat.app.delete(&one(scope)).await.json()["removed"].as_array().unwrap().len(), 1);
        let scope = scope.trim_start_matches('&');
        assert_eq!(named(&chat.app.get(&format!("{NAMES}?{scope}")).await), Vec::<String>::new());
    }
}

/// Mappings of several plugins, kinds and scopes, written and looked up.
async fn with_mappings() -> Chat {
    let chat = Chat::start().await;
    for number in 0..7 {
        chat.name(&format!("n{number}"), "R100", json!({ "userId": "admin" })).await;
    }
    chat.put(json!({ "tool": "chat", "kind": "place", "name": "home", "externalId": "h", "userId": "admin" }))
        .await
        .json();
    chat.put(json!({ "tool": "slack", "kind": "channel", "name": "#x", "externalId": "C", "userId": "admin" }))
        .await
        .json();
    chat.name("everybody's", "R100", json!({})).await;
    chat.say(json!({ "rooms": ["general", "random"], "person": "random" })).await.data();
    chat
}

#[tokio::test]
async fn mapping_list_pages_within_its_filter() {
    let chat = with_mappings().await;
    for (query, expected) in [
        ("", 12),
        ("&tool=chat", 11),
        ("&tool=slack", 1),
        ("&tool=gmail", 0),
        ("&tool=chat&kind=place", 1),
        ("&tool=chat&kind=room", 9),
        ("&tool=chat&kind=person", 1),
    ] {
        for limit in [1, 2, 3, 7, 9, 100] {
            let (mut found, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = chat.app.get(&format!("{NAMES}?userId=admin{query}&limit={limit}{cursor}")).await;
                let names = named(&page);
                assert!(names.len() <= limit, "{}", page.text);
                found.extend(names);
                let Some(next) = page.json()["nextCursor"].as_str().map(str::to_owned) else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(found.len(), expected, "{query}, {limit}: {found:?}");
        }
    }
}

#[tokio::test]
async fn mapping_list_is_of_one_scope() {
    let chat = with_mappings().await;
    assert_eq!(named(&chat.app.get(NAMES).await), ["everybody's"]);
}

#[tokio::test]
async fn looked_up_name_is_listed() {
    let chat = with_mappings().await;
    let listed = chat.app.get(&format!("{NAMES}?userId=admin&tool=chat&kind=person")).await.json();
    let expected = json!([{
        "tool": "chat", "kind": "person", "name": "random", "externalId": "R002", "scope": "user", "userId": "admin",
        "provenance": "lookup", "updatedAt": "2026-11-21T09:00:00Z", "expiresAt": "2026-11-22T09:00:00Z",
    }]);
    assert_eq!(listed["mappings"], expected);
}

#[tokio::test]
async fn looked_up_name_is_deleted_for_each_account() {
    let chat = with_mappings().await;
    let body = json!({ "tool": "chat", "intent": "say", "integration": "default", "context": { "room": "general" } });
    chat.app.post("/api/plugin-engine", &body).await.data();
    let removed = chat.app.delete(&format!("{NAMES}?{ROOM}&name=General&userId=admin")).await.json();
    let provenances: Vec<_> = removed["removed"].as_array().unwrap().iter().map(|one| &one["provenance"]).collect();
    assert_eq!(provenances, ["lookup", "lookup"]);
}

#[tokio::test]
async fn invalid_mapping_query_is_refused() {
    let chat = Chat::start().await;
    for (query, pointers) in [
        ("kind=room", vec!["/tool"]),
        ("tool=chat&kind=rom", vec!["/kind"]),
        ("tool=cat&userId=a&agentId=b", vec!["/agentId", "/tool"]),
        ("cursor=x", vec!["/cursor"]),
        ("cursor=f", vec!["/cursor"]),
        ("cursor=wxyz", vec!["/cursor"]),
        ("limit=101", vec!["/limit"]),
        ("limit=0", vec!["/limit"]),
        ("name=x", vec![""]),
    ] {
        let answer = chat.app.get(&format!("{NAMES}?{query}")).await;
        answer.problem(400);
        assert_eq!(answer.pointers(), pointers, "{query}");
    }
}

/// What Overseer has stored of a name of a room.
async fn look(chat: &Chat, rest: &str) -> Value {
    chat.app.get(&format!("{NAMES}/lookup?{ROOM}{rest}")).await.json()
}

#[tokio::test]
async fn unstored_name_is_not_found() {
    let chat = Chat::start().await;
    assert_eq!(look(&chat, "&name=general").await, json!({ "found": false, "nearest": [] }));
    let place = chat.app.get(&format!("{NAMES}/lookup?tool=chat&kind=place&name=home")).await.json();
    assert_eq!(place, json!({ "found": false, "nearest": [] }));
    assert_eq!(chat.lookups(), 0);
}

#[tokio::test]
async fn stored_lookup_gives_an_id_as_it_is() {
    let chat = Chat::start().await;
    let found = json!({ "found": true, "externalId": "R001", "provenance": "as_given" });
    assert_eq!(look(&chat, "&name=R001").await, found);
}

#[tokio::test]
async fn stored_name_needs_no_lookup() {
    let chat = Chat::start().await;
    chat.room("general").await;
    chat.app.table.take();
    let found = json!({ "found": true, "externalId": "R001", "scope": "user", "provenance": "lookup",
                        "expiresAt": "2026-11-21T10:00:00Z" });
    assert_eq!(look(&chat, "&name=%23General").await, found);
    assert_eq!(chat.app.table.take(), (2, 0));
    assert_eq!(chat.lookups(), 1);
}

#[tokio::test]
async fn stored_name_belongs_to_its_account() {
    let chat = Chat::start().await;
    chat.room("general").await;
    let elsewhere = look(&chat, "&name=general&integration=default").await;
    assert_eq!(elsewhere, json!({ "found": false, "nearest": ["#General"] }));
    assert_eq!(look(&chat, "&name=general&userId=ann").await["found"], false);
    chat.app.connect("chat", super::TWO).await;
    assert_eq!(look(&chat, "&name=general").await["found"], false);
}

#[tokio::test]
async fn stored_lookup_names_the_scope() {
    let chat = Chat::start().await;
    chat.name("general", "R400", json!({})).await;
    chat.name("genres", "R500", json!({ "agentId": "agent_1" })).await;
    let of_all = json!({ "found": true, "externalId": "R400", "scope": "organization", "provenance": "manual" });
    assert_eq!(look(&chat, "&name=general&userId=ann").await, of_all);
    assert_eq!(look(&chat, "&name=genres&agentId=agent_1").await["scope"], "agent");
}

#[tokio::test]
async fn stored_lookup_suggests_names_of_its_scopes() {
    let chat = Chat::start().await;
    chat.name("general", "R400", json!({})).await;
    chat.name("genres", "R500", json!({ "agentId": "agent_1" })).await;
    assert_eq!(look(&chat, "&name=genre&userId=ann").await["nearest"], json!(["#general"]));
    assert_eq!(look(&chat, "&name=genre&userId=ann&agentId=agent_1").await["nearest"], json!(["#genres", "#general"]));
}

#[tokio::test]
async fn invalid_stored_lookup_is_refused() {
    let chat = Chat::start().await;
    for (query, pointers) in
        [("tool=chat&kind=rooms&name=x", vec!["/kind"]), ("tool=caht&kind=room&name=x", vec!["/tool"])]
    {
        let answer = chat.app.get(&format!("{NAMES}/lookup?{query}")).await;
        answer.problem(400);
        assert_eq!(answer.pointers(), pointers);
    }
}

const BULK: &str = "/api/plugin-engine/context-mappings/bulk";

fn many(count: usize) -> Vec<Value> {
    (0..count).map(|number| room(&format!("n{number}"), json!({}))).collect()
}

#[tokio::test]
async fn bulk_with_an_invalid_mapping_writes_none() {
    let chat = Chat::start().await;
    for (mappings, pointers) in [
        (many(0), vec!["/mappings"]),
        (many(101), vec!["/mappings"]),
        ([many(99), vec![room("N7", json!({}))]].concat(), vec!["/mappings/99/name"]),
        (
            [
                many(3),
                vec![
                    json!({ "tool": "slak", "kind": "room", "name": "a", "externalId": "b" }),
                    room("#", json!({ "expiresAt": "2026-11-21T09:00:00Z" })),
                    room("ok", json!({ "userId": "a", "agentId": "b", "metadata": { "a": "x".repeat(5000) } })),
                ],
            ]
            .concat(),
            vec![
                "/mappings/3/tool",
                "/mappings/4/expiresAt",
                "/mappings/4/name",
                "/mappings/5/agentId",
                "/mappings/5/metadata",
            ],
        ),
        ([many(2), vec![room("", json!({ "tol": 1 }))]].concat(), vec!["/mappings/2/name", "/mappings/2/tol"]),
    ] {
        let answer = chat.app.post(BULK, &json!({ "mappings": mappings })).await;
        assert_eq!(answer.problem(400), "invalid_parameters");
        assert_eq!(answer.pointers(), pointers, "{}", answer.text);
        assert_eq!(named(&chat.app.get(NAMES).await), Vec::<String>::new());
    }
}

#[tokio::test]
async fn bulk_writes_a_hundred_mappings_at_once() {
    let chat = Chat::start().await;
    chat.app.table.take();
    let written = chat.app.post(BULK, &json!({ "mappings": many(100) })).await;
    assert_eq!(chat.app.table.take(), (0, 1));
    assert_eq!(named(&written).len(), 100);
    assert_eq!(named(&written)[99], "n99", "the reply keeps the order of the request");
    assert_eq!(named(&chat.app.get(&format!("{NAMES}?limit=100")).await).len(), 100);
}

#[tokio::test]
async fn bulk_may_write_a_name_in_each_scope() {
    let chat = Chat::start().await;
    let scopes =
        json!([room("n1", json!({})), room("n1", json!({ "userId": "a" })), room("n1", json!({ "agentId": "a" }))]);
    chat.app.post(BULK, &json!({ "mappings": scopes })).await.json();
    for scope in ["", "userId=a", "agentId=a"] {
        assert_eq!(named(&chat.app.get(&format!("{NAMES}?{scope}")).await), ["n1"], "{scope}");
    }
}

#[tokio::test]
async fn mapping_limits_hold_at_their_edges() {
    let chat = Chat::start().await;
    let metadata = |bytes: usize| json!({ "a": "x".repeat(bytes - r#"{"a":""}"#.len()) });
    for good in [
        json!({ "name": "x".repeat(255) }),
        json!({ "name": "é".repeat(127) }),
        json!({ "externalId": "x".repeat(255) }),
        json!({ "externalId": " " }),
        json!({ "metadata": metadata(4096) }),
        json!({ "metadata": null }),
        json!({ "expiresAt": "2026-11-21T09:00:01Z" }),
    ] {
        let answer = chat.put(with(room("x", json!({})), good.clone())).await;
        assert!(answer.status.is_success(), "{good}: {}", answer.text);
    }
    for (bad, pointer) in [
        (json!({ "name": "x".repeat(256) }), "/name"),
        (json!({ "name": "" }), "/name"),
        (json!({ "name": " # " }), "/name"),
        (json!({ "name": "a\nb" }), "/name"),
        (json!({ "externalId": "x".repeat(256) }), "/externalId"),
        (json!({ "externalId": "" }), "/externalId"),
        (json!({ "externalId": "a\tb" }), "/externalId"),
        (json!({ "externalId": 5 }), "/externalId"),
        (json!({ "metadata": metadata(4097) }), "/metadata"),
        (json!({ "metadata": [] }), "/metadata"),
        (json!({ "expiresAt": "2026-11-21T09:00:00Z" }), "/expiresAt"),
        (json!({ "expiresAt": "2026-11-21T10:00:00" }), "/expiresAt"),
        (json!({ "expiresAt": "tomorrow" }), "/expiresAt"),
        (json!({ "kind": "Room" }), "/kind"),
        (json!({ "kind": "rooms" }), "/kind"),
        (json!({ "tool": "cha" }), "/tool"),
        (json!({ "tool": "gmail" }), "/kind"),
        (json!({ "userId": "a", "agentId": "b" }), "/agentId"),
        (json!({ "userId": "" }), "/userId"),
        (json!({ "until": "2027" }), "/until"),
    ] {
        let answer = chat.put(with(room("y", json!({})), bad.clone())).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{bad}");
        assert_eq!(answer.pointers(), [pointer], "{bad}: {}", answer.text);
    }
    assert_eq!(named(&chat.app.get(NAMES).await).len(), 3, "x, and the two long ones");
}

#[tokio::test]
async fn misspelled_kind_or_tool_gets_a_suggestion() {
    let chat = Chat::start().await;
    for (bad, said) in [
        (json!({ "kind": "rom" }), "did you mean room?"),
        (json!({ "kind": "zzz" }), "there are person, place, room"),
        (json!({ "tool": "gmail" }), "its parameters take no names"),
        (json!({ "tool": "slak" }), "did you mean slack?"),
    ] {
        let answer = chat.put(with(room("y", json!({})), bad)).await;
        assert!(answer.text.contains(said), "{}", answer.text);
    }
}

#[tokio::test]
async fn mapping_write_takes_no_other_form() {
    let chat = Chat::start().await;
    chat.app.send(&chat.app.admin, Method::POST, NAMES, Some(&json!({}))).await.problem(405);
    chat.app
        .send(&chat.app.admin, Method::PUT, &format!("{NAMES}?a=b"), Some(&room("x", json!({}))))
        .await
        .problem(400);
}
