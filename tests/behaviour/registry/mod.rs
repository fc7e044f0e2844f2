//! The registry: plugins that organizations register, their versions, and each organization's instances.

mod configuring;
mod installing;
mod isolation;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::any;
use axum::{Json, Router};
use overseer_engine::access::principal::Role;
use overseer_engine::outbound::address::AllowedAddress;
use overseer_engine::plugin::manifest::MANIFEST_MAX_BYTES;
use overseer_engine::registry::VERSIONS_MAX;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Options};
use crate::support::hooked::Gate;
use crate::support::own::OwnService;

/// An Overseer, and a service that answers with what it was asked.
pub struct Bench {
    pub app: App,
    pub service: OwnService,
    /// Where `/waits` waits.
    pub gate: Arc<Gate>,
}

async fn echo(State(gate): State<Arc<Gate>>, request: Request) -> Result<Json<Value>, StatusCode> {
    match request.uri().path() {
        "/fails" => return Err(StatusCode::INTERNAL_SERVER_ERROR),
        "/waits" => {
            gate.pass().await;
        }
        _ => {}
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    Ok(Json(json!({ "path": parts.uri.to_string(), "body": body })))
}

impl Bench {
    pub async fn start() -> Self {
        let gate = Arc::<Gate>::default();
        let service = OwnService::start(Router::new().fallback(any(echo)).with_state(Arc::clone(&gate))).await;
        let allowed = vec![AllowedAddress::Socket(service.address)];
        let app = App::with(Options { allowed, unconnected: true, ..Options::default() }).await;
        Self { app, service, gate }
    }

    /// A manifest of the service: an action `look` that reads, and `act` with an effect.
    pub fn manifest(&self, name: &str, version: &str) -> Value {
        json!({
            "name": name, "version": version, "display_name": "A desk", "description": "Takes and shows notes.",
            "runtime": { "type": "http", "base_url": format!("http://{}", self.service.address) },
            "permissions": ["network:127.0.0.1"],
            "config_schema": {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "desk": { "type": "string", "minLength": 1 },
                    "loud": { "type": "boolean", "default": false },
                    "code": { "type": "string", "writeOnly": true, "minLength": 4 },
                },
            },
            "default_config": { "desk": "front" },
            "actions": [
                { "name": "look", "description": "Looks.", "effect": "read",
                  "request": { "path": "/look/{{ config.desk }}", "query": { "v": version } } },
                { "name": "act", "description": "Acts.", "effect": "unsafe",
                  "parameters": { "type": "object", "properties": { "note": { "type": "string" } } },
                  "request": { "method": "POST", "path": "/act", "json": { "note": "{{ note }}", "loud": "{{ config.loud }}" } } },
            ],
        })
    }

    pub async fn register(&self, manifest: &Value) -> Answer {
        self.app.post("/plugins", manifest).await
    }

    /// Registers a manifest, and enables its plugin with all its permissions.
    pub async fn install(&self, manifest: &Value) {
        let answer = self.register(manifest).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        let path = format!("/api/v1/plugins/{}/enable", manifest["name"].as_str().unwrap());
        let answer = self.app.post(&path, &json!({ "permissions": manifest["permissions"] })).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    }

    /// Posts a body as it is.
    pub async fn post_text(&self, media_type: &str, text: impl Into<reqwest::Body>) -> Answer {
        let request = self.app.request(Method::POST, "/plugins").header("content-type", media_type).body(text);
        let request = request.header("authorization", format!("Bearer {}", self.app.admin));
        Answer::of(request.send().await.unwrap()).await
    }

    /// Posts a manifest in a form.
    pub async fn post_form(&self, form: Form) -> Answer {
        let request = self.app.request(Method::POST, "/plugins").multipart(form);
        let request = request.header("authorization", format!("Bearer {}", self.app.admin));
        Answer::of(request.send().await.unwrap()).await
    }

    /// The names that are registered for the organization.
    pub async fn registered(&self) -> Vec<String> {
        let listed = self.app.get("/plugins").await.json();
        listed["plugins"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(format!("{}/manifests/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[tokio::test]
async fn granted_plugin_is_usable() {
    let bench = Bench::start().await;
    let app = &bench.app;
    let manifest = bench.manifest("desk", "1.0.0");
    let made = bench.register(&manifest).await.json();
    assert_eq!(
        (&made["name"], &made["version"], &made["scope"]),
        (&json!("desk"), &json!("1.0.0"), &json!("organization"))
    );
    assert_eq!((&made["is_active"], made["manifest"].as_str()), (&json!(true), Some(manifest.to_string().as_str())));
    let id = made["id"].as_str().unwrap();
    assert!(id.len() == 24 && id.starts_with(|c: char| c.is_ascii_lowercase()), "{id}");

    // What is registered is not in use.
    assert_eq!(app.intend("desk", "look", json!({})).await.problem(404), "unknown_plugin");
    let enabled = app.post("/api/v1/plugins/desk/enable", &json!({})).await.json();
    assert_eq!((&enabled["enabled"], &enabled["permissions"]), (&json!(true), &json!([])), "{enabled}");
    assert_eq!(enabled["to_grant"], json!(["network:127.0.0.1"]));
    // Least privilege: the refusal names the permission that the administrator has not granted.
    let refused = app.intend("desk", "look", json!({})).await;
    assert_eq!(refused.problem(403), "forbidden");
    assert!(refused.text.contains("network:127.0.0.1"), "{}", refused.text);
    assert!(bench.service.calls().is_empty());

    let grant = json!({ "permissions": ["network:127.0.0.1"] });
    let set = app.send(&app.admin, Method::PATCH, "/api/v1/plugins/desk", Some(&grant)).await;
    assert_eq!(set.status.as_u16(), 200, "{}", set.text);
    assert_eq!(app.intend("desk", "look", json!({})).await.data()["path"], "/look/front?v=1.0.0");
    assert_eq!(
        app.intend("desk", "act", json!({ "note": "a" })).await.data()["body"],
        json!({ "note": "a", "loud": false })
    );

    // It is listed with the others, and as a tool.
    let listed = app.get("/api/v1/plugins").await.json();
    let names: Vec<_> = listed["plugins"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["desk", "gmail", "notion", "policy", "slack"]);
    let tools = app.get("/api/plugin-engine?format=openai").await.text;
    assert!(tools.contains("desk__look") && tools.contains("slack__send_message"), "{tools}");
    let kinds: Vec<_> = app.events.lock().unwrap().iter().map(|event| event.kind).collect();
    assert!(kinds.contains(&"plugin.registered") && kinds.contains(&"plugin.enabled"), "{kinds:?}");
}

#[tokio::test]
async fn warm_intent_costs_the_same_as_built_in() {
    let bench = Bench::start().await;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    bench.app.intend("desk", "act", json!({})).await.data();
    bench.app.clock.advance(24 * 3600);
    // The key of the caller is looked up again after a minute.
    bench.app.intend("desk", "look", json!({})).await.data();
    bench.app.table.take();
    bench.app.intend("desk", "look", json!({})).await.data();
    assert_eq!(bench.app.table.take(), (1, 0));
    bench.app.intend("desk", "act", json!({})).await.data();
    assert_eq!(bench.app.table.take(), (1, 2));
}

#[tokio::test]
async fn registered_version_never_changes() {
    let bench = Bench::start().await;
    let manifest = bench.manifest("desk", "1.0.0");
    let first = bench.register(&manifest).await.json();
    bench.app.clock.advance(60);
    let again = bench.register(&manifest).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, first));
    let mut other = manifest;
    other["description"] = json!("Something else.");
    assert_eq!(bench.register(&other).await.problem(409), "conflict");
    other["version"] = json!("1.1.0");
    assert_eq!(bench.register(&other).await.status.as_u16(), 200);
    let shown = bench.app.get("/plugins/desk").await.json();
    let versions: Vec<_> = shown["versions"].as_array().unwrap().iter().map(|one| one["version"].clone()).collect();
    assert_eq!(versions, ["1.1.0", "1.0.0"]);
    let text = bench.app.get("/plugins/desk/1.1.0").await.json();
    assert_eq!(text["manifest"].as_str().unwrap(), other.to_string());
    assert_eq!(bench.app.get("/plugins/desk/1.2.0").await.problem(404), "not_found");
    assert_eq!(bench.app.get("/plugins/desk/one").await.problem(404), "not_found");
    assert_eq!(bench.app.get("/plugins/chair").await.problem(404), "unknown_plugin");
}

#[tokio::test]
async fn version_count_has_a_limit() {
    let bench = Bench::start().await;
    for patch in 0..VERSIONS_MAX {
        let made = bench.register(&bench.manifest("desk", &format!("1.0.{patch}"))).await;
        assert_eq!(made.status.as_u16(), 200, "{}", made.text);
    }
    assert_eq!(bench.register(&bench.manifest("desk", "2.0.0")).await.problem(409), "conflict");
    // What is there already is still answered as it was.
    assert_eq!(bench.register(&bench.manifest("desk", "1.0.0")).await.status.as_u16(), 200);
}

#[tokio::test]
async fn built_in_names_are_reserved() {
    let bench = Bench::start().await;
    for name in ["slack", "gmail", "notion", "policy"] {
        assert_eq!(bench.register(&bench.manifest(name, "9.0.0")).await.problem(409), "conflict", "{name}");
    }
    assert!(bench.registered().await.is_empty());
}

#[tokio::test]
async fn foreign_manifests_register_unchanged() {
    let bench = Bench::start().await;
    let file = |name: &str| Form::new().part("manifest_file", Part::text(fixture(name)).file_name("plugin.yaml"));
    let made = bench.post_form(file("claude-environment.yaml")).await;
    assert_eq!(made.status.as_u16(), 200, "{}", made.text);
    let made = made.json();
    assert_eq!(
        (&made["name"], &made["image_name"], &made["registry_url"]),
        (&json!("claude-environment"), &json!("a8s-claude"), &json!("local"))
    );
    assert_eq!(made["manifest"].as_str().unwrap(), fixture("claude-environment.yaml"));
    for name in ["module.json", "booking.yaml", "crm.yaml"] {
        let made = bench.post_form(file(name)).await;
        assert_eq!(made.status.as_u16(), 200, "{name}: {}", made.text);
    }
    let mut names = bench.registered().await;
    names.sort();
    assert_eq!(names, ["booking", "claude-environment", "crm", "unique_plugin_id"]);
    // What cannot run here says why.
    for name in names {
        let refused = bench.app.post(&format!("/api/v1/plugins/{name}/enable"), &json!({})).await;
        assert_eq!(refused.problem(409), "conflict", "{name}");
        assert!(refused.text.contains("cannot be enabled"), "{}", refused.text);
    }
}

#[tokio::test]
async fn manifest_is_accepted_as_form_or_body() {
    let bench = Bench::start().await;
    let text = |name: &str| bench.manifest(name, "1.0.0").to_string();
    for (media_type, name) in [
        ("application/json", "a"),
        ("application/yaml; charset=utf-8", "b"),
        ("text/yaml", "c"),
        ("application/x-yaml", "d"),
    ] {
        let made = bench.post_text(media_type, text(name)).await;
        assert_eq!(made.status.as_u16(), 200, "{media_type}: {}", made.text);
    }
    assert_eq!(bench.post_text("application/xml", text("e")).await.problem(415), "unsupported_media_type");
    let file = |field: &'static str, name: &str| Form::new().text(field, text(name));
    assert_eq!(bench.post_form(file("manifest_file", "f")).await.status.as_u16(), 200);
    assert_eq!(bench.post_form(file("manifest", "g")).await.problem(400), "invalid_parameters");
    assert_eq!(bench.post_form(Form::new()).await.problem(400), "invalid_parameters");
    let twice = file("manifest_file", "h").text("manifest_file", text("i"));
    let refused = bench.post_form(twice).await;
    assert_eq!(
        (refused.problem(400), refused.pointers()),
        ("invalid_parameters".to_owned(), vec!["/manifest_file".to_owned()])
    );
    assert_eq!(bench.post_text("multipart/form-data", "nothing").await.problem(400), "invalid_parameters");
    let broken =
        bench.post_text("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"mani").await;
    assert_eq!(broken.problem(400), "invalid_parameters");
    assert_eq!(bench.post_text("text/yaml", vec![0xff, 0xfe]).await.problem(400), "invalid_parameters");
    assert_eq!(bench.registered().await, ["a", "b", "c", "d", "f"]);
}

#[tokio::test]
async fn invalid_manifest_is_not_stored() {
    let bench = Bench::start().await;
    let good = bench.manifest("desk", "1.0.0");
    let mut wrong: Vec<(String, &str)> = Vec::new();
    let mut with = |pointer: &str, value: Value, said: &'static str| {
        let mut manifest = good.clone();
        *manifest.pointer_mut(pointer).unwrap() = value;
        wrong.push((manifest.to_string(), said));
    };
    with("/version", json!("1"), "version");
    with("/name", json!("A desk"), "small letter");
    with("/actions/0/effect", json!("reads"), "expected one of read");
    with("/config_schema", json!({ "type": "objekt" }), "config_schema");
    with("/actions/1/parameters", json!({ "type": "object", "properties": { "a": { "type": 7 } } }), "parameters");
    with("/permissions", json!(["network:other.example"]), "permissions");
    let mut more = good.clone();
    more["unknown_key"] = json!(1);
    wrong.push((more.to_string(), "unknown_key"));
    let text = good.to_string();
    wrong.push((text.replacen('{', "{\"name\":\"other\",", 1), "name"));
    wrong.push((
        format!(
            "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n{}",
            "d: [*c,*c,*c,*c,*c,*c,*c,*c]"
        ),
        "",
    ));
    wrong.push((format!("name: {}{}", "[".repeat(500), "]".repeat(500)), ""));
    wrong.push((format!("{text}{}", " ".repeat(MANIFEST_MAX_BYTES + 1 - text.len())), "allowed"));
    wrong.push((String::new(), ""));
    wrong.push(("just words".to_owned(), ""));
    let mut missed = Vec::new();
    for (manifest, said) in wrong {
        let refused = bench.post_text("application/yaml", manifest.clone()).await;
        assert_eq!(refused.problem(400), "invalid_parameters", "{said}");
        let message = refused.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        if !message.contains(said) {
            missed.push(format!("{said}: {message}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    assert!(bench.registered().await.is_empty());
    // The largest allowed manifest fits, with any content.
    let largest = format!("{text}{}", "\n".repeat(MANIFEST_MAX_BYTES - text.len()));
    let made = bench.post_text("application/yaml", largest.clone()).await;
    assert_eq!(made.status.as_u16(), 200, "{}", made.text);
    assert_eq!(bench.app.get("/plugins/desk/1.0.0").await.json()["manifest"].as_str().unwrap(), largest);
}

#[tokio::test]
async fn registration_requires_its_role() {
    let bench = Bench::start().await;
    let app = &bench.app;
    let manifest = bench.manifest("desk", "1.0.0");
    let platform = app.key("acme", &[Role::PlatformAdministrator], None).await;
    for (role, own, global, sees) in [
        (Role::Administrator, 200, 403, 200),
        (Role::Operator, 403, 403, 200),
        (Role::Service, 403, 403, 403),
        (Role::User, 403, 403, 403),
        (Role::PlatformAdministrator, 200, 200, 200),
    ] {
        let key = app.key("acme", &[role], Some("ann")).await;
        let done = app.send(&key, Method::POST, "/plugins", Some(&manifest)).await;
        assert_eq!(done.status.as_u16(), own, "{role:?}: {}", done.text);
        let done = app.send(&key, Method::POST, "/plugins?scope=global", Some(&manifest)).await;
        assert_eq!(done.status.as_u16(), global, "{role:?}: {}", done.text);
        assert_eq!(app.send(&key, Method::GET, "/plugins", None).await.status.as_u16(), sees, "{role:?}");
        let change = json!({ "is_active": true });
        let changed = app.send(&key, Method::PATCH, "/plugins/desk/1.0.0", Some(&change)).await;
        assert_eq!(changed.status.as_u16(), own, "{role:?}: {}", changed.text);
    }
    // An administrator cannot grant a role above their own.
    let new = json!({ "name": "a", "roles": ["platform_administrator"], "user_id": "ann" });
    assert_eq!(app.post("/api/v1/keys", &new).await.problem(403), "forbidden");
    let made = app.send(&platform, Method::POST, "/api/v1/keys", Some(&new)).await;
    assert_eq!(made.status.as_u16(), 201, "{}", made.text);
    let path = format!("/api/v1/keys/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(app.delete(&path).await.problem(403), "forbidden");
    assert_eq!(app.send(&platform, Method::DELETE, &path, None).await.status.as_u16(), 200);
}
