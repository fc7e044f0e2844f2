//! Names in place of a service's ids: written, looked up, cached, and the permissions to read and change them.

mod caching;
mod keeping;
mod looking_up;
mod owning;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use overseer_engine::outbound::address::AllowedAddress;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Options};
use crate::support::own::OwnService;

const NAMES: &str = "/api/plugin-engine/context-mappings";
/// The credentials of two workspaces.
const ONE: &str = "workspace-one";
const TWO: &str = "workspace-two";

/// The rooms of each workspace, by its credential: names with ids.
type Rooms = Arc<Mutex<BTreeMap<String, Vec<(String, String)>>>>;

/// A chat service of the test's own, with an Overseer that has a plugin for it.
struct Chat {
    app: App,
    service: OwnService,
    rooms: Rooms,
}

impl Chat {
    async fn start() -> Self {
        let rooms: Rooms = Arc::default();
        let routes = Router::new()
            .route("/rooms", get(list))
            .route("/say", post(|Json(said): Json<Value>| async move { Json(said) }))
            .with_state(rooms.clone());
        let service = OwnService::start(routes).await;
        let allowed = vec![AllowedAddress::Socket(service.address)];
        let plugins = vec![manifest(&format!("http://{}", service.address))];
        let app = App::with(Options { plugins, allowed, unconnected: true, ..Options::default() }).await;
        let chat = Self { app, service, rooms };
        chat.set(ONE, &[("General", "R001"), ("random", "R002"), ("twins", "R003"), ("Twins", "R004")]);
        chat.set(TWO, &[("general", "R901")]);
        chat.app.connect("chat", ONE).await;
        chat
    }

    fn set(&self, workspace: &str, rooms: &[(&str, &str)]) {
        let rooms = rooms.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect();
        self.rooms.lock().unwrap().insert(workspace.to_owned(), rooms);
    }

    /// How often it was asked for its rooms since the start.
    fn lookups(&self) -> usize {
        self.service.calls().iter().filter(|call| call.starts_with("GET /rooms")).count()
    }

    /// How often something was said.
    fn said(&self) -> usize {
        self.service.calls().iter().filter(|call| call.starts_with("POST /say")).count()
    }

    async fn say(&self, context: Value) -> Answer {
        self.app.intend("chat", "say", context).await
    }

    /// What the service was told a room is.
    async fn room(&self, name: &str) -> String {
        self.say(json!({ "room": name })).await.data()["room"].as_str().unwrap().to_owned()
    }

    async fn put(&self, body: Value) -> Answer {
        self.app.send(&self.app.admin, Method::PUT, NAMES, Some(&body)).await
    }

    /// Writes a name of a room, in a scope.
    async fn name(&self, name: &str, id: &str, scope: Value) -> Value {
        let answer =
            self.put(with(json!({ "tool": "chat", "kind": "room", "name": name, "externalId": id }), scope)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }
}

fn with(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("not an object: {more}") };
    body.as_object_mut().unwrap().extend(more);
    body
}

async fn list(State(rooms): State<Rooms>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let workspace = headers["x-key"].to_str().unwrap();
    let rooms = rooms.lock().unwrap();
    let Some(rooms) = rooms.get(workspace) else {
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "message": "not today" })));
    };
    let rooms: Vec<_> = rooms.iter().map(|(title, id)| json!({ "title": title, "id": id })).collect();
    (StatusCode::OK, Json(json!({ "rooms": rooms })))
}

/// The plugin `chat`. Its listing serves rooms, whose ids have a pattern, and people, whose ids can be any text. Places
/// exist only as written mappings.
fn manifest(base_url: &str) -> String {
    let lookup = |more: Value| {
        let lookup = json!({ "action": "rooms", "items": "data.rooms", "name": "item.title", "id": "item.id" });
        with(lookup, more)
    };
    let text = |kind: &str| json!({ "type": "string", "x-mapping": kind, "maxLength": 300 });
    json!({
        "name": "chat", "version": "1.0.0", "display_name": "Chat", "description": "Talks.",
        "runtime": { "type": "http", "base_url": base_url },
        "permissions": [format!("network:{}", Ipv4Addr::LOCALHOST)],
        "auth": { "type": "api_key", "header": "x-key" },
        "mappings": {
            "room": { "prefix": "#", "id": "^R[0-9]{3}$", "lookup": lookup(json!({ "lifetime_s": 3600 })) },
            "person": { "lookup": lookup(json!({ "name_parameter": "query" })) },
            "place": {},
        },
        "actions": [
            { "name": "rooms", "description": "Lists rooms.", "effect": "read",
              "parameters": { "type": "object", "additionalProperties": false,
                              "properties": { "query": { "type": "string" } } },
              "request": { "path": "/rooms", "query": { "query": "{{ query }}" } } },
            { "name": "say", "description": "Says it.", "effect": "unsafe",
              "parameters": { "type": "object", "additionalProperties": false, "properties": {
                  "room": with(text("room"), json!({ "description": "A room: R and three digits." })),
                  "short": { "type": "string", "x-mapping": "room", "maxLength": 7 },
                  "rooms": { "type": "array", "items": { "type": "string" }, "x-mapping": "room" },
                  "person": text("person"), "place": text("place"),
                  "to": { "type": "string", "x-mapping": { "parameter": "to_what" } },
                  "to_what": { "enum": ["room", "place"], "default": "place" } } },
              "request": { "method": "POST", "path": "/say", "json": "{{ parameters }}" } },
        ],
    })
    .to_string()
}
