//! Alarms that fire early, as those on AWS do: the engine sets each again. Also which alarms are cancelled.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use overseer_engine::access::principal::Principal;
use overseer_engine::core::work_report::WorkReport;
use overseer_engine::engine::{Engine, Ports};
use overseer_engine::invoke::runs::RequestOptions;
use overseer_engine::ports::timer::TimerError;
use overseer_engine::ports::{Timer, Work};
use serde_json::{Value, json};

use super::{read, schedule, schedules};
use crate::accounts::authorize::{Browser, leads_to, link, secrets, unconnected};
use crate::support::app::App;
use crate::support::aws::Cloud;

/// Records every request: work with the time of its alarm, or without one if it is cancelled.
#[derive(Default)]
struct Notes(Mutex<Vec<(Work, Option<Timestamp>)>>);

impl Notes {
    fn take(&self) -> Vec<(Work, Option<Timestamp>)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[async_trait]
impl Timer for Notes {
    async fn set(&self, work: Work, at: Timestamp) -> Result<(), TimerError> {
        self.0.lock().unwrap().push((work, Some(at)));
        Ok(())
    }

    async fn cancel(&self, work: &Work) -> Result<(), TimerError> {
        self.0.lock().unwrap().push((work.clone(), None));
        Ok(())
    }
}

/// Another engine over the records of `app`, whose alarms are recorded and never fire.
fn noted(app: &App) -> (Arc<Engine>, Arc<Notes>) {
    let (Engine { ports, catalog, config, .. }, notes) = (app.engine.as_ref(), Arc::new(Notes::default()));
    let ports = Ports { timer: notes.clone(), ..ports.clone() };
    (Engine::new(ports, catalog.clone(), config.clone()).unwrap(), notes)
}

async fn principal(app: &App) -> Principal {
    app.engine.authenticate(&app.admin.as_str().into()).await.unwrap()
}

/// Creates a task of the administrator with these fields, and returns its id.
async fn task(engine: &Arc<Engine>, principal: &Principal, when: Value) -> String {
    let mut intent = json!({ "tool": "slack", "intent": "send", "context": { "channel": "C0PLAYGEN1", "text": "a" } });
    intent.as_object_mut().unwrap().extend(when.as_object().unwrap().clone());
    let made =
        engine.schedule(principal, serde_json::from_value(intent).unwrap(), &RequestOptions::default()).await.unwrap();
    made.answer.task.id.to_string()
}

#[tokio::test]
async fn early_alarm_is_set_again_for_its_time() {
    let app = unconnected().await;
    let mut browser = Browser::new(&app);
    let provider = browser.go(&link(&app, "gmail", &json!({ "returnTo": "https://agent.example/done" })).await).await;
    let back = browser.decide(&provider, "allow").await;
    leads_to(&browser.open(&back).await);
    let (engine, notes) = noted(&app);
    task(&engine, &principal(&app).await, json!({ "scheduledTime": "2026-11-21T09:10:00Z" })).await;
    notes.take();
    engine.set_alarms().await.unwrap();
    let mut alarms = notes.take();
    alarms.sort_by_key(|(work, _)| work.kind.as_str().to_owned());
    let kinds: Vec<_> = alarms.iter().map(|(work, at)| (work.kind.as_str(), *at)).collect();
    // Ten minutes from the start.
    let until = Some("2026-11-21T09:10:00Z".parse().unwrap());
    assert_eq!(kinds, [("pending-account", until), ("task", until)]);
    for seconds in [0, 599] {
        app.clock.advance(seconds);
        for (work, at) in &alarms {
            assert_eq!(engine.dispatch(work.clone(), None).await.unwrap(), WorkReport::default());
            assert_eq!(notes.take(), [(work.clone(), *at)], "{seconds}");
        }
    }
    assert_eq!(secrets(&app).await, 1);
    app.clock.advance(1);
    for (work, _) in alarms {
        engine.dispatch(work, None).await.unwrap();
    }
    assert_eq!(secrets(&app).await, 0);
    assert_eq!(notes.take(), [], "both have ended");
}

#[tokio::test]
async fn only_alarms_of_waiting_tasks_are_cancelled() {
    let app = App::start().await;
    let ((engine, notes), admin) = (noted(&app), principal(&app).await);
    let cancelled = || notes.take().into_iter().filter(|(_, at)| at.is_none()).map(|(work, _)| work.revision);
    let cancelled = || cancelled().collect::<Vec<_>>();

    let id = task(&engine, &admin, json!({ "schedule": { "rate": "1 hours" } })).await;
    engine.pause_task(&admin, &id).await.unwrap();
    assert_eq!(cancelled(), [1]);
    engine.resume_task(&admin, &id).await.unwrap();
    assert!(cancelled().is_empty(), "it was paused");
    let change = serde_json::from_value(json!({ "maxAttempts": 2 })).unwrap();
    engine.edit_task(&admin, &id, change).await.unwrap();
    assert_eq!(cancelled(), [3]);
    engine.cancel_task(&admin, &id).await.unwrap();
    assert_eq!(cancelled(), [4]);
    engine.retry_task(&admin, &id).await.unwrap();
    assert!(cancelled().is_empty(), "it had ended");
}

#[tokio::test]
async fn far_task_runs_to_the_second() {
    let (cloud, app) = (Cloud::start().await, App::start().await);
    let (engine, admin) = (cloud.engine(&app), principal(&app).await);
    // Later than ministack's own clock.
    let id = task(&engine, &admin, json!({ "scheduledTime": "2036-11-01T09:00:00Z" })).await;
    let found = schedule(&cloud).await;
    assert_eq!(found.schedule_expression(), Some("at(2036-11-01T08:55:00)"));
    let work = read(found.target().unwrap().input().unwrap());
    assert_eq!((work.kind.as_str(), work.id), ("task", format!("{id} admin")));
    let stale = read(found.target().unwrap().input().unwrap());

    // The task moves by a minute; the stale alarm fires all the same.
    let change = serde_json::from_value(json!({ "scheduledTime": "2036-11-01T09:01:00Z" })).unwrap();
    engine.edit_task(&admin, &id, change).await.unwrap();
    let found = schedule(&cloud).await;
    assert_eq!(found.schedule_expression(), Some("at(2036-11-01T08:56:00)"));
    let work = read(found.target().unwrap().input().unwrap());
    assert_eq!((stale.revision, work.revision), (1, 2));
    cloud.wire.take();
    assert_eq!(engine.dispatch(stale.clone(), None).await.unwrap(), WorkReport::default());
    let found = schedules(&cloud).await;
    assert_eq!(found.len(), 1, "the stale alarm made no other");
    assert_eq!(found[0].schedule_expression(), Some("at(2036-11-01T08:56:00)"));
    assert_eq!(cloud.wire.asked().len(), 2);

    // The schedule fires 40 s after its time, and once more later.
    let start: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
    let fires: Timestamp = "2036-11-01T08:56:40Z".parse().unwrap();
    app.clock.advance(fires.duration_since(start).as_secs());
    for (work, delay_s, seconds) in [(&work, 260, 259), (&stale, 1, 1)] {
        assert_eq!(engine.dispatch(work.clone(), None).await.unwrap(), WorkReport::default());
        let seen = cloud.wire.take();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen[0].body["DelaySeconds"], json!(delay_s));
        assert_eq!(read(seen[0].body["MessageBody"].as_str().unwrap()).revision, 2);
        app.clock.advance(seconds);
    }
    assert_eq!(app.playground.received_total(), 0);
    let done = WorkReport { due: 1, claimed: 1, succeeded: 1, ..WorkReport::default() };
    assert_eq!(engine.dispatch(work.clone(), None).await.unwrap(), done);
    assert_eq!(app.playground.received_total(), 1);
    // Other alarms of the task find nothing due and send no request.
    for work in [work, stale] {
        assert_eq!(engine.dispatch(work, None).await.unwrap(), WorkReport::default());
    }
    assert!(cloud.wire.asked().is_empty());
}

#[tokio::test]
async fn sweep_enqueues_due_work_without_delay() {
    let (cloud, app) = (Cloud::start().await, App::start().await);
    let admin = principal(&app).await;
    let id = task(&app.deaf(), &admin, json!({ "scheduledTime": "2026-11-21T10:00:00Z" })).await;
    let engine = cloud.engine(&app);
    app.clock.advance(3_600);
    let oldest_due = "2026-11-21T10:00:00Z".parse().ok();
    assert_eq!(engine.sweep().await.unwrap(), WorkReport { due: 1, enqueued: 1, oldest_due, ..WorkReport::default() });
    let seen = cloud.wire.take();
    assert_eq!((seen.len(), &seen[0].body["DelaySeconds"]), (1, &json!(0)));
    let work = read(&cloud.receive(&cloud.alarms.queue_url).await.unwrap());
    assert_eq!(work.id, format!("{id} admin"));
    assert_eq!(engine.dispatch(work, None).await.unwrap().succeeded, 1);
}
