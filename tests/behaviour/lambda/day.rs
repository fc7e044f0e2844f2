//! A day with every kind of request, for the comparison of roles with what functions do.

use overseer_engine::access::principal::Role;
use overseer_playground::{Mode, Service, Switch};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{App, connected_two_hours_ago, connecting_two_hours_ago, event, invoke};
use crate::accounts::authorize::{Browser, link, parameter};
use crate::support::own::OwnService;

pub const RETURN_TO: &str = "https://agent.example/done";

/// A day of one organization: every kind of request, in sections by function.
pub struct Day {
    pub app: App,
}

impl Day {
    async fn ok(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let answer = self.app.send(&self.app.admin, method.clone(), path, body).await;
        assert!(answer.status.is_success(), "{method} {path}: {} {}", answer.status, answer.text);
        serde_json::from_str(&answer.text).unwrap_or(Value::Null)
    }

    async fn get(&self, path: &str) -> Value {
        self.ok(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ok(Method::POST, path, Some(&body)).await
    }

    async fn send_message(&self, more: Value) -> Value {
        let mut intent = json!({ "tool": "slack", "intent": "send_message", "agentId": "agent_1",
                                 "context": { "channel": "C0PLAYGEN1", "text": "Hello" } });
        intent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("/api/plugin-engine", intent).await
    }

    pub async fn keys(&self) {
        let made = self.post("/api/v1/keys", json!({ "name": "a", "roles": ["user"], "user_id": "ann" })).await;
        self.get("/api/v1/keys").await;
        self.ok(Method::DELETE, &format!("/api/v1/keys/{}", made["id"].as_str().unwrap()), None).await;
        // The first secret of an organization comes from a consent in the browser.
        let user = json!({ "name": "b", "roles": ["administrator"], "user_id": "hank" });
        let made = invoke(&self.app, "keys", json!({ "setup": { "organization": "globex", "key": user } })).await;
        let globex = made["key"].as_str().unwrap();
        let path = "/api/plugin-engine/integrations/slack/connect";
        let link = self.app.send(globex, Method::POST, path, Some(&json!({}))).await.json();
        let mut browser = Browser::new(&self.app);
        let authorization = browser.go(link["connectUrl"].as_str().unwrap()).await;
        let back = browser.decide(&authorization, "allow").await;
        assert_eq!(browser.open(&back).await.status, StatusCode::OK);
    }

    /// A webhook of an organization without a secret, one that is changed and rotated, and one that receives deliveries.
    pub async fn webhooks(&self, receiver: &OwnService) {
        let path = "/api/v1/webhooks";
        let new = json!({ "url": format!("http://{}/", receiver.address), "events": ["*"] });
        let made = invoke(&self.app, "keys", json!({ "setup": { "organization": "initech" } })).await;
        let initech = made["key"].as_str().unwrap();
        let first = self.app.send(initech, Method::POST, path, Some(&new)).await;
        assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);

        let made = self.post(path, new.clone()).await;
        let one = format!("{path}/{}", made["id"].as_str().unwrap());
        self.ok(Method::PATCH, &one, Some(&json!({ "active": true }))).await;
        // The last rotation drops the oldest secret.
        for _ in 0..5 {
            self.post(&format!("{one}/rotate"), json!({})).await;
        }
        self.get(&one).await;
        self.ok(Method::DELETE, &one, None).await;

        let made = self.post(path, new).await;
        let deliveries = format!("{path}/{}/deliveries", made["id"].as_str().unwrap());
        self.post("/api/v1/keys", json!({ "name": "c", "roles": ["service"] })).await;
        for _ in 0..1_000 {
            let all = self.get(&deliveries).await;
            if all["deliveries"][0]["status"] == "succeeded" {
                let id = all["deliveries"][0]["id"].as_str().unwrap();
                self.post(&format!("{deliveries}/{id}/retry"), json!({})).await;
                return;
            }
        }
        panic!("nothing was delivered: {}", self.get(&deliveries).await);
    }

    pub async fn integrations(&self) {
        let path = "/api/plugin-engine/integrations";
        // The first secret of an organization.
        let umbrella = self.app.key("umbrella", &[Role::Administrator], Some("uma")).await;
        let token = json!({ "token": Service::Slack.standing_token() });
        let first = self.app.send(&umbrella, Method::POST, &format!("{path}/slack/connect"), Some(&token)).await;
        assert_eq!(first.status, StatusCode::OK, "{}", first.text);
        for service in Service::ALL {
            self.app.connect(service.name(), service.standing_token()).await;
        }
        self.app.connect("slack", Service::Slack.standing_token()).await;
        let of = |alias: &str| json!({ "token": Service::Slack.standing_token(), "alias": alias });
        self.post(&format!("{path}/slack/connect"), of("other")).await;
        self.ok(Method::PUT, &format!("{path}/slack/default"), Some(&json!({ "alias": "other" }))).await;
        self.get(path).await;
        self.get(&format!("{path}/slack")).await;
        self.ok(Method::DELETE, &format!("{path}/slack?alias=default"), None).await;
        let client =
            json!({ "clientId": overseer_playground::CLIENT_ID, "clientSecret": overseer_playground::CLIENT_SECRET });
        for _ in 0..2 {
            self.ok(Method::PUT, &format!("{path}/notion/client"), Some(&client)).await;
        }
        self.get(&format!("{path}/notion/client")).await;
    }

    /// Ann connects in a browser, with confirmation and without, and again; one account is never confirmed.
    pub async fn browsers(&self) {
        for (plugin, body) in [
            ("notion", json!({ "userId": "ann" })),
            ("notion", json!({ "userId": "ann" })),
            ("slack", json!({ "userId": "ann", "returnTo": RETURN_TO })),
            ("gmail", json!({ "userId": "ann", "returnTo": RETURN_TO })),
        ] {
            let mut browser = Browser::new(&self.app);
            let authorization = browser.go(&link(&self.app, plugin, &body).await).await;
            let back = browser.decide(&authorization, "allow").await;
            let end = browser.open(&back).await;
            if let Some(code) = end.headers.get("location").and_then(|to| parameter(to.to_str().unwrap(), "code"))
                && plugin == "slack"
            {
                let complete = format!("/api/plugin-engine/integrations/{plugin}/connect/complete");
                self.post(&complete, json!({ "code": code, "userId": "ann" })).await;
            } else {
                assert!(end.status == StatusCode::OK || end.status.is_redirection(), "{}", end.text);
            }
        }
        self.ok(Method::DELETE, "/api/plugin-engine/integrations/notion/client", None).await;
        self.app.connect("notion", Service::Notion.standing_token()).await;
    }

    pub async fn intents(&self) {
        self.get("/api/plugin-engine").await;
        for more in [json!({}), json!({ "idempotencyKey": "k1" }), json!({ "idempotencyKey": "k1" })] {
            assert_eq!(self.send_message(more).await["success"], true);
        }
        // An outcome that certainly did not happen frees its idempotency key.
        self.app.misbehave(Service::Slack, Mode::RateLimited, 10);
        assert_eq!(self.send_message(json!({ "idempotencyKey": "k2" })).await["success"], false);
        self.app.misbehave(Service::Slack, Mode::RateLimited, 0);
        // An expired token.
        connected_two_hours_ago(&self.app, "slack", "eve").await;
        let read =
            json!({ "tool": "slack", "intent": "fetch", "userId": "eve", "context": { "channel": "C0PLAYGEN1" } });
        assert_eq!(self.post("/api/plugin-engine", read).await["success"], true);
        // A name without a mapping.
        assert_eq!(
            self.send_message(json!({ "context": { "channel": "#general", "text": "a" } })).await["success"],
            true
        );
        let service = self.app.key("acme", &[Role::Service], None).await;
        let later = json!({ "tool": "slack", "intent": "send_message", "userId": "admin", "scheduledTime": in_a_day(),
                            "idempotencyKey": "k3", "context": { "channel": "C0PLAYGEN1", "text": "later" } });
        for _ in 0..2 {
            let answer = self.app.send(&service, Method::POST, "/api/plugin-engine", Some(&later)).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        }
    }

    pub async fn tasks(&self) {
        let path = "/api/plugin-engine/tasks";
        let far = || json!({ "scheduledTime": in_a_day() });
        let made = [self.send_message(far()).await, self.send_message(far()).await, self.send_message(far()).await];
        let ids = made.map(|made| made["task"]["id"].as_str().unwrap().to_owned());
        let rate = json!({ "schedule": { "rate": "1 hour" } });
        let recurring = self.send_message(rate).await["task"]["id"].as_str().unwrap().to_owned();
        self.get(path).await;
        self.get(&format!("{path}?userId=admin")).await;
        self.get(&format!("{path}/{}", ids[0])).await;
        let edit =
            json!({ "scheduledTime": (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(5)).to_string() });
        self.ok(Method::PATCH, &format!("{path}/{}", ids[0]), Some(&edit)).await;
        self.ok(Method::DELETE, &format!("{path}/{}", ids[1]), None).await;
        self.post(&format!("{path}/{recurring}/pause"), json!({})).await;
        self.post(&format!("{path}/{recurring}/resume"), json!({})).await;
        self.post(&format!("{path}/cancel"), json!({ "userId": "admin", "dryRun": false })).await;
        // This task fails, since Bob has no account, is retried by hand, and fails again.
        let intent = json!({ "tool": "gmail", "intent": "fetch", "userId": "bob", "maxAttempts": 1, "context": {} });
        let failing = self.at_once(intent).await;
        self.reached(&failing, "failed").await;
        self.post(&format!("{failing}/retry"), json!({})).await;
        self.reached(&failing, "failed").await;
    }

    pub async fn cron(&self) {
        for event in [event("cron_sweep"), event("cron_work")] {
            invoke(&self.app, "cron", event).await;
        }
        // A task with an expired token, and one that is rate limited.
        connected_two_hours_ago(&self.app, "slack", "carl").await;
        let message = |of: Value| {
            let mut intent = json!({ "tool": "slack", "intent": "send_message", "maxAttempts": 2,
                                     "context": { "channel": "C0PLAYGEN1", "text": "a" } });
            intent.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
            intent
        };
        let made = self.at_once(message(json!({ "userId": "carl" }))).await;
        self.reached(&made, "succeeded").await;
        let far = Switch { retry_after: 20 * 60, ..Switch::new(Service::Slack, Mode::RateLimited, 1) };
        self.app.playground.set_switch(far);
        let made = self.at_once(message(json!({}))).await;
        self.reached(&made, "retrying").await;

        // The sweep finds an account that was not confirmed within ten minutes, and drops it.
        connecting_two_hours_ago(
            &self.app,
            &self.app.admin,
            "slack",
            json!({ "userId": "dan", "returnTo": RETURN_TO }),
        )
        .await;
        let swept = invoke(&self.app, "cron", event("cron_sweep")).await;
        assert_eq!(swept["enqueued"], 1, "{swept}");
        let revoked = || self.app.playground.received().iter().any(|call| call.path.ends_with("/auth.revoke"));
        for _ in 0..1_000 {
            if revoked() {
                return;
            }
            invoke(&self.app, "cron", event("cron_work")).await;
        }
        panic!("the unconfirmed account was not revoked");
    }

    /// Sends an intent with `Prefer: respond-async`. Returns the path of its task.
    async fn at_once(&self, intent: Value) -> String {
        let request = self.app.request(Method::POST, "/api/plugin-engine").header("prefer", "respond-async");
        let request = request.header("authorization", format!("Bearer {}", self.app.admin));
        let request = request.header("content-type", "application/json").body(intent.to_string());
        let made: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        format!("/api/plugin-engine/tasks/{}", made["task"]["id"].as_str().unwrap())
    }

    /// Waits until a task is in that state.
    async fn reached(&self, path: &str, state: &str) {
        for _ in 0..1_000 {
            if self.get(path).await["status"] == state {
                return;
            }
        }
        panic!("{path} is not {state}: {}", self.get(path).await);
    }

    pub async fn runs(&self) {
        let path = "/api/plugin-engine/runs";
        self.get(&format!("{path}?userId=admin")).await;
        let all = self.get(path).await;
        let id = all["runs"][0]["id"].as_str().unwrap();
        self.get(&format!("{path}/{id}")).await;
        // Runs with an unknown outcome, with an idempotency key and without.
        for more in [json!({ "idempotencyKey": "k4" }), json!({})] {
            self.app.misbehave(Service::Slack, Mode::Nonsense, 1);
            let unknown = self.send_message(more).await;
            assert_eq!(unknown["success"], false, "{unknown}");
            let run = unknown["metadata"]["runId"].as_str().unwrap().to_owned();
            self.post(&format!("{path}/{run}/resolve"), json!({ "as": "failed" })).await;
        }
    }

    pub async fn mappings(&self) {
        let path = "/api/plugin-engine/context-mappings";
        let name = |of: Value| {
            let mut name = json!({ "tool": "slack", "kind": "channel", "name": "#home", "externalId": "C0PLAYGEN1" });
            name.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
            name
        };
        self.ok(Method::PUT, path, Some(&name(json!({ "userId": "admin" })))).await;
        self.post(&format!("{path}/bulk"), json!({ "mappings": [name(json!({ "agentId": "agent_1" }))] })).await;
        self.get(&format!("{path}?userId=admin")).await;
        self.get(&format!("{path}/lookup?tool=slack&kind=channel&name=%23home&userId=admin")).await;
        self.ok(Method::DELETE, &format!("{path}?tool=slack&kind=channel&name=%23home&userId=admin"), None).await;
    }

    pub async fn errors(&self) {
        let path = "/api/plugin-engine/errors";
        let all = self.get(path).await;
        self.get(&format!("{path}?userId=admin")).await;
        let id = all["errors"][0]["id"].as_str().unwrap();
        self.get(&format!("{path}/{id}")).await;
        self.post(&format!("{path}/{id}/resolve"), json!({})).await;
        self.post(&format!("{path}/bulk"), json!({ "ids": [id] })).await;
        self.post(&format!("{path}/bulk"), json!({ "filter": { "tool": "slack" } })).await;
        self.get(&format!("{path}/stats")).await;
        self.get(&format!("{path}/trends")).await;
        let fallback = json!({ "message": "Say that it failed." });
        self.ok(Method::PUT, &format!("{path}/fallbacks"), Some(&fallback)).await;
        self.get(&format!("{path}/fallbacks")).await;
        self.ok(Method::DELETE, &format!("{path}/fallbacks"), None).await;
    }

    pub async fn plugins(&self) {
        let path = "/api/v1/plugins";
        self.get(path).await;
        self.get(&format!("{path}/slack")).await;
        self.ok(Method::PATCH, &format!("{path}/slack"), Some(&json!({ "record_reads": true }))).await;
        self.post(&format!("{path}/slack/disable"), json!({})).await;
        self.post(&format!("{path}/slack/enable"), json!({})).await;
        self.post(&format!("{path}/slack/reset"), json!({})).await;
        self.registry().await;
        self.get("/health").await;
    }

    /// Sets a channel, builds, locks and rolls back its agent, and deletes the channel.
    pub async fn agents(&self) {
        let (channel, agent) = ("/api/v1/channels/twilio", "/api/v1/agents/twilio");
        let set = |priority: u16| json!({ "plugin_assignments": [{ "plugin": "slack" }, { "plugin": "desk", "priority": priority }] });
        self.ok(Method::PUT, channel, Some(&set(1))).await;
        self.get("/api/v1/channels").await;
        self.get(channel).await;
        self.get(agent).await;
        let locked = self.post(&format!("{agent}/lock"), json!({})).await;
        let words = json!({ "plugin_assignments": [{ "plugin": "slack" }], "instructions": "Be kind." });
        self.ok(Method::PUT, channel, Some(&words)).await;
        self.post(&format!("{agent}/diff"), json!({})).await;
        self.post(&format!("{agent}/lock"), json!({})).await;
        self.post(&format!("{agent}/rollback"), json!({ "hash": locked["hash"] })).await;
        self.get(&format!("{agent}/locks")).await;
        self.get(agent).await;
        // An agent of the channel may use only the locked plugins.
        let key = json!({ "name": "c", "roles": ["agent"], "channel": "twilio", "agent_id": "lexi" });
        let key = self.post("/api/v1/keys", key).await["key"].as_str().unwrap().to_owned();
        let read = |tool: &str| json!({ "tool": tool, "intent": "fetch", "userId": "admin", "context": { "channel": "C0PLAYGEN1" } });
        for (tool, status) in [("slack", StatusCode::OK), ("notion", StatusCode::FORBIDDEN)] {
            let answer = self.app.send(&key, Method::POST, "/api/plugin-engine", Some(&read(tool))).await;
            assert_eq!(answer.status, status, "{tool}: {}", answer.text);
        }
        assert_eq!(self.app.send(&key, Method::GET, "/api/plugin-engine", None).await.status, StatusCode::OK);
        self.post(&format!("{agent}/unlock"), json!({})).await;
        self.ok(Method::DELETE, channel, None).await;
    }

    /// Enables a plugin with hooks, which runs for an intent, for a task, and for an agent's runtime, where it fails.
    pub async fn hooks(&self, receiver: &OwnService) {
        let base = format!("http://{}", receiver.address);
        let manifest = json!({
            "name": "guard", "version": "1.0.0", "display_name": "A guard", "description": "Watches.",
            "runtime": { "type": "http", "base_url": base }, "permissions": ["network:127.0.0.1"],
            "hooks": ["before_tool_call", "after_tool_call", { "on": "on_reasoning_step", "url": format!("{base}/fails") }],
        });
        self.post("/plugins", manifest).await;
        let path = "/api/v1/plugins/guard";
        self.post(&format!("{path}/enable"), json!({})).await;
        for _ in 0..2 {
            self.post(&format!("{path}/hook-secret"), json!({})).await;
        }
        let grant = json!({ "permissions": ["network:127.0.0.1", "hook:before_tool_call", "hook:after_tool_call",
                                            "hook:on_reasoning_step"] });
        self.ok(Method::PATCH, path, Some(&grant)).await;
        assert_eq!(self.send_message(json!({})).await["success"], true);
        let task =
            json!({ "tool": "slack", "intent": "send_message", "context": { "channel": "C0PLAYGEN1", "text": "a" } });
        let task = self.at_once(task).await;
        self.reached(&task, "succeeded").await;
        let reply = self.post("/api/v1/hooks/on_reasoning_step", json!({ "data": "a thought" })).await;
        assert_eq!(reply["decision"], "veto", "{reply}");
        let calls = receiver.calls();
        let times = |suffix: &str| calls.iter().filter(|call| call.ends_with(suffix)).count();
        assert_eq!((times("/hooks/before_tool_call"), times("/hooks/after_tool_call"), times("/fails")), (2, 2, 1));
        self.ok(Method::DELETE, path, None).await;
    }

    /// Registers two versions of a plugin, configures, upgrades, calls and rolls it back.
    async fn registry(&self) {
        let manifest = |version: &str| {
            json!({
                "name": "desk", "version": version, "display_name": "A desk", "description": "Shows notes.",
                "runtime": { "type": "http", "base_url": "https://desk.example" },
                "permissions": ["network:desk.example"],
                "config_schema": { "type": "object", "properties": { "code": { "type": "string", "writeOnly": true } } },
                "actions": [{ "name": "look", "description": "Looks.", "effect": "read", "request": { "path": "/look" } }],
            })
        };
        for version in ["1.0.0", "1.1.0"] {
            self.post("/plugins", manifest(version)).await;
        }
        self.get("/plugins").await;
        self.get("/plugins/desk").await;
        self.get("/plugins/desk/1.0.0").await;
        let active = json!({ "is_active": true });
        self.ok(Method::PATCH, "/plugins/desk/1.0.0", Some(&active)).await;
        let path = "/api/v1/plugins/desk";
        self.post(&format!("{path}/enable"), json!({ "version": "1.0.0" })).await;
        for config in [json!({ "code": "one" }), json!({ "code": "two" })] {
            self.ok(Method::PUT, &format!("{path}/config"), Some(&config)).await;
        }
        self.get(&format!("{path}/config")).await;
        self.get(&format!("{path}/diff")).await;
        self.post(&format!("{path}/upgrade"), json!({ "version": "1.1.0" })).await;
        self.post(&format!("{path}/rollback"), json!({})).await;
        // Its permissions are not granted.
        for path in ["/api/plugins/desk", "/api/booking"] {
            let call = json!({ "function": "look" });
            let answer = self.app.send(&self.app.admin, Method::POST, path, Some(&call)).await;
            assert!(answer.status.is_client_error(), "{path}: {}", answer.text);
        }
        self.ok(Method::DELETE, path, None).await;
        self.post(&format!("{path}/enable"), json!({})).await;
    }
}

fn in_a_day() -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string()
}
