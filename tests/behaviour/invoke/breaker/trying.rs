//! How a trial call closes an open breaker.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;

use super::{Setup, out_of_use};

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
    assert_eq!(setup.calls(), 6, "one is let through");
    setup.gate.may_go.add_permits(1);
    all.next().await.unwrap().data();

    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": 0 }));
    assert_eq!(setup.kinds(), ["breaker.opened", "breaker.closed"]);
    assert_eq!(setup.events()[1].1, json!({ "tool": "own", "class": "write", "retryAt": null }));
    // What failed before counts no more.
    for _ in 0..4 {
        setup.act("500").await.failure();
    }
    setup.act("200").await.data();
}

#[tokio::test]
async fn failed_trial_doubles_the_pause() {
    let setup = Setup::start().await;
    setup.open().await;
    let mut opened = 1;
    for seconds in [60, 120, 240, 480, 960, 1800, 1800] {
        out_of_use(&setup.act("200").await, seconds);
        setup.app.clock.advance(i64::try_from(seconds).unwrap() - 1);
        out_of_use(&setup.act("200").await, 1);
        setup.app.clock.advance(1);
        assert_eq!(setup.act("500").await.failure(), "unavailable");
        opened += 1;
        assert_eq!(setup.kinds().len(), opened);
    }
    setup.app.clock.advance(1800);
    setup.act("200").await.data();
    assert_eq!(setup.kinds().last(), Some(&"breaker.closed"));
    // From here on it is as if nothing had been.
    setup.open().await;
    out_of_use(&setup.act("200").await, 60);
}

#[tokio::test]
async fn trial_without_signal_frees_its_slot() {
    let setup =
        Setup::signing_in(json!({}), &crate::support::app::oauth2(), crate::support::app::Options::default()).await;
    setup.open().await;
    setup.app.clock.advance(60);
    // Whether the service works for others is not known of an account that has ended,
    assert_eq!(setup.act("401").await.failure(), "reconnect_required");
    assert_eq!(setup.breaker("write").await["state"], "half_open");
    // nor of one that is not there: that is not even a trial.
    assert_eq!(setup.act_as(&setup.app.admin, "ben", "200").await.failure(), "not_connected");
    assert_eq!(setup.breaker("write").await["state"], "half_open");
    // Who says no to one request works.
    assert_eq!(setup.act("400").await.failure(), "rejected");
    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": 0 }));
}

#[tokio::test]
async fn lost_trial_frees_its_slot_when_its_lease_ends() {
    let setup = Setup::start().await;
    setup.open().await;
    setup.app.clock.advance(60);
    let mut lost = std::pin::pin!(setup.act("held-500"));
    tokio::select! {
        answer = &mut lost => panic!("it was answered: {answer:?}"),
        arrived = setup.gate.arrived.acquire() => arrived.unwrap().forget(),
    }
    // The longest that an intent may take, and half a minute.
    out_of_use(&setup.act("200").await, 5);
    setup.app.clock.advance(53);
    out_of_use(&setup.act("200").await, 5);
    setup.app.clock.advance(1);
    setup.act("200").await.data();
    assert_eq!(setup.breaker("write").await["state"], "closed");
    // What it says after all is about a time that has passed.
    setup.gate.may_go.add_permits(1);
    assert_eq!(lost.await.failure(), "unavailable");
    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": 0 }));
    assert_eq!(setup.kinds(), ["breaker.opened", "breaker.closed"]);
}

#[tokio::test]
async fn call_sent_before_opening_does_not_reopen_the_breaker() {
    let setup = Setup::start().await;
    let mut late = std::pin::pin!(setup.act("held-500"));
    tokio::select! {
        answer = &mut late => panic!("it was answered: {answer:?}"),
        arrived = setup.gate.arrived.acquire() => arrived.unwrap().forget(),
    }
    setup.open().await;
    setup.app.clock.advance(10);
    setup.gate.may_go.add_permits(1);
    assert_eq!(late.await.failure(), "unavailable");
    out_of_use(&setup.act("200").await, 50);
    assert_eq!(setup.kinds(), ["breaker.opened"]);
}
