//! How a trial call closes an open breaker.

use std::pin::{Pin, pin};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;

use super::{Setup, out_of_use};
use crate::support::app::Answer;

#[tokio::test]
async fn half_open_breaker_lets_one_trial_through() {
    let setup = Setup::start().await;
    setup.open().await;
    setup.app.clock.advance(60);
    assert_eq!(setup.breaker("write").await["state"], "half_open");
    let mut all: FuturesUnordered<_> = (0..20).map(|_| setup.act("held-200")).collect();
    for _ in 0..19 {
        let answer = all.next().await.unwrap();
        assert_eq!(answer.failure(), "disabled");
        let error = answer.json()["error"].take();
        assert_eq!(error["retryable"], json!(true), "{error}");
        assert!(error["retryAfter"].as_u64().is_some_and(|seconds| (1..=54).contains(&seconds)), "{error}");
        assert!(!error["fallback"].as_str().unwrap().is_empty());
    }
    assert_eq!(setup.calls(), 6, "the breaker lets one call through");
    setup.gate.may_go.add_permits(1);
    all.next().await.unwrap().data();
}

#[tokio::test]
async fn successful_trial_closes_the_breaker() {
    let setup = Setup::start().await;
    setup.open().await;
    setup.app.clock.advance(60);
    setup.act("200").await.data();
    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": 0 }));
    // The failures before it do not count any more.
    for _ in 0..4 {
        setup.act("500").await.failure();
    }
    setup.act("200").await.data();
}

#[tokio::test]
async fn closing_emits_an_event() {
    let setup = Setup::start().await;
    setup.open().await;
    setup.app.clock.advance(60);
    setup.act("200").await.data();
    assert_eq!(setup.kinds(), ["breaker.opened", "breaker.closed"]);
    assert_eq!(setup.events()[1].1, json!({ "tool": "own", "class": "write", "retryAt": null }));
}

/// Lets a trial fail after each of these pauses, and checks their lengths.
async fn fail_trials(setup: &Setup, pauses: &[u64]) {
    setup.open().await;
    for (trials, seconds) in pauses.iter().enumerate() {
        assert_eq!(setup.kinds().len(), trials + 1, "each failed trial opens the breaker again");
        out_of_use(&setup.act("200").await, *seconds);
        setup.app.clock.advance(i64::try_from(*seconds).unwrap() - 1);
        out_of_use(&setup.act("200").await, 1);
        setup.app.clock.advance(1);
        assert_eq!(setup.act("500").await.failure(), "unavailable");
    }
    assert_eq!(setup.kinds().len(), pauses.len() + 1);
}

#[tokio::test]
async fn failed_trial_doubles_the_pause() {
    let setup = Setup::start().await;
    fail_trials(&setup, &[60, 120, 240, 480, 960, 1800, 1800]).await;
}

#[tokio::test]
async fn successful_trial_resets_the_pause() {
    let setup = Setup::start().await;
    fail_trials(&setup, &[60, 120, 240, 480, 960, 1800, 1800]).await;
    setup.app.clock.advance(1800);
    setup.act("200").await.data();
    assert_eq!(setup.kinds().last(), Some(&"breaker.closed"));
    setup.open().await;
    out_of_use(&setup.act("200").await, 60);
}

/// A half-open breaker of a plugin with accounts.
async fn half_open_with_accounts() -> Setup {
    let setup =
        Setup::signing_in(json!({}), &crate::support::app::oauth2(), crate::support::app::Options::default()).await;
    setup.open().await;
    setup.app.clock.advance(60);
    setup
}

#[tokio::test]
async fn trial_without_signal_frees_its_slot() {
    let setup = half_open_with_accounts().await;
    // An account that has ended does not show whether the service works.
    assert_eq!(setup.act("401").await.failure(), "reconnect_required");
    assert_eq!(setup.breaker("write").await["state"], "half_open");
    assert_eq!(setup.act("400").await.failure(), "rejected");
    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": 0 }));
}

#[tokio::test]
async fn missing_account_makes_no_trial() {
    let setup = half_open_with_accounts().await;
    assert_eq!(setup.act_as(&setup.app.admin, "ben", "200").await.failure(), "not_connected");
    assert_eq!(setup.breaker("write").await["state"], "half_open");
}

#[tokio::test]
async fn rejected_trial_closes_the_breaker() {
    let setup = half_open_with_accounts().await;
    assert_eq!(setup.act("400").await.failure(), "rejected");
    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": 0 }));
}

/// Starts a call and returns while the service holds it back.
async fn starts(setup: &Setup, call: Pin<&mut impl Future<Output = Answer>>) {
    tokio::select! {
        answer = call => panic!("the service answered: {answer:?}"),
        arrived = setup.gate.arrived.acquire() => arrived.unwrap().forget(),
    }
}

#[tokio::test]
async fn lost_trial_frees_its_slot_when_its_lease_ends() {
    let setup = Setup::start().await;
    setup.open().await;
    setup.app.clock.advance(60);
    let mut lost = pin!(setup.act("held-500"));
    starts(&setup, lost.as_mut()).await;
    // The lease is the longest time of an intent, and half a minute.
    out_of_use(&setup.act("200").await, 5);
    setup.app.clock.advance(53);
    out_of_use(&setup.act("200").await, 5);
    setup.app.clock.advance(1);
    setup.act("200").await.data();
    assert_eq!(setup.breaker("write").await["state"], "closed");
}

#[tokio::test]
async fn late_result_of_a_lost_trial_changes_nothing() {
    let setup = Setup::start().await;
    setup.open().await;
    setup.app.clock.advance(60);
    let mut lost = pin!(setup.act("held-500"));
    starts(&setup, lost.as_mut()).await;
    setup.app.clock.advance(54);
    setup.act("200").await.data();
    setup.gate.may_go.add_permits(1);
    assert_eq!(lost.await.failure(), "unavailable");
    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": 0 }));
    assert_eq!(setup.kinds(), ["breaker.opened", "breaker.closed"]);
}

#[tokio::test]
async fn call_sent_before_opening_does_not_reopen_the_breaker() {
    let setup = Setup::start().await;
    let mut late = pin!(setup.act("held-500"));
    starts(&setup, late.as_mut()).await;
    setup.open().await;
    setup.app.clock.advance(10);
    setup.gate.may_go.add_permits(1);
    assert_eq!(late.await.failure(), "unavailable");
    out_of_use(&setup.act("200").await, 50);
    assert_eq!(setup.kinds(), ["breaker.opened"]);
}
