//! Attempts of tasks: a recorded attempt settles its task, also after its worker is lost or another process reports it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use overseer_engine::engine::Engine;
use overseer_engine::invoke::runs::RequestOptions;
use overseer_engine::ports::Work;
use overseer_engine::ports::table::TableError;
use serde_json::{Value, json};

use crate::support::hooked::{Hooks, Operation};
use crate::support::scripted::{Does, Scripted, act_as, says};
use crate::tasks::{alarm, task};

/// Takes a task, and writes nothing to it any more.
#[derive(Default)]
struct Dying {
    has_taken: AtomicBool,
}

#[async_trait]
impl Hooks for Dying {
    async fn before(&self, asked: &Operation<'_>) -> Result<(), TableError> {
        if asked.puts("task#") && self.has_taken.swap(true, Ordering::SeqCst) {
            return Err(TableError::store("this worker is gone"));
        }
        Ok(())
    }
}

/// A task that is due, and whose alarms the test sets off.
struct Due {
    setup: Scripted,
    engine: Arc<Engine>,
    id: String,
}

impl Due {
    async fn start(does: Vec<Does>, effect: &str, attempts: u32) -> Self {
        let setup = Scripted::start(does).await;
        let engine = setup.app.deaf();
        let mut intent = act_as(effect);
        intent["scheduledTime"] = json!("2026-11-21T09:00:00Z");
        intent["maxAttempts"] = json!(attempts);
        let intent = serde_json::from_value(intent).unwrap();
        let made = engine.schedule(&setup.principal().await, intent, &RequestOptions::default()).await.unwrap();
        Self { setup, engine, id: made.answer.task.id.to_string() }
    }

    /// Its worker dies after the ledger has the end of the attempt, and before the task has it.
    async fn left_by_its_worker(does: Vec<Does>, effect: &str, attempts: u32) -> Self {
        let due = Self::start(does, effect, attempts).await;
        due.setup.app.hooked(Arc::new(Dying::default())).dispatch(due.alarm(), None).await.unwrap_err();
        assert_eq!((&due.task().await["status"], due.setup.calls()), (&json!("running"), 1));
        due
    }

    fn alarm(&self) -> Work {
        alarm(&self.id)
    }

    async fn task(&self) -> Value {
        task(&self.setup.app, &self.id).await
    }

    /// Looks at it as often as it may take, each time when every claim and every pause is over; gives its state then.
    async fn comes_to(&self) -> Value {
        for _ in 0..4 {
            self.setup.app.clock.advance(1000);
            self.engine.dispatch(self.alarm(), None).await.unwrap();
        }
        self.task().await["status"].clone()
    }
}

#[tokio::test]
async fn task_reported_done_is_not_repeated() {
    let due = Due::left_by_its_worker(vec![says(500)], "unsafe", 3).await;
    assert_eq!(due.setup.run().await["state"], "unknown");
    assert_eq!(due.setup.resolve("succeeded").await, "succeeded");
    assert_eq!(due.comes_to().await, "succeeded");
    assert_eq!(due.setup.calls(), 1);
}

#[tokio::test]
async fn recorded_success_settles_the_last_attempt() {
    for effect in ["idempotent", "keyed", "unsafe"] {
        let due = Due::left_by_its_worker(vec![says(200)], effect, 1).await;
        assert_eq!(due.setup.run().await["state"], "succeeded");
        assert_eq!(due.comes_to().await, "succeeded", "{effect}");
        assert_eq!(due.setup.calls(), 1);
    }
}

#[tokio::test]
async fn permanent_refusal_is_not_retried() {
    let due = Due::left_by_its_worker(vec![says(400)], "unsafe", 3).await;
    assert_eq!(due.setup.run().await["code"], "rejected");
    assert_eq!(due.comes_to().await, "failed");
    assert_eq!(due.setup.calls(), 1);
}

#[tokio::test]
async fn earlier_attempt_keeps_may_have_happened() {
    let due = Due::start(vec![Does::BreaksOff, says(400)], "keyed", 2).await;
    assert_eq!(due.comes_to().await, "outcome_unknown");
    assert_eq!(due.setup.calls(), 2);
}
