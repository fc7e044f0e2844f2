//! The Lambda of what is due: `POST /api/plugin-engine/cron`, and what EventBridge and SQS bring.
//!
//! The sweep enqueues and runs nothing; work is run by an event that names it: a message of the work queue, where alarms
//! and the sweep put it.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use lambda_http::request::LambdaRequest;
use lambda_http::{Error, LambdaEvent, lambda_runtime, service_fn};
use overseer_engine::core::error::causes;
use overseer_engine::core::work_report::WorkReport;
use overseer_engine::engine::Engine;
use overseer_engine::ports::Work;
use overseer_functions::{Lambda, deadline};
use overseer_http::cron;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Messages of one batch that may be under way at once.
const AT_ONCE: usize = 16;
/// What an event has to be.
const EXPECTED: &str = "expected an event of an HTTP API, of SQS with work as JSON in each body, a Scheduled Event of \
                        EventBridge, {\"sweep\": true}, or {\"work\": {\"org\", \"kind\", \"id\", \"revision\"}}";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let lambda = Lambda::start().await?;
    lambda_runtime::run(service_fn(|event| answer(&lambda, event))).await
}

/// What the function is called with.
#[derive(Debug)]
enum Event {
    Http(Box<LambdaRequest>),
    Sweep,
    Work(Work),
    Queue(Vec<Message>),
}

/// A message of SQS.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    message_id: String,
    body: String,
}

impl Event {
    fn read(event: &Value) -> Result<Self, String> {
        let read = if event.get("requestContext").is_some() {
            LambdaRequest::deserialize(event).map(|request| Self::Http(Box::new(request)))
        } else if let Some(records) = event.get("Records") {
            Vec::deserialize(records).map(Self::Queue)
        } else if let Some(work) = event.get("work") {
            Work::deserialize(work).map(Self::Work)
        } else if is_sweep(event) {
            Ok(Self::Sweep)
        } else {
            return Err(EXPECTED.to_owned());
        };
        read.map_err(|error| format!("{EXPECTED}: {error}"))
    }
}

/// Whether this is `{"sweep": true}`, or what a rule of EventBridge or a schedule without an input of its own sends.
fn is_sweep(event: &Value) -> bool {
    let text = |key: &str| event.get(key).and_then(Value::as_str);
    let scheduled = text("detail-type") == Some("Scheduled Event");
    event.get("sweep") == Some(&Value::Bool(true))
        || (scheduled && matches!(text("source"), Some("aws.events" | "aws.scheduler")))
}

async fn answer(lambda: &Arc<Lambda>, event: LambdaEvent<Value>) -> Result<Value, Error> {
    let started = Instant::now();
    let LambdaEvent { payload, context } = event;
    let (engine, deadline) = (&lambda.engine, deadline(&context));
    let mut more = Vec::new();
    let mut answer = None;
    let result = match Event::read(&payload)? {
        Event::Http(request) => return lambda.answer(cron::routes(), *request, context).await,
        Event::Sweep => {
            let swept = engine.sweep().await.map_err(|error| said(&error));
            more.extend(swept.as_ref().map(|swept| ("OldestDue", "Seconds", age_s(engine, swept))));
            swept
        }
        Event::Work(work) => wake(engine, work, deadline).await,
        Event::Queue(messages) => {
            let (total, again) = take(engine, messages, deadline).await;
            tracing::info!(again = again.len(), "messages that are to come again");
            answer = Some(json!({ "batchItemFailures": again }));
            Ok(total)
        }
    };
    tracing::info!(?result, "done");
    lambda.metrics.record(if result.is_ok() { "ok" } else { "failed" }, started.elapsed(), &more);
    let report = serde_json::to_value(result?)?;
    Ok(answer.unwrap_or(report))
}

/// For how long the oldest of what is due has been so, in seconds.
fn age_s(engine: &Engine, swept: &WorkReport) -> f64 {
    let now = engine.ports.clock.now();
    swept.oldest_due.map_or(0.0, |due| now.duration_since(due).as_secs_f64().max(0.0))
}

async fn wake(engine: &Arc<Engine>, work: Work, deadline: Option<Instant>) -> Result<WorkReport, String> {
    let Work { org, id, .. } = work.clone();
    let report = engine.dispatch(work, deadline).await.map_err(|error| said(&error))?;
    if report.left > 0 {
        tracing::warn!(%org, id, "left: it may take longer than this invocation has");
    }
    Ok(report)
}

/// Does the work of a batch, and names the messages that SQS is to bring again: those that could not be read, and those
/// whose work was left or not written down. A task that failed is none of them: its record says whether and when it is
/// tried again.
async fn take(engine: &Arc<Engine>, messages: Vec<Message>, deadline: Option<Instant>) -> (WorkReport, Vec<Value>) {
    let taking = messages.into_iter().map(|Message { message_id, body }| async move {
        let report = match serde_json::from_str(&body) {
            Ok(work) => wake(engine, work, deadline).await,
            Err(error) => Err(format!("its body is not work as JSON: {error}")),
        };
        (message_id, report)
    });
    let mut total = WorkReport::default();
    let mut again = Vec::new();
    let mut taken = stream::iter(taking).buffered(AT_ONCE);
    while let Some((message_id, report)) = taken.next().await {
        match report {
            Ok(report) => {
                total += report;
                if report.left == 0 {
                    continue;
                }
            }
            Err(reason) => tracing::error!(message_id, reason, "a message was not taken"),
        }
        again.push(json!({ "itemIdentifier": message_id }));
    }
    (total, again)
}

/// What may be said of an error; the log has its causes.
fn said(error: &overseer_engine::core::error::Error) -> String {
    tracing::error!(error = %causes(error), "what is due was not done");
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_known_by_its_form() {
        let scheduled = |source: &str| json!({ "source": source, "detail-type": "Scheduled Event", "detail": {} });
        for sweep in [json!({ "sweep": true }), scheduled("aws.events"), scheduled("aws.scheduler")] {
            assert!(matches!(Event::read(&sweep), Ok(Event::Sweep)), "{sweep}");
        }
        let work = json!({ "org": "acme", "kind": "task", "id": "1 ann", "revision": 1 });
        assert!(matches!(Event::read(&json!({ "work": work })), Ok(Event::Work(_))));
        let queue = json!({ "Records": [{ "messageId": "a", "body": "any" }] });
        assert!(matches!(Event::read(&queue), Ok(Event::Queue(messages)) if messages.len() == 1));
    }

    #[test]
    fn what_is_no_event_is_told_what_would_be_one() {
        for (event, more) in [
            (json!(null), ""),
            (json!([]), ""),
            (json!({}), ""),
            (json!({ "sweep": false }), ""),
            (json!({ "source": "aws.s3", "detail-type": "Scheduled Event" }), ""),
            (json!({ "source": "aws.events", "detail-type": "Object Created" }), ""),
            (json!({ "work": { "org": "acme", "kind": "task", "id": "1 ann" } }), "missing field `revision`"),
            (json!({ "work": { "org": "", "kind": "task", "id": "1 ann", "revision": 1 } }), "1 to 255"),
            (json!({ "Records": [{ "eventSource": "aws:s3", "s3": {} }] }), "missing field `messageId`"),
            (json!({ "requestContext": {} }), "match any of those services"),
        ] {
            let said = Event::read(&event).unwrap_err();
            assert!(said.starts_with(EXPECTED) && said.contains(more), "{event}: {said}");
        }
    }
}
