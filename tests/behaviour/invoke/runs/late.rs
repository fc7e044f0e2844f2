//! Late workers: suspended in a call, overtaken at the store, or with a lost store answer.

use std::sync::Arc;

use async_trait::async_trait;
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::IdempotencyKey;
use overseer_engine::invoke::runs::{RequestOptions, Resolve};
use overseer_engine::ports::table::TableError;
use serde_json::json;

use super::{is_replay, keyed, keyed_at, runs};
use crate::support::hooked::{Gate, Hooks, Operation};
use crate::support::scripted::{Does, Scripted, act_as, says};

const RETRY: &str = "/api/plugin-engine?resolve=retry";

/// Longer than a worker can hold a claim.
const LONGER_THAN_A_CLAIM_S: i64 = 100;

/// Where the store holds a worker, once.
enum Held {
    BeforeTheClaim,
    /// The store has written the claim, but its answer does not reach the worker.
    AfterTheClaim,
    /// The run is begun, and the decision is to be noted with the one before.
    BeforeTheNote,
}

struct Slow {
    held: Held,
    gate: Gate,
}

impl Slow {
    fn held(held: Held) -> Arc<Self> {
        Arc::new(Self { held, gate: Gate::default() })
    }
}

#[async_trait]
impl Hooks for Slow {
    async fn before(&self, asked: &Operation<'_>) -> Result<(), TableError> {
        let here = match self.held {
            Held::BeforeTheClaim => matches!(asked, Operation::Transact(_)),
            Held::BeforeTheNote => matches!(asked, Operation::Get(key) if key.sort.starts_with("run#")),
            Held::AfterTheClaim => false,
        };
        if here {
            self.gate.pass().await;
        }
        Ok(())
    }

    async fn after(&self, asked: &Operation<'_>) -> Result<(), TableError> {
        let here = matches!((&self.held, asked), (Held::AfterTheClaim, Operation::Transact(_)));
        if here && self.gate.pass().await {
            return Err(TableError::store("the answer was lost"));
        }
        Ok(())
    }
}

fn asked(resolve: Option<Resolve>) -> RequestOptions {
    RequestOptions { key: Some(IdempotencyKey::parse("k1").unwrap()), resolve, ..RequestOptions::default() }
}

#[tokio::test]
async fn suspended_worker_makes_no_further_call() {
    let setup = Scripted::start(vec![Does::Waits(429), says(200)]).await;
    let overtakes = async {
        setup.gate.reached().await;
        // The time of day goes on, and the worker's own does not.
        setup.app.clock.advance(LONGER_THAN_A_CLAIM_S);
        keyed_at(&setup.app, RETRY, "k1", &act_as("unsafe"), &[]).await.data();
        setup.gate.open();
    };
    tokio::join!(keyed(&setup.app, "k1", &act_as("unsafe"), &[]), overtakes);
    assert_eq!(setup.calls(), 2, "the service refused the first call and did the second");
}

#[tokio::test]
async fn stale_worker_keeps_the_reported_outcome() {
    let setup = Scripted::start(vec![Does::Waits(500)]).await;
    let resolves = async {
        setup.gate.reached().await;
        setup.app.clock.advance(LONGER_THAN_A_CLAIM_S);
        assert_eq!(setup.run().await["state"], "unknown");
        assert_eq!(setup.resolve("succeeded").await, "succeeded");
        assert!(is_replay(&keyed(&setup.app, "k1", &act_as("unsafe"), &[]).await));
        setup.gate.open();
    };
    tokio::join!(keyed(&setup.app, "k1", &act_as("unsafe"), &[]), resolves);
    assert_eq!(setup.run().await["state"], "succeeded");
    let again = keyed(&setup.app, "k1", &act_as("unsafe"), &[]).await;
    assert!(is_replay(&again) && again.json()["success"] == json!(true), "{}", again.text);
}

#[tokio::test]
async fn late_success_is_stored_under_its_key() {
    let setup = Scripted::start(vec![Does::Waits(200)]).await;
    let resolves = async {
        setup.gate.reached().await;
        setup.app.clock.advance(LONGER_THAN_A_CLAIM_S);
        assert_eq!(setup.resolve("failed").await, "failed");
        setup.gate.open();
    };
    tokio::join!(keyed(&setup.app, "k1", &act_as("unsafe"), &[]), resolves);
    assert_eq!(setup.run().await["state"], "succeeded", "the late success replaces the reported failure in the ledger");
    assert!(is_replay(&keyed(&setup.app, "k1", &act_as("unsafe"), &[]).await), "and under the key");
    assert_eq!(setup.calls(), 1);
}

#[tokio::test]
async fn decision_applies_to_the_known_run_only() {
    let setup = Scripted::start(vec![Does::BreaksOff]).await;
    keyed(&setup.app, "k1", &act_as("unsafe"), &[]).await.failure();
    // Two decide to do it again. One has read the key before the other's run, and claims it after.
    let slow = Slow::held(Held::BeforeTheClaim);
    let (engine, principal) = (setup.app.hooked(slow.clone()), setup.principal().await);
    let overtakes = async {
        slow.gate.reached().await;
        assert!(!is_replay(&keyed_at(&setup.app, RETRY, "k1", &act_as("unsafe"), &[]).await));
        slow.gate.open();
    };
    let intent = serde_json::from_value(act_as("unsafe")).unwrap();
    let (late, ()) = tokio::join!(engine.execute(principal, intent, asked(Some(Resolve::Retry))), overtakes);
    assert!(late.unwrap().replayed);
    assert_eq!(setup.calls(), 2, "one call for the intent, and one for the decision");
}

#[tokio::test]
async fn claim_of_another_run_is_left_alone() {
    let setup = Scripted::start(vec![says(200)]).await;
    let (first, second) = (Slow::held(Held::AfterTheClaim), Slow::held(Held::BeforeTheNote));
    let intent = || serde_json::from_value(act_as("unsafe")).unwrap();
    let (engine, principal) = (setup.app.hooked(first.clone()), setup.principal().await);
    let (overtaking, same) = (setup.app.hooked(second.clone()), principal.clone());
    let overtaken = tokio::spawn(async move { engine.execute(principal, intent(), asked(None)).await });
    first.gate.reached().await;
    setup.app.clock.advance(LONGER_THAN_A_CLAIM_S);
    let looks = async {
        second.gate.reached().await;
        // The key is the second one's, and the first, which now looks whether it had been written, leaves it so.
        first.gate.open();
        let told = overtaken.await.unwrap();
        assert!(matches!(told, Err(Error::Table(_))), "{told:?}");
        assert_eq!(keyed(&setup.app, "k1", &act_as("unsafe"), &[]).await.problem(409), "in_progress");
        second.gate.open();
    };
    let (done, ()) = tokio::join!(overtaking.execute(same, intent(), asked(Some(Resolve::Retry))), looks);
    assert!(done.unwrap().answer.result.is_ok());
    assert_eq!(setup.calls(), 1);
    let listed = runs(&setup.app, "").await;
    let states: Vec<_> = listed.iter().map(|run| run["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["succeeded", "unknown"]);
}
