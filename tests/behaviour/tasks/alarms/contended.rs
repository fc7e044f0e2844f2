//! A schedule that fires, or that another process sets, during a move. The test has its own Scheduler server, because
//! ministack cannot be made to answer in such a moment.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::{Json, Router};
use jiff::SignedDuration;
use overseer_aws::AwsTimer;
use overseer_aws::timer::TimerConfig;
use overseer_engine::core::error::causes;
use overseer_engine::ports::{Clock, Timer};
use serde_json::json;
use tokio::net::TcpListener;

use super::{NOW, work};
use crate::support::aws::{GROUP, ROLE, Stopped, Wire, client};

/// Sets a far alarm with a Scheduler that answers with these errors and then succeeds. Returns the methods of the requests,
/// and the error's causes if it failed.
async fn set(errors: &[(u16, &'static str)]) -> (Vec<String>, Result<(), String>) {
    let answers = Arc::new(Mutex::new(VecDeque::from(errors.to_vec())));
    let answer = move || async move {
        let (status, code) = answers.lock().unwrap().pop_front().unwrap_or((200, ""));
        let body = json!({ "ScheduleArn": "arn:aws:scheduler:::schedule/a/b", "Message": "why" });
        (StatusCode::from_u16(status).unwrap(), [("x-amzn-errortype", code)], Json(body))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    let (wire, clock) = (Wire::default(), Stopped::at(NOW));
    let (queue_url, queue_arn) = (format!("{endpoint}/000000000000/work"), "arn:aws:sqs:::work".to_owned());
    let alarms = TimerConfig { queue_url, queue_arn, group: GROUP.to_owned(), role_arn: ROLE.to_owned() };
    let (sqs, seen) = (client!(aws_sdk_sqs, &endpoint), wire.clone());
    let scheduler = move || client!(aws_sdk_scheduler, endpoint, interceptor(seen));
    let timer = AwsTimer::new(|| sqs, scheduler, alarms, clock.clone());
    let done = timer.set(work(1), clock.now() + SignedDuration::from_hours(1)).await;
    let methods = wire.asked().iter().map(|what| what.split(' ').next().unwrap().to_owned()).collect();
    (methods, done.map_err(|error| causes(&error)))
}

const EXISTS: (u16, &str) = (409, "ConflictException");
const GONE: (u16, &str) = (404, "ResourceNotFoundException");

#[tokio::test]
async fn schedule_that_fires_during_a_move_is_created_again() {
    assert_eq!(set(&[EXISTS, GONE]).await, (["POST", "PUT", "POST"].map(str::to_owned).to_vec(), Ok(())));
    assert_eq!(set(&[EXISTS, EXISTS, EXISTS]).await.0, ["POST", "PUT", "POST", "PUT"]);
}

#[tokio::test]
async fn timer_gives_up_on_endless_conflicts() {
    let (methods, said) = set(&[EXISTS, GONE, EXISTS, GONE, EXISTS, GONE]).await;
    assert_eq!(methods.len(), 6);
    assert!(said.unwrap_err().contains("the sweep finds the work"));
}

#[tokio::test]
async fn timer_gives_up_on_a_refusal() {
    for (answers, operation) in
        [(vec![GONE], "CreateSchedule"), (vec![EXISTS, (403, "AccessDeniedException")], "UpdateSchedule")]
    {
        let (methods, said) = set(&answers).await;
        let said = said.unwrap_err();
        assert_eq!(methods.len(), answers.len());
        assert!(said.contains(&format!("{operation}: {}", answers[answers.len() - 1].1)), "{said}");
    }
}
