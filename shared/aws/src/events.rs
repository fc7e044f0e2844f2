//! Events on EventBridge, where rules route them.
//!
//! An event there has the `source` `overseer` and its kind as `detail-type`. Its `detail` is the event's own, plus `org` and
//! the exact `time`:
//!
//! ```json
//! { "org": "acme", "time": "2026-11-21T09:00:00.25Z", "taskId": "…", "userId": "ann", "status": "failed" }
//! ```
//!
//! Requests: one for each ten events, and more where events are large or EventBridge throttled some.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use overseer_engine::ports::Ids;
use overseer_engine::ports::events::{Event, EventBus, EventBusError};
use serde_json::{Map, Value};

use crate::backoff::Backoff;
use crate::failure::Failure;
use crate::{Lazy, json};

/// The source of all events, which rules match.
pub const SOURCE: &str = "overseer";
/// The most entries of a request
/// (<https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html>).
const ENTRIES_MAX: usize = 10;
/// The most bytes of the entries of a request, and so of one entry. EventBridge's limit was 256 KB and is 1 MB by now; the
/// SQS message that a rule makes of an event may still be limited to 256 KiB, and has more around it.
const BYTES_MAX: usize = 255 * 1024;
/// The bytes that a time counts as
/// (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html#eb-putevent-size>).
const TIME_BYTES: usize = 14;

/// An event bus of EventBridge.
pub struct AwsEvents {
    client: Lazy<Client>,
    bus: String,
    ids: Arc<dyn Ids>,
}

/// Some events were not published.
#[derive(Debug, thiserror::Error)]
#[error("{} of {all} events were not published: {}", .refused.values().sum::<usize>(), list(.refused))]
struct NotPublished {
    all: usize,
    /// The number of events for each reason.
    refused: BTreeMap<String, usize>,
    #[source]
    source: Option<Failure>,
}

fn list(refused: &BTreeMap<String, usize>) -> String {
    refused.iter().map(|(code, count)| format!("{code} ({count})")).collect::<Vec<_>>().join(", ")
}

struct Entry {
    entry: PutEventsRequestEntry,
    /// The bytes that it counts as.
    bytes: usize,
}

impl AwsEvents {
    /// The bus of that name or ARN. `client` makes its client when the first event is published.
    pub fn new(client: impl FnOnce() -> Client + Send + 'static, bus: impl Into<String>, ids: Arc<dyn Ids>) -> Self {
        Self { client: Lazy::new(Box::new(client)), bus: bus.into(), ids }
    }

    fn entry(&self, event: Event) -> Result<Entry, serde_json::Error> {
        let Event { org, kind, time, detail } = event;
        let mut fields =
            if let Value::Object(fields) = detail { fields } else { Map::from_iter([("detail".to_owned(), detail)]) };
        fields.insert("org".to_owned(), org.as_str().into());
        fields.insert("time".to_owned(), time.to_string().into());
        let detail = json::text(&fields)?;
        let bytes = TIME_BYTES + SOURCE.len() + kind.len() + detail.len();
        let entry = PutEventsRequestEntry::builder()
            .event_bus_name(&self.bus)
            .source(SOURCE)
            .detail_type(kind)
            .detail(detail)
            .time(DateTime::from_millis(time.as_millisecond()))
            .build();
        Ok(Entry { entry, bytes })
    }

    /// Publishes one batch. Entries with a transient error are retried. Adds entries that failed for good, or on every
    /// attempt, to `refused`.
    async fn put(
        &self,
        mut batch: Vec<PutEventsRequestEntry>,
        refused: &mut BTreeMap<String, usize>,
    ) -> Result<(), Failure> {
        let mut backoff = Backoff::default();
        let mut transient = Vec::new();
        while !batch.is_empty() {
            if !backoff.wait(&*self.ids).await {
                for code in transient {
                    count(refused, code, 1);
                }
                return Ok(());
            }
            transient.clear();
            let response = self.client.put_events().set_entries(Some(batch.clone())).send().await;
            let response = match response {
                Ok(response) => response,
                Err(error) => {
                    // A validation message may quote an entry.
                    let failure = Failure::new("PutEvents", error, |code| code != "ValidationException");
                    count(refused, "the request failed".to_owned(), batch.len());
                    return Err(failure);
                }
            };
            let mut results = response.entries.unwrap_or_default().into_iter();
            batch.retain(|_| {
                let Some(result) = results.next() else {
                    count(refused, "no answer".to_owned(), 1);
                    return false;
                };
                match result.error_code {
                    None => false,
                    Some(code) if is_transient(&code) => {
                        transient.push(code);
                        true
                    }
                    Some(code) => {
                        count(refused, code, 1);
                        false
                    }
                }
            });
        }
        Ok(())
    }
}

#[async_trait]
impl EventBus for AwsEvents {
    async fn publish(&self, events: Vec<Event>) -> Result<(), EventBusError> {
        let all = events.len();
        let mut refused = BTreeMap::new();
        let mut entries = Vec::new();
        for event in events {
            let entry = self.entry(event).map_err(|error| EventBusError(error.into()))?;
            // An event that is too large is refused, not cut: a reader would take the rest for all of it.
            if entry.bytes > BYTES_MAX {
                count(&mut refused, format!("more than {BYTES_MAX} bytes"), 1);
            } else {
                entries.push(entry);
            }
        }
        let mut source = None;
        for batch in batches(entries) {
            if source.is_some() {
                count(&mut refused, "not tried any more".to_owned(), batch.len());
            } else {
                source = self.put(batch, &mut refused).await.err();
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(EventBusError(NotPublished { all, refused, source }.into())) }
    }
}

fn count(refused: &mut BTreeMap<String, usize>, code: String, more: usize) {
    *refused.entry(code).or_default() += more;
}

/// Whether a retry of an entry with this error may succeed.
fn is_transient(code: &str) -> bool {
    matches!(code, "InternalFailure" | "InternalException" | "ThrottlingException")
}

/// Batches in the same order, each as full as the limits allow.
fn batches(entries: Vec<Entry>) -> Vec<Vec<PutEventsRequestEntry>> {
    let mut batches: Vec<Vec<PutEventsRequestEntry>> = Vec::new();
    let mut remaining = 0;
    for Entry { entry, bytes } in entries {
        if let Some(batch) = batches.last_mut().filter(|batch| batch.len() < ENTRIES_MAX && bytes <= remaining) {
            batch.push(entry);
            remaining -= bytes;
        } else {
            batches.push(vec![entry]);
            remaining = BYTES_MAX.saturating_sub(bytes);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_full_up_to_their_limits() {
        let sized = |sizes: &[usize]| {
            let entries = sizes.iter().enumerate().map(|(number, bytes)| Entry {
                entry: PutEventsRequestEntry::builder().detail(number.to_string()).build(),
                bytes: *bytes,
            });
            let mut next = 0;
            let batches = batches(entries.collect());
            for entry in batches.iter().flatten() {
                assert_eq!(entry.detail(), Some(next.to_string().as_str()));
                next += 1;
            }
            assert_eq!(next, sizes.len());
            batches.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert!(sized(&[]).is_empty());
        assert_eq!(sized(&[1; 10]), [10]);
        assert_eq!(sized(&[1; 21]), [10, 10, 1]);
        assert_eq!(sized(&[BYTES_MAX, 1, 1]), [1, 2]);
        assert_eq!(sized(&[BYTES_MAX - 2, 1, 1, 1]), [3, 1]);
        assert_eq!(sized(&[1, BYTES_MAX - 1, 1]), [2, 1]);
        assert_eq!(sized(&[1, BYTES_MAX, 1]), [1, 1, 1]);
    }
}
