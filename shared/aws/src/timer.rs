//! Alarms on AWS. A near one is a message of SQS with a delay, which comes to the second; a far one is a one-time schedule
//! of EventBridge Scheduler, which puts the same message into the same queue some minutes early. Whoever takes that finds
//! that it is not time yet, and sets the alarm again, which then is a near one.
//!
//! What was set before for the same work is replaced if both are far, and stays as one hint more if one is near.
//!
//! Requests for each operation: `set` one, and one more where the schedule of a far alarm stands already; `cancel` one.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_scheduler::Client as SchedulerClient;
use aws_sdk_scheduler::config::http::HttpResponse;
use aws_sdk_scheduler::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_scheduler::types::{
    ActionAfterCompletion, FlexibleTimeWindow, FlexibleTimeWindowMode, RetryPolicy, Target,
};
use aws_sdk_sqs::Client as SqsClient;
use jiff::{SignedDuration, Timestamp};
use overseer_engine::ports::Clock;
use overseer_engine::ports::timer::{Timer, TimerError, Work};

use crate::failure::Failure;
use crate::{Lazy, json};

/// The longest delay of a message
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>).
const DELAY_MAX: SignedDuration = SignedDuration::from_mins(15);
/// How much earlier than its alarm a schedule is. It fires within the minute after its time
/// (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html>); the rest is for a service or a queue
/// that is slow just then, as many are at the full hour.
const EARLY: SignedDuration = SignedDuration::from_mins(5);
/// 2199-12-31T23:59:59Z. The years of `at` have no documented limit; these are the ones that `cron` has.
const LATEST: Timestamp = Timestamp::constant(7_258_118_399, 0);
/// How long Scheduler tries to put a message into the queue, in seconds. What is overdue by then the sweep has found.
const RETRIED_FOR_S: i32 = 900;
/// How often it tries within that: as often as it can.
const RETRIES: i32 = 185;
/// The code of Scheduler's answer where a schedule of that name stands, or is being changed.
const STANDS: &str = "ConflictException";
/// The code of its answer where there is none.
const GONE: &str = "ResourceNotFoundException";
/// How often a schedule that comes and goes meanwhile is set.
const TRIES: u32 = 3;

/// Where alarms go, and as whom.
#[derive(Debug, Clone)]
pub struct TimerConfig {
    /// The URL of the queue that the work is taken from: a standard queue.
    pub queue_url: String,
    /// The ARN of the same queue.
    pub queue_arn: String,
    /// The name of the group that schedules are in.
    pub group: String,
    /// The ARN of the role in which Scheduler sends to the queue. The caller needs `iam:PassRole` for it.
    pub role_arn: String,
}

/// A timer on SQS and EventBridge Scheduler.
pub struct AwsTimer {
    sqs: Lazy<SqsClient>,
    scheduler: Lazy<SchedulerClient>,
    alarms: TimerConfig,
    clock: Arc<dyn Clock>,
}

impl AwsTimer {
    /// A timer whose clients are made when they are first needed: by `sqs` for near alarms, by `scheduler` for far ones.
    pub fn new(
        sqs: impl FnOnce() -> SqsClient + Send + 'static,
        scheduler: impl FnOnce() -> SchedulerClient + Send + 'static,
        alarms: TimerConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { sqs: Lazy::new(Box::new(sqs)), scheduler: Lazy::new(Box::new(scheduler)), alarms, clock }
    }

    async fn send(&self, body: String, delay_s: i32) -> Result<(), TimerError> {
        let request = self.sqs.send_message().queue_url(&self.alarms.queue_url).message_body(body);
        let sent = request.delay_seconds(delay_s).send().await;
        sent.map(drop).map_err(|error| failed("SendMessage", error))
    }

    /// Makes the schedule, or moves the one that stands. The SDK gives each request a client token of its own: the same
    /// alarm may be set again after it was cancelled, so that a token made of it would be one too few.
    async fn schedule(&self, body: String, expression: &str) -> Result<(), TimerError> {
        let name = name(&body);
        let target = self.target(body).map_err(refused)?;
        let window = FlexibleTimeWindow::builder().mode(FlexibleTimeWindowMode::Off).build().map_err(refused)?;
        for _ in 0..TRIES {
            let request = self.scheduler.create_schedule().name(&name).group_name(&self.alarms.group);
            let request = request.schedule_expression(expression).flexible_time_window(window.clone());
            let request = request.target(target.clone()).action_after_completion(ActionAfterCompletion::Delete);
            match request.send().await {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == Some(STANDS) => {}
                Err(error) => return Err(failed("CreateSchedule", error)),
            }
            let request = self.scheduler.update_schedule().name(&name).group_name(&self.alarms.group);
            let request = request.schedule_expression(expression).flexible_time_window(window.clone());
            let request = request.target(target.clone()).action_after_completion(ActionAfterCompletion::Delete);
            match request.send().await {
                Ok(_) => return Ok(()),
                // It has fired since, or somebody else was at it.
                Err(error) if matches!(error.code(), Some(GONE | STANDS)) => {}
                Err(error) => return Err(failed("UpdateSchedule", error)),
            }
        }
        Err(refused("its schedule came and went while it was set; the sweep finds the work"))
    }

    fn target(&self, body: String) -> Result<Target, BuildError> {
        let retries =
            RetryPolicy::builder().maximum_event_age_in_seconds(RETRIED_FOR_S).maximum_retry_attempts(RETRIES).build();
        let TimerConfig { queue_arn, role_arn, .. } = &self.alarms;
        Target::builder().arn(queue_arn).role_arn(role_arn).input(body).retry_policy(retries).build()
    }
}

#[async_trait]
impl Timer for AwsTimer {
    async fn set(&self, work: Work, at: Timestamp) -> Result<(), TimerError> {
        let body = json::text(&work).map_err(refused)?;
        let now = self.clock.now();
        match delay_s(now, at) {
            Some(delay_s) => self.send(body, delay_s).await,
            None => self.schedule(body, &expression(now, at).map_err(refused)?).await,
        }
    }

    /// A message that is in the queue stays there: whoever takes it finds nothing to do.
    async fn cancel(&self, work: &Work) -> Result<(), TimerError> {
        let name = name(&json::text(work).map_err(refused)?);
        match self.scheduler.delete_schedule().name(name).group_name(&self.alarms.group).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(GONE) => Ok(()),
            Err(error) => Err(failed("DeleteSchedule", error)),
        }
    }
}

fn refused(error: impl Into<Box<dyn Error + Send + Sync>>) -> TimerError {
    TimerError(error.into())
}

/// Whatever the services said: they are told names and times, and nothing secret.
fn failed<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> TimerError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    refused(Failure::new(operation, error, |_| true))
}

/// The name of the schedule of the work that this is the JSON of: 64 characters, the most that there may be, of those that
/// it may have (<https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html>).
fn name(body: &str) -> String {
    digest(&SHA256, body.as_bytes()).as_ref().iter().fold(String::new(), |mut name, byte| {
        // Writing to a text does not fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// The delay of a message that is to come at `at`, in whole seconds and never too early; `None` if it is too far for one.
fn delay_s(now: Timestamp, at: Timestamp) -> Option<i32> {
    let wait = at.duration_since(now);
    if wait > DELAY_MAX {
        return None;
    }
    let whole = wait.as_secs() + i64::from(wait.subsec_nanos() > 0);
    i32::try_from(whole.max(0)).ok()
}

/// No schedule can stand for an alarm.
#[derive(Debug, thiserror::Error)]
#[error("no schedule can be for {0}, by a clock that says {1}: it would not be between now and 2199; set the clock")]
struct NoSchedule(Timestamp, Timestamp);

/// When the schedule of an alarm at `at` fires, in UTC: early, and in whole seconds. What is later than a schedule can be
/// is set again when the latest one has fired.
fn expression(now: Timestamp, at: Timestamp) -> Result<String, NoSchedule> {
    let fires = at.checked_sub(EARLY).map_or(at, |early| early.min(LATEST));
    // Also downwards, so that nothing is late; schedules of before 1970 are refused anyway.
    let fires = Timestamp::from_second(fires.as_second()).unwrap_or(fires);
    if fires <= now.max(Timestamp::UNIX_EPOCH) {
        return Err(NoSchedule(at, now));
    }
    Ok(fires.strftime("at(%Y-%m-%dT%H:%M:%S)").to_string())
}

#[cfg(test)]
mod tests {
    use overseer_engine::core::ids::{NAME_MAX_BYTES, OrgId};

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_delay_is_whole_seconds_never_early_and_fifteen_minutes_at_most() {
        let now = time("2026-11-21T09:00:00.25Z");
        for (at, delay) in [
            ("2026-11-21T09:00:00.25Z", Some(0)),
            ("2026-11-21T09:00:00.249999999Z", Some(0)),
            ("2026-11-21T08:59:00Z", Some(0)),
            ("-009999-01-02T01:59:59Z", Some(0)),
            ("2026-11-21T09:00:00.250000001Z", Some(1)),
            ("2026-11-21T09:00:01.25Z", Some(1)),
            ("2026-11-21T09:00:01.26Z", Some(2)),
            ("2026-11-21T09:14:59.25Z", Some(899)),
            ("2026-11-21T09:14:59.26Z", Some(900)),
            ("2026-11-21T09:15:00.25Z", Some(900)),
            ("2026-11-21T09:15:00.250000001Z", None),
            ("9999-12-30T22:00:00Z", None),
        ] {
            assert_eq!(delay_s(now, time(at)), delay, "{at}");
        }
    }

    #[test]
    fn a_schedule_is_early_in_whole_seconds_and_as_its_service_writes_times() {
        let now = time("2026-11-21T09:00:00Z");
        for (at, expected) in [
            ("2026-11-21T09:15:01Z", "at(2026-11-21T09:10:01)"),
            ("2026-11-21T09:15:00.000000001Z", "at(2026-11-21T09:10:00)"),
            ("2026-11-21T10:00:00.999Z", "at(2026-11-21T09:55:00)"),
            ("2027-01-01T00:04:59Z", "at(2026-12-31T23:59:59)"),
            ("2028-03-01T00:00:00Z", "at(2028-02-29T23:55:00)"),
            ("2200-01-01T00:04:59Z", "at(2199-12-31T23:59:59)"),
            ("2200-01-01T00:05:00Z", "at(2199-12-31T23:59:59)"),
            ("9999-12-30T22:00:00.999999999Z", "at(2199-12-31T23:59:59)"),
        ] {
            assert_eq!(expression(now, time(at)).unwrap(), expected, "{at}");
        }
        assert_eq!(LATEST, time("2199-12-31T23:59:59Z"));
    }

    #[test]
    fn no_schedule_is_in_the_past_or_before_1970() {
        for (now, at) in [
            ("2026-11-21T09:00:00Z", "2026-11-21T09:05:00.999Z"),
            ("2026-11-21T09:00:00Z", "2020-01-01T00:00:00Z"),
            ("2199-12-31T23:59:59Z", "2200-01-02T00:00:00Z"),
            ("9000-01-01T00:00:00Z", "9999-12-30T22:00:00.999999999Z"),
            ("1969-12-31T00:00:00Z", "1970-01-01T00:05:00Z"),
            ("-009999-01-02T01:59:59Z", "-009999-01-02T02:59:59Z"),
        ] {
            let said = expression(time(now), time(at)).unwrap_err().to_string();
            assert!(said.contains("set the clock"), "{now} {at}: {said}");
        }
        assert!(expression(time("2026-11-21T09:00:00Z"), time("2026-11-21T09:05:01Z")).is_ok());
        assert!(expression(time("1969-12-31T00:00:00Z"), time("1970-01-01T00:05:01Z")).is_ok());
    }

    #[test]
    fn names_of_schedules_are_of_work_and_revision_and_fit() {
        // Names take most room where JSON writes each byte as six.
        let work = |revision, id: &str| Work {
            org: OrgId::parse("<".repeat(NAME_MAX_BYTES)).unwrap(),
            kind: "task".into(),
            id: format!("{} {id}", "f".repeat(64)),
            revision,
        };
        let bodies: Vec<_> = [work(1, "ann"), work(2, "ann"), work(u64::MAX, &"<".repeat(NAME_MAX_BYTES))]
            .iter()
            .map(|work| json::text(work).unwrap())
            .collect();
        let names: std::collections::BTreeSet<_> = bodies.iter().map(|body| name(body)).collect();
        assert_eq!(names.len(), 3);
        for name in names {
            assert!(name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
        }
        // The 256 KiB of a message and of an input are far.
        assert!(bodies.iter().all(|body| body.len() < 4 * 1024));
    }
}
