//! Mappings belong to an organization, an agent or a user; others cannot read or change them.

use overseer_engine::access::principal::Role;
use reqwest::Method;
use serde_json::{Value, json};

use super::keeping::{ROOM, named, room};
use super::{Chat, NAMES};
use crate::support::app::Answer;

const SECRET: &str = "?tool=chat&kind=room&name=secret";

/// A chat in which each of the three scopes names a room `secret`.
async fn with_secrets() -> Chat {
    let chat = Chat::start().await;
    chat.name("secret", "R100", json!({})).await;
    chat.name("secret", "R200", json!({ "agentId": "agent_1" })).await;
    chat.name("secret", "R300", json!({ "userId": "bob" })).await;
    chat
}

/// The scopes of [`with_secrets`], as queries and in bodies.
fn scopes() -> [(&'static str, Value); 3] {
    [("", json!({})), ("agentId=agent_1", json!({ "agentId": "agent_1" })), ("userId=bob", json!({ "userId": "bob" }))]
}

async fn send(chat: &Chat, key: &str, method: Method, rest: &str, body: Option<&Value>) -> Answer {
    chat.app.send(key, method, &format!("{NAMES}{rest}"), body).await
}

#[tokio::test]
async fn mappings_are_separate_by_organization() {
    let chat = with_secrets().await;
    let stranger = chat.app.key("other", &[Role::Administrator], Some("bob")).await;
    for (query, scope) in &scopes() {
        assert_eq!(named(&send(&chat, &stranger, Method::GET, &format!("?{query}"), None).await), Vec::<String>::new());
        send(&chat, &stranger, Method::DELETE, &format!("{SECRET}&{query}"), None).await.problem(404);
        send(&chat, &stranger, Method::PUT, "", Some(&room("theirs", scope.clone()))).await.json();
        assert_eq!(named(&chat.app.get(&format!("{NAMES}?{query}")).await), ["secret"]);
    }
    let looked = send(&chat, &stranger, Method::GET, &format!("/lookup{SECRET}&agentId=agent_1"), None).await.json();
    assert_eq!(looked, json!({ "found": false, "nearest": [] }));
}

#[tokio::test]
async fn user_reads_mappings_for_everyone() {
    let chat = with_secrets().await;
    let ann = chat.app.key("acme", &[Role::User], Some("ann")).await;
    assert_eq!(named(&send(&chat, &ann, Method::GET, "", None).await), ["secret"]);
    assert_eq!(named(&send(&chat, &ann, Method::GET, "?agentId=agent_1", None).await), ["secret"]);
    assert_eq!(send(&chat, &ann, Method::GET, &format!("/lookup{SECRET}"), None).await.json()["externalId"], "R100");
}

#[tokio::test]
async fn user_cannot_read_mappings_of_another_user() {
    let chat = with_secrets().await;
    let ann = chat.app.key("acme", &[Role::User], Some("ann")).await;
    send(&chat, &ann, Method::GET, "?userId=bob", None).await.problem(403);
    send(&chat, &ann, Method::GET, &format!("/lookup{SECRET}&userId=bob"), None).await.problem(403);
}

#[tokio::test]
async fn user_cannot_change_mappings_of_others() {
    let chat = with_secrets().await;
    let ann = chat.app.key("acme", &[Role::User], Some("ann")).await;
    for (query, scope) in &scopes() {
        let answer = send(&chat, &ann, Method::PUT, "", Some(&room("secret", scope.clone()))).await;
        assert_eq!(answer.problem(403), "forbidden");
        assert!(query.starts_with("userId") || answer.text.contains("say userId to write your own"), "{}", answer.text);
        let own = room("mine", json!({ "userId": "ann" }));
        let bulk = json!({ "mappings": [own, room("secret", scope.clone())] });
        send(&chat, &ann, Method::POST, "/bulk", Some(&bulk)).await.problem(403);
        send(&chat, &ann, Method::DELETE, &format!("{SECRET}&{query}"), None).await.problem(403);
    }
    assert_eq!(named(&send(&chat, &ann, Method::GET, "?userId=ann", None).await), Vec::<String>::new());
    for id in ["R100", "R200", "R300"] {
        let found = chat
            .app
            .get(&format!(
                "{NAMES}/lookup{SECRET}&userId={}&agentId={}",
                if id == "R100" { "ann" } else { "bob" },
                if id == "R200" { "agent_1" } else { "none" }
            ))
            .await
            .json();
        assert_eq!(found["externalId"], id);
    }
}

#[tokio::test]
async fn user_writes_their_own_mappings() {
    let chat = with_secrets().await;
    let ann = chat.app.key("acme", &[Role::User], Some("ann")).await;
    assert_eq!(named(&send(&chat, &ann, Method::GET, "?userId=ann", None).await), Vec::<String>::new());
    send(&chat, &ann, Method::PUT, "", Some(&room("mine", json!({ "userId": "ann" })))).await.json();
    assert_eq!(named(&send(&chat, &ann, Method::GET, "?userId=ann", None).await), ["mine"]);
    send(&chat, &ann, Method::DELETE, &format!("?{ROOM}&name=mine&userId=ann"), None).await.json();
}

#[tokio::test]
async fn service_key_writes_in_each_scope() {
    let chat = with_secrets().await;
    let service = chat.app.key("acme", &[Role::Service], None).await;
    for (_, scope) in &scopes() {
        send(&chat, &service, Method::PUT, "", Some(&room("more", scope.clone()))).await.json();
    }
}

#[tokio::test]
async fn lookup_by_a_service_key_needs_a_user() {
    let chat = with_secrets().await;
    let service = chat.app.key("acme", &[Role::Service], None).await;
    let answer = send(&chat, &service, Method::GET, &format!("/lookup{SECRET}"), None).await;
    answer.problem(400);
    assert_eq!(answer.pointers(), ["/userId"]);
}

#[tokio::test]
async fn mapping_list_requires_a_key() {
    let chat = Chat::start().await;
    send(&chat, "ovs_nobody", Method::GET, "", None).await.problem(401);
}
