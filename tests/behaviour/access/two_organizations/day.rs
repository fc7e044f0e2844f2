//! A day of an organization: its administrator creates every kind of record in the morning, and uses and deletes them
//! in the afternoon. Both organizations use the same names for user, agent, channel, plugin and keys; the contents
//! differ.

use overseer_engine::ports::table::Query;
use serde_json::{Value, json};

use super::world::Side;

pub const INTENTS: &str = "/api/plugin-engine";

/// What the morning made.
pub struct Made {
    /// A task of this afternoon, one that is done every day, and one that failed.
    pub task: String,
    pub daily: String,
    pub failed: String,
    /// A run with an unknown outcome, and its recorded failure.
    pub run: String,
    pub failure: String,
    /// The key of an agent, and the id of a service's key.
    pub agent: String,
    pub service: String,
    pub webhook: String,
    pub delivery: String,
    /// Where a browser is sent to connect an account.
    pub link: String,
    /// The hash of what the channel is locked to.
    pub lock: String,
    /// Secrets that must never appear in a log.
    pub secrets: Vec<String>,
}

impl Made {
    /// The ids that were given here: they are found where a name is not.
    pub fn ids(&self) -> [&str; 8] {
        let Self { task, daily, failed, run, failure, service, webhook, delivery, .. } = self;
        [task, daily, failed, run, failure, service, webhook, delivery]
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// Of the desk: `intent`, with more fields of the request.
fn desk(side: &Side<'_>, intent: &str, more: &Value) -> Value {
    let mut asked = json!({ "tool": "desk", "intent": intent, "userId": "ann", "agentId": "lexi",
                            "context": { "note": format!("a note of {}", side.marker) } });
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    asked
}

/// Plugins, with their configuration and the accounts that they need.
async fn plugins(side: &Side<'_>, secrets: &mut Vec<String>) -> String {
    let (marker, ledger) = (side.marker, format!("{}-ledger", side.marker));
    for (name, version, auth) in [
        ("desk", "1.0.0", Side::with_account()),
        ("desk", "1.1.0", Side::with_account()),
        ("booking", "1.0.0", json!({ "type": "none" })),
        (ledger.as_str(), "2.0.0", json!({ "type": "none" })),
    ] {
        side.done("POST /plugins", &side.manifest(name, version, &auth)).await;
    }
    for (name, version) in [("desk", "1.0.0"), ("booking", "1.0.0"), (&ledger, "2.0.0")] {
        let code = format!("{marker}-code-of-{name}");
        let enable = json!({ "version": version, "permissions": ["network:127.0.0.1", "network:provider.example"] });
        side.done(&format!("POST /api/v1/plugins/{name}/enable"), &enable).await;
        let config = json!({ "place": format!("a place of {marker}"), "code": code });
        side.done(&format!("PUT /api/v1/plugins/{name}/config"), &config).await;
        side.shown(&format!("GET /api/v1/plugins/{name}/config")).await;
        secrets.push(code);
    }
    // One that is asked about everything, and by the agent itself.
    let warden = json!({
        "name": "warden", "version": "1.0.0", "display_name": format!("The warden of {marker}"), "description": "Watches.",
        "runtime": { "type": "http", "base_url": format!("http://{}/{marker}", side.world.address) },
        "permissions": ["network:127.0.0.1"],
        "hooks": ["before_tool_call", "after_tool_call", "on_error", "on_reasoning_step"],
    });
    let warden = side.done("POST /plugins", &warden).await["name"].as_str().unwrap().to_owned();
    side.done(&format!("POST /api/v1/plugins/{warden}/enable"), &Value::Null).await;
    let made = side.done(&format!("POST /api/v1/plugins/{warden}/hook-secret"), &Value::Null).await;
    secrets.push(text(&made["secret"]));
    let grant = json!({ "permissions": ["network:127.0.0.1", "hook:before_tool_call", "hook:after_tool_call",
                                        "hook:on_error", "hook:on_reasoning_step"] });
    side.done(&format!("PATCH /api/v1/plugins/{warden}"), &grant).await;
    let accounts = "/api/plugin-engine/integrations/desk";
    let secret = format!("{marker}-client-secret");
    let client = json!({ "clientId": format!("{marker}-client"), "clientSecret": secret });
    side.done(&format!("PUT {accounts}/client"), &client).await;
    secrets.push(secret);
    for (alias, owner) in [("default", "user"), ("second", "user"), (marker, "user"), ("default", "organization")] {
        let token = format!("{marker}-token-{alias}-{owner}");
        let connect = json!({ "userId": "ann", "alias": alias, "owner": owner, "token": token });
        side.done(&format!("POST {accounts}/connect"), &connect).await;
        secrets.push(token);
    }
    let link = side.done(&format!("POST {accounts}/connect"), &json!({ "userId": "ann", "alias": "third" })).await;
    let link = text(&link["connectUrl"]).split_once(&side.app.address.to_string()).unwrap().1.to_owned();
    assert!(side.ask_as(None, &format!("GET {link}"), &Value::Null).await.text.contains(marker));
    link
}

/// A webhook, keys, a channel with its agent, names, and words for failures. Gives the agent's key, the id of the service's
/// and the hash of the lock.
async fn settings(side: &Side<'_>, secrets: &mut Vec<String>) -> (String, String, String) {
    let marker = side.marker;
    let assigned = json!({ "plugin_assignments": [
        { "plugin": "desk", "priority": 1 }, { "plugin": "booking", "priority": 2 }, { "plugin": format!("{marker}-ledger") },
    ] });
    side.done("PUT /api/v1/channels/front", &assigned).await;
    side.shown("GET /api/v1/agents/front").await;
    let lock = side.done("POST /api/v1/agents/front/lock", &Value::Null).await;
    side.done("POST /api/v1/agents/front/diff", &Value::Null).await;

    let agent =
        json!({ "name": format!("an agent of {marker}"), "roles": ["agent"], "channel": "front", "agent_id": "lexi" });
    let agent = text(&side.done("POST /api/v1/keys", &agent).await["key"]);
    let service = json!({ "name": format!("a service of {marker}"), "roles": ["service"] });
    let service = side.done("POST /api/v1/keys", &service).await;
    secrets.extend([agent.clone(), text(&service["key"]), side.key.clone()]);

    for whose in [json!({}), json!({ "userId": "ann" }), json!({ "agentId": "lexi" })] {
        let mut name =
            json!({ "tool": "desk", "kind": "room", "name": "lobby", "externalId": format!("R-lobby-{marker}") });
        name.as_object_mut().unwrap().extend(whose.as_object().unwrap().clone());
        side.done("PUT /api/plugin-engine/context-mappings", &name).await;
    }
    side.shown("GET /api/plugin-engine/context-mappings/lookup?tool=desk&kind=room&name=lobby&userId=ann").await;
    for which in [json!({}), json!({ "tool": "desk", "agentId": "lexi" })] {
        let mut fallback = json!({ "message": format!("{marker} is sorry") });
        fallback.as_object_mut().unwrap().extend(which.as_object().unwrap().clone());
        side.done("PUT /api/plugin-engine/errors/fallbacks", &fallback).await;
    }
    (agent, text(&service["id"]), text(&lock["hash"]))
}

fn has_failed(task: &Value) -> bool {
    ["failed", "outcome_unknown"].contains(&task["status"].as_str().unwrap())
}

/// Makes everything.
pub async fn morning(side: &Side<'_>) -> Made {
    let (marker, mut secrets) = (side.marker, Vec::new());
    let hook = json!({ "url": format!("http://{}/hook/{marker}", side.world.address), "events": ["*"],
                       "description": format!("tells {marker}") });
    let hook = side.done("POST /api/v1/webhooks", &hook).await;
    let webhook = text(&hook["id"]);
    secrets.push(text(&hook["secret"]));
    let link = plugins(side, &mut secrets).await;
    secrets.push(link.rsplit('/').next().unwrap().to_owned());
    let (agent, service, lock) = settings(side, &mut secrets).await;

    let intend = format!("POST {INTENTS}");
    let own = |answer: &Value| assert!(answer["success"] == true && answer.to_string().contains(marker), "{answer}");
    for room in ["lobby", "cellar"] {
        let context = json!({ "context": { "note": format!("to the {room} of {marker}"), "room": room } });
        let acted = side.done(&intend, &desk(side, "act", &context)).await;
        assert_eq!(acted["data"]["body"]["room"], format!("R-{room}-{marker}"), "{acted}");
    }
    let keyed = desk(side, "act", &json!({ "idempotencyKey": "order-1" }));
    own(&side.done(&intend, &keyed).await);
    own(&side.done(&intend, &keyed).await);
    own(&side.done(&intend, &desk(side, "look", &json!({ "integration": "second" }))).await);
    own(&side.done(&intend, &json!({ "tool": format!("{marker}-ledger"), "intent": "act", "userId": "ann" })).await);
    side.done(&format!("{intend}?explain=true"), &desk(side, "act", &json!({}))).await;
    let call = json!({ "function": "act", "parameters": { "note": marker }, "sessionId": marker, "userId": "ann" });
    own(&side.done("POST /api/booking", &call).await);
    own(&side.done("POST /api/plugins/desk", &call).await);
    own(&side.ask_as(Some(&agent), &intend, &desk(side, "look", &json!({}))).await.json());
    let step = json!({ "user_id": "ann", "data": { "thought": format!("what would {marker} do") } });
    let step = side.ask_as(Some(&agent), "POST /api/v1/hooks/on_reasoning_step", &step).await.json();
    assert!(step["hooks"][0]["plugin"] == "warden" && step["data"].to_string().contains(marker), "{step}");
    let failed = side.done(&intend, &desk(side, "fail", &json!({}))).await;
    assert!(failed["success"] == false && failed["error"].to_string().contains(marker), "{failed}");
    let run = text(&side.shown("GET /api/plugin-engine/runs?state=unknown&userId=ann").await["runs"][0]["id"]);
    let failure = text(&side.shown("GET /api/plugin-engine/errors").await["errors"][0]["id"]);

    let mut tasks = Vec::new();
    for (intent, when) in [
        ("act", json!({ "scheduledTime": "2026-11-21T10:00:00Z" })),
        ("look", json!({ "schedule": { "rate": "1 day", "start": "2026-11-22T09:00:00Z" }, "agentId": marker })),
        ("act", json!({ "scheduledTime": "2026-11-21T09:00:00Z" })),
        ("fail", json!({ "scheduledTime": "2026-11-21T09:00:00Z", "maxAttempts": 1 })),
    ] {
        tasks.push(text(&side.done(&intend, &desk(side, intent, &when)).await["task"]["id"]));
    }
    side.until(&format!("GET /api/plugin-engine/tasks/{}", tasks[2]), |task| task["status"] == "succeeded").await;
    side.until(&format!("GET /api/plugin-engine/tasks/{}", tasks[3]), has_failed).await;
    let told = told(side, &webhook).await;
    let delivery = text(&told["deliveries"][0]["id"]);
    let [task, daily, _, failed] = tasks.try_into().unwrap();
    Made { task, daily, failed, run, failure, agent, service, webhook, delivery, link, lock, secrets }
}

/// Waits until the webhook was told of everything; gives what it was told.
async fn told(side: &Side<'_>, webhook: &str) -> Value {
    let outbox = Query::partition(format!("org#{}#outbox", side.marker), 1);
    while !side.app.table.inner.query(outbox.clone()).await.unwrap().entries.is_empty() {
        tokio::task::yield_now().await;
    }
    let over = |one: &Value| one["status"] == "succeeded" && one["sending"] == false;
    side.until(&format!("GET /api/v1/webhooks/{webhook}/deliveries?limit=100"), |told| {
        let all = told["deliveries"].as_array().unwrap();
        all.len() > 5 && all.iter().all(over)
    })
    .await
}

/// Looks at everything that lists or shows something.
pub async fn look_around(side: &Side<'_>, made: &Made) {
    let Made { task, daily, failed, run, failure, webhook, .. } = made;
    for path in [
        INTENTS.to_owned() + "?userId=ann",
        INTENTS.to_owned() + "?userId=ann&format=mcp",
        "/api/plugin-engine/integrations?userId=ann".to_owned(),
        "/api/plugin-engine/integrations/desk?userId=ann".to_owned(),
        "/api/plugin-engine/integrations/desk/client".to_owned(),
        "/api/plugin-engine/tasks".to_owned(),
        format!("/api/plugin-engine/tasks/{task}"),
        format!("/api/plugin-engine/tasks/{daily}"),
        format!("/api/plugin-engine/tasks/{failed}"),
        "/api/plugin-engine/runs".to_owned(),
        format!("/api/plugin-engine/runs/{run}"),
        "/api/plugin-engine/errors".to_owned(),
        format!("/api/plugin-engine/errors/{failure}"),
        "/api/plugin-engine/errors/fallbacks".to_owned(),
        "/api/plugin-engine/context-mappings".to_owned(),
        "/api/plugin-engine/context-mappings?userId=ann".to_owned(),
        "/api/plugin-engine/context-mappings?agentId=lexi".to_owned(),
        "/api/v1/keys".to_owned(),
        "/api/v1/webhooks".to_owned(),
        format!("/api/v1/webhooks/{webhook}"),
        "/api/v1/plugins".to_owned(),
        "/api/v1/plugins/desk".to_owned(),
        "/api/v1/plugins/desk/config".to_owned(),
        "/plugins".to_owned(),
        "/plugins/desk/1.1.0".to_owned(),
        "/api/v1/channels".to_owned(),
        "/api/v1/channels/front".to_owned(),
        "/api/v1/agents/front?format=anthropic".to_owned(),
    ] {
        side.shown(&format!("GET {path}")).await;
    }
    for path in ["errors/stats", "errors/trends?by=hour"] {
        let counted = side.done(&format!("GET /api/plugin-engine/{path}"), &Value::Null).await;
        // The intent that failed, and the task.
        assert!(counted.to_string().contains("\"count\":2"), "{}: {path}: {counted}", side.marker);
    }
    for path in
        [format!("webhooks/{webhook}/deliveries"), "agents/front/locks".to_owned(), "plugins/desk/diff".to_owned()]
    {
        side.done(&format!("GET /api/v1/{path}"), &Value::Null).await;
    }
}

/// Uses what the morning made, an hour later, and takes it away.
pub async fn afternoon(side: &Side<'_>, made: &Made) {
    let Made { task, daily, failed, run, failure, service, webhook, delivery, lock, .. } = made;
    let marker = side.marker;
    let done = side.until(&format!("GET /api/plugin-engine/tasks/{task}"), |task| task["status"] == "succeeded").await;
    assert!(done.to_string().contains(marker), "{done}");
    look_around(side, made).await;
    let failed = format!("/api/plugin-engine/tasks/{failed}");
    side.done(&format!("POST {failed}/retry"), &Value::Null).await;
    side.until(&format!("GET {failed}"), has_failed).await;
    let note = json!({ "note": format!("seen by {marker}") });
    let upgrade = json!({ "version": "1.1.0", "permissions": ["network:127.0.0.1", "network:provider.example"] });
    for (request, body) in [
        (format!("POST /api/plugin-engine/errors/{failure}/resolve"), note.clone()),
        ("POST /api/plugin-engine/errors/bulk".to_owned(), json!({ "filter": {}, "note": note["note"] })),
        (format!("POST /api/plugin-engine/runs/{run}/resolve"), json!({ "as": "failed" })),
        ("POST /api/v1/plugins/desk/upgrade".to_owned(), upgrade),
        (format!("POST {INTENTS}"), desk(side, "look", &json!({}))),
        ("POST /api/v1/plugins/desk/rollback".to_owned(), Value::Null),
        ("POST /api/v1/agents/front/rollback".to_owned(), json!({ "hash": lock })),
        ("POST /api/v1/agents/front/unlock".to_owned(), Value::Null),
        (format!("POST /api/plugin-engine/tasks/{daily}/pause"), Value::Null),
        (format!("POST /api/plugin-engine/tasks/{daily}/resume"), Value::Null),
        (format!("DELETE /api/plugin-engine/tasks/{daily}"), Value::Null),
        ("POST /api/plugin-engine/tasks/cancel".to_owned(), json!({})),
        (format!("POST /api/v1/webhooks/{webhook}/deliveries/{delivery}/retry"), Value::Null),
        ("DELETE /api/plugin-engine/integrations/desk?userId=ann&alias=second".to_owned(), Value::Null),
        (format!("DELETE /api/plugin-engine/integrations/desk?userId=ann&alias={marker}"), Value::Null),
        ("DELETE /api/plugin-engine/integrations/desk?owner=organization".to_owned(), Value::Null),
        ("DELETE /api/plugin-engine/integrations/desk/client".to_owned(), Value::Null),
        ("DELETE /api/plugin-engine/context-mappings?tool=desk&kind=room&name=lobby".to_owned(), Value::Null),
        ("DELETE /api/plugin-engine/errors/fallbacks".to_owned(), Value::Null),
        (format!("DELETE /api/v1/keys/{service}"), Value::Null),
        ("DELETE /api/v1/channels/front".to_owned(), Value::Null),
        ("DELETE /api/v1/plugins/warden".to_owned(), Value::Null),
        ("POST /api/v1/plugins/booking/disable".to_owned(), json!({ "reason": format!("{marker} is closed") })),
        (format!("DELETE /api/v1/plugins/{marker}-ledger"), Value::Null),
    ] {
        side.done(&request, &body).await;
    }
    // The last account goes, and what needs one says so in the organization's own words.
    side.done("DELETE /api/plugin-engine/integrations/desk?userId=ann", &Value::Null).await;
    let failed = side.done(&format!("POST {INTENTS}"), &desk(side, "act", &json!({}))).await;
    assert_eq!(failed["error"]["code"], "not_connected", "{failed}");
    assert!(failed.to_string().contains(&format!("{marker} is sorry")), "{failed}");
    told(side, webhook).await;
}
