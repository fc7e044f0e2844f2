//! What each route asks of AWS: of a function that begins with the request, and of one that is running.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use overseer_engine::ports::Table;
use overseer_engine::ports::table::Query;
use overseer_playground::{CLIENT_ID, CLIENT_SECRET, Mode, Playground, Service, Switch};
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Gateway, Route};

const ENGINE: &str = "/api/plugin-engine";
pub const RETURN_TO: &str = "https://agent.example/done";
/// A callback that no provider started: Overseer answers with an error page.
const ASTRAY: &str = "/api/plugin-engine/oauth/callback?error=access_denied";

/// A request.
struct Ask {
    method: Method,
    path: String,
    body: Value,
    cookie: Option<String>,
}

fn ask(method: &str, path: impl Into<String>, body: Value) -> Ask {
    Ask { method: method.parse().unwrap(), path: path.into(), body, cookie: None }
}

fn get(path: impl Into<String>) -> Ask {
    ask("GET", path, Value::Null)
}

/// The result of one request.
struct Answer {
    location: String,
    cookie: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// The routes behind a gateway, and a caller who may use them all.
pub struct Figures<'a> {
    pub gateway: &'a Gateway,
    pub address: SocketAddr,
    /// Where the stand-ins of services are.
    pub playing: SocketAddr,
    pub playground: &'a Playground,
    /// The functions' table.
    pub table: Arc<dyn Table>,
    pub routes: Vec<Route>,
    /// The key of an administrator, who is also the user `user_456`.
    pub key: String,
    pub cron_token: String,
    pub client: reqwest::Client,
    /// A route, what the request is an example of, and what was asked of AWS, cold and warm.
    pub rows: Vec<[String; 4]>,
}

impl Figures<'_> {
    /// Asks every route, and prints the table.
    pub async fn print(mut self) {
        // The event of the function of plugins takes it out of use.
        self.send(&ask("POST", "/api/v1/plugins/slack/enable", json!({}))).await;
        self.intents().await;
        self.integrations().await;
        self.browsers().await;
        self.tasks().await;
        self.runs_and_errors().await;
        self.mappings().await;
        self.keys_and_plugins().await;
        let asked: BTreeSet<_> = self.rows.iter().map(|[route, ..]| route.clone()).collect();
        let all = self.routes.iter().map(|route| format!("{} {}", route.method, route.path));
        let missing: Vec<_> = all.filter(|route| !asked.contains(route)).collect();
        assert!(missing.is_empty(), "nobody asked {missing:#?}");
        println!("\n| route | with | requests to AWS, cold | warm |\n| --- | --- | --- | --- |");
        for [route, with, cold, warm] in &self.rows {
            println!("| `{route}` | {with} | {cold} | {warm} |");
        }
    }

    async fn send(&self, ask: &Ask) -> Answer {
        let key = if ask.path.ends_with("/cron") { &self.cron_token } else { &self.key };
        let url = self.playground_or_here(&ask.path);
        let mut request = self.client.request(ask.method.clone(), url).header("authorization", format!("Bearer {key}"));
        if let Some(cookie) = &ask.cookie {
            request = request.header("cookie", cookie);
        }
        if let Value::String(form) = &ask.body {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(form.clone());
        } else if !ask.body.is_null() {
            request = request.header("content-type", "application/json").body(ask.body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        let as_asked = status.is_success() || status.is_redirection() || ask.path == ASTRAY;
        assert!(as_asked, "{} {}: {status} {text}", ask.method, ask.path);
        let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let cookie = header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        Answer { location: header("location"), cookie, text }
    }

    fn playground_or_here(&self, path: &str) -> String {
        if path.starts_with("http") { path.to_owned() } else { format!("http://{}{path}", self.address) }
    }

    /// Asks `first` of a function that does not run yet, and `second`, after `between`, of one that does.
    async fn measure(&mut self, with: &str, first: Ask, between: &[Ask], second: Ask) -> [Answer; 2] {
        let path = first.path.split('?').next().unwrap();
        let route = Route::of(&self.routes, &first.method, path).unwrap();
        let (name, function) = (format!("{} {}", route.method, route.path), route.function.clone());
        self.gateway.stop(&function).await;
        self.gateway.calls();
        let begun = self.send(&first).await;
        let cold = counted(self.gateway);
        for ask in between {
            self.send(ask).await;
        }
        self.gateway.calls();
        let running = self.send(&second).await;
        let warm = counted(self.gateway);
        self.rows.push([name, with.to_owned(), cold, warm]);
        [begun, running]
    }

    /// The same request twice.
    async fn twice(&mut self, with: &str, method: &str, path: &str, body: Value) -> [Answer; 2] {
        self.measure(with, ask(method, path, body.clone()), &[], ask(method, path, body)).await
    }

    async fn intents(&mut self) {
        self.send(&connecting("default")).await;
        let sent = self.twice("an action with an effect", "POST", ENGINE, message(&json!({}))).await;
        assert!(sent.iter().all(|answer| answer.json()["success"] == json!(true)), "{}", sent[0].text);
        let read = json!({ "tool": "slack", "intent": "fetch", "context": { "channel": "C0PLAYGEN1" } });
        self.twice("one without", "POST", ENGINE, read).await;
        let named = message(&json!({ "context": { "channel": "#general", "text": "Hello" } }));
        self.twice("a channel's name", "POST", ENGINE, named).await;
        let keyed = |key: &str| ask("POST", ENGINE, message(&json!({ "idempotencyKey": key })));
        self.measure("an idempotency key", keyed("a"), &[], keyed("b")).await;
        self.measure("a key that was answered", keyed("a"), &[], keyed("a")).await;
        self.measure("a time within 15 minutes", later(5), &[], later(5)).await;
        self.measure("a time beyond", later(60), &[], later(60)).await;
        self.twice("", "GET", ENGINE, Value::Null).await;
    }

    async fn integrations(&mut self) {
        let all = format!("{ENGINE}/integrations");
        self.measure("a token", connecting("first"), &[], connecting("second")).await;
        self.twice("a link to ask for", "POST", &format!("{all}/slack/connect"), json!({})).await;
        self.twice("", "GET", &all, Value::Null).await;
        self.twice("", "GET", &format!("{all}/slack"), Value::Null).await;
        let default = |alias: &str| ask("PUT", format!("{all}/slack/default"), json!({ "alias": alias }));
        self.measure("", default("first"), &[], default("second")).await;
        let leave = |alias: &str| ask("DELETE", format!("{all}/slack?alias={alias}"), Value::Null);
        self.measure("", leave("first"), &[], leave("second")).await;
        let path = format!("{all}/notion/client");
        let client = json!({ "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET });
        self.twice("", "PUT", &path, client.clone()).await;
        self.twice("", "GET", &path, Value::Null).await;
        let remove = || ask("DELETE", &path, Value::Null);
        self.measure("", remove(), &[ask("PUT", &path, client)], remove()).await;
    }

    /// From the link to the account, twice at once: a browser that an account is shown to, and one that is sent on.
    async fn browsers(&mut self) {
        let connect = format!("{ENGINE}/integrations/notion/connect");
        let mut links = Vec::new();
        for _ in 0..2 {
            let link = self.send(&ask("POST", &connect, json!({ "returnTo": RETURN_TO }))).await.json();
            links.push(here(link["connectUrl"].as_str().unwrap()));
        }
        let offered = self.measure("", get(&links[0]), &[], get(&links[1])).await;
        let cookies = offered.map(|page| page.cookie);
        let go = |n: usize| Ask { cookie: Some(cookies[n].clone()), ..ask("POST", &links[n], Value::Null) };
        let gone = self.measure("", go(0), &[], go(1)).await;
        let mut back = Vec::new();
        for (n, Answer { location, .. }) in gone.into_iter().enumerate() {
            let page = self.send(&get(&location)).await.text;
            let part = |before: &str| page.split(before).nth(1).unwrap().split('"').next().unwrap().to_owned();
            let form = format!("request={}&decision=allow", part("name=\"request\" value=\""));
            let action = reqwest::Url::parse(&location).unwrap().join(&part("action=\"")).unwrap();
            let decided = self.send(&ask("POST", action, form.into())).await;
            back.push(Ask { cookie: Some(cookies[n].clone()), ..get(here(&decided.location)) });
        }
        let (second, first) = (back.pop().unwrap(), back.pop().unwrap());
        let ended = self.measure("", first, &[], second).await;
        let complete = |n: usize| {
            let url = reqwest::Url::parse(&ended[n].location).unwrap();
            let code = url.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
            ask("POST", format!("{connect}/complete"), json!({ "code": code }))
        };
        let (first, second) = (complete(0), complete(1));
        self.measure("", first, &[], second).await;
        self.twice("", "GET", ASTRAY, Value::Null).await;
    }

    async fn tasks(&mut self) {
        let all = format!("{ENGINE}/tasks");
        let mut made = Vec::new();
        for _ in 0..2 {
            let hourly = ask("POST", ENGINE, message(&json!({ "schedule": { "rate": "1 hour" } })));
            let task = self.send(&hourly).await.json();
            made.push(format!("{all}/{}", task["task"]["id"].as_str().unwrap()));
        }
        self.twice("", "GET", &all, Value::Null).await;
        self.measure("", get(&made[0]), &[], get(&made[1])).await;
        let change =
            |n: usize| ask("PATCH", &made[n], json!({ "context": { "channel": "C0PLAYGEN1", "text": "Bye" } }));
        self.measure("", change(0), &[], change(1)).await;
        let of = |n: usize, what: &str| ask("POST", format!("{}/{what}", made[n]), json!({}));
        self.measure("", of(0, "pause"), &[], of(1, "pause")).await;
        self.measure("", of(0, "resume"), &[], of(1, "resume")).await;
        let cancel = |n: usize| ask("DELETE", &made[n], Value::Null);
        self.measure("", cancel(0), &[], cancel(1)).await;
        // Two that fail: the user has no account there.
        let mut failed = Vec::new();
        for _ in 0..2 {
            let failing = json!({ "tool": "gmail", "intent": "fetch", "maxAttempts": 1, "context": {},
                                  "scheduledTime": in_minutes(0) });
            let task = self.send(&ask("POST", ENGINE, failing)).await.json();
            let id = task["task"]["id"].as_str().unwrap();
            let work = json!({ "org": "local", "kind": "task", "id": format!("{id} user_456"), "revision": 1 });
            self.gateway.invoke("cron", json!({ "work": work })).await.unwrap();
            failed.push(format!("{all}/{id}"));
        }
        let retry = |n: usize| ask("POST", format!("{}/retry", failed[n]), json!({}));
        self.measure("", retry(0), &[], retry(1)).await;
        let some = || ask("POST", format!("{all}/cancel"), json!({ "userId": "user_456", "dryRun": false }));
        self.measure("two tasks", some(), &[later(60), later(60)], some()).await;
        self.twice("nothing due", "POST", &format!("{ENGINE}/cron"), json!({})).await;
        self.twice("nothing due", "GET", &format!("{ENGINE}/cron"), Value::Null).await;
    }

    async fn runs_and_errors(&mut self) {
        // Four with an unknown outcome, and as many recorded errors.
        self.playground.set_switch(Switch::new(Service::Slack, Mode::Nonsense, 4));
        let mut unknown = Vec::new();
        for _ in 0..2 {
            let outcome = self.send(&ask("POST", ENGINE, message(&json!({})))).await.json();
            unknown.push(format!("{ENGINE}/runs/{}", outcome["metadata"]["runId"].as_str().unwrap()));
        }
        self.playground.set_switch(Switch::new(Service::Slack, Mode::Nonsense, 0));
        self.twice("", "GET", &format!("{ENGINE}/runs"), Value::Null).await;
        self.measure("", get(&unknown[0]), &[], get(&unknown[1])).await;
        let resolve = |n: usize| ask("POST", format!("{}/resolve", unknown[n]), json!({ "as": "failed" }));
        self.measure("", resolve(0), &[], resolve(1)).await;

        let all = format!("{ENGINE}/errors");
        let errors = self.twice("", "GET", &all, Value::Null).await[0].json();
        let id = |n: usize| errors["errors"][n]["id"].as_str().unwrap();
        self.measure("", get(format!("{all}/{}", id(0))), &[], get(format!("{all}/{}", id(1)))).await;
        let resolve = |n: usize| ask("POST", format!("{all}/{}/resolve", id(n)), json!({}));
        self.measure("", resolve(0), &[], resolve(1)).await;
        let bulk = |n: usize| ask("POST", format!("{all}/bulk"), json!({ "ids": [id(n)] }));
        self.measure("one error", bulk(2), &[], bulk(3)).await;
        self.twice("", "GET", &format!("{all}/stats"), Value::Null).await;
        self.twice("", "GET", &format!("{all}/trends"), Value::Null).await;
        let path = format!("{all}/fallbacks");
        let fallback = || ask("PUT", &path, json!({ "message": "Say that it failed." }));
        self.measure("", fallback(), &[], fallback()).await;
        self.twice("", "GET", &path, Value::Null).await;
        let remove = || ask("DELETE", &path, Value::Null);
        self.measure("", remove(), &[fallback()], remove()).await;
    }

    async fn mappings(&mut self) {
        let all = format!("{ENGINE}/context-mappings");
        let name = json!({ "tool": "slack", "kind": "channel", "name": "#home", "externalId": "C0PLAYGEN1",
                           "userId": "user_456" });
        let query = "tool=slack&kind=channel&name=%23home&userId=user_456";
        self.twice("", "PUT", &all, name.clone()).await;
        self.twice("one name", "POST", &format!("{all}/bulk"), json!({ "mappings": [name.clone()] })).await;
        self.twice("", "GET", &format!("{all}?userId=user_456"), Value::Null).await;
        self.twice("", "GET", &format!("{all}/lookup?{query}"), Value::Null).await;
        let remove = || ask("DELETE", format!("{all}?{query}"), Value::Null);
        self.measure("", remove(), &[ask("PUT", &all, name)], remove()).await;
    }

    async fn keys_and_plugins(&mut self) {
        let all = "/api/v1/keys";
        let made = self.twice("", "POST", all, json!({ "name": "a", "roles": ["user"], "user_id": "ann" })).await;
        self.twice("", "GET", all, Value::Null).await;
        let [first, second] =
            made.map(|made| ask("DELETE", format!("{all}/{}", made.json()["id"].as_str().unwrap()), Value::Null));
        self.measure("", first, &[], second).await;

        let all = "/api/v1/webhooks";
        let new = json!({ "url": "https://hooks.example/", "events": ["task.failed"] });
        let made = self.twice("", "POST", all, new).await.map(|made| made.json()["id"].as_str().unwrap().to_owned());
        self.twice("", "GET", all, Value::Null).await;
        let of = |n: usize| format!("{all}/{}", made[n]);
        self.measure("", get(of(0)), &[], get(of(1))).await;
        let change = |n: usize| ask("PATCH", of(n), json!({ "events": ["*"] }));
        self.measure("", change(0), &[], change(1)).await;
        let rotate = |n: usize| ask("POST", format!("{}/rotate", of(n)), json!({}));
        self.measure("", rotate(0), &[], rotate(1)).await;
        // One event becomes a delivery for each webhook. No worker consumes the queue here.
        self.send(&ask("POST", "/api/v1/keys", json!({ "name": "b", "roles": ["user"], "user_id": "ann" }))).await;
        let outbox = self.table.query(Query::partition("org#local#outbox", 1)).await.unwrap();
        let work = json!({ "org": "local", "kind": "event", "id": outbox.entries[0].stored.key.sort, "revision": 0 });
        self.gateway.invoke("cron", json!({ "work": work })).await.unwrap();
        let deliveries = |n: usize| format!("{}/deliveries", of(n));
        let listed = self.measure("one delivery", get(deliveries(0)), &[], get(deliveries(1))).await;
        let waiting = listed.map(|listed| listed.json()["deliveries"][0]["id"].as_str().unwrap().to_owned());
        let retry = |n: usize| ask("POST", format!("{}/{}/retry", deliveries(n), waiting[n]), json!({}));
        self.measure("", retry(0), &[], retry(1)).await;
        let remove = |n: usize| ask("DELETE", of(n), Value::Null);
        self.measure("", remove(0), &[], remove(1)).await;

        let (all, slack) = ("/api/v1/plugins", "/api/v1/plugins/slack");
        self.twice("", "GET", all, Value::Null).await;
        self.twice("", "GET", slack, Value::Null).await;
        let change = |records: bool| ask("PATCH", slack, json!({ "record_reads": records }));
        self.measure("", change(true), &[], change(false)).await;
        let of = |what: &str| ask("POST", format!("{slack}/{what}"), json!({}));
        self.measure("", of("disable"), &[of("enable")], of("disable")).await;
        self.measure("", of("enable"), &[of("disable")], of("enable")).await;
        self.measure("", of("reset"), &[], of("reset")).await;
        self.registry().await;
        self.agents().await;
        self.hooks().await;
        self.twice("", "GET", "/health", Value::Null).await;
        self.twice("", "GET", "/health/ready", Value::Null).await;
        self.twice("", "GET", "/schemas/plugin-manifest.json", Value::Null).await;
    }
}

impl Figures<'_> {
    async fn registry(&mut self) {
        let version = |version: &str| ask("POST", "/plugins", desk(self.playing, version));
        let (first, second) = (version("1.0.0"), version("1.1.0"));
        self.measure("", first, &[], second).await;
        self.twice("", "GET", "/plugins", Value::Null).await;
        self.twice("", "GET", "/plugins/booking", Value::Null).await;
        self.twice("", "GET", "/plugins/booking/1.0.0", Value::Null).await;
        let active = |is_active: bool| ask("PATCH", "/plugins/booking/1.1.0", json!({ "is_active": is_active }));
        self.measure("", active(false), &[], active(true)).await;
        let path = "/api/v1/plugins/booking";
        let enable = json!({ "version": "1.0.0", "permissions": ["network:127.0.0.1"] });
        self.send(&ask("POST", format!("{path}/enable"), enable)).await;
        let config = |desk: &str| ask("PUT", format!("{path}/config"), json!({ "desk": desk }));
        self.measure("", config("back"), &[], config("side")).await;
        self.twice("", "GET", &format!("{path}/config"), Value::Null).await;
        self.twice("", "GET", &format!("{path}/diff"), Value::Null).await;
        let upgrade = || ask("POST", format!("{path}/upgrade"), json!({ "version": "1.1.0" }));
        let roll_back = || ask("POST", format!("{path}/rollback"), json!({}));
        self.measure("", upgrade(), &[roll_back()], upgrade()).await;
        self.measure("", roll_back(), &[], roll_back()).await;
        let call = json!({ "function": "look" });
        self.twice("a registered plugin", "POST", "/api/plugins/booking", call.clone()).await;
        self.twice("a registered plugin", "POST", "/api/booking", call).await;
        let remove = || ask("DELETE", path, Value::Null);
        let enable = ask("POST", format!("{path}/enable"), json!({}));
        self.measure("", remove(), &[enable], remove()).await;
    }
}

impl Figures<'_> {
    async fn agents(&mut self) {
        let (channel, agent) = ("/api/v1/channels/twilio", "/api/v1/agents/twilio");
        self.send(&ask("POST", "/api/v1/plugins/booking/enable", json!({}))).await;
        let set = |words: &str| {
            let plugins = json!([{ "plugin": "slack", "priority": 1 }, { "plugin": "booking", "priority": 2 }]);
            ask("PUT", channel, json!({ "plugin_assignments": plugins, "instructions": words }))
        };
        self.measure("two plugins", set("Be kind."), &[], set("Be brief.")).await;
        self.twice("", "GET", "/api/v1/channels", Value::Null).await;
        self.twice("", "GET", channel, Value::Null).await;
        self.twice("two plugins", "GET", agent, Value::Null).await;
        let of = |what: &str| ask("POST", format!("{agent}/{what}"), json!({}));
        self.measure("", of("lock"), &[set("Be kind.")], of("lock")).await;
        self.twice("", "POST", &format!("{agent}/diff"), json!({})).await;
        let locks = self.twice("", "GET", &format!("{agent}/locks"), Value::Null).await[0].json();
        let hash = |n: usize| locks["locks"][n]["hash"].clone();
        let roll_back = |n: usize| ask("POST", format!("{agent}/rollback"), json!({ "hash": hash(n) }));
        self.measure("", roll_back(1), &[], roll_back(0)).await;
        self.measure("", of("unlock"), &[of("lock")], of("unlock")).await;
        let remove = || ask("DELETE", channel, Value::Null);
        self.measure("", remove(), &[set("Be kind.")], remove()).await;
    }
}

impl Figures<'_> {
    /// Hooks that ask no server: how long one takes is its own affair.
    async fn hooks(&mut self) {
        let mut guard = desk(self.playing, "1.0.0");
        (guard["name"], guard["hooks"]) = (json!("guard"), json!(["before_tool_call"]));
        self.send(&ask("POST", "/plugins", guard)).await;
        self.send(&ask("POST", "/api/v1/plugins/guard/enable", json!({}))).await;
        self.twice("", "POST", "/api/v1/plugins/guard/hook-secret", json!({})).await;
        let rules = json!({ "config": { "rules": [{ "tool": "notion", "reason": "Not today." }] } });
        self.send(&ask("POST", "/api/v1/plugins/policy/enable", rules)).await;
        let moment = json!({ "tool": "slack", "intent": "send_message", "user_id": "user_456", "data": {} });
        self.twice("the rules of `policy`", "POST", "/api/v1/hooks/before_tool_call", moment).await;
        let send = message(&json!({ "userId": "user_456" }));
        self.twice("with an effect, and the rules of `policy`", "POST", ENGINE, send).await;
    }
}

/// A plugin of the registry, which speaks to the stand-in of a service.
fn desk(address: SocketAddr, version: &str) -> Value {
    json!({
        "name": "booking", "version": version, "display_name": "Desk", "description": "Looks at what is there.",
        "runtime": { "type": "http", "base_url": format!("http://{address}") },
        "permissions": ["network:127.0.0.1"],
        "config_schema": { "type": "object", "properties": { "desk": { "type": "string", "default": "front" } } },
        "actions": [{ "name": "look", "description": "Looks.", "effect": "read",
                      "request": { "path": "/playground/received" }, "response": { "body": "text" } }],
    })
}

/// The path of a URL that begins with `PUBLIC_URL`.
fn here(url: &str) -> String {
    let url = reqwest::Url::parse(url).unwrap();
    url[url::Position::BeforePath..].to_owned()
}

fn message(more: &Value) -> Value {
    let mut intent = json!({ "tool": "slack", "intent": "send_message",
                             "context": { "channel": "C0PLAYGEN1", "text": "Hello" } });
    let more = more.as_object().unwrap().clone();
    intent.as_object_mut().unwrap().extend(more);
    intent
}

fn connecting(alias: &str) -> Ask {
    let body = json!({ "token": Service::Slack.standing_token(), "alias": alias });
    ask("POST", format!("{ENGINE}/integrations/slack/connect"), body)
}

fn later(minutes: i64) -> Ask {
    ask("POST", ENGINE, message(&json!({ "scheduledTime": in_minutes(minutes) })))
}

fn in_minutes(minutes: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes)).to_string()
}

/// The requests to AWS since it was asked last, each with its number.
pub fn counted(gateway: &Gateway) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    for call in gateway.calls() {
        *counts.entry(call.operation).or_default() += 1;
    }
    let each: Vec<_> = counts.iter().map(|(call, count)| format!("{count} {call}")).collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}
