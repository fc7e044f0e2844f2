//! The surroundings of an organization in these tests: a real server that plays its services and its webhook receiver,
//! and the caller with its keys. The server and the caller record all traffic.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Json, Router};
use overseer_engine::access::principal::Role;
use overseer_engine::outbound::address::AllowedAddress;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::app::{Answer, App, Options, oauth2};

/// Services and receivers of every organization, told apart by their paths.
#[derive(Clone)]
pub struct World {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

/// A request that it got.
#[derive(Debug, Clone)]
pub struct Got {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// A service echoes, lists its rooms or fails; a receiver and a hook have nothing to say.
async fn answer(State(world): State<World>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let (path, body) = (uri.to_string(), String::from_utf8(body.to_vec()).unwrap());
    let parts: Vec<&str> = uri.path().split('/').skip(1).collect();
    let response = match parts.as_slice() {
        ["hook", _] | [_, "hooks", _] => StatusCode::NO_CONTENT.into_response(),
        [marker, "rooms"] => {
            Json(json!({ "rooms": [{ "title": "cellar", "id": format!("R-cellar-{marker}") }] })).into_response()
        }
        [_, "fails"] => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => Json(json!({ "path": path, "body": serde_json::from_str::<Value>(&body).unwrap_or_default() }))
            .into_response(),
    };
    world.got.lock().unwrap().push(Got { path, headers, body });
    response
}

impl World {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let world = Self { address: listener.local_addr().unwrap(), got: Arc::default() };
        let routes = Router::new().fallback(any(answer)).with_state(world.clone());
        tokio::spawn(axum::serve(listener, routes).into_future());
        world
    }

    /// An Overseer that may call it.
    pub async fn app(&self) -> App {
        let allowed = vec![AllowedAddress::Socket(self.address)];
        App::with(Options { allowed, unconnected: true, cron_token: Some(CRON.to_owned()), ..Options::default() }).await
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

/// What the cron route is called with.
pub const CRON: &str = "only-the-cron-of-this-test";

/// An organization, by an administrator of it. Whatever it says has its marker in it.
pub struct Side<'a> {
    pub app: &'a App,
    pub world: &'a World,
    /// The organization, and what every string of it has in it.
    pub marker: &'static str,
    pub key: String,
    /// What was asked, and all that was answered.
    pub answers: Mutex<Vec<(String, String)>>,
    /// If set, callers take turns: each holds this lock for one request.
    turn: Option<&'a tokio::sync::Mutex<()>>,
}

impl<'a> Side<'a> {
    pub async fn new(
        app: &'a App,
        world: &'a World,
        marker: &'static str,
        turn: Option<&'a tokio::sync::Mutex<()>>,
    ) -> Self {
        let key = app.key(marker, &[Role::Administrator], None).await;
        Self { app, world, marker, key, answers: Mutex::default(), turn }
    }

    /// Asks with a key, or without any. `request` is a method and a path; a body that is `null` is none.
    pub async fn ask_as(&self, key: Option<&str>, request: &str, body: &Value) -> Answer {
        let (method, path) = request.split_once(' ').unwrap();
        let mut asked = self.app.request(method.parse::<Method>().unwrap(), path);
        if let Some(key) = key {
            asked = asked.header("authorization", format!("Bearer {key}"));
        }
        if !body.is_null() {
            asked = asked.header("content-type", "application/json").body(body.to_string());
        }
        let taken = match self.turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        let answer = Answer::of(asked.send().await.unwrap()).await;
        drop(taken);
        let shown = format!("{} {:?} {}", answer.status, answer.headers, answer.text);
        self.answers.lock().unwrap().push((request.to_owned(), shown));
        answer
    }

    pub async fn ask(&self, request: &str, body: &Value) -> Answer {
        self.ask_as(Some(&self.key), request, body).await
    }

    /// Asks for what has to be done; gives the answer.
    pub async fn done(&self, request: &str, body: &Value) -> Value {
        let answer = self.ask(request, body).await;
        assert!(answer.status.is_success(), "{}: {request}: {} {}", self.marker, answer.status, answer.text);
        answer.json()
    }

    /// Asks for what has to show something of the organization's own.
    pub async fn shown(&self, request: &str) -> Value {
        let shown = self.done(request, &Value::Null).await;
        assert!(shown.to_string().contains(self.marker), "{}: {request} shows nothing of it: {shown}", self.marker);
        shown
    }

    /// Asks again and again, until the answer is as wanted.
    pub async fn until(&self, request: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..5_000 {
            let shown = self.done(request, &Value::Null).await;
            if wanted(&shown) {
                return shown;
            }
            tokio::task::yield_now().await;
        }
        panic!("{}: {request} never came to what was wanted: {:?}", self.marker, self.answers.lock().unwrap().last());
    }

    /// The manifest of a plugin of the organization's: it looks, acts, lists rooms, and fails.
    pub fn manifest(&self, name: &str, version: &str, auth: &Value) -> Value {
        let marker = self.marker;
        let note = json!({ "type": "object", "properties": {
            "note": { "type": "string" }, "room": { "type": "string", "x-mapping": "room" } } });
        let action = |name: &str, effect: &str, request: Value| {
            json!({ "name": name, "description": format!("It can {name}, says {marker}."), "effect": effect,
                    "parameters": note, "request": request })
        };
        let post =
            |path: &str| json!({ "method": "POST", "path": format!("/{marker}/{path}"), "json": "{{ parameters }}" });
        json!({
            "name": name, "version": version, "display_name": format!("The {name} of {marker}"),
            "description": format!("Takes notes for {marker}."), "instruction_template": format!("You are of {marker}, at {{{{ config.place }}}}."),
            "runtime": { "type": "http", "base_url": format!("http://{}", self.world.address) },
            "permissions": ["network:127.0.0.1", "network:provider.example"], "auth": auth, "breaker": { "failures": 100 },
            "config_schema": { "type": "object", "additionalProperties": false, "properties": {
                "place": { "type": "string" }, "code": { "type": "string", "writeOnly": true, "minLength": 4 } } },
            "default_config": { "place": format!("the door of {marker}") },
            "mappings": { "room": { "id": "^R-", "lookup": {
                "action": "rooms", "items": "data.rooms", "name": "item.title", "id": "item.id" } } },
            "actions": [
                action("look", "read", json!({ "path": format!("/{marker}/look"), "query": { "at": "{{ config.place }}", "v": version } })),
                action("act", "unsafe", post("act")),
                action("fail", "unsafe", post("fails")),
                { "name": "rooms", "description": format!("The rooms of {marker}."), "effect": "read",
                  "request": { "path": format!("/{marker}/rooms") } },
            ],
        })
    }

    /// How a plugin signs in that needs an account.
    pub fn with_account() -> Value {
        oauth2()
    }
}
