//! Alarms on AWS, and alarms that fire early. SQS and Scheduler are ministack's. It does not show that Scheduler fires within
//! a minute and retries, which expressions Scheduler refuses (ministack accepts all), or whether Scheduler, too, deletes a
//! schedule the moment it has fired.

mod contended;
mod early;

use std::sync::atomic::Ordering;

use aws_sdk_scheduler::operation::get_schedule::GetScheduleOutput;
use jiff::{SignedDuration, Timestamp};
use overseer_aws::timer::TimerConfig;
use overseer_engine::core::error::causes;
use overseer_engine::core::ids::OrgId;
use overseer_engine::ports::{Clock, Timer, Work};
use serde_json::json;

use crate::accounts::authorize::sha256;
use crate::support::aws::{Cloud, GROUP, ROLE, Stopped};

/// So late that no schedule of these tests is due by ministack's own clock.
const NOW: &str = "2190-01-01T00:00:00.25Z";

/// Work with names that contain characters and placeholders special to AWS.
fn work(revision: u64) -> Work {
    let org = OrgId::parse("<aws.scheduler.execution-id>\u{fffe}\u{ffff}\u{1f980}").unwrap();
    Work { org, kind: "task".into(), id: "1 \"ann\\\" <aws.scheduler.attempt-number>".to_owned(), revision }
}

fn after(clock: &Stopped, milliseconds: i64) -> Timestamp {
    clock.now() + SignedDuration::from_millis(milliseconds)
}

fn read(body: &str) -> Work {
    serde_json::from_str(body).unwrap()
}

/// The schedules that exist.
async fn schedules(cloud: &Cloud) -> Vec<GetScheduleOutput> {
    let listed = cloud.scheduler.list_schedules().group_name(GROUP).send().await.unwrap();
    let mut found = Vec::new();
    for schedule in listed.schedules {
        let name = schedule.name.unwrap();
        found.push(cloud.scheduler.get_schedule().group_name(GROUP).name(name).send().await.unwrap());
    }
    found
}

/// The only schedule that exists.
async fn schedule(cloud: &Cloud) -> GetScheduleOutput {
    let mut found = schedules(cloud).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test]
async fn near_alarm_is_a_message_with_a_delay() {
    let (cloud, clock) = (Cloud::start().await, Stopped::at(NOW));
    let timer = cloud.timer(clock.clone());
    for (after_ms, delay_s) in [(-3_600_000, 0), (0, 0), (1, 1), (1_000, 1), (899_001, 900), (900_000, 900)] {
        timer.set(work(1), after(&clock, after_ms)).await.unwrap();
        let seen = cloud.wire.take();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].what.as_str(), &seen[0].body["DelaySeconds"]), ("AmazonSQS.SendMessage", &json!(delay_s)));
    }
    assert!(schedules(&cloud).await.is_empty());
    assert_eq!(cloud.made.load(Ordering::SeqCst), 0, "a client that was not needed");
    for _ in 0..2 {
        assert_eq!(read(&cloud.receive(&cloud.alarms.queue_url).await.unwrap()), work(1));
    }
    // A message with a delay of one second may have arrived by now.
    let (_, later) = cloud.waiting(&cloud.alarms.queue_url).await;
    assert!(["2", "3", "4"].contains(&later.as_str()), "{later}");
}

#[tokio::test]
async fn far_alarm_is_a_schedule_that_fires_early() {
    let (cloud, clock) = (Cloud::start().await, Stopped::at(NOW));
    let timer = cloud.timer(clock.clone());
    timer.set(work(1), after(&clock, 900_001)).await.unwrap();
    let seen = cloud.wire.take();
    assert_eq!(seen.len(), 1, "{seen:?}");

    let found = schedule(&cloud).await;
    let name = found.name().unwrap();
    assert_eq!(seen[0].what, format!("POST /schedules/{name}"));
    assert_eq!(found.schedule_expression(), Some("at(2190-01-01T00:10:00)"));
    assert!(matches!(found.schedule_expression_timezone(), None | Some("UTC")));
    assert_eq!(found.group_name(), Some(GROUP));
    assert_eq!(found.state().unwrap().as_str(), "ENABLED");
    assert_eq!(found.flexible_time_window().unwrap().mode().as_str(), "OFF");
    assert_eq!(found.action_after_completion().unwrap().as_str(), "DELETE");
    let target = found.target().unwrap();
    assert_eq!((target.arn(), target.role_arn()), (cloud.alarms.queue_arn.as_str(), ROLE));
    let retries = target.retry_policy().unwrap();
    // The ranges that AWS documents are 60 to 86,400 and 0 to 185.
    assert_eq!((retries.maximum_event_age_in_seconds(), retries.maximum_retry_attempts()), (Some(900), Some(185)));
    let input = target.input().unwrap();
    assert_eq!(read(input), work(1));
    assert!(!input.contains(['<', '\u{fffe}', '\u{ffff}']), "{input}");
    // 64 characters at most, of 0-9, a-z, A-Z, -, _ and .
    assert_eq!(name, sha256(input));

    // The latest time that a schedule can have, and later.
    for at in [Timestamp::MAX, "2200-01-01T00:05:00Z".parse().unwrap()] {
        timer.set(work(2), at).await.unwrap();
        timer.cancel(&work(1)).await.unwrap();
        assert_eq!(schedule(&cloud).await.schedule_expression(), Some("at(2199-12-31T23:59:59)"));
    }
}

#[tokio::test]
async fn alarm_can_be_moved_or_cancelled() {
    let (cloud, clock) = (Cloud::start().await, Stopped::at(NOW));
    let timer = cloud.timer(clock.clone());
    let (hour, day) = (after(&clock, 3_600_000), after(&clock, 86_400_000));
    timer.set(work(1), hour).await.unwrap();
    let before = schedule(&cloud).await;
    cloud.wire.take();
    timer.set(work(1), day).await.unwrap();
    let moved = schedule(&cloud).await;
    let name = before.name().unwrap();
    assert_eq!(moved.schedule_expression(), Some("at(2190-01-01T23:55:00)"));
    // An update resets every field that it leaves out.
    assert_eq!((moved.name(), moved.target()), (before.name(), before.target()));
    assert_eq!(moved.action_after_completion(), before.action_after_completion());
    assert_eq!(moved.flexible_time_window(), before.flexible_time_window());
    let seen = cloud.wire.take();
    let what: Vec<_> = seen.iter().map(|seen| seen.what.as_str()).collect();
    assert_eq!(what, [format!("POST /schedules/{name}"), format!("PUT /schedules/{name}")]);
    // Each has a token: the SDK retries a request without an answer.
    let tokens: Vec<_> = seen.iter().map(|seen| seen.body["ClientToken"].as_str().unwrap()).collect();
    assert!(tokens[0] != tokens[1] && tokens.iter().all(|token| (1..=64).contains(&token.len())), "{tokens:?}");

    // A stale alarm stays beside the right one until the engine cancels it.
    timer.set(work(2), hour).await.unwrap();
    assert_eq!(schedules(&cloud).await.len(), 2);
    timer.cancel(&work(1)).await.unwrap();
    assert_eq!(read(schedule(&cloud).await.target().unwrap().input().unwrap()), work(2));
    cloud.wire.take();
    for _ in 0..2 {
        timer.cancel(&work(2)).await.unwrap();
        assert_eq!(cloud.wire.asked().len(), 1);
    }
    assert!(schedules(&cloud).await.is_empty());
    timer.set(work(2), day).await.unwrap();
    assert_eq!(cloud.wire.asked().len(), 1);
    assert_eq!(schedule(&cloud).await.schedule_expression(), moved.schedule_expression());
    assert_eq!(cloud.made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn fired_schedule_enqueues_its_work() {
    // By ministack's own clock it is due.
    let (cloud, clock) = (Cloud::start().await, Stopped::at("2020-01-01T00:00:00Z"));
    cloud.timer(clock.clone()).set(work(u64::MAX), after(&clock, 3_600_000)).await.unwrap();
    let body = cloud.receive(&cloud.alarms.queue_url).await.expect("it did not fire within 20 s");
    assert_eq!(read(&body), work(u64::MAX));
    while !schedules(&cloud).await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn failed_alarm_is_an_error_with_its_cause() {
    let cloud = Cloud::start().await;
    let error = |result: Result<(), _>| {
        let error = result.unwrap_err();
        causes(&error)
    };
    let clock = Stopped::at(NOW);
    let alarms = TimerConfig {
        group: "other".to_owned(),
        queue_url: format!("{}s", cloud.alarms.queue_url),
        ..cloud.alarms.clone()
    };
    let timer = cloud.timer_of(alarms, clock.clone());
    let said = error(timer.set(work(1), clock.now()).await);
    assert!(said.contains("SendMessage: ") && said.contains("NonExistentQueue"), "{said}");
    let said = error(timer.set(work(1), after(&clock, 3_600_000)).await);
    assert!(said.contains("CreateSchedule: ResourceNotFoundException"), "{said}");
    assert!(said.contains("group"), "{said}");

    // A clock that is far wrong. The sweep finds the work.
    cloud.wire.take();
    let clock = Stopped::at("2300-01-01T00:00:00Z");
    let timer = cloud.timer(clock.clone());
    let said = error(timer.set(work(1), after(&clock, 3_600_000)).await);
    assert!(said.contains("no schedule can fire for 2300-01-01T01:00:00Z"), "{said}");
    assert!(cloud.wire.asked().is_empty());
    timer.set(work(1), clock.now()).await.unwrap();
}

#[tokio::test]
async fn work_with_the_longest_names_fits_into_message_or_schedule() {
    let (cloud, clock) = (Cloud::start().await, Stopped::at("2020-01-01T00:00:00Z"));
    let timer = cloud.timer(clock.clone());
    let longest = "\u{ffff}".repeat(85);
    let org = OrgId::parse(longest.clone()).unwrap();
    let work = Work { org, kind: "task".into(), id: format!("{} {longest}", "f".repeat(64)), revision: u64::MAX };
    for after_ms in [0, 3_600_000] {
        timer.set(work.clone(), after(&clock, after_ms)).await.unwrap();
        let body = cloud.receive(&cloud.alarms.queue_url).await.expect("it did not arrive within 20 s");
        assert_eq!(read(&body), work);
    }
}
