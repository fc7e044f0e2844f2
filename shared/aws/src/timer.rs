//! Alarms on AWS. A near alarm is an SQS message with a delay, exact to the second. A far alarm is a one-time schedule of
//! EventBridge Scheduler, which puts the same message into the same queue some minutes early. The worker that receives it
//! early sets the alarm again, which then is a near one.
//!
//! A second alarm for the same work replaces the first if both are far. If one is near, both fire, and the worker finds
//! nothing to do for the second.
//!
//! Requests for each operation: `set` one, and one more where a far alarm already has a schedule; `cancel` one.

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
/// How long before its alarm a schedule fires. Scheduler fires within the minute after the scheduled time
/// (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html>); the rest is a margin for a slow service
/// or queue, as at the full hour.
const EARLY: SignedDuration = SignedDuration::from_mins(5);
/// 2199-12-31T23:59:59Z. The years of `at` have no documented limit; this is the documented one of `cron`.
const LATEST: Timestamp = Timestamp::constant(7_258_118_399, 0);
/// How long Scheduler retries to put a message into the queue, in seconds. By then the sweep has found the overdue work.
const RETRY_PERIOD_S: i32 = 900;
/// Scheduler's retries within that period: the most that it allows.
const RETRIES: i32 = 185;
/// Scheduler's error code where a schedule of that name exists, or is being changed.
const CONFLICT: &str = "ConflictException";
/// Scheduler's error code where no schedule of that name exists.
const NOT_FOUND: &str = "ResourceNotFoundException";
/// The most attempts to set a schedule that others create and delete at the same time.
const ATTEMPTS: u32 = 3;

/// The queue and the schedule group of alarms, and the role that fires them.
#[derive(Debug, Clone)]
pub struct TimerConfig {
    /// The URL of the work queue: a standard queue.
    pub queue_url: String,
    /// The ARN of the same queue.
    pub queue_arn: String,
    /// The name of the schedule group.
    pub group: String,
    /// The ARN of the role that Scheduler sends to the queue with. The caller needs `iam:PassRole` for it.
    pub role_arn: String,
}

/// A timer on SQS and EventBridge Scheduler.
pub struct AwsTimer {
    sqs: Lazy<SqsClient>,
    scheduler: Lazy<SchedulerClient>,
    config: TimerConfig,
    clock: Arc<dyn Clock>,
}

impl AwsTimer {
    /// A timer whose clients are made on first use: by `sqs` for near alarms, by `scheduler` for far ones.
    pub fn new(
        sqs: impl FnOnce() -> SqsClient + Send + 'static,
        scheduler: impl FnOnce() -> SchedulerClient + Send + 'static,
        config: TimerConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { sqs: Lazy::new(Box::new(sqs)), scheduler: Lazy::new(Box::new(scheduler)), config, clock }
    }

    async fn send(&self, body: String, delay_s: i32) -> Result<(), TimerError> {
        let request = self.sqs.send_message().queue_url(&self.config.queue_url).message_body(body);
        let result = request.delay_seconds(delay_s).send().await;
        result.map(drop).map_err(|error| failed("SendMessage", error))
    }

    /// Creates the schedule, or moves the existing one. The SDK gives each request a random client token. A token derived
    /// from the alarm would not do: the same alarm may be set again after it was cancelled.
    async fn schedule(&self, body: String, expression: &str) -> Result<(), TimerError> {
        let name = name(&body);
        let target = self.target(body).map_err(refused)?;
        let window = FlexibleTimeWindow::builder().mode(FlexibleTimeWindowMode::Off).build().map_err(refused)?;
        for _ in 0..ATTEMPTS {
            let request = self.scheduler.create_schedule().name(&name).group_name(&self.config.group);
            let request = request.schedule_expression(expression).flexible_time_window(window.clone());
            let request = request.target(target.clone()).action_after_completion(ActionAfterCompletion::Delete);
            match request.send().await {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == Some(CONFLICT) => {}
                Err(error) => return Err(failed("CreateSchedule", error)),
            }
            let request = self.scheduler.update_schedule().name(&name).group_name(&self.config.group);
            let request = request.schedule_expression(expression).flexible_time_window(window.clone());
            let request = request.target(target.clone()).action_after_completion(ActionAfterCompletion::Delete);
            match request.send().await {
                Ok(_) => return Ok(()),
                // The schedule has fired since, or another process is changing it.
                Err(error) if matches!(error.code(), Some(NOT_FOUND | CONFLICT)) => {}
                Err(error) => return Err(failed("UpdateSchedule", error)),
            }
        }
        Err(refused("others created and deleted the schedule meanwhile; the sweep finds the work"))
    }

    fn target(&self, body: String) -> Result<Target, BuildError> {
        let retries =
            RetryPolicy::builder().maximum_event_age_in_seconds(RETRY_PERIOD_S).maximum_retry_attempts(RETRIES).build();
        let TimerConfig { queue_arn, role_arn, .. } = &self.config;
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

    /// Deletes the schedule. A message that is already in the queue stays: the worker that receives it finds nothing to do.
    async fn cancel(&self, work: &Work) -> Result<(), TimerError> {
        let name = name(&json::text(work).map_err(refused)?);
        match self.scheduler.delete_schedule().name(name).group_name(&self.config.group).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(NOT_FOUND) => Ok(()),
            Err(error) => Err(failed("DeleteSchedule", error)),
        }
    }
}

fn refused(error: impl Into<Box<dyn Error + Send + Sync>>) -> TimerError {
    TimerError(error.into())
}

/// Keeps every message of the services: requests hold names and times, nothing secret.
fn failed<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> TimerError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    refused(Failure::new(operation, error, |_| true))
}

/// The name of the schedule of some work, a hash of the work's JSON: 64 characters, the most that a name may have, of those
/// that it may have (<https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html>).
fn name(body: &str) -> String {
    digest(&SHA256, body.as_bytes()).as_ref().iter().fold(String::new(), |mut name, byte| {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// The delay of a message that must arrive at `at`, in whole seconds and never too early; `None` above the longest delay.
fn delay_s(now: Timestamp, at: Timestamp) -> Option<i32> {
    let wait = at.duration_since(now);
    if wait > DELAY_MAX {
        return None;
    }
    let whole = wait.as_secs() + i64::from(wait.subsec_nanos() > 0);
    i32::try_from(whole.max(0)).ok()
}

/// An alarm whose time no schedule can have.
#[derive(Debug, thiserror::Error)]
#[error("no schedule can fire for {0}: by this clock ({1}) that is not between now and 2199; set the clock")]
struct NoSchedule(Timestamp, Timestamp);

/// When the schedule of an alarm at `at` fires, in UTC: early, and in whole seconds. An alarm after [`LATEST`] fires then,
/// and is set again.
fn expression(now: Timestamp, at: Timestamp) -> Result<String, NoSchedule> {
    let fires = at.checked_sub(EARLY).map_or(at, |early| early.min(LATEST));
    // Rounded down, so that nothing is late; times before 1970 are refused below.
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
    fn delay_rounds_up_to_whole_seconds_within_its_limit() {
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
    fn schedule_fires_early_in_whole_seconds() {
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
    fn schedule_in_the_past_or_before_1970_is_refused() {
        for (now, at) in [
            ("2026-11-21T09:00:00Z", "2026-11-21T09:05:00.999Z"),
            ("2026-11-21T09:00:00Z", "2020-01-01T00:00:00Z"),
            ("2199-12-31T23:59:59Z", "2200-01-02T00:00:00Z"),
            ("9000-01-01T00:00:00Z", "9999-12-30T22:00:00.999999999Z"),
            ("1969-12-31T00:00:00Z", "1970-01-01T00:05:00Z"),
            ("-009999-01-02T01:59:59Z", "-009999-01-02T02:59:59Z"),
        ] {
            let error = expression(time(now), time(at)).unwrap_err().to_string();
            assert!(error.contains("set the clock"), "{now} {at}: {error}");
        }
        assert!(expression(time("2026-11-21T09:00:00Z"), time("2026-11-21T09:05:01Z")).is_ok());
        assert!(expression(time("1969-12-31T00:00:00Z"), time("1970-01-01T00:05:01Z")).is_ok());
    }

    #[test]
    fn schedule_names_are_unique_for_each_work_and_revision() {
        // JSON writes each `<` as six bytes, so these names are the longest.
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
        // Far below the 256 KiB of a message and of an input.
        assert!(bodies.iter().all(|body| body.len() < 4 * 1024));
    }
}
