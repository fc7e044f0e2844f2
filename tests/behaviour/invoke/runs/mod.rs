//! The ledger of runs, and intents that a caller can safely retry.

mod answers;
mod crashing;
mod late;
mod repeating;
mod secrets;
mod tasks;

use overseer_engine::access::principal::Role;
use overseer_playground::{Mode, Service};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{Answer, App};

const INTENTS: &str = "/api/plugin-engine";
const RUNS: &str = "/api/plugin-engine/runs";

fn send() -> Value {
    json!({ "agentId": "agent_1", "tool": "slack", "intent": "send", "context": { "channel": "C0PLAYGEN1", "text": "hello" } })
}

/// An intent with a key, and with more headers.
fn keyed(app: &App, key: &str, body: &Value, headers: &[(&str, &str)]) -> impl Future<Output = Answer> + use<> {
    keyed_at(app, INTENTS, key, body, headers)
}

fn keyed_at(
    app: &App,
    path: &str,
    key: &str,
    body: &Value,
    headers: &[(&str, &str)],
) -> impl Future<Output = Answer> + use<> {
    let request = app.request(Method::POST, path).bearer_auth(&app.admin).header("content-type", "application/json");
    let request = request.header("idempotency-key", key);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.body(body.to_string());
    async move { Answer::of(request.send().await.unwrap()).await }
}

async fn runs(app: &App, query: &str) -> Vec<Value> {
    app.get(&format!("{RUNS}{query}")).await.json()["runs"].as_array().unwrap().clone()
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// Runs a second apart: one succeeds, one fails, and one is of unknown outcome; a read leaves none. Gives the first answer.
async fn three_runs(app: &App) -> Value {
    let sent = app.post(INTENTS, &send()).await;
    let said = sent.json();
    app.intend("slack", "channels", json!({})).await.data();
    app.clock.advance(1);
    app.intend("slack", "send", json!({ "channel": "C0NOWHERE1", "text": "hello", "thread_ts": "1" })).await.failure();
    app.clock.advance(1);
    app.misbehave(Service::Gmail, Mode::Error, 1);
    let mail = json!({ "to": "a@example.com", "subject": "s", "body": "b" });
    assert_eq!(app.intend("gmail", "send", mail.clone()).await.json()["error"]["mayHaveHappened"], json!(true));
    said
}

#[tokio::test]
async fn effect_is_recorded_with_its_outcome() {
    let app = App::start().await;
    three_runs(&app).await;
    let listed = runs(&app, "").await;
    let states: Vec<_> =
        listed.iter().map(|run| (run["intent"].as_str().unwrap(), run["state"].as_str().unwrap())).collect();
    let expected = [("send_email", "unknown"), ("send_message", "failed"), ("send_message", "succeeded")];
    assert_eq!(states, expected, "the newest first, and no read");
    assert_eq!((&listed[1]["code"], &listed[0]["code"]), (&json!("rejected"), &json!("unavailable")));
}

#[tokio::test]
async fn run_records_its_request_with_the_answer() {
    let app = App::start().await;
    let said = three_runs(&app).await;
    let listed = runs(&app, "").await;
    let first = &listed[2];
    assert_eq!(
        *first,
        json!({
            "id": said["metadata"]["runId"], "state": "succeeded", "userId": "admin", "agentId": "agent_1",
            "tool": "slack", "version": "1.0.0", "intent": "send_message", "effect": "unsafe",
            "startedAt": "2026-11-21T09:00:00Z", "endedAt": "2026-11-21T09:00:00Z", "attempts": 1,
            "message": "Message sent", "externalId": said["externalId"], "requestId": said["requestId"],
        })
    );
    let one = app.get(&format!("{RUNS}/{}", first["id"].as_str().unwrap())).await.json();
    assert_eq!(one["context"], send()["context"]);
}

#[tokio::test]
async fn run_list_can_be_filtered() {
    let app = App::start().await;
    three_runs(&app).await;
    for (query, count) in [
        ("?tool=slack", 2),
        ("?state=unknown", 1),
        ("?state=started", 0),
        ("?agentId=agent_1", 3),
        ("?agentId=agent_2", 0),
        ("?userId=admin&state=failed", 1),
        ("?userId=ann", 0),
        ("?limit=2", 2),
    ] {
        assert_eq!(runs(&app, query).await.len(), count, "{query}");
    }
}

#[tokio::test]
async fn run_list_continues_at_its_cursor() {
    let app = App::start().await;
    three_runs(&app).await;
    let first = runs(&app, "").await.remove(2);
    let page = app.get(&format!("{RUNS}?limit=2")).await.json();
    let next = app.get(&format!("{RUNS}?limit=2&cursor={}", page["nextCursor"].as_str().unwrap())).await.json();
    assert_eq!(next["runs"], json!([first]));
}

#[tokio::test]
async fn invalid_run_query_is_refused() {
    let app = App::start().await;
    assert_eq!(app.get(&format!("{RUNS}?colour=red")).await.problem(400), "invalid_parameters");
    assert_eq!(app.get(&format!("{RUNS}?state=lost")).await.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn unknown_run_is_not_found() {
    let app = App::start().await;
    assert_eq!(app.get(&format!("{RUNS}/0")).await.problem(404), "not_found");
}

#[tokio::test]
async fn runs_are_kept_for_thirty_days() {
    let app = App::start().await;
    three_runs(&app).await;
    app.clock.advance(30 * 24 * 3600);
    assert_eq!(runs(&app, "").await, Vec::<Value>::new());
}

#[tokio::test]
async fn reads_are_recorded_on_request() {
    let app = App::start().await;
    let set = json!({ "record_reads": true });
    let set = app.send(&app.admin, Method::PATCH, "/api/v1/plugins/slack", Some(&set)).await;
    assert_eq!((set.status, &set.json()["record_reads"]), (StatusCode::OK, &json!(true)));
    app.intend("slack", "channels", json!({})).await.data();
    app.intend("gmail", "fetch", json!({ "limit": 1 })).await.data();
    let listed = runs(&app, "").await;
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["intent"], &listed[0]["effect"]), (&json!("list_channels"), &json!("read")));
}

/// An Overseer with a run of `admin` of unknown outcome, and the run's id.
async fn unknown_run() -> (App, String) {
    let app = App::start().await;
    app.misbehave(Service::Slack, Mode::Error, 1);
    let run = app.post(INTENTS, &send()).await.json()["metadata"]["runId"].as_str().unwrap().to_owned();
    (app, run)
}

#[tokio::test]
async fn run_of_another_user_is_hidden() {
    let (app, run) = unknown_run().await;
    let ann = app.key("acme", &[Role::User], Some("ann")).await;
    let stranger = app.key("other", &[Role::Administrator], Some("admin")).await;
    let (one, resolve) = (format!("{RUNS}/{run}"), format!("{RUNS}/{run}/resolve"));
    let verdict = json!({ "as": "failed" });
    for key in [&ann, &stranger] {
        assert_eq!(app.send(key, Method::GET, &one, None).await.problem(404), "not_found");
        assert_eq!(app.send(key, Method::POST, &resolve, Some(&verdict)).await.problem(404), "not_found");
        assert_eq!(app.send(key, Method::GET, RUNS, None).await.json()["runs"], json!([]));
    }
    assert_eq!(app.send(&ann, Method::GET, &format!("{RUNS}?userId=admin"), None).await.problem(403), "forbidden");
    assert_eq!(app.get(&one).await.json()["state"], json!("unknown"));
}

#[tokio::test]
async fn service_key_sees_runs_of_all_users() {
    let (app, run) = unknown_run().await;
    let service = app.key("acme", &[Role::Service], None).await;
    assert_eq!(app.send(&service, Method::GET, RUNS, None).await.json()["runs"].as_array().unwrap().len(), 1);
    let one = format!("{RUNS}/{run}");
    assert_eq!(app.send(&service, Method::GET, &one, None).await.json()["state"], json!("unknown"));
}

/// An intent of unknown outcome under a key, and the path to resolve its run.
async fn unknown_under(app: &App, key: &str) -> String {
    app.misbehave(Service::Slack, Mode::Error, 1);
    let unknown = keyed(app, key, &send(), &[]).await.json();
    format!("{RUNS}/{}/resolve", unknown["metadata"]["runId"].as_str().unwrap())
}

#[tokio::test]
async fn unknown_run_accepts_a_reported_outcome() {
    let app = App::start().await;
    for (key, verdict, state) in [("k1", "succeeded", "succeeded"), ("k2", "failed", "failed")] {
        let resolve = unknown_under(&app, key).await;
        let resolved = app.post(&resolve, &json!({ "as": verdict })).await.json();
        let by =
            json!({ "as": verdict, "at": "2026-11-21T09:00:00Z", "by": "admin", "key": resolved["resolution"]["key"] });
        assert_eq!((&resolved["state"], &resolved["resolution"]), (&json!(state), &by));
    }
}

#[tokio::test]
async fn invalid_run_outcome_is_refused() {
    let app = App::start().await;
    let resolve = unknown_under(&app, "k1").await;
    assert_eq!(app.post(&resolve, &json!({ "as": "perhaps" })).await.pointers(), ["/as"]);
}

#[tokio::test]
async fn run_of_known_outcome_accepts_no_report() {
    let app = App::start().await;
    for (key, verdict) in [("k1", "succeeded"), ("k2", "failed")] {
        let resolve = unknown_under(&app, key).await;
        app.post(&resolve, &json!({ "as": verdict })).await.json();
        assert_eq!(app.post(&resolve, &json!({ "as": verdict })).await.problem(409), "conflict");
    }
    let done = keyed(&app, "k3", &send(), &[]).await.json()["metadata"]["runId"].as_str().unwrap().to_owned();
    let refused = app.post(&format!("{RUNS}/{done}/resolve"), &json!({ "as": "failed" })).await;
    assert_eq!(refused.problem(409), "conflict");
}

#[tokio::test]
async fn reported_success_is_replayed_under_its_key() {
    let app = App::start().await;
    let resolve = unknown_under(&app, "k1").await;
    app.post(&resolve, &json!({ "as": "succeeded" })).await.json();
    let before = app.playground.received_total();
    let happened = keyed(&app, "k1", &send(), &[]).await;
    assert!(is_replay(&happened) && happened.data().is_null(), "{}", happened.text);
    assert_eq!(app.playground.received_total(), before);
}

#[tokio::test]
async fn reported_failure_frees_its_key() {
    let app = App::start().await;
    let resolve = unknown_under(&app, "k2").await;
    app.post(&resolve, &json!({ "as": "failed" })).await.json();
    let before = app.playground.received_total();
    let again = keyed(&app, "k2", &send(), &[]).await;
    assert!(!is_replay(&again) && again.data()["ts"].is_string(), "{}", again.text);
    assert_eq!(app.playground.received_total(), before + 1);
}

#[tokio::test]
async fn task_attempts_are_recorded() {
    let app = App::start().await;
    let mut later = send();
    later["scheduledTime"] = json!("2026-11-21T09:00:30Z");
    let task = app.post(INTENTS, &later).await.json()["task"]["id"].as_str().unwrap().to_owned();
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    app.clock.advance(30);
    app.engine.sweep().await.unwrap();
    let status = async || app.get(&format!("/api/plugin-engine/tasks/{task}")).await.json()["status"].clone();
    while status().await != "retrying" {
        tokio::task::yield_now().await;
    }
    app.clock.advance(60);
    app.engine.sweep().await.unwrap();
    while status().await != "succeeded" {
        tokio::task::yield_now().await;
    }
    let listed = runs(&app, "").await;
    let attempts: Vec<_> = listed.iter().map(|run| (run["state"].as_str().unwrap(), &run["taskId"])).collect();
    assert_eq!(attempts, [("succeeded", &json!(task)), ("failed", &json!(task))]);
}

#[tokio::test]
async fn ledger_redacts_secrets() {
    let app = App::start().await;
    let blocks = json!([{ "type": "section", "password": "open sesame", "text": "hello" }]);
    let context = json!({ "channel": "C0PLAYGEN1", "text": "hello", "blocks": blocks });
    let run = app.intend("slack", "send", context).await.json()["metadata"]["runId"].as_str().unwrap().to_owned();
    let one = app.get(&format!("{RUNS}/{run}")).await;
    assert_eq!(one.json()["context"]["blocks"][0]["password"], json!("[removed]"));
    assert!(!one.text.contains("sesame"), "{}", one.text);
}
