//! The error log: failures, their counts, and the message that agents pass on.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::Json as Body;
use axum::http::StatusCode as Status;
use axum::routing::{any, post};
use futures_util::future::join_all;
use overseer_engine::access::principal::Role;
use overseer_engine::invoke::runs::RequestOptions;
use overseer_engine::outbound::address::AllowedAddress;
use overseer_playground::{Mode, Service};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{Answer, App, Options};
use crate::support::own::OwnService;

const ERRORS: &str = "/api/plugin-engine/errors";

/// An Overseer without any connected account.
async fn unconnected() -> App {
    App::with(Options { unconnected: true, ..Options::default() }).await
}

/// An Overseer with the plugin `safe`, which needs no account, and whose service says back what it was sent.
async fn telling() -> App {
    let echo = |Body(body): Body<Value>| async move {
        let (text, at) = (body["combination"].as_str().unwrap_or("nothing").to_owned(), body["at"].to_string());
        (Status::BAD_REQUEST, Body(json!({ "message": format!("{text} at {at} does not open it") })))
    };
    let service = OwnService::start(Router::new().route("/open", post(echo)).route("/{*rest}", any(async || ""))).await;
    let parameters = json!({
        "type": "object",
        "properties": {
            "combination": { "$ref": "#/$defs/secret" },
            "doors": { "type": "array", "items": { "type": "object", "properties": { "code": { "$ref": "#/$defs/secret" } } } },
        },
        "$defs": { "secret": { "type": "string", "x-secret": true } },
    });
    let manifest = json!({
        "name": "safe", "version": "1.2.0", "display_name": "Safe", "description": "A safe of a test.",
        "runtime": { "type": "http", "base_url": format!("http://{}", service.address) },
        "permissions": ["network:127.0.0.1"], "auth": { "type": "none" },
        "actions": [{
            "name": "open", "aliases": ["unlock"], "description": "Opens it.", "effect": "unsafe", "parameters": parameters,
            "request": { "method": "POST", "path": "/open",
                         "json": { "combination": "{{ combination }}", "at": "{{ parameters.at }}" } },
            "response": { "error": { "message": "body.message" } },
        }],
    });
    let allowed = vec![AllowedAddress::Socket(service.address)];
    App::with(Options { plugins: vec![manifest.to_string()], allowed, unconnected: true, ..Options::default() }).await
}

async fn intend_as(app: &App, key: &str, body: &Value) -> Answer {
    app.send(key, Method::POST, "/api/plugin-engine", Some(body)).await
}

/// An intent that fails: the user has no account.
fn fetching(user: &str, agent: &str) -> Value {
    json!({ "userId": user, "agentId": agent, "tool": "gmail", "intent": "fetch", "context": { "query": "from:ada" } })
}

fn sending(user: &str, agent: &str) -> Value {
    json!({ "userId": user, "agentId": agent, "tool": "slack", "intent": "send",
            "context": { "channel": "C0PLAYGEN1", "text": "hello" } })
}

/// What a list has, by that key.
async fn listed_as(app: &App, key: &str, query: &str) -> Vec<Value> {
    let answer = app.send(key, Method::GET, &format!("{ERRORS}{query}"), None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()["errors"].as_array().unwrap().clone()
}

async fn listed(app: &App, query: &str) -> Vec<Value> {
    listed_as(app, &app.admin, query).await
}

fn ids(errors: &[Value]) -> Vec<&str> {
    errors.iter().map(|error| error["id"].as_str().unwrap()).collect()
}

async fn resolve(app: &App, key: &str, id: &str, body: Value) -> Answer {
    app.send(key, Method::POST, &format!("{ERRORS}/{id}/resolve"), Some(&body)).await
}

async fn bulk(app: &App, key: &str, body: Value) -> Answer {
    app.send(key, Method::POST, &format!("{ERRORS}/bulk"), Some(&body)).await
}

async fn fallback_of(app: &App, intent: &Value) -> String {
    let answer = app.post("/api/plugin-engine", intent).await;
    answer.failure();
    answer.json()["error"]["fallback"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn failure_records_the_request() {
    let app = App::start().await;
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    let answer = app.intend("slack", "send", json!({ "channel": "C0PLAYGEN1", "text": "hello" })).await;
    assert_eq!(answer.failure(), "rate_limited");
    let said = answer.json();
    let errors = listed(&app, "").await;
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    let expected = json!({
        "id": error["id"], "createdAt": "2026-11-21T09:00:00Z", "userId": "admin", "agentId": "agent_1", "tool": "slack",
        "version": "1.0.0", "intent": "send_message", "code": "rate_limited", "message": said["message"],
        "retryable": true, "mayHaveHappened": false, "retryAfter": 30, "attempts": 1,
        "requestId": said["requestId"], "runId": said["metadata"]["runId"],
    });
    assert_eq!(error, &expected);
    let mut whole = app.get(&format!("{ERRORS}/{}", error["id"].as_str().unwrap())).await.json();
    assert_eq!(whole["context"].take(), json!({ "channel": "C0PLAYGEN1", "text": "hello" }));
    whole.as_object_mut().unwrap().remove("context");
    assert_eq!(whole, expected);
    // What succeeds, and what is refused before it is tried, is no failure.
    app.intend("slack", "send", json!({ "channel": "C0PLAYGEN1", "text": "hello" })).await.data();
    app.intend("slack", "send", json!({})).await.problem(400);
    app.intend("slack", "nothing", json!({})).await.problem(404);
    assert_eq!(listed(&app, "").await.len(), 1);
}

#[tokio::test]
async fn failed_task_attempts_are_each_recorded() {
    let app = unconnected().await;
    let mut intent = sending("ann", "agent_1");
    intent["scheduledTime"] = json!("2026-11-21T09:00:00Z");
    assert_eq!(app.post("/api/plugin-engine", &intent).await.status, StatusCode::ACCEPTED);
    while listed(&app, "?userId=ann&code=not_connected").await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn failure_redacts_secrets() {
    const SECRET: &str = "31-right-7-left";
    let app = telling().await;
    let context = json!({ "combination": SECRET, "at": 9, "apiKey": { "a": [SECRET] },
                          "doors": [{ "code": SECRET, "name": "front" }],
                          "headers": [{ "name": "Authorization", "value": SECRET }] });
    let answer = app.intend("safe", "unlock", context).await;
    assert_eq!(answer.failure(), "rejected");
    assert!(answer.text.contains(SECRET), "the service says it: {}", answer.text);
    let error = listed(&app, "").await.remove(0);
    let whole = app.get(&format!("{ERRORS}/{}", error["id"].as_str().unwrap())).await;
    assert!(!whole.text.contains(SECRET) && !error.to_string().contains(SECRET), "{}", whole.text);
    let whole = whole.json();
    assert_eq!(
        whole["context"],
        json!({ "combination": "[removed]", "at": 9, "apiKey": "[removed]",
                "doors": [{ "code": "[removed]", "name": "front" }],
                "headers": [{ "name": "Authorization", "value": "[removed]" }] })
    );
    assert_eq!((&whole["intent"], &whole["version"]), (&json!("open"), &json!("1.2.0")));
    assert!(whole["message"].as_str().unwrap().contains("does not open it"), "{whole}");

    // However large they are, 16 KiB are kept.
    let large = json!({ "a": vec!["x".repeat(5_000); 100], "b": "é".repeat(1_001) });
    app.intend("safe", "open", large).await.failure();
    let error = listed(&app, "").await.remove(0);
    let whole = app.get(&format!("{ERRORS}/{}", error["id"].as_str().unwrap())).await.json();
    let context = whole["context"].to_string();
    assert!(context.len() <= 16 * 1024 && context.contains("[left out]"), "{context}");
    assert_eq!(whole["context"]["a"][0], json!(format!("{}…", "x".repeat(1_000))));
}

#[tokio::test]
async fn thousand_concurrent_failures_are_all_recorded() {
    const FAILURES: usize = 1_000;
    let app = telling().await;
    let principal = app.engine.authenticate(&app.admin.as_str().into()).await.unwrap();
    let fail = |number: usize| {
        let (engine, principal) = (app.engine.clone(), principal.clone());
        let (user, agent) = (format!("user_{}", number % 7), format!("agent_{}", number % 3));
        let intent = match number % 4 {
            0 | 1 => sending(&user, &agent),
            2 => fetching(&user, &agent),
            _ => {
                json!({ "userId": user, "agentId": agent, "tool": "safe", "intent": "open", "context": { "combination": "no" } })
            }
        };
        tokio::spawn(async move {
            let outcome = engine
                .execute(principal, serde_json::from_value(intent).unwrap(), RequestOptions::default())
                .await
                .unwrap();
            outcome.answer.result.unwrap_err();
        })
    };
    // Two hours, on two days.
    app.clock.advance(14 * 3600 + 3599);
    for half in [0..600, 600..FAILURES] {
        for task in join_all(half.map(fail)).await {
            task.unwrap();
        }
        app.clock.advance(1);
    }
    app.engine.authenticate(&app.admin.as_str().into()).await.unwrap();

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.get(&format!("{ERRORS}?limit=100{cursor}")).await.json();
        seen.extend(page["errors"].as_array().unwrap().iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), FAILURES);
    assert_eq!(ids(&seen).into_iter().collect::<BTreeSet<_>>().len(), FAILURES);
    assert!(ids(&seen).is_sorted_by(|newer, older| newer > older), "the newest stand first");
    let of = |holds: &dyn Fn(usize) -> bool| (0..FAILURES).filter(|number| holds(*number)).count();
    let safe = seen.iter().filter(|error| error["tool"] == "safe" && error["code"] == "rejected").count();
    assert_eq!(safe, of(&|number| number % 4 == 3));

    let stats = app.get(&format!("{ERRORS}/stats")).await.json();
    assert_eq!(
        stats,
        json!({
            "from": "2026-11-21T01:00:00Z", "to": "2026-11-22T01:00:00Z", "total": FAILURES,
            "byTool": [{ "tool": "slack", "count": 500 }, { "tool": "gmail", "count": 250 }, { "tool": "safe", "count": 250 }],
            "byAction": [{ "tool": "slack", "intent": "send_message", "count": 500 },
                         { "tool": "gmail", "intent": "fetch_messages", "count": 250 },
                         { "tool": "safe", "intent": "open", "count": 250 }],
            "byCode": [{ "code": "not_connected", "count": 750 }, { "code": "rejected", "count": 250 }],
        })
    );
    // The second before midnight, and the one after.
    let trends = app.get(&format!("{ERRORS}/trends")).await.json();
    let points = trends["points"].as_array().unwrap();
    assert_eq!((&trends["by"], points.len()), (&json!("hour"), 24));
    assert_eq!(points[22], json!({ "time": "2026-11-21T23:00:00Z", "count": 600 }));
    assert_eq!(points[23], json!({ "time": "2026-11-22T00:00:00Z", "count": 400 }));
    assert!(points[..22].iter().all(|point| point["count"] == 0));
    let days = app.get(&format!("{ERRORS}/trends?by=day&tool=safe&intent=open&code=rejected")).await.json();
    assert_eq!(days["points"].as_array().unwrap().len(), 7);
    assert_eq!(days["points"][5], json!({ "time": "2026-11-21T00:00:00Z", "count": 150 }));
    assert_eq!(days["points"][6], json!({ "time": "2026-11-22T00:00:00Z", "count": 100 }));
    for query in ["tool=notion", "tool=slack&intent=open", "tool=slack&code=rejected"] {
        let none = app.get(&format!("{ERRORS}/trends?{query}")).await.json();
        assert!(none["points"].as_array().unwrap().iter().all(|point| point["count"] == 0), "{query}");
    }
    let part =
        app.get(&format!("{ERRORS}/stats?tool=slack&from=2026-11-21T23:10:00Z&to=2026-11-21T23:20:00Z")).await.json();
    assert_eq!((&part["from"], &part["to"]), (&json!("2026-11-21T23:00:00Z"), &json!("2026-11-22T00:00:00Z")));
    assert_eq!((&part["total"], &part["byTool"][0]["count"]), (&json!(300), &json!(300)));
}

#[tokio::test]
async fn failure_list_can_be_filtered() {
    let app = unconnected().await;
    for intent in
        [sending("ann", "a"), sending("ann", "b"), sending("bob", "a"), fetching("ann", "a"), fetching("bob", "b")]
    {
        app.post("/api/plugin-engine", &intent).await.failure();
        app.clock.advance(1);
    }
    app.connect("slack", "xoxb-playground").await;
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    app.post("/api/plugin-engine", &sending("admin", "a")).await.failure();
    for (query, count) in [
        ("", 6),
        ("?userId=ann", 3),
        ("?agentId=a", 4),
        ("?tool=slack", 4),
        ("?intent=fetch_messages", 2),
        ("?code=rate_limited", 1),
        ("?code=vetoed", 0),
        ("?userId=ann&agentId=a&tool=slack&intent=send_message&code=not_connected&resolved=false", 1),
        ("?resolved=true", 0),
        ("?userId=nobody", 0),
    ] {
        assert_eq!(listed(&app, query).await.len(), count, "{query}");
    }
    let all = listed(&app, "").await;
    resolve(&app, &app.admin, ids(&all)[2], json!({})).await.json();
    assert_eq!(ids(&listed(&app, "?resolved=true").await), [ids(&all)[2]]);
    assert_eq!(listed(&app, "?resolved=false").await.len(), 5);
    for query in
        ["?code=tired", "?limit=0", "?limit=101", "?resolved=perhaps", "?status=failed", "?tool=No", "?cursor=x"]
    {
        assert_eq!(app.get(&format!("{ERRORS}{query}")).await.problem(400), "invalid_parameters", "{query}");
    }
}

#[tokio::test]
async fn failure_resolves_once() {
    let app = unconnected().await;
    app.post("/api/plugin-engine", &sending("ann", "a")).await.failure();
    let id = ids(&listed(&app, "").await)[0].to_owned();
    let long = json!({ "note": "é".repeat(1_001) });
    assert_eq!(resolve(&app, &app.admin, &id, long).await.pointers(), ["/note"]);
    assert_eq!(resolve(&app, &app.admin, &id, json!({ "why": "x" })).await.pointers(), ["/why"]);
    let note = "é".repeat(1_000);
    let first = resolve(&app, &app.admin, &id, json!({ "note": note })).await.json();
    let expected = json!({ "at": "2026-11-21T09:00:00Z", "by": { "user": "admin" }, "note": note });
    assert_eq!((&first["resolved"], &first["context"]["text"]), (&expected, &json!("hello")), "{first}");
    app.clock.advance(60);
    let bot = app.key("acme", &[Role::Service], None).await;
    assert_eq!(resolve(&app, &bot, &id, json!({ "note": "me, too" })).await.json(), first);
    assert_eq!(app.get(&format!("{ERRORS}/{id}")).await.json(), first);

    // A service key without a user is named itself. Of concurrent requests, one resolves the failure.
    app.post("/api/plugin-engine", &sending("ann", "a")).await.failure();
    let id = ids(&listed(&app, "").await)[0].to_owned();
    let all = join_all((0..20).map(|number| resolve(&app, &bot, &id, json!({ "note": number.to_string() })))).await;
    let resolved: BTreeSet<String> = all.iter().map(|answer| answer.json()["resolved"].to_string()).collect();
    assert_eq!(resolved.len(), 1, "{resolved:?}");
    assert!(all[0].json()["resolved"]["by"]["key"].is_string());
}

#[tokio::test]
async fn failures_resolve_in_bulk() {
    let app = unconnected().await;
    for number in 0..30 {
        let intent = if number % 3 == 0 { fetching("ann", "a") } else { sending("bob", "a") };
        app.post("/api/plugin-engine", &intent).await.failure();
    }
    let all = listed(&app, "?limit=100").await;
    let some = ids(&all)[..25].to_vec();
    let unknown = "0123456789ab0123456789abcdef";
    let named = |extra: &str| json!({ "ids": some.iter().copied().chain([some[0], extra]).collect::<Vec<_>>() });
    let mut dry = named(unknown);
    dry["dryRun"] = json!(true);
    let told = bulk(&app, &app.admin, dry).await.json();
    assert_eq!((told["resolved"].as_array().unwrap().len(), &told["notFound"]), (25, &json!([unknown])), "{told}");
    assert_eq!(listed(&app, "?resolved=true").await.len(), 0);
    let mut done = bulk(&app, &app.admin, named(unknown)).await.json();
    assert_eq!(done["dryRun"], json!(false));
    done["dryRun"] = json!(true);
    assert_eq!(done, told);
    assert_eq!(listed(&app, "?resolved=false&limit=100").await.len(), 5);

    let filter =
        |tool: &str, dry_run: bool| json!({ "filter": { "tool": tool }, "dryRun": dry_run, "note": "all of them" });
    let told = bulk(&app, &app.admin, filter("gmail", true)).await.json();
    let done = bulk(&app, &app.admin, filter("gmail", false)).await.json();
    assert_eq!(done["resolved"], told["resolved"]);
    let rest = bulk(&app, &app.admin, json!({ "filter": {} })).await.json();
    assert_eq!(rest["resolved"].as_array().unwrap().len() + done["resolved"].as_array().unwrap().len(), 5);
    assert_eq!((rest.get("nextCursor"), listed(&app, "?resolved=false").await.len()), (None, 0));
    let noted =
        listed(&app, "?limit=100").await.iter().filter(|error| error["resolved"]["note"] == "all of them").count();
    assert_eq!(noted, done["resolved"].as_array().unwrap().len());

    let many = vec![unknown; 101];
    for (body, pointers) in [
        (json!({}), vec![""]),
        (json!({ "ids": [] }), vec!["/ids"]),
        (json!({ "ids": many }), vec!["/ids"]),
        (json!({ "ids": ["not-an-id"] }), vec!["/ids/0"]),
        (json!({ "ids": [unknown], "filter": {} }), vec!["/filter"]),
        (json!({ "ids": [unknown], "cursor": "x", "note": "x".repeat(1_001) }), vec!["/cursor", "/note"]),
        (json!({ "filter": { "resolved": true } }), vec!["/filter/resolved"]),
        (json!({ "filter": { "code": "tired" } }), vec!["/filter/code"]),
        (json!({ "filter": {}, "cursor": "x" }), vec!["/cursor"]),
    ] {
        let answer = bulk(&app, &app.admin, body.clone()).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{body}");
        assert_eq!(answer.pointers(), pointers, "{body}");
    }
}

#[tokio::test]
async fn bulk_resolve_continues_at_its_cursor() {
    let app = unconnected().await;
    let principal = app.engine.authenticate(&app.admin.as_str().into()).await.unwrap();
    let all = (0..1_150).map(|_| {
        let intent = serde_json::from_value(sending("ann", "a")).unwrap();
        app.engine.execute(principal.clone(), intent, RequestOptions::default())
    });
    join_all(all).await;
    let first = bulk(&app, &app.admin, json!({ "filter": {} })).await.json();
    assert_eq!(first["resolved"].as_array().unwrap().len(), 1_000);
    let rest = bulk(&app, &app.admin, json!({ "filter": {}, "cursor": first["nextCursor"] })).await.json();
    assert_eq!((rest["resolved"].as_array().unwrap().len(), rest.get("nextCursor")), (150, None));
    assert_eq!(listed(&app, "?resolved=false&limit=100").await.len(), 0);
}

#[tokio::test]
async fn failure_of_another_user_is_hidden() {
    let app = unconnected().await;
    let ann = app.key("acme", &[Role::User], Some("ann")).await;
    let bob = app.key("acme", &[Role::User], Some("bob")).await;
    let stranger = app.key("other", &[Role::Administrator], Some("ann")).await;
    app.post("/api/plugin-engine", &sending("ann", "a")).await.failure();
    app.post("/api/plugin-engine", &sending("bob", "a")).await.failure();
    let own = listed_as(&app, &ann, "").await;
    assert_eq!((own.len(), &own[0]["userId"]), (1, &json!("ann")));
    let id = ids(&own)[0];
    for (who, key) in [("another user", &bob), ("another organization", &stranger)] {
        let list = listed_as(&app, key, "").await;
        assert!(!ids(&list).contains(&id), "{who}");
        let one = app.send(key, Method::GET, &format!("{ERRORS}/{id}"), None).await;
        assert_eq!(one.problem(404), "not_found", "{who}");
        assert_eq!(resolve(&app, key, id, json!({})).await.problem(404), "not_found", "{who}");
        let many = bulk(&app, key, json!({ "ids": [id] })).await.json();
        assert_eq!((&many["resolved"], &many["notFound"]), (&json!([]), &json!([id])), "{who}");
        let all = bulk(&app, key, json!({ "filter": {} })).await.json();
        assert!(!all["resolved"].as_array().unwrap().contains(&json!(id)), "{who}");
    }
    assert_eq!(app.get(&format!("{ERRORS}/{id}")).await.json().get("resolved"), None);
    for path in ["?userId=ann", "/stats", "/trends", "/fallbacks"] {
        let answer = app.send(&bob, Method::GET, &format!("{ERRORS}{path}"), None).await;
        assert_eq!(answer.problem(403), "forbidden", "{path}");
    }
    let body = json!({ "filter": { "userId": "ann" } });
    assert_eq!(bulk(&app, &bob, body).await.problem(403), "forbidden");
    let stats = app.send(&stranger, Method::GET, &format!("{ERRORS}/stats"), None).await.json();
    assert_eq!((&stats["total"], &stats["byTool"]), (&json!(0), &json!([])));
    // One's own, and as a service everybody's.
    assert_eq!(resolve(&app, &ann, id, json!({})).await.json()["resolved"]["by"], json!({ "user": "ann" }));
    let bot = app.key("acme", &[Role::Service], None).await;
    assert_eq!(listed_as(&app, &bot, "").await.len(), 2);
    assert_eq!(app.send(&bot, Method::GET, &format!("{ERRORS}/stats"), None).await.json()["total"], 2);
    // Part of an id is not found.
    for part in ["0", id.get(..id.len() - 1).unwrap(), "not-an-id", "%20"] {
        let answer = app.send(&bot, Method::GET, &format!("{ERRORS}/{part}"), None).await;
        assert_eq!(answer.problem(404), "not_found", "{part}");
    }
    let unknown = app.request(Method::GET, ERRORS).send().await.unwrap();
    assert_eq!(Answer::of(unknown).await.problem(401), "unauthenticated");
}

#[tokio::test]
async fn failures_are_kept_for_thirty_days() {
    let app = unconnected().await;
    app.post("/api/plugin-engine", &sending("ann", "a")).await.failure();
    let id = ids(&listed(&app, "").await)[0].to_owned();
    app.clock.advance(30 * 86_400 - 1);
    // Resolving it does not keep it longer.
    resolve(&app, &app.admin, &id, json!({})).await.json();
    assert_eq!(listed(&app, "").await.len(), 1);
    app.clock.advance(1);
    assert_eq!(app.get(&format!("{ERRORS}/{id}")).await.problem(404), "not_found");
    assert_eq!(listed(&app, "").await.len(), 0);
    assert_eq!(resolve(&app, &app.admin, &id, json!({})).await.problem(404), "not_found");
    // 31 days back are counted whole, by the hour and by the day.
    app.clock.advance(86_400 - 1);
    let total = app.get(&format!("{ERRORS}/stats?from=2026-11-21T09:00:00Z")).await.json();
    assert_eq!((&total["total"], &total["to"]), (&json!(1), &json!("2026-12-22T09:00:00Z")), "{total}");
    app.clock.advance(3600);
    let from = "from=2026-11-21T09:59:59Z";
    assert_eq!(app.get(&format!("{ERRORS}/stats?{from}")).await.json()["total"], 1);
    let days = app.get(&format!("{ERRORS}/trends?by=day&{from}")).await.json();
    assert_eq!((days["points"].as_array().unwrap().len(), &days["points"][0]["count"]), (32, &json!(1)), "{days}");
    app.clock.advance(86_400);
    let (from, to) = ("from=2026-11-21T09:00:00Z", "to=2026-11-21T10:00:00Z");
    assert_eq!(app.get(&format!("{ERRORS}/stats?{from}&{to}")).await.json()["total"], 0);
}

#[tokio::test]
async fn invalid_times_are_refused() {
    let app = unconnected().await;
    for (query, pointers) in [
        ("stats?from=2026-11-21T09:00:00Z&to=2026-11-21T09:00:00Z", vec!["/from"]),
        ("stats?from=2026-11-23T09:00:00Z", vec!["/from"]),
        ("stats?from=2026-10-21T08:59:59Z", vec!["/from"]),
        ("trends?from=2026-11-14T08:59:59Z", vec!["/from"]),
        ("trends?by=day&from=2026-10-21T08:59:59Z", vec!["/from"]),
        ("stats?from=-009998-01-02T00:00:00Z&to=-009998-01-03T00:00:00Z", vec!["/from"]),
        ("stats?to=9999-12-30T22:00:00.9Z", vec!["/to"]),
        ("stats?from=yesterday", vec![""]),
        ("stats?from=2026-11-21T09:00:00", vec![""]),
        ("stats?intent=send_message", vec![""]),
        ("trends?by=week", vec![""]),
    ] {
        let answer = app.get(&format!("{ERRORS}/{query}")).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{query}");
        assert_eq!(answer.pointers(), pointers, "{query}: {}", answer.text);
    }
    for query in [
        "stats?from=2026-10-21T09:00:00Z",
        "trends?from=2026-11-14T09:00:00Z",
        "trends?by=day&from=2026-10-21T09:00:00Z",
    ] {
        assert_eq!(app.get(&format!("{ERRORS}/{query}")).await.status, StatusCode::OK, "{query}");
    }
}

#[tokio::test]
async fn most_specific_fallback_is_used() {
    let app = unconnected().await;
    let path = format!("{ERRORS}/fallbacks");
    let set = async |body: Value| app.send(&app.admin, Method::PUT, &path, Some(&body)).await;
    let own = fallback_of(&app, &sending("ann", "a")).await;
    assert!(own.contains("not connected") && own.contains("integrations/slack/connect"), "{own}");
    let all = [
        json!({ "message": "of the organization" }),
        json!({ "tool": "slack", "message": "of the plugin" }),
        json!({ "agentId": "a", "message": "of the agent" }),
        json!({ "tool": "slack", "agentId": "a", "message": "of both" }),
    ];
    for fallback in &all {
        let mut answer = set(fallback.clone()).await.json();
        assert_eq!(answer["updatedAt"].take(), json!("2026-11-21T09:00:00Z"));
        answer.as_object_mut().unwrap().remove("updatedAt");
        assert_eq!(answer, *fallback);
        // Each that is set is more particular than what was there before.
        assert_eq!(fallback_of(&app, &sending("ann", "a")).await, fallback["message"]);
    }
    assert_eq!(fallback_of(&app, &sending("ann", "b")).await, "of the plugin");
    assert_eq!(fallback_of(&app, &fetching("ann", "a")).await, "of the agent");
    assert_eq!(fallback_of(&app, &fetching("ann", "b")).await, "of the organization");
    let mut nobody = fetching("ann", "");
    nobody.as_object_mut().unwrap().remove("agentId");
    assert_eq!(fallback_of(&app, &nobody).await, "of the organization");
    set(json!({ "tool": "slack", "agentId": "a", "message": "of both, again" })).await.json();
    assert_eq!(fallback_of(&app, &sending("ann", "a")).await, "of both, again");

    let listed = app.get(&format!("{path}?limit=3")).await.json();
    let rest = app.get(&format!("{path}?cursor={}", listed["nextCursor"].as_str().unwrap())).await.json();
    assert_eq!((listed["fallbacks"].as_array().unwrap().len(), rest["fallbacks"].as_array().unwrap().len()), (3, 1));
    let other = app.key("other", &[Role::Administrator], Some("ann")).await;
    let theirs = intend_as(&app, &other, &sending("ann", "a")).await;
    assert_eq!(theirs.json()["error"]["fallback"], json!(own), "another organization's words are its own");
    assert_eq!(app.send(&other, Method::GET, &path, None).await.json()["fallbacks"], json!([]));

    // One less after the other, down to the default.
    for (query, then) in [
        ("?tool=slack&agentId=a", "of the agent"),
        ("?agentId=a", "of the plugin"),
        ("?tool=slack", "of the organization"),
        ("", own.as_str()),
    ] {
        app.delete(&format!("{path}{query}")).await.json();
        assert_eq!(fallback_of(&app, &sending("ann", "a")).await, then, "{query}");
        assert_eq!(app.delete(&format!("{path}{query}")).await.problem(404), "not_found");
    }
}

#[tokio::test]
async fn fallback_requires_an_administrator() {
    let app = unconnected().await;
    let path = format!("{ERRORS}/fallbacks");
    let good = json!({ "message": "é".repeat(1_000) });
    for role in [Role::Service, Role::User] {
        let key = app.key("acme", &[role], Some("ann")).await;
        assert_eq!(app.send(&key, Method::PUT, &path, Some(&good)).await.problem(403), "forbidden");
        assert_eq!(app.send(&key, Method::DELETE, &path, None).await.problem(403), "forbidden");
    }
    let set = async |body: Value| app.send(&app.admin, Method::PUT, &path, Some(&body)).await;
    for (body, pointers) in [
        (json!({}), vec!["/message"]),
        (json!({ "message": "" }), vec!["/message"]),
        (json!({ "message": " \n" }), vec!["/message"]),
        (json!({ "message": "é".repeat(1_001) }), vec!["/message"]),
        (json!({ "message": "x", "plugin": "slack" }), vec!["/plugin"]),
        (json!({ "message": "x", "agentId": "" }), vec!["/agentId"]),
    ] {
        assert_eq!(set(body.clone()).await.pointers(), pointers, "{body}");
    }
    assert_eq!(set(json!({ "tool": "slak", "message": "x" })).await.problem(404), "unknown_plugin");
    assert_eq!(app.get(&path).await.json()["fallbacks"], json!([]));
    set(good).await.json();
}

#[tokio::test]
async fn default_fallback_names_the_next_step() {
    let app = App::start().await;
    let send = sending("admin", "a");
    for (mode, expected) in [
        (Mode::RateLimited, "after 30 s"),
        (Mode::ExpiredToken, "integrations/slack/connect"),
        (Mode::Error, "Look there first"),
    ] {
        app.misbehave(Service::Slack, mode, 1);
        let said = fallback_of(&app, &send).await;
        assert!(said.starts_with("Tell the person") && said.contains(expected), "{said}");
    }
    app.misbehave(Service::Gmail, Mode::Error, 3);
    let said = fallback_of(&app, &fetching("admin", "a")).await;
    assert!(said.contains("once more after 30 s"), "{said}");
    let refused = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0NOWHERE1", "text": "hello" } });
    let said = fallback_of(&app, &refused).await;
    assert!(said.contains("refused") && said.contains("Do not send the same intent again"), "{said}");
}
