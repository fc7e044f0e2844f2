//! Which tasks a caller lists, reaches and cancels.

use overseer_engine::access::principal::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{TASKS, at, fire, id, made, status};
use crate::support::app::{Answer, App};

/// A task of `admin` and a later task of `ann` in one organization, the key of `ann`, and that of an administrator of another
/// organization.
struct Callers {
    app: App,
    own: String,
    anns: String,
    ann: String,
    other: String,
}

impl Callers {
    async fn start() -> Self {
        let app = App::start().await;
        let own = id(&made(&app, &at("2026-11-22T09:00:00Z")).await);
        app.clock.advance(1);
        let mut of_ann = at("2026-11-22T09:00:00Z");
        of_ann["userId"] = json!("ann");
        let anns = id(&made(&app, &of_ann).await);
        let ann = app.key("acme", &[Role::User], Some("ann")).await;
        let other = app.key("other", &[Role::Administrator], Some("ann")).await;
        Self { app, own, anns, ann, other }
    }
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.json()["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn task_list_shows_only_tasks_of_the_caller() {
    let Callers { app, own, anns, ann, other } = Callers::start().await;
    assert_eq!(ids(&app.get(TASKS).await), [anns.clone(), own], "the newest first");
    assert_eq!(ids(&app.get(&format!("{TASKS}?userId=ann")).await), std::slice::from_ref(&anns));
    assert_eq!(ids(&app.send(&ann, Method::GET, TASKS, None).await), std::slice::from_ref(&anns));
    assert_eq!(ids(&app.send(&other, Method::GET, TASKS, None).await), Vec::<String>::new());
    assert_eq!(app.send(&ann, Method::GET, &format!("{TASKS}?userId=admin"), None).await.problem(403), "forbidden");
}

#[tokio::test]
async fn task_of_another_user_is_not_found() {
    let Callers { app, own, anns, ann, other } = Callers::start().await;
    for (key, id) in [(&ann, &own), (&other, &own), (&other, &anns)] {
        let path = format!("{TASKS}/{id}");
        for (method, rest, body) in [
            (Method::GET, "", None),
            (Method::DELETE, "", None),
            (Method::PATCH, "", Some(json!({}))),
            (Method::POST, "/retry", None),
            (Method::POST, "/pause", None),
            (Method::POST, "/resume", None),
        ] {
            let answer = app.send(key, method, &format!("{path}{rest}"), body.as_ref()).await;
            assert_eq!(answer.problem(404), "not_found", "{rest}");
        }
    }
}

#[tokio::test]
async fn bulk_cancel_reaches_only_tasks_of_the_caller() {
    let Callers { app, own, anns, ann, other } = Callers::start().await;
    let cancelled = app.send(&other, Method::POST, &format!("{TASKS}/cancel"), Some(&json!({}))).await.json();
    assert_eq!(cancelled, json!({ "dryRun": false, "cancelled": [], "asked": [] }));
    let dry = app.post(&format!("{TASKS}/cancel"), &json!({ "agentId": "agent_1", "dryRun": true })).await.json();
    assert_eq!(dry["cancelled"], json!([anns, own]));
    assert_eq!(status(&app, &own).await, "scheduled");
    let mine = app.send(&ann, Method::POST, &format!("{TASKS}/cancel"), Some(&json!({ "tool": "slack" }))).await.json();
    assert_eq!(mine["cancelled"], json!([anns]));
    assert_eq!(status(&app, &own).await, "scheduled");
    assert_eq!(ids(&app.get(&format!("{TASKS}?status=cancelled")).await), [anns]);
}

#[tokio::test]
async fn invalid_query_of_the_task_list_is_refused() {
    let app = App::start().await;
    for wrong in ["status=never", "limit=0", "cursor=x", "agent=a"] {
        assert_eq!(app.get(&format!("{TASKS}?{wrong}")).await.problem(400), "invalid_parameters", "{wrong}");
    }
}

#[tokio::test]
async fn task_list_has_no_attempts() {
    let app = App::start().await;
    let task_id = id(&made(&app, &at("2026-11-21T10:00:00Z")).await);
    app.clock.advance(3600);
    fire(&app, &task_id).await;
    assert!(app.get(TASKS).await.json()["tasks"][0].get("attempts").is_none());
}

#[tokio::test]
async fn partial_task_id_is_not_found() {
    let app = App::start().await;
    let task_id = id(&made(&app, &at("2026-11-22T09:00:00Z")).await);
    // A key that is bound to no user finds tasks by the organization's list.
    let bot = app.key("acme", &[Role::Service], None).await;
    let get = async |id: &str| app.send(&bot, Method::GET, &format!("{TASKS}/{id}"), None).await;
    assert_eq!(get(&task_id).await.status, StatusCode::OK);
    for part in ["0", task_id.get(..task_id.len() - 1).unwrap(), "not-an-id", "%20"] {
        assert_eq!(get(part).await.problem(404), "not_found", "{part}");
    }
}

#[tokio::test]
async fn bulk_cancel_continues_from_its_cursor() {
    let app = App::start().await;
    for _ in 0..1_150 {
        made(&app, &at("2026-11-22T09:00:00Z")).await;
    }
    let cancel = async |body: Value| app.post(&format!("{TASKS}/cancel"), &body).await.json();
    let dry = cancel(json!({ "dryRun": true })).await;
    assert_eq!(dry["cancelled"].as_array().unwrap().len(), 1_000);
    let first = cancel(json!({})).await;
    assert_eq!(first["cancelled"].as_array().unwrap().len(), 1_000);
    let rest = cancel(json!({ "cursor": first["nextCursor"] })).await;
    assert_eq!((rest["cancelled"].as_array().unwrap().len(), rest.get("nextCursor")), (150, None));
    let open = app.get(&format!("{TASKS}?status=scheduled&limit=100")).await.json();
    assert_eq!(open["tasks"], json!([]));
}
