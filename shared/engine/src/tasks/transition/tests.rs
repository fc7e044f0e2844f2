//! Unit tests of the state machine.

use serde_json::{Map, Value, json};

use super::*;
use crate::core::ids::{ActionName, OrgId, PluginName, TaskId, UserId};
use crate::core::outcome::KEPT_MAX_BYTES;
use crate::tasks::validate::PARAMETERS_MAX_BYTES;

fn now() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

fn running() -> Task {
    let mut task = Task {
        id: TaskId::parse("0").unwrap(),
        org: OrgId::parse("acme").unwrap(),
        user: UserId::parse("ann").unwrap(),
        agent: None,
        channel: None,
        plugin: PluginName::parse("p").unwrap(),
        action: ActionName::parse("a").unwrap(),
        integration: None,
        parameters: Map::new(),
        schedule: None,
        anchor: now(),
        occurrence: now(),
        next_at: now(),
        by_hand: false,
        attempts_max: 3,
        state: TaskState::Scheduled,
        since: now(),
        cancel_requested: false,
        revision: 1,
        attempt: 0,
        runs: 0,
        claim: None,
        attempts: Vec::new(),
        failures_in_row: 0,
        result: None,
        created_at: now(),
        updated_at: now(),
    };
    task.claim("w".to_owned(), Effect::Unsafe, now(), SignedDuration::from_secs(150));
    task
}

fn failed(retry_after_s: Option<u64>) -> AttemptResult {
    let failure = Failure::new(OutcomeCode::RateLimited, "later".to_owned(), true);
    AttemptResult { result: Err(Failure { retry_after_s, ..failure }), duration_ms: 1 }
}

fn succeeded(data: Value) -> AttemptResult {
    // JSON escapes each character as six bytes.
    let (message, external_id) = ("\u{1}".repeat(MESSAGE_MAX + 1), Some("\u{1}".repeat(MESSAGE_MAX)));
    AttemptResult { result: Ok(Success { message, data, external_id }), duration_ms: 1 }
}

#[test]
fn retry_pause_is_between_a_second_and_fifteen_minutes() {
    for (attempt, jitter, seconds) in
        [(1, 0.0, 1.0), (1, 0.75, 1.5), (2, 0.75, 3.0), (9, 0.5, 256.0), (10, 0.999_999, 899.9991), (30, 0.5, 450.0)]
    {
        let mut task = running();
        (task.attempt, task.attempts_max) = (attempt, 100);
        task.settle(failed(None), true, now(), jitter);
        let pause = task.next_at.duration_since(now()).as_secs_f64();
        assert!((pause - seconds).abs() < 0.001, "{attempt} {jitter}: {pause}");
    }
}

#[test]
fn service_may_request_a_retry_pause_of_at_most_a_day() {
    for (requested, state) in
        [(86_400, TaskState::Retrying), (86_401, TaskState::Failed), (u64::MAX, TaskState::Failed)]
    {
        let mut task = running();
        task.settle(failed(Some(requested)), true, now(), 0.5);
        assert_eq!(task.state, state, "{requested}");
    }
}

#[test]
fn expired_claim_is_retried_only_where_safe() {
    for (retryable, repeatable, attempt, state) in [
        (true, true, 1, TaskState::Retrying),
        (true, true, 2, TaskState::Retrying),
        (true, true, 3, TaskState::Failed),
        (true, false, 2, TaskState::Retrying),
        (true, false, 3, TaskState::OutcomeUnknown),
        (false, false, 1, TaskState::OutcomeUnknown),
    ] {
        let mut task = running();
        task.attempt = attempt;
        task.expire_claim(retryable, repeatable, now(), 0.5);
        let keeps_claim = state == TaskState::OutcomeUnknown;
        assert_eq!((task.state, task.claim.is_some()), (state, keeps_claim), "{retryable} {attempt}");
        assert_eq!(task.attempts.last().unwrap().outcome, TaskAttemptOutcome::Unknown);
    }
}

#[test]
fn run_requested_by_hand_is_never_skipped() {
    for (by_hand, skipped) in [(false, true), (true, false)] {
        let mut task = running();
        task.schedule = serde_json::from_value(json!({ "cron": "0/15 * * * ? *", "catchUp": "skip" })).unwrap();
        // Also when it falls on a time of the schedule.
        (task.occurrence, task.next_at, task.by_hand) = (now(), now(), by_hand);
        task.set_state(TaskState::Scheduled, now());
        task.skip_missed_run(now() + SignedDuration::from_mins(5));
        assert_eq!(task.occurrence != now(), skipped);
    }
}

#[test]
fn result_is_stored_as_far_as_it_fits() {
    let text = |bytes: usize| json!("x".repeat(bytes - 2));
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    for (data, stored) in
        [(text(KEPT_MAX_BYTES), true), (text(KEPT_MAX_BYTES + 1), false), (nested(64), true), (nested(65), false)]
    {
        let mut task = running();
        task.settle(succeeded(data), true, now(), 0.5);
        let item = task.item().unwrap();
        let read: Task = serde_json::from_str(&item.body).unwrap();
        let result = read.result.unwrap();
        assert_eq!(result.data.is_some(), stored);
        assert_eq!(result.message.chars().count(), MESSAGE_MAX + 1);
        assert_eq!(result.external_id.unwrap().len(), MESSAGE_MAX);
    }
}

#[test]
fn largest_task_fits_into_an_item() {
    let mut task = running();
    let most = PARAMETERS_MAX_BYTES;
    task.parameters = Map::from_iter([("a".to_owned(), json!("\"".repeat((most - 8) / 2)))]);
    assert_eq!(serde_json::to_string(&task.parameters).unwrap().len(), most);
    for _ in 0..ATTEMPTS_KEPT {
        task.settle(succeeded(json!("\"".repeat(KEPT_MAX_BYTES / 2 - 1))), true, now(), 0.5);
        task.claim("w".to_owned(), Effect::Unsafe, now(), SignedDuration::from_secs(150));
    }
    assert!(task.result.as_ref().unwrap().data.is_some());
    crate::ports::table::check_item(&task.item().unwrap()).unwrap();
}
