//! The Lambda of due work: `POST /api/plugin-engine/cron`, and events of EventBridge and SQS.
//!
//! The sweep only enqueues. An event that names work runs it: a message of the work queue, to which alarms and the sweep send
//! it.

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

/// Messages of one batch that are in flight at once.
const AT_ONCE: usize = 16;
/// What the function accepts, for error messages.
const EXPECTED: &str = "expected an event of an HTTP API, of SQS with work as JSON in each body, a Scheduled Event of \
                        EventBridge, {\"sweep\": true}, or {\"work\": {\"org\", \"kind\", \"id\", \"revision\"}}";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let lambda = Lambda::start().await?;
    lambda_runtime::run(service_fn(|event| answer(&lambda, event))).await
}

/// An event of the function.
#[derive(Debug)]
enum Event {
    Http(Box<LambdaRequest>),
    Sweep,
    Work(Work),
    Queue(Vec<Message>),
}

/// An SQS message.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    message_id: String,
    body: String,
}

impl Event {
    fn parse(event: &Value) -> Result<Self, String> {
        let parsed = if event.get("requestContext").is_some() {
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
        parsed.map_err(|error| format!("{EXPECTED}: {error}"))
    }
}

/// Whether this is `{"sweep": true}`, or the event of an EventBridge rule or of a schedule without a custom input.
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
    let result = match Event::parse(&payload)? {
        Event::Http(request) => return lambda.answer(cron::routes(), *request, context).await,
        Event::Sweep => {
            let report = engine.sweep().await.map_err(|error| message_of(&error));
            more.extend(report.as_ref().map(|report| ("OldestDue", "Seconds", oldest_due_s(engine, report))));
            report
        }
        Event::Work(work) => dispatch(engine, work, deadline).await,
        Event::Queue(messages) => {
            let BatchReport { total, failures } = dispatch_batch(engine, messages, deadline).await;
            tracing::info!(failures = failures.len(), "batch done; SQS redelivers the failures");
            answer = Some(json!({ "batchItemFailures": failures }));
            Ok(total)
        }
    };
    tracing::info!(?result, "event handled");
    lambda.metrics.record(if result.is_ok() { "ok" } else { "failed" }, started.elapsed(), &more);
    let report = serde_json::to_value(result?)?;
    Ok(answer.unwrap_or(report))
}

/// How long the oldest item of due work has been due, in seconds.
fn oldest_due_s(engine: &Engine, report: &WorkReport) -> f64 {
    let now = engine.ports.clock.now();
    report.oldest_due.map_or(0.0, |due| now.duration_since(due).as_secs_f64().max(0.0))
}

/// Does one item of work.
async fn dispatch(engine: &Arc<Engine>, work: Work, deadline: Option<Instant>) -> Result<WorkReport, String> {
    let Work { org, id, .. } = work.clone();
    let report = engine.dispatch(work, deadline).await.map_err(|error| message_of(&error))?;
    if report.left > 0 {
        tracing::warn!(%org, id, "work left; it may take longer than this invocation");
    }
    Ok(report)
}

/// The result of a batch of messages.
struct BatchReport {
    total: WorkReport,
    /// The messages that SQS redelivers, in the form of its partial batch response.
    failures: Vec<Value>,
}

/// Does the work of a batch. A message fails if it cannot be parsed, or if its work was left or its result not stored. A
/// task that failed is no failure of its message: the task's record says whether and when it is retried.
async fn dispatch_batch(engine: &Arc<Engine>, messages: Vec<Message>, deadline: Option<Instant>) -> BatchReport {
    let dispatches = messages.into_iter().map(|Message { message_id, body }| async move {
        let result = match serde_json::from_str(&body) {
            Ok(work) => dispatch(engine, work, deadline).await,
            Err(error) => Err(format!("its body is not work as JSON: {error}")),
        };
        (message_id, result)
    });
    let mut batch = BatchReport { total: WorkReport::default(), failures: Vec::new() };
    let mut results = stream::iter(dispatches).buffered(AT_ONCE);
    while let Some((message_id, result)) = results.next().await {
        match result {
            Ok(report) => {
                batch.total += report;
                if report.left == 0 {
                    continue;
                }
            }
            Err(reason) => tracing::error!(message_id, reason, "message failed; SQS redelivers it"),
        }
        batch.failures.push(json!({ "itemIdentifier": message_id }));
    }
    batch
}

/// The public message of an error. The log has its causes.
fn message_of(error: &overseer_engine::core::error::Error) -> String {
    tracing::error!(error = %causes(error), "due work failed inside Overseer");
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_kind_follows_from_its_form() {
        let scheduled = |source: &str| json!({ "source": source, "detail-type": "Scheduled Event", "detail": {} });
        for sweep in [json!({ "sweep": true }), scheduled("aws.events"), scheduled("aws.scheduler")] {
            assert!(matches!(Event::parse(&sweep), Ok(Event::Sweep)), "{sweep}");
        }
        let work = json!({ "org": "acme", "kind": "task", "id": "1 ann", "revision": 1 });
        assert!(matches!(Event::parse(&json!({ "work": work })), Ok(Event::Work(_))));
        let queue = json!({ "Records": [{ "messageId": "a", "body": "any" }] });
        assert!(matches!(Event::parse(&queue), Ok(Event::Queue(messages)) if messages.len() == 1));
    }

    #[test]
    fn unknown_event_is_refused_with_the_accepted_forms() {
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
            let message = Event::parse(&event).unwrap_err();
            assert!(message.starts_with(EXPECTED) && message.contains(more), "{event}: {message}");
        }
    }
}
