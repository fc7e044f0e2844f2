//! The counts of failures: statistics and trends.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use overseer_engine::invoke::runs::RequestOptions;
use reqwest::StatusCode;
use serde_json::json;

use super::{ERRORS, fetching, ids, listed, sending, telling, unconnected};
use crate::support::app::App;

/// An Overseer with concurrent failures: six of ten in the second before midnight, and the others in the second after it.
async fn failing_around_midnight(failures: usize) -> App {
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
    app.clock.advance(14 * 3600 + 3599);
    for half in [0..failures / 10 * 6, failures / 10 * 6..failures] {
        for task in join_all(half.map(fail)).await {
            task.unwrap();
        }
        app.clock.advance(1);
    }
    app.engine.authenticate(&app.admin.as_str().into()).await.unwrap();
    app
}

#[tokio::test]
async fn thousand_concurrent_failures_are_all_recorded() {
    const FAILURES: usize = 1_000;
    let app = failing_around_midnight(FAILURES).await;
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
}

#[tokio::test]
async fn thousand_concurrent_failures_are_all_counted() {
    const FAILURES: usize = 1_000;
    let app = failing_around_midnight(FAILURES).await;
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
}

#[tokio::test]
async fn trend_counts_failures_by_hour() {
    let app = failing_around_midnight(1_000).await;
    let trends = app.get(&format!("{ERRORS}/trends")).await.json();
    let points = trends["points"].as_array().unwrap();
    assert_eq!((&trends["by"], points.len()), (&json!("hour"), 24));
    assert_eq!(points[22], json!({ "time": "2026-11-21T23:00:00Z", "count": 600 }));
    assert_eq!(points[23], json!({ "time": "2026-11-22T00:00:00Z", "count": 400 }));
    assert!(points[..22].iter().all(|point| point["count"] == 0));
}

#[tokio::test]
async fn trend_counts_failures_by_day() {
    let app = failing_around_midnight(100).await;
    let days = app.get(&format!("{ERRORS}/trends?by=day&tool=safe&intent=open&code=rejected")).await.json();
    assert_eq!(days["points"].as_array().unwrap().len(), 7);
    assert_eq!(days["points"][5], json!({ "time": "2026-11-21T00:00:00Z", "count": 15 }));
    assert_eq!(days["points"][6], json!({ "time": "2026-11-22T00:00:00Z", "count": 10 }));
}

#[tokio::test]
async fn trend_counts_only_matching_failures() {
    let app = failing_around_midnight(100).await;
    for query in ["tool=notion", "tool=slack&intent=open", "tool=slack&code=rejected"] {
        let none = app.get(&format!("{ERRORS}/trends?{query}")).await.json();
        assert!(none["points"].as_array().unwrap().iter().all(|point| point["count"] == 0), "{query}");
    }
}

#[tokio::test]
async fn statistics_cover_whole_hours() {
    let app = failing_around_midnight(100).await;
    let part =
        app.get(&format!("{ERRORS}/stats?tool=slack&from=2026-11-21T23:10:00Z&to=2026-11-21T23:20:00Z")).await.json();
    assert_eq!((&part["from"], &part["to"]), (&json!("2026-11-21T23:00:00Z"), &json!("2026-11-22T00:00:00Z")));
    assert_eq!((&part["total"], &part["byTool"][0]["count"]), (&json!(30), &json!(30)));
}

#[tokio::test]
async fn statistics_reach_back_31_days() {
    let app = unconnected().await;
    app.post("/api/plugin-engine", &sending("ann", "a")).await.failure();
    app.clock.advance(30 * 86_400);
    // The failure itself is gone; its count stays, by the hour and by the day.
    assert_eq!(listed(&app, "").await.len(), 0);
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
async fn invalid_statistics_queries_are_refused() {
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
