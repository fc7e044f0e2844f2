//! Webhook subscriptions: their fields, permissions and shown values.

use futures_util::future::join_all;
use overseer_engine::outbound::config::Config;
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::Table as _;
use overseer_engine::ports::table::Read;

use super::*;
use crate::accounts::connect::canary::{Log, clean};

async fn create(app: &App, body: &Value) -> crate::support::app::Answer {
    app.post(WEBHOOKS, body).await
}

#[tokio::test]
async fn webhook_lifecycle_is_complete() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let body = json!({ "url": receiver.url("/x"), "events": ["task.failed", "task.failed", "task.paused"],
                       "description": "for the pager" });
    let mut made = create(&app, &body).await.json();
    assert!(made["secret"].take().as_str().unwrap().starts_with("whsec_"));
    let id = made["id"].as_str().unwrap().to_owned();
    let mut expected = json!({
        "id": id, "url": receiver.url("/x"), "events": ["task.failed", "task.paused"], "description": "for the pager",
        "active": true, "created_at": "2026-11-21T09:00:00Z", "updated_at": "2026-11-21T09:00:00Z",
    });
    let path = format!("{WEBHOOKS}/{id}");
    assert_eq!(app.get(&path).await.json(), expected);
    assert_eq!(app.get(WEBHOOKS).await.json(), json!({ "webhooks": [expected] }));
    made.as_object_mut().unwrap().remove("secret");
    assert_eq!(made, expected);

    app.clock.advance(10);
    let change = json!({ "url": receiver.url("/y"), "events": ["*"], "active": false });
    let changed = app.send(&app.admin, Method::PATCH, &path, Some(&change)).await.json();
    expected["url"] = change["url"].clone();
    expected["events"] = json!(["*"]);
    expected["active"] = json!(false);
    expected["updated_at"] = json!("2026-11-21T09:00:10Z");
    assert_eq!(changed, expected);
    assert_eq!(app.get(&path).await.json(), expected);
    // An inactive webhook gets no events and costs nothing.
    event(&app, "a").await;
    assert_eq!((outbox(&app).await.len(), deliveries(&app, &id).await.len()), (0, 0));

    assert_eq!(app.delete(&path).await.json(), expected);
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/rotate")),
        (Method::GET, format!("{path}/deliveries")),
        (Method::POST, format!("{path}/deliveries/1/retry")),
        (Method::GET, format!("{WEBHOOKS}/no-id!")),
    ] {
        assert_eq!(app.send(&app.admin, method, &path, None).await.problem(404), "not_found", "{path}");
    }
    assert_eq!(app.get(WEBHOOKS).await.json(), json!({ "webhooks": [] }));
    let left = app.table.items().await;
    assert!(!left.iter().any(|key| key.partition.contains("#secret#") || key.sort == "webhooks"), "{left:?}");
}

#[tokio::test]
async fn webhook_management_requires_an_administrator() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    let new = json!({ "url": receiver.url("/"), "events": ["*"] });
    let service = app.key("acme", &[Role::Service], None).await;
    let user = app.key("acme", &[Role::User], Some("ann")).await;
    for key in [&service, &user] {
        for (method, path, body) in [
            (Method::GET, WEBHOOKS.to_owned(), None),
            (Method::POST, WEBHOOKS.to_owned(), Some(&new)),
            (Method::GET, format!("{WEBHOOKS}/{id}"), None),
            (Method::PATCH, format!("{WEBHOOKS}/{id}"), Some(&new)),
            (Method::DELETE, format!("{WEBHOOKS}/{id}"), None),
            (Method::POST, format!("{WEBHOOKS}/{id}/rotate"), None),
            (Method::GET, format!("{WEBHOOKS}/{id}/deliveries"), None),
            (Method::POST, format!("{WEBHOOKS}/{id}/deliveries/1/retry"), None),
        ] {
            assert_eq!(app.send(key, method.clone(), &path, body).await.problem(403), "forbidden", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn private_webhook_address_is_refused() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    let (host, port) = (receiver.address.ip(), receiver.address.port());
    for url in [
        format!("http://{host}:{}/", port.wrapping_add(1)),
        format!("https://{host}/"),
        format!("http://localhost:{port}/"),
        format!("ftp://{host}:{port}/"),
        format!("http://user:secret@{host}:{port}/"),
        format!("http://{host}:{port}/#part"),
        "http://example.com/".to_owned(),
        "http://8.8.8.8/".to_owned(),
        "https://127.1/".to_owned(),
        "https://0x7f000001/".to_owned(),
        "https://[::1]/".to_owned(),
        "https://[::ffff:10.0.0.1]/".to_owned(),
        "https://10.0.0.1/".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        // By its name.
        "https://localhost/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "data:,".to_owned(),
        "nothing".to_owned(),
        String::new(),
    ] {
        let answer = create(&app, &json!({ "url": url, "events": ["*"] })).await;
        assert_eq!(
            (answer.problem(400), answer.pointers()),
            ("invalid_parameters".to_owned(), vec!["/url".to_owned()]),
            "{url}"
        );
        let path = format!("{WEBHOOKS}/{id}");
        let answer = app.send(&app.admin, Method::PATCH, &path, Some(&json!({ "url": url }))).await;
        assert_eq!(
            (answer.problem(400), answer.pointers()),
            ("invalid_parameters".to_owned(), vec!["/url".to_owned()]),
            "{url}"
        );
    }
    assert_eq!(app.get(WEBHOOKS).await.json()["webhooks"].as_array().unwrap().len(), 1);
    for url in ["https://does-not-exist.invalid/a?b=c", "https://8.8.8.8:8443/", "HTTPS://Example.COM"] {
        assert_eq!(create(&app, &json!({ "url": url, "events": ["*"] })).await.status, 201, "{url}");
    }
}

#[tokio::test]
async fn webhook_fields_have_limits() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let base = receiver.url("/");
    let long = |bytes: usize| format!("{base}{}", "a".repeat(bytes - base.len()));
    for (body, pointers) in [
        (json!({}), vec!["/events", "/url"]),
        (json!({ "url": base, "events": [] }), vec!["/events"]),
        (
            json!({ "url": base, "events": ["task.failed", "task", "", "*.failed"] }),
            vec!["/events/1", "/events/2", "/events/3"],
        ),
        (json!({ "url": base, "events": "*" }), vec!["/events"]),
        (json!({ "url": base, "events": ["*"], "secret": "whsec_mine" }), vec!["/secret"]),
        (json!({ "url": base, "events": ["*"], "description": "d".repeat(501) }), vec!["/description"]),
        (json!({ "url": long(2049), "events": ["*"] }), vec!["/url"]),
    ] {
        let answer = create(&app, &body).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{body}");
        assert_eq!(answer.pointers(), pointers, "{body}");
    }
    let fine = json!({ "url": long(2048), "events": ["*"], "description": "d".repeat(500) });
    assert_eq!(create(&app, &fine).await.status, 201);
    assert_eq!(app.get(&format!("{WEBHOOKS}?limit=1")).await.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn organization_has_at_most_20_webhooks() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let new = json!({ "url": receiver.url("/"), "events": ["api_key.created"] });
    let answers = join_all((0..25).map(|_| create(&app, &new))).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (20, 5));
    assert!(refused.iter().all(|answer| answer.problem(409) == "conflict"));
    let secrets = app.table.items().await.into_iter().filter(|key| key.partition.contains("#secret#"));
    assert_eq!(secrets.count(), 20, "the secrets of those that were refused are gone");
    // Another organization's webhooks do not count, and each of the twenty gets the event.
    let globex = app.key("globex", &[Role::Administrator], None).await;
    assert_eq!(app.send(&globex, Method::POST, WEBHOOKS, Some(&new)).await.status, 201);
    event(&app, "a").await;
    receiver.has(20).await;
    let first = made[0].json()["id"].as_str().unwrap().to_owned();
    app.delete(&format!("{WEBHOOKS}/{first}")).await.json();
    assert_eq!(create(&app, &new).await.status, 201);
}

#[tokio::test]
async fn replaced_webhook_secret_signs_for_a_day() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, first) = subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    let rotated = app.post(&format!("{WEBHOOKS}/{id}/rotate"), &json!({})).await.json();
    let second = rotated["secret"].as_str().unwrap();
    assert_eq!(rotated["old_secret_signs_until"], "2026-11-22T09:00:00Z");
    event(&app, "a").await;
    let got = receiver.has(1).await.remove(0);
    assert_eq!((got.signed_with(second), got.signed_with(&first)), (1, 1));
    assert!(got.header("webhook-signature").split(' ').count() == 2);
    reached(&app, &id, "succeeded").await;

    app.clock.advance(24 * 3600);
    assert!(app.get(&format!("{WEBHOOKS}/{id}")).await.json().get("old_secret_signs_until").is_none());
    event(&app, "b").await;
    let got = receiver.has(2).await.remove(1);
    assert_eq!((got.signed_with(second), got.signed_with(&first)), (1, 0));
    // The one that signs no more goes with the next change of secrets.
    app.post(&format!("{WEBHOOKS}/{id}/rotate"), &json!({})).await.json();
    let secrets = app.table.items().await.into_iter().filter(|key| key.partition.contains("#secret#"));
    assert_eq!(secrets.count(), 2);
}

#[tokio::test]
async fn webhook_secret_is_shown_once() {
    let log = Log::default();
    let heard = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let _here = tracing::subscriber::set_default(heard.with_writer(log.clone()).finish());
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let (id, first) = subscribe(&app, &app.admin, &receiver.url("/hook/s3cr3t-path"), &["*"]).await;
    let path = format!("{WEBHOOKS}/{id}");
    let second = app.post(&format!("{path}/rotate"), &json!({})).await.json()["secret"].as_str().unwrap().to_owned();
    receiver.answer((StatusCode::INTERNAL_SERVER_ERROR, "what the receiver says is nobody's business"));
    event(&app, "a").await;
    receiver.has(1).await;
    let delivery = reached(&app, &id, "waiting").await;
    app.post(&format!("{path}/deliveries/{}/retry", delivery["id"].as_str().unwrap()), &json!({})).await.json();
    reached(&app, &id, "succeeded").await;
    receiver.answer(StatusCode::GONE);
    event(&app, "b").await;
    reached(&app, &id, "failed").await;
    // Overseer stores the failed delivery before it publishes the deactivation.
    let told = || app.events.lock().unwrap().iter().any(|event| event.kind == "webhook.deactivated");
    for _ in 0..1_000 {
        if told() {
            break;
        }
        app.get(WEBHOOKS).await;
    }

    let mut texts = vec![("an event", format!("{:?}", app.events.lock().unwrap())), ("the log", log.take())];
    for path in [WEBHOOKS, &path, &format!("{path}/deliveries")] {
        texts.push(("an answer", app.get(path).await.text));
    }
    for key in app.table.items().await {
        let item = app.table.get(&key, Read::Consistent).await.unwrap().unwrap();
        texts.push(("a stored item", format!("{key:?} {}", item.stored.body)));
    }
    texts.push(("an answer", app.delete(&path).await.text));
    assert!(texts[1].1.contains("event webhook.deactivated"), "no log: {}", texts[1].1);
    for (place, text) in &texts {
        for secret in [&first, &second] {
            clean(text, secret.strip_prefix("whsec_").unwrap(), place);
        }
        assert!(!text.contains("nobody's business"), "{place} has what the receiver said: {text}");
    }
    assert!(!texts[0].1.contains("s3cr3t-path") && !texts[1].1.contains("s3cr3t-path"), "a URL may be a secret, too");
}

#[tokio::test]
async fn new_webhook_counts_in_every_process() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    let Engine { ports, .. } = app.engine.as_ref();
    let config = Config::read(&Catalog::built_in(), |_| None).unwrap();
    let other = Engine::new(ports.clone(), Catalog::built_in(), config).unwrap();
    make_key(&other).await;
    subscribe(&app, &app.admin, &receiver.url("/"), &["*"]).await;
    make_key(&other).await;
    receiver.has(1).await;
}

/// What docs/figures.md says that webhooks cost.
#[tokio::test]
async fn webhook_steps_cost_the_documented_round_trips() {
    let receiver = Receiver::start().await;
    let app = receiver.app().await;
    // From here on the data key is known.
    let (other, _) = subscribe(&app, &app.admin, &receiver.url("/other"), &["task.paused"]).await;
    app.table.take();
    let costs = |what: &str, expected: (usize, usize)| assert_eq!(app.table.take(), expected, "{what}");
    let (id, _) = subscribe(&app, &app.admin, &receiver.url("/"), &["plugin.reset"]).await;
    costs("making it", (1, 2));
    let path = format!("{WEBHOOKS}/{id}");
    app.get(&path).await.json();
    app.get(WEBHOOKS).await.json();
    costs("looking at it, and at all", (2, 0));
    app.send(&app.admin, Method::PATCH, &path, Some(&json!({ "events": ["*"] }))).await.json();
    costs("changing it", (1, 1));
    app.post(&format!("{path}/rotate"), &json!({})).await.json();
    costs("a new secret", (2, 2));
    app.delete(&format!("{WEBHOOKS}/{other}")).await.json();
    costs("deleting one", (2, 2));
    let deaf = app.deaf();
    make_key(&deaf).await;
    costs("an event, in a process that has not seen the webhook", (1, 1));
    make_key(&deaf).await;
    costs("an event, in one that has", (0, 1));
    let work = outbox(&app).await;
    deaf.dispatch(work[0].clone(), None).await.unwrap();
    costs("making it deliveries", (1, 1));
    deaf.dispatch(work[0].clone(), None).await.unwrap();
    costs("once more", (1, 0));
    let delivery = deliveries(&app, &id).await.remove(0);
    costs("the deliveries", (2, 0));
    deaf.dispatch(alarm(&id, &delivery), None).await.unwrap();
    // With two secrets that sign.
    costs("the first delivery of a process", (3, 2));
    deaf.dispatch(work[1].clone(), None).await.unwrap();
    let delivery = deliveries(&app, &id).await.remove(0);
    app.table.take();
    deaf.dispatch(alarm(&id, &delivery), None).await.unwrap();
    costs("a delivery", (1, 2));
    deaf.dispatch(alarm(&id, &delivery), None).await.unwrap();
    costs("once more", (1, 0));
}
