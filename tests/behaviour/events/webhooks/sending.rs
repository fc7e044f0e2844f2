//! The state of a delivery after each kind of receiver answer.

use axum::body::Body;
use axum::http::header::{LOCATION, RETRY_AFTER};
use overseer_engine::outbound::config::Config;
use overseer_engine::ports::Table as _;
use overseer_engine::ports::table::{Condition, Key, Read};
use tokio::time::{Duration, Instant};

use super::*;

/// Fires the alarm of a delivery at the time of its next attempt; gives it as it is then.
async fn next(app: &App, deaf: &Engine, id: &str, work: &Work) -> Value {
    let own = async || {
        let all = deliveries(app, id).await;
        all.into_iter().find(|one| work.id.ends_with(one["id"].as_str().unwrap())).unwrap()
    };
    let waits = own().await;
    let at: jiff::Timestamp = waits["next_attempt_at"].as_str().unwrap().parse().unwrap();
    let now = deaf.ports.clock.now();
    // The clock has whole seconds.
    app.clock.advance(at.duration_since(now).as_secs() + i64::from(at.subsec_nanosecond() > 0));
    fire(app, work).await;
    own().await
}

async fn fire(app: &App, work: &Work) -> WorkReport {
    app.deaf().dispatch(work.clone(), None).await.unwrap()
}

#[tokio::test]
async fn recovered_receiver_gets_the_next_attempt() {
    let receiver = Receiver::start().await;
    receiver.answer(StatusCode::INTERNAL_SERVER_ERROR);
    receiver.answer((StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "3600")]));
    let (app, deaf, id, work) = waiting(&receiver).await;
    assert_eq!(fire(&app, &work).await.failed, 1);
    let failed = deliveries(&app, &id).await.remove(0);
    assert_eq!((&failed["status"], &failed["attempts"][0]["status"]), (&json!("waiting"), &json!(500)));
    assert_eq!(failed["tried_until"], "2026-11-22T09:00:00Z");
    assert_eq!(fire(&app, &work).await, WorkReport::default(), "it is not time yet");
    let failed = next(&app, &deaf, &id, &work).await;
    assert_eq!(failed["attempts"][1]["status"], 503);
    let at: jiff::Timestamp = failed["attempts"][1]["at"].as_str().unwrap().parse().unwrap();
    assert_eq!(failed["next_attempt_at"], json!(at + jiff::SignedDuration::from_hours(1)), "as it asked");
    let done = next(&app, &deaf, &id, &work).await;
    assert_eq!((&done["status"], &done["attempts"][2]["status"]), (&json!("succeeded"), &json!(204)));
    let got = receiver.got();
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|one| one.header("webhook-id") == got[0].header("webhook-id") && one.body == got[0].body));
    assert!(app.get(&format!("{WEBHOOKS}/{id}")).await.json().get("failing_since").is_none());
}

#[tokio::test]
async fn delivery_fails_after_a_day() {
    let receiver = Receiver::start().await;
    let (app, deaf, id, work) = waiting(&receiver).await;
    for _ in 0..8 {
        receiver.answer(StatusCode::BAD_GATEWAY);
    }
    fire(&app, &work).await;
    let mut delivery = deliveries(&app, &id).await.remove(0);
    while delivery["status"] == "waiting" {
        delivery = next(&app, &deaf, &id, &work).await;
    }
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!((&delivery["status"], attempts.len(), receiver.got().len()), (&json!("failed"), 8, 8));
    let last: jiff::Timestamp = attempts[7]["at"].as_str().unwrap().parse().unwrap();
    let took = last.as_second() - crate::support::app::START_S;
    assert!((23 * 3600..=24 * 3600).contains(&took), "{took} s");
    let webhook = app.get(&format!("{WEBHOOKS}/{id}")).await.json();
    assert_eq!((&webhook["active"], &webhook["failing_since"]), (&json!(true), &json!("2026-11-21T09:00:00Z")));
    assert_eq!(deaf.sweep().await.unwrap().due, 0);

    // By hand it goes again, for another day, and what arrived can be sent once more, too.
    let path = format!("{WEBHOOKS}/{id}/deliveries/{}/retry", delivery["id"].as_str().unwrap());
    for count in [9, 10] {
        let again = app.post(&path, &json!({})).await.json();
        assert_eq!((&again["status"], again.get("next_attempt_at").is_some()), (&json!("waiting"), true));
        receiver.has(count).await;
        let done = reached(&app, &id, "succeeded").await;
        assert_eq!(done["attempts"].as_array().unwrap().len(), count);
    }
    assert!(app.get(&format!("{WEBHOOKS}/{id}")).await.json().get("failing_since").is_none(), "it arrived");
    app.clock.advance(30 * 24 * 3600 - 1);
    assert_eq!(deliveries(&app, &id).await.len(), 1);
    app.clock.advance(1);
    assert_eq!(deliveries(&app, &id).await.len(), 0);
}

#[tokio::test]
async fn gone_receiver_is_deactivated() {
    let receiver = Receiver::start().await;
    let (app, deaf, id, work) = waiting(&receiver).await;
    make_key(&deaf).await;
    deaf.dispatch(outbox(&app).await.remove(0), None).await.unwrap();
    receiver.answer(StatusCode::GONE);
    fire(&app, &work).await;
    let webhook = app.get(&format!("{WEBHOOKS}/{id}")).await.json();
    assert_eq!(webhook["active"], false);
    let deactivated = json!({ "at": "2026-11-21T09:00:00Z", "reason": "its receiver answered 410 Gone" });
    assert_eq!(webhook["deactivated"], deactivated);
    while !app.events.lock().unwrap().iter().any(|event| event.kind == "webhook.deactivated") {
        tokio::task::yield_now().await;
    }
    // What still waited is not sent, and not lost.
    let all = deliveries(&app, &id).await;
    for delivery in &all {
        fire(&app, &alarm(&id, delivery)).await;
    }
    let all = deliveries(&app, &id).await;
    assert!(all.iter().all(|delivery| delivery["status"] == "failed"), "{all:?}");
    assert_eq!(receiver.got().len(), 1);
    let path = format!("{WEBHOOKS}/{id}");
    let unsent = all.iter().find(|delivery| delivery["attempts"][0].get("status").is_none()).unwrap();
    assert_eq!(unsent["attempts"][0]["problem"], "the webhook is not active");
    let retry = format!("{path}/deliveries/{}/retry", unsent["id"].as_str().unwrap());
    assert_eq!(app.post(&retry, &json!({})).await.problem(409), "conflict");
    let back = app.send(&app.admin, Method::PATCH, &path, Some(&json!({ "active": true }))).await.json();
    assert!(back["active"] == true && back.get("deactivated").is_none());
    app.post(&retry, &json!({})).await.json();
    receiver.has(2).await;
}

#[tokio::test]
async fn webhook_failing_for_five_days_is_deactivated() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["api_key.created"]).await;
    let deaf = app.deaf();
    let webhook = async || app.get(&format!("{WEBHOOKS}/{id}")).await.json();
    let mut days = 0;
    while webhook().await["active"] == true {
        for _ in 0..8 {
            receiver.answer(StatusCode::NOT_FOUND);
        }
        make_key(&deaf).await;
        deaf.dispatch(outbox(&app).await.remove(0), None).await.unwrap();
        let work = alarm(&id, &deliveries(&app, &id).await[0]);
        fire(&app, &work).await;
        while deliveries(&app, &id).await[0]["status"] == "waiting" {
            next(&app, &deaf, &id, &work).await;
        }
        days += 1;
    }
    assert!((5..=6).contains(&days), "{days}");
    assert_eq!(webhook().await["deactivated"]["reason"], "every delivery failed for five days");
}

#[tokio::test]
async fn retried_old_delivery_does_not_harm_its_webhook() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["api_key.created"]).await;
    let deaf = app.deaf();
    let fails = async || {
        for _ in 0..8 {
            receiver.answer(StatusCode::NOT_FOUND);
        }
    };
    let ends = async |delivery: &Value| {
        let work = alarm(&id, delivery);
        fire(&app, &work).await;
        while deliveries(&app, &id).await.iter().any(|one| one["id"] == delivery["id"] && one["status"] == "waiting") {
            next(&app, &deaf, &id, &work).await;
        }
    };
    let tell = async || {
        make_key(&deaf).await;
        deaf.dispatch(outbox(&app).await.remove(0), None).await.unwrap();
        deliveries(&app, &id).await[0].clone()
    };
    fails().await;
    let old = tell().await;
    ends(&old).await;
    // All else arrives.
    ends(&tell().await).await;
    app.clock.advance(6 * 24 * 3600);
    fails().await;
    let path = format!("{WEBHOOKS}/{id}/deliveries/{}/retry", old["id"].as_str().unwrap());
    assert!(app.post(&path, &json!({})).await.status.is_success());
    let again = deliveries(&app, &id).await.into_iter().find(|one| one["id"] == old["id"]).unwrap();
    ends(&again).await;
    assert_eq!(app.get(&format!("{WEBHOOKS}/{id}")).await.json()["active"], true);
}

#[tokio::test]
async fn webhook_redirect_is_not_followed() {
    let receiver = Receiver::start().await;
    let (app, _, id, work) = waiting(&receiver).await;
    receiver.answer((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/elsewhere")]));
    fire(&app, &work).await;
    let delivery = deliveries(&app, &id).await.remove(0);
    assert_eq!((&delivery["status"], &delivery["attempts"][0]["status"]), (&json!("waiting"), &json!(307)));
    assert_eq!(receiver.got().len(), 1);
    // An answer without an end is one all the same.
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b'a'; 4096])));
    receiver.answer(Body::from_stream(endless).into_response());
    app.clock.advance(10);
    assert_eq!(fire(&app, &work).await.succeeded, 1);
}

#[tokio::test]
async fn webhook_address_is_checked_at_sending() {
    let receiver = Receiver::start().await;
    let (app, _, id, work) = waiting(&receiver).await;
    // The operator has changed their mind.
    let Engine { ports, catalog, config, .. } = app.engine.as_ref();
    let config = Config { allowed_addresses: Vec::new(), ..config.clone() };
    let strict = Engine::new(ports.clone(), catalog.clone(), config).unwrap();
    assert_eq!(strict.dispatch(work.clone(), None).await.unwrap().failed, 1);
    let delivery = deliveries(&app, &id).await.remove(0);
    let problem = "its URL is not https, and the operator does not allow its address";
    assert_eq!(delivery["attempts"][0]["problem"], problem);
    assert!(delivery["attempts"][0].get("status").is_none());
    // A name may lead elsewhere than it did, which is seen before anything is connected to.
    let key = Key { partition: "org#acme".to_owned(), sort: "webhooks".to_owned() };
    let item = app.table.get(&key, Read::Consistent).await.unwrap().unwrap();
    let mut stored = item.stored;
    stored.body = stored.body.replace(&receiver.url("/"), &format!("https://localhost:{}/", receiver.address.port()));
    app.table.put(stored, Condition::Any).await.unwrap();
    app.clock.advance(10);
    assert_eq!(strict.dispatch(work, None).await.unwrap().failed, 1);
    let delivery = deliveries(&app, &id).await.remove(0);
    let problem = "localhost is at an address that calls may not reach";
    assert_eq!(delivery["attempts"][1]["problem"], problem);
    assert_eq!(receiver.got().len(), 0);
}

#[tokio::test]
async fn delivery_of_a_deleted_webhook_is_not_sent() {
    let receiver = Receiver::start().await;
    let (app, deaf, id, work) = waiting(&receiver).await;
    make_key(&deaf).await;
    app.delete(&format!("{WEBHOOKS}/{id}")).await.json();
    for event in outbox(&app).await {
        deaf.dispatch(event, None).await.unwrap();
    }
    assert_eq!(fire(&app, &work).await, WorkReport::default());
    assert_eq!((deaf.sweep().await.unwrap().due, receiver.got().len()), (0, 0));
    let left = app.table.items().await;
    assert!(
        !left.iter().any(|key| key.partition.contains("#webhook#") || key.partition.contains("#outbox")),
        "{left:?}"
    );
}

#[tokio::test]
async fn worker_without_time_leaves_the_delivery() {
    let receiver = Receiver::start().await;
    let (app, deaf, id, work) = waiting(&receiver).await;
    let soon = Some(Instant::now() + Duration::from_secs(29));
    assert_eq!(
        deaf.dispatch(work.clone(), soon).await.unwrap(),
        WorkReport { due: 1, left: 1, ..WorkReport::default() }
    );
    assert_eq!(deliveries(&app, &id).await[0]["status"], "waiting");
    let later = Some(Instant::now() + Duration::from_secs(40));
    assert_eq!(deaf.dispatch(work, later).await.unwrap().succeeded, 1);
    // What names no work is none.
    for id in ["", "a", "a b", "a b c"] {
        let work = Work { org: acme(), kind: "delivery".into(), id: id.to_owned(), revision: 0 };
        assert_eq!(deaf.dispatch(work, None).await.unwrap(), WorkReport::default(), "{id}");
    }
}

#[tokio::test]
async fn delivery_list_is_ordered_by_time() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    for name in ["a", "b", "c", "d", "e"] {
        event(&app, name).await;
        app.clock.advance(1);
    }
    receiver.has(5).await;
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("{WEBHOOKS}/{id}/deliveries?limit=2{cursor}")).await.json();
        let some = page["deliveries"].as_array().unwrap();
        assert!(some.len() <= 2);
        listed.extend(some.iter().map(|one| one["timestamp"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let expected: Vec<_> = (0..5).rev().map(|second| format!("2026-11-21T09:00:0{second}Z")).collect();
    assert_eq!(listed, expected);
    for query in ["limit=0", "limit=101", "cursor=nonsense", "from=1"] {
        let answer = app.get(&format!("{WEBHOOKS}/{id}/deliveries?{query}")).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{query}");
    }
}
