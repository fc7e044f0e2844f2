//! Failures that callers resolve, one by one or in bulk.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use overseer_engine::access::principal::Role;
use overseer_engine::invoke::runs::RequestOptions;
use serde_json::{Value, json};

use super::{ERRORS, bulk, fetching, ids, listed, resolve, sending, unconnected};
use crate::support::app::App;

/// An Overseer with one failure of `ann`, and the failure's id.
async fn one_failure() -> (App, String) {
    let app = unconnected().await;
    app.post("/api/plugin-engine", &sending("ann", "a")).await.failure();
    let id = ids(&listed(&app, "").await)[0].to_owned();
    (app, id)
}

#[tokio::test]
async fn failure_resolves_once() {
    let (app, id) = one_failure().await;
    let first = resolve(&app, &app.admin, &id, json!({ "note": "done" })).await.json();
    let expected = json!({ "at": "2026-11-21T09:00:00Z", "by": { "user": "admin" }, "note": "done" });
    assert_eq!((&first["resolved"], &first["context"]["text"]), (&expected, &json!("hello")), "{first}");
    app.clock.advance(60);
    let bot = app.key("acme", &[Role::Service], None).await;
    assert_eq!(resolve(&app, &bot, &id, json!({ "note": "me, too" })).await.json(), first);
    assert_eq!(app.get(&format!("{ERRORS}/{id}")).await.json(), first);
}

#[tokio::test]
async fn concurrent_resolves_keep_one_resolution() {
    let (app, id) = one_failure().await;
    let bot = app.key("acme", &[Role::Service], None).await;
    let all = join_all((0..20).map(|number| resolve(&app, &bot, &id, json!({ "note": number.to_string() })))).await;
    let resolved: BTreeSet<String> = all.iter().map(|answer| answer.json()["resolved"].to_string()).collect();
    assert_eq!(resolved.len(), 1, "{resolved:?}");
}

#[tokio::test]
async fn resolution_names_a_key_without_a_user() {
    let (app, id) = one_failure().await;
    let bot = app.key("acme", &[Role::Service], None).await;
    let resolved = resolve(&app, &bot, &id, json!({})).await.json();
    assert!(resolved["resolved"]["by"]["key"].is_string(), "{resolved}");
}

#[tokio::test]
async fn user_resolves_their_own_failure() {
    let (app, id) = one_failure().await;
    let ann = app.key("acme", &[Role::User], Some("ann")).await;
    assert_eq!(resolve(&app, &ann, &id, json!({})).await.json()["resolved"]["by"], json!({ "user": "ann" }));
}

#[tokio::test]
async fn resolution_note_is_limited_to_1000_characters() {
    let (app, id) = one_failure().await;
    let long = json!({ "note": "é".repeat(1_001) });
    assert_eq!(resolve(&app, &app.admin, &id, long).await.pointers(), ["/note"]);
    let note = "é".repeat(1_000);
    let resolved = resolve(&app, &app.admin, &id, json!({ "note": note })).await.json();
    assert_eq!(resolved["resolved"]["note"], json!(note), "{resolved}");
}

#[tokio::test]
async fn resolve_refuses_unknown_fields() {
    let (app, id) = one_failure().await;
    assert_eq!(resolve(&app, &app.admin, &id, json!({ "why": "x" })).await.pointers(), ["/why"]);
}

const UNKNOWN: &str = "0123456789ab0123456789abcdef";

/// An Overseer with ten failures at `gmail` and twenty at `slack`.
async fn thirty_failures() -> App {
    let app = unconnected().await;
    for number in 0..30 {
        let intent = if number % 3 == 0 { fetching("ann", "a") } else { sending("bob", "a") };
        app.post("/api/plugin-engine", &intent).await.failure();
    }
    app
}

/// A request to resolve 25 of the failures, one of them named twice, and one that does not exist.
async fn named(app: &App, dry_run: bool) -> Value {
    let all = listed(app, "?limit=100").await;
    let some = ids(&all)[..25].to_vec();
    let named: Vec<_> = some.iter().copied().chain([some[0], UNKNOWN]).collect();
    json!({ "ids": named, "dryRun": dry_run })
}

fn filtered(tool: &str, dry_run: bool) -> Value {
    json!({ "filter": { "tool": tool }, "dryRun": dry_run, "note": "all of them" })
}

#[tokio::test]
async fn bulk_dry_run_resolves_nothing() {
    let app = thirty_failures().await;
    for body in [named(&app, true).await, filtered("gmail", true)] {
        let told = bulk(&app, &app.admin, body).await.json();
        assert!(!told["resolved"].as_array().unwrap().is_empty(), "{told}");
        assert_eq!(listed(&app, "?resolved=true").await.len(), 0);
    }
}

#[tokio::test]
async fn bulk_dry_run_foretells_the_resolved_failures() {
    let app = thirty_failures().await;
    let body = named(&app, true).await;
    let told = bulk(&app, &app.admin, body).await.json();
    let mut body = named(&app, false).await;
    body.as_object_mut().unwrap().remove("dryRun");
    let mut done = bulk(&app, &app.admin, body).await.json();
    assert_eq!(done["dryRun"], json!(false));
    done["dryRun"] = json!(true);
    assert_eq!(done, told);
    let told = bulk(&app, &app.admin, filtered("gmail", true)).await.json();
    let done = bulk(&app, &app.admin, filtered("gmail", false)).await.json();
    assert_eq!(done["resolved"], told["resolved"]);
}

#[tokio::test]
async fn bulk_resolves_named_failures() {
    let app = thirty_failures().await;
    let body = named(&app, false).await;
    let done = bulk(&app, &app.admin, body).await.json();
    assert_eq!((done["resolved"].as_array().unwrap().len(), &done["notFound"]), (25, &json!([UNKNOWN])), "{done}");
    assert_eq!(listed(&app, "?resolved=false&limit=100").await.len(), 5);
}

#[tokio::test]
async fn bulk_resolves_matching_failures() {
    let app = thirty_failures().await;
    let body = named(&app, false).await;
    bulk(&app, &app.admin, body).await.json();
    let done = bulk(&app, &app.admin, filtered("gmail", false)).await.json();
    let rest = bulk(&app, &app.admin, json!({ "filter": {} })).await.json();
    assert_eq!(rest["resolved"].as_array().unwrap().len() + done["resolved"].as_array().unwrap().len(), 5);
    assert_eq!((rest.get("nextCursor"), listed(&app, "?resolved=false").await.len()), (None, 0));
    let noted =
        listed(&app, "?limit=100").await.iter().filter(|error| error["resolved"]["note"] == "all of them").count();
    assert_eq!(noted, done["resolved"].as_array().unwrap().len());
}

#[tokio::test]
async fn invalid_bulk_resolve_is_refused() {
    let app = unconnected().await;
    let many = vec![UNKNOWN; 101];
    for (body, pointers) in [
        (json!({}), vec![""]),
        (json!({ "ids": [] }), vec!["/ids"]),
        (json!({ "ids": many }), vec!["/ids"]),
        (json!({ "ids": ["not-an-id"] }), vec!["/ids/0"]),
        (json!({ "ids": [UNKNOWN], "filter": {} }), vec!["/filter"]),
        (json!({ "ids": [UNKNOWN], "cursor": "x", "note": "x".repeat(1_001) }), vec!["/cursor", "/note"]),
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
