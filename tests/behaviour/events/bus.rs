//! Events on EventBridge, including those of failed tasks. Ministack plays EventBridge and forwards each event to the
//! queue of a rule; to refuse entries, the test runs its own server. Neither checks permissions or the size limits of
//! AWS.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use overseer_aws::AwsEvents;
use overseer_engine::core::error::causes;
use overseer_engine::core::ids::OrgId;
use overseer_engine::core::work_report::WorkReport;
use overseer_engine::invoke::runs::RequestOptions;
use overseer_engine::ports::{Event, EventBus};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::app::{App, Options};
use crate::support::aws::{BUS, Cloud, Wire, Zeros, client};

/// The most bytes of an entry that is sent, and what all but its detail counts for.
const BYTES_MAX: usize = 255 * 1024;
const BESIDE: usize = 14 + "overseer".len() + "task.failed".len();

fn event(detail: Value) -> Event {
    let org = OrgId::parse("acme").unwrap();
    Event { org, kind: "task.failed", time: "2026-11-21T09:00:00.25Z".parse().unwrap(), detail }
}

fn events(count: usize) -> Vec<Event> {
    (0..count).map(|number| event(json!({ "number": number }))).collect()
}

/// The numbers of the events of a request.
fn numbers(body: &Value) -> Vec<u64> {
    let number = |entry: &Value| {
        let detail: Value = serde_json::from_str(entry["Detail"].as_str().unwrap()).unwrap();
        detail["number"].as_u64().unwrap()
    };
    body["Entries"].as_array().unwrap().iter().map(number).collect()
}

#[tokio::test]
async fn events_are_published_in_batches_of_ten() {
    let cloud = Cloud::start().await;
    let queue = cloud.rule("all", &json!({ "source": ["overseer"] })).await;
    let bus = cloud.events();
    bus.publish(Vec::new()).await.unwrap();
    assert_eq!(cloud.made.load(Ordering::SeqCst), 0, "a client that was not needed");
    bus.publish(events(23)).await.unwrap();
    let seen = cloud.wire.take();
    assert!(seen.iter().all(|seen| seen.what == "AWSEvents.PutEvents"), "{seen:?}");
    let sent: Vec<_> = seen.iter().map(|seen| numbers(&seen.body)).collect();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 3]);
    assert_eq!(sent.concat(), (0..23).collect::<Vec<_>>());
    assert_eq!(
        seen[0].body["Entries"][0],
        json!({ "EventBusName": BUS, "Source": "overseer", "DetailType": "task.failed", "Time": 1_795_251_600.25,
                "Detail": r#"{"number":0,"org":"acme","time":"2026-11-21T09:00:00.25Z"}"# })
    );
    let mut arrived = Vec::new();
    for _ in 0..23 {
        let event: Value = serde_json::from_str(&cloud.receive(&queue).await.unwrap()).unwrap();
        assert_eq!((&event["source"], &event["detail-type"]), (&json!("overseer"), &json!("task.failed")));
        arrived.push(event["detail"]["number"].as_u64().unwrap());
    }
    arrived.sort_unstable();
    assert_eq!(arrived, (0..23).collect::<Vec<_>>());

    // The bus sets the organization: an event cannot claim another. A detail that is no object is wrapped.
    bus.publish(vec![event(json!({ "org": "other", "time": 1 })), event(json!("text"))]).await.unwrap();
    let sent = cloud.wire.take();
    assert_eq!(sent[0].body["Entries"][0]["Detail"], r#"{"org":"acme","time":"2026-11-21T09:00:00.25Z"}"#);
    let text = &sent[0].body["Entries"][1]["Detail"];
    assert_eq!(text, r#"{"detail":"text","org":"acme","time":"2026-11-21T09:00:00.25Z"}"#);
}

#[tokio::test]
async fn failed_task_reaches_the_dead_letter_queue() {
    let cloud = Cloud::start().await;
    let app = App::with(Options { unconnected: true, ..Options::default() }).await;
    let pattern = json!({ "source": ["overseer"], "detail-type": ["task.failed", "task.outcome_unknown"] });
    let dead = cloud.rule("dead", &pattern).await;
    let engine = cloud.engine(&app);
    let admin = engine.authenticate(&app.admin.as_str().into()).await.unwrap();
    // Something else that is published, to the same bus and not to this queue.
    let other = Event { kind: "task.paused", ..event(json!({})) };
    cloud.events().publish(vec![other]).await.unwrap();

    let intent = json!({ "tool": "slack", "intent": "send", "userId": "ann", "scheduledTime": "2026-11-21T09:00:00Z",
                         "agentId": "a1", "context": { "channel": "C0PLAYGEN1", "text": "hello" } });
    let intent = serde_json::from_value(intent).unwrap();
    let made = engine.schedule(&admin, intent, &RequestOptions::default()).await.unwrap().answer.task;
    let work = serde_json::from_str(&cloud.receive(&cloud.alarms.queue_url).await.unwrap()).unwrap();
    assert_eq!(
        engine.dispatch(work, None).await.unwrap(),
        WorkReport { due: 1, claimed: 1, failed: 1, ..WorkReport::default() }
    );

    let letter: Value = serde_json::from_str(&cloud.receive(&dead).await.unwrap()).unwrap();
    let detail = &letter["detail"];
    assert_eq!((&letter["source"], &letter["detail-type"]), (&json!("overseer"), &json!("task.failed")), "{letter}");
    for (field, value) in [
        ("org", "acme"),
        ("taskId", made.id.as_str()),
        ("userId", "ann"),
        ("agentId", "a1"),
        ("tool", "slack"),
        ("status", "failed"),
        ("time", "2026-11-21T09:00:00Z"),
    ] {
        assert_eq!(detail[field], value, "{letter}");
    }
    assert_eq!(detail["lastAttempt"]["code"], "not_connected", "{letter}");
    assert!(detail["lastAttempt"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{letter}");
    assert_eq!(cloud.waiting(&dead).await, ("0".to_owned(), "0".to_owned()));
    // What the letter says is enough to try it again.
    engine.retry_task(&admin, detail["taskId"].as_str().unwrap()).await.unwrap();
}

/// A stand-in of EventBridge that answers `PutEvents` with these statuses and bodies, the last one for ever.
async fn answering(answers: Vec<(u16, Value)>) -> (AwsEvents, Wire) {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let answer = move |body: Bytes| async move {
        let mut answers = answers.lock().unwrap();
        let (status, mut answer) = answers.front().unwrap().clone();
        if answers.len() > 1 {
            answers.pop_front();
        }
        // "" is an entry that was taken; where none is named, all were.
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let codes = answer["codes"].take();
        let entries: Vec<_> = (0..asked["Entries"].as_array().unwrap().len())
            .map(|index| match codes[index].as_str() {
                None | Some("") => json!({ "EventId": "1" }),
                Some(code) => json!({ "ErrorCode": code, "ErrorMessage": "why" }),
            })
            .collect();
        let failed = entries.iter().filter(|entry| entry["ErrorCode"].is_string()).count();
        if status == 200 {
            answer = json!({ "FailedEntryCount": failed, "Entries": entries });
        }
        (StatusCode::from_u16(status).unwrap(), [("content-type", "application/x-amz-json-1.1")], Json(answer))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().route("/", post(answer))).into_future());
    let wire = Wire::default();
    let seen = wire.clone();
    let client = move || client!(aws_sdk_eventbridge, endpoint, interceptor(seen));
    (AwsEvents::new(client, BUS, Arc::new(Zeros)), wire)
}

/// What the error says, where some were not published.
async fn said(bus: &AwsEvents, events: Vec<Event>) -> String {
    causes(&bus.publish(events).await.unwrap_err())
}

#[tokio::test]
async fn throttled_entries_alone_are_retried() {
    let (bus, wire) = answering(vec![
        (200, json!({ "codes": ["", "InternalFailure", "", "ThrottlingException"] })),
        (200, json!({ "codes": ["InternalException"] })),
        (200, json!({ "codes": [] })),
    ])
    .await;
    bus.publish(events(12)).await.unwrap();
    let sent: Vec<_> = wire.take().iter().map(|seen| numbers(&seen.body)).collect();
    assert_eq!(sent, [(0..10).collect(), vec![1, 3], vec![1], vec![10, 11]]);
}

#[tokio::test]
async fn refused_entries_are_reported_by_reason() {
    let codes = ["MalformedDetail", "", "NotAuthorizedForSourceException", "MalformedDetail"];
    let (bus, wire) = answering(vec![(200, json!({ "codes": codes })), (200, json!({ "codes": [] }))]).await;
    let said = said(&bus, events(11)).await;
    assert_eq!(
        said,
        "the event bus did not take the events: 3 of 11 events were not published: MalformedDetail (2), \
         NotAuthorizedForSourceException (1)"
    );
    let sent: Vec<_> = wire.take().iter().map(|seen| numbers(&seen.body).len()).collect();
    assert_eq!(sent, [10, 1], "the rest is published");
}

#[tokio::test]
async fn endlessly_throttled_entries_are_an_error() {
    let codes = json!({ "codes": ["InternalFailure", "ThrottlingException"] });
    let (bus, wire) = answering(vec![(200, codes)]).await;
    let said = said(&bus, events(2)).await;
    assert!(said.ends_with("2 of 2 events were not published: InternalFailure (1), ThrottlingException (1)"), "{said}");
    assert_eq!(wire.asked().len(), 8);
}

#[tokio::test]
async fn failed_publish_is_an_error() {
    let refusal = json!({ "__type": "AccessDeniedException", "message": "not you" });
    let (bus, wire) = answering(vec![(200, json!({})), (400, refusal)]).await;
    let said = said(&bus, events(25)).await;
    assert!(
        said.contains("15 of 25 events were not published: not tried any more (5), the request failed (10)"),
        "{said}"
    );
    assert!(said.contains("PutEvents: AccessDeniedException") && said.contains("not you"), "{said}");
    assert_eq!(wire.asked().len(), 2);
    // What is wrong with a value is said with the value.
    let refusal = json!({ "__type": "ValidationException", "message": "the value s3cret" });
    let (bus, _) = answering(vec![(400, refusal)]).await;
    let said = self::said(&bus, events(1)).await;
    assert!(said.contains("ValidationException") && !said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn oversized_event_is_not_published() {
    let (bus, wire) = answering(vec![(200, json!({}))]).await;
    let around = r#"{"number":1,"org":"acme","text":"","time":"2026-11-21T09:00:00.25Z"}"#.len();
    let sized = |bytes: usize| event(json!({ "number": 1, "text": "x".repeat(bytes - BESIDE - around) }));
    let said = said(&bus, vec![events(1).remove(0), sized(BYTES_MAX + 1), sized(BYTES_MAX), events(1).remove(0)]).await;
    assert!(said.ends_with("1 of 4 events were not published: more than 261120 bytes (1)"), "{said}");
    let sent: Vec<_> = wire.take().iter().map(|seen| numbers(&seen.body)).collect();
    assert_eq!(sent, [[0], [1], [0]], "no request is larger than one entry may be");
}
