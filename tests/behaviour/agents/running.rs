//! The role `agent`: its key may use the plugins of its channel, and nothing else.

use overseer_engine::access::principal::Role;
use overseer_engine::core::ids::OrgId;
use overseer_engine::ports::Work;
use reqwest::Method;
use serde_json::{Value, json};

use super::{AGENT, CHANNEL, agent, both, ok, put, set};
use crate::registry::Bench;
use crate::support::app::{Answer, App};
use crate::support::bundle::Bundle;

const INTENTS: &str = "/api/plugin-engine";
const KEYS: &str = "/api/v1/keys";

/// A key of the agent `lexi` in a channel.
async fn key(app: &App, channel: &str, user: Option<&str>) -> String {
    let mut new = json!({ "name": "lexi's", "roles": ["agent"], "channel": channel, "agent_id": "lexi" });
    if let Some(user) = user {
        new["user_id"] = json!(user);
    }
    ok(&app.post(KEYS, &new).await)["key"].as_str().unwrap().to_owned()
}

fn find(plugin: &str) -> Value {
    json!({ "tool": plugin, "intent": "find", "userId": "ann", "context": { "what": "a" } })
}

async fn intend(app: &App, key: &str, intent: &Value) -> Answer {
    app.send(key, Method::POST, INTENTS, Some(intent)).await
}

#[track_caller]
fn forbidden(answer: &Answer, words: &str) {
    assert_eq!(answer.problem(403), "forbidden");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(words), "{detail}");
}

/// Calls a function with the given `x-channel` headers.
async fn call(app: &App, key: &str, plugin: &str, channels: &[&str]) -> Answer {
    let request = app.request(Method::POST, &format!("/api/plugins/{plugin}"));
    let mut request =
        request.header("authorization", format!("Bearer {key}")).header("content-type", "application/json");
    for channel in channels {
        request = request.header("x-channel", *channel);
    }
    let body = json!({ "function": "find", "parameters": {}, "userId": "ann" }).to_string();
    Answer::of(request.body(body).send().await.unwrap()).await
}

#[tokio::test]
async fn agent_key_needs_an_agent_in_a_channel() {
    let app = App::start().await;
    let whole = json!({ "name": "n", "roles": ["agent"], "channel": "twilio", "agent_id": "lexi", "user_id": "ann" });
    let made = ok(&app.post(KEYS, &whole).await);
    assert_eq!(
        (&made["channel"], &made["agent_id"], &made["user_id"]),
        (&json!("twilio"), &json!("lexi"), &json!("ann"))
    );
    assert_eq!(ok(&app.get(KEYS).await)["keys"][1]["channel"], "twilio");
    for (change, pointers) in [
        (json!({ "channel": null }), vec!["/channel"]),
        (json!({ "channel": null, "agent_id": null }), vec!["/agent_id", "/channel"]),
        (json!({ "channel": "Twilio" }), vec!["/channel"]),
        (json!({ "roles": ["agent", "administrator"] }), vec!["/roles"]),
        (json!({ "roles": ["agent", "user"] }), vec!["/roles"]),
        (json!({ "roles": ["service"] }), vec!["/agent_id", "/channel"]),
        (json!({ "roles": ["user"], "agent_id": null }), vec!["/channel"]),
    ] {
        let mut new = whole.clone();
        new.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = app.post(KEYS, &new).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{change}");
        assert_eq!(answer.pointers(), pointers, "{change}");
    }
}

/// An agent in a channel where `crm` is enabled and `booking` is not.
async fn crm_only() -> (Bench, String) {
    let bench = both().await;
    let lexi = key(&bench.app, "twilio", None).await;
    set(&bench.app, json!([{ "plugin": "crm" }, { "plugin": "booking", "enabled": false }])).await;
    (bench, lexi)
}

#[tokio::test]
async fn agent_without_a_channel_reaches_no_plugin() {
    let bench = both().await;
    let app = &bench.app;
    let lexi = key(app, "twilio", None).await;
    forbidden(&intend(app, &lexi, &find("crm")).await, "there is no channel twilio");
}

#[tokio::test]
async fn agent_reaches_only_the_plugins_of_its_channel() {
    let (bench, lexi) = crm_only().await;
    let app = &bench.app;
    intend(app, &lexi, &find("crm")).await.data();
    assert_eq!(bench.service.calls(), ["POST /find"]);
    for refused in [
        find("booking"),
        find("slack"),
        find("nothing"),
        // Permission is checked before the intent is validated.
        json!({ "tool": "booking", "intent": "nothing", "userId": "ann" }),
        json!({ "tool": "booking", "intent": "find", "userId": "ann", "context": { "what": 5 } }),
        json!({ "tool": "booking", "intent": "find", "userId": "ann", "maxAttempts": 3 }),
        json!({ "tool": "booking", "intent": "find", "userId": "ann", "scheduledTime": "2026-11-22T09:00:00Z" }),
        json!({ "tool": "booking", "intent": "find", "userId": "ann", "idempotencyKey": "k1" }),
    ] {
        forbidden(&intend(app, &lexi, &refused).await, "in the channel twilio");
    }
    assert_eq!(bench.service.calls().len(), 1);
}

#[tokio::test]
async fn agent_gets_explanations_only_for_its_plugins() {
    let (bench, lexi) = crm_only().await;
    let app = &bench.app;
    let explain = app.send(&lexi, Method::POST, &format!("{INTENTS}?explain=true"), Some(&find("booking"))).await;
    forbidden(&explain, "in the channel twilio");
    let explain = app.send(&lexi, Method::POST, &format!("{INTENTS}?explain=true"), Some(&find("crm"))).await;
    assert_eq!(
        (&ok(&explain)["explanation"]["agentId"], explain.json()["explanation"]["wouldCall"].as_bool()),
        (&json!("lexi"), Some(true))
    );
    assert_eq!(bench.service.calls(), [""; 0]);
}

#[tokio::test]
async fn invalid_intent_of_an_agent_is_refused() {
    let (bench, lexi) = crm_only().await;
    let wrong = json!({ "tool": "crm", "intent": "find", "userId": "ann", "context": { "what": 5 } });
    assert_eq!(intend(&bench.app, &lexi, &wrong).await.pointers(), ["/context/what"]);
    assert_eq!(bench.service.calls(), [""; 0]);
}

#[tokio::test]
async fn agent_lists_only_tools_of_its_channel() {
    let (bench, lexi) = crm_only().await;
    let tools = ok(&bench.app.send(&lexi, Method::GET, INTENTS, None).await);
    let tools: Vec<_> = tools["tools"].as_array().unwrap().iter().map(|tool| tool["tool"].clone()).collect();
    assert_eq!(tools, ["crm"]);
}

#[tokio::test]
async fn agent_sees_only_the_build_of_its_channel() {
    let (bench, lexi) = crm_only().await;
    let app = &bench.app;
    let own = ok(&app.send(&lexi, Method::GET, AGENT, None).await);
    assert_eq!(own["hash"], agent(app).await["hash"]);
    ok(&put(app, "/api/v1/channels/web", &json!({ "plugin_assignments": [] })).await);
    forbidden(&app.send(&lexi, Method::GET, "/api/v1/agents/web", None).await, "not in the channel web");
}

#[tokio::test]
async fn agent_of_a_deleted_channel_reaches_no_plugin() {
    let (bench, lexi) = crm_only().await;
    let app = &bench.app;
    intend(app, &lexi, &find("crm")).await.data();
    ok(&app.delete(CHANNEL).await);
    forbidden(&intend(app, &lexi, &find("crm")).await, "there is no channel twilio");
    assert_eq!(ok(&app.send(&lexi, Method::GET, INTENTS, None).await)["tools"], json!([]));
}

#[tokio::test]
async fn agent_key_is_refused_on_every_other_route() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "crm" }])).await;
    let lexi = key(app, "twilio", Some("ann")).await;
    let allowed = [
        "GET /api/plugin-engine",
        "POST /api/plugin-engine",
        "POST /api/plugins/{name}",
        "POST /api/booking",
        "GET /api/v1/agents/{channel}",
        "POST /api/v1/hooks/{hook}",
    ];
    // Public routes, and routes with a secret of their own.
    let open = |path: &str| {
        ["/health", "/schemas/", "/api/plugin-engine/oauth/", "/api/plugin-engine/cron"]
            .iter()
            .any(|open| path.starts_with(open))
    };
    let mut tried = 0;
    for route in Bundle::read().routes() {
        let name = format!("{} {}", route.method, route.path);
        if allowed.contains(&name.as_str()) || open(&route.path) {
            continue;
        }
        let path: Vec<_> = route.path.split('/').map(|part| if part.starts_with('{') { "crm" } else { part }).collect();
        let answer = app.send(&lexi, route.method.parse().unwrap(), &path.join("/"), Some(&json!({}))).await;
        assert_eq!(answer.problem(403), "forbidden", "{name}");
        assert!(answer.text.contains("the API key of an agent"), "{name}: {}", answer.text);
        tried += 1;
    }
    assert!(tried > 60, "{tried}");
}

/// An intent with an effect, and more fields.
fn add(more: Value) -> Value {
    let mut intent = json!({ "tool": "crm", "intent": "AddLead" });
    let Value::Object(more) = more else { panic!("not an object") };
    intent.as_object_mut().unwrap().extend(more);
    intent
}

#[tokio::test]
async fn run_of_an_agent_has_the_agents_id() {
    let (bench, lexi) = crm_only().await;
    let app = &bench.app;
    intend(app, &lexi, &add(json!({ "userId": "bob" }))).await.data();
    let run = ok(&app.get("/api/plugin-engine/runs?userId=bob").await)["runs"][0].clone();
    assert_eq!((&run["agentId"], &run["userId"]), (&json!("lexi"), &json!("bob")));
    assert_eq!(bench.service.calls().len(), 1);
}

#[tokio::test]
async fn agent_of_no_user_must_name_one() {
    let (bench, lexi) = crm_only().await;
    assert_eq!(intend(&bench.app, &lexi, &add(json!({}))).await.pointers(), ["/userId"]);
    assert_eq!(bench.service.calls(), [""; 0]);
}

#[tokio::test]
async fn agent_cannot_act_for_another_agent_or_user() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "crm" }])).await;
    let bound_to_ann = key(app, "twilio", Some("ann")).await;
    intend(app, &bound_to_ann, &add(json!({}))).await.data();
    intend(app, &bound_to_ann, &add(json!({ "userId": "ann", "agentId": "lexi" }))).await.data();
    forbidden(&intend(app, &bound_to_ann, &add(json!({ "userId": "bob" }))).await, "that user");
    for later in [json!({}), json!({ "scheduledTime": "2026-11-22T09:00:00Z" })] {
        let mut other = add(json!({ "agentId": "other" }));
        other.as_object_mut().unwrap().extend(later.as_object().unwrap().clone());
        forbidden(&intend(app, &bound_to_ann, &other).await, "the agent lexi");
    }
    assert_eq!(
        app.send(&bound_to_ann, Method::GET, &format!("{INTENTS}?userId=bob"), None).await.problem(403),
        "forbidden"
    );
    assert_eq!(bench.service.calls().len(), 2);
}

#[tokio::test]
async fn lock_decides_what_an_agent_may_use() {
    let bench = both().await;
    let app = &bench.app;
    let lexi = key(app, "twilio", None).await;
    set(app, json!([{ "plugin": "crm" }])).await;
    let locked = ok(&app.post(&format!("{AGENT}/lock"), &json!({})).await);
    set(app, json!([{ "plugin": "booking" }])).await;
    intend(app, &lexi, &find("crm")).await.data();
    forbidden(&intend(app, &lexi, &find("booking")).await, "the channel twilio is locked to");
    let own = ok(&app.send(&lexi, Method::GET, AGENT, None).await);
    assert_eq!((&own["hash"], &own["locked"]), (&locked["hash"], &locked["locked"]));
    let tools = ok(&app.send(&lexi, Method::GET, &format!("{INTENTS}?format=mcp"), None).await);
    assert_eq!(tools["tools"][0]["name"], "crm__find");
    ok(&app.post(&format!("{AGENT}/unlock"), &json!({})).await);
    intend(app, &lexi, &find("booking")).await.data();
    forbidden(&intend(app, &lexi, &find("crm")).await, "crm is not enabled in the channel twilio");
}

#[tokio::test]
async fn call_with_a_channel_reaches_only_its_plugins() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "crm" }])).await;
    let (lexi, service) = (key(app, "twilio", None).await, app.key("acme", &[Role::Service], None).await);
    for key in [&lexi, &service] {
        for channels in [vec!["twilio"], vec![]] {
            let answer = call(app, key, "crm", &channels).await;
            assert_eq!(ok(&answer)["success"], true);
        }
        forbidden(&call(app, key, "booking", &["twilio"]).await, "booking is not enabled in the channel twilio");
    }
    // Without the header, callers other than agents may use every plugin.
    ok(&call(app, &service, "booking", &[]).await);
    forbidden(&call(app, &lexi, "booking", &[]).await, "in the channel twilio");
    forbidden(&call(app, &service, "crm", &["web"]).await, "there is no channel web");
    forbidden(&call(app, &lexi, "crm", &["web"]).await, "not in the channel web");
    // Another organization does not have this channel.
    let other = app.key("other", &[Role::Service], None).await;
    forbidden(&call(app, &other, "slack", &["twilio"]).await, "there is no channel twilio");
}

#[tokio::test]
async fn invalid_channel_header_is_refused() {
    let bench = both().await;
    let app = &bench.app;
    set(app, json!([{ "plugin": "crm" }])).await;
    let service = app.key("acme", &[Role::Service], None).await;
    for channels in [vec!["Twilio"], vec![""], vec!["twilio", "twilio"]] {
        let answer = call(app, &service, "crm", &channels).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{channels:?}");
        assert!(answer.text.contains("x-channel"), "{}", answer.text);
    }
}

#[tokio::test]
async fn task_of_an_agent_fails_once_its_channel_lacks_the_plugin() {
    let bench = both().await;
    let app = &bench.app;
    let lexi = key(app, "twilio", None).await;
    set(app, json!([{ "plugin": "crm" }])).await;
    let mut later = find("crm");
    later["scheduledTime"] = json!("2026-11-21T09:00:30Z");
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let made = intend(app, &lexi, &later).await;
        assert_eq!(made.status.as_u16(), 202, "{}", made.text);
        assert_eq!(made.json()["task"]["agentId"], "lexi");
        tasks.push(made.json()["task"]["id"].as_str().unwrap().to_owned());
    }
    app.clock.advance(30);
    let org = OrgId::parse("acme").unwrap();
    let work = |id: &str| Work { org: org.clone(), kind: "task".into(), id: format!("{id} ann"), revision: 1 };
    assert_eq!(app.engine.dispatch(work(&tasks[0]), None).await.unwrap().succeeded, 1);
    set(app, json!([{ "plugin": "booking" }])).await;
    assert_eq!(app.engine.dispatch(work(&tasks[1]), None).await.unwrap().failed, 1);
    let task = ok(&app.get(&format!("/api/plugin-engine/tasks/{}", tasks[1])).await);
    assert_eq!((&task["status"], &task["attempts"][0]["code"]), (&json!("failed"), &json!("rejected")), "{task}");
    assert!(task["attempts"][0]["message"].as_str().unwrap().contains("the channel twilio"), "{task}");
    assert_eq!(bench.service.calls().len(), 1);
}

#[tokio::test]
async fn warm_intent_of_an_agent_costs_one_read() {
    let bench = both().await;
    let app = &bench.app;
    let lexi = key(app, "twilio", None).await;
    set(app, json!([{ "plugin": "crm" }])).await;
    let add = json!({ "tool": "crm", "intent": "AddLead", "userId": "ann" });
    intend(app, &lexi, &find("crm")).await.data();
    call(app, &app.admin, "crm", &["twilio"]).await;
    app.table.take();
    for (label, intent, expected) in [("that reads", find("crm"), (1, 0)), ("with an effect", add, (1, 2))] {
        intend(app, &lexi, &intent).await.data();
        assert_eq!(app.table.take(), expected, "{label}");
    }
    ok(&call(app, &app.admin, "crm", &["twilio"]).await);
    assert_eq!(app.table.take(), (1, 0), "with x-channel");
    forbidden(&intend(app, &lexi, &find("booking")).await, "twilio");
    assert_eq!(app.table.take().1, 0, "a refused intent is not recorded");
}
