//! The Lambdas, run by a stand-in of Lambda's runtime API, on events as an HTTP API sends them.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::process::{Server, command};

#[derive(Clone)]
struct RuntimeApi {
    deadline_ms: u64,
    events: Arc<Mutex<VecDeque<Value>>>,
    answers: UnboundedSender<Value>,
}

/// The next event; with none left it never answers, as Lambda does.
async fn next(State(api): State<RuntimeApi>) -> impl IntoResponse {
    let event = api.events.lock().unwrap().pop_front();
    let Some(event) = event else { return std::future::pending().await };
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
        ("lambda-runtime-deadline-ms", api.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:123456789012:function:intent".to_owned()),
        ("lambda-runtime-trace-id", "Root=1-6920a1b2-0123456789abcdef01234567".to_owned()),
    ];
    (headers, event.to_string())
}

async fn respond(State(api): State<RuntimeApi>, _: HeaderMap, body: String) -> &'static str {
    api.answers.send(serde_json::from_str(&body).unwrap()).unwrap();
    r#"{"status": "OK"}"#
}

/// An event as the repository has it.
fn event(name: &str) -> Value {
    let path = format!("{}/../events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A data folder, with the administrator's key that is in it.
fn folder() -> (TempDir, String) {
    let folder = tempdir().unwrap();
    Server::start(folder.path(), &[], &[]).kill();
    let key = fs::read_to_string(folder.path().join("admin-key")).unwrap().trim().to_owned();
    (folder, key)
}

/// Runs a function over `data` on events, and gives its answers.
async fn invoke(name: &str, data: &Path, variables: &[(&str, &str)], events: Vec<Value>) -> Vec<Value> {
    const IN_2100_MS: u64 = 4_102_444_800_000;
    invoke_until(IN_2100_MS, name, data, variables, events).await
}

/// As `invoke`, with the time at which every invocation has to be done.
async fn invoke_until(
    deadline_ms: u64,
    name: &str,
    data: &Path,
    variables: &[(&str, &str)],
    events: Vec<Value>,
) -> Vec<Value> {
    let (answers, mut answered) = unbounded_channel();
    let expected = events.len();
    let events = Arc::new(Mutex::new(VecDeque::from(events)));
    let routes = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(respond))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(respond))
        .with_state(RuntimeApi { deadline_ms, events, answers });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, routes).into_future());

    let mut function = command(name)
        .envs([("AWS_LAMBDA_RUNTIME_API", address.to_string()), ("AWS_LAMBDA_FUNCTION_NAME", name.to_owned())])
        .envs([("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"), ("AWS_LAMBDA_FUNCTION_VERSION", "1")])
        .env("OVERSEER_DATA", data)
        .envs(variables.iter().copied())
        .spawn()
        .unwrap();
    let mut given = Vec::new();
    while given.len() < expected {
        given.push(answered.recv().await.unwrap());
    }
    function.kill().unwrap();
    function.wait().unwrap();
    given
}

#[tokio::test]
async fn the_intent_function_answers_an_event() {
    let (folder, key) = folder();
    let intent = event("intent");
    let mut authorised = intent.clone();
    authorised["headers"]["authorization"] = format!("Bearer {key}").into();
    let answers = invoke("intent", folder.path(), &[], vec![intent, authorised]).await;
    let [refused, taken] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(refused["statusCode"], json!(401), "{refused}");
    assert_eq!(refused["headers"]["content-type"], json!("application/problem+json"));
    assert_eq!(taken["statusCode"], json!(200), "{taken}");
    let outcome: Value = serde_json::from_str(taken["body"].as_str().unwrap()).unwrap();
    assert_eq!(outcome["error"]["code"], json!("not_connected"), "{outcome}");
    assert_eq!(taken["headers"]["x-request-id"], outcome["requestId"]);
}

#[tokio::test]
async fn the_functions_of_accounts_take_a_person_from_the_link_to_the_provider() {
    const PUBLIC: &str = "https://overseer.example.com";
    let variables =
        [("PUBLIC_URL", PUBLIC), ("SLACK_CLIENT_ID", "the-client-id"), ("SLACK_CLIENT_SECRET", "the-client-secret")];
    let (folder, key) = folder();
    let mut connect = event("integrations");
    connect["headers"]["authorization"] = format!("Bearer {key}").into();
    let linked = invoke("integrations", folder.path(), &variables, vec![connect]).await.remove(0);
    assert_eq!(linked["statusCode"], json!(200), "{linked}");
    let link: Value = serde_json::from_str(linked["body"].as_str().unwrap()).unwrap();
    let path = link["connectUrl"].as_str().unwrap().strip_prefix(PUBLIC).unwrap().to_owned();

    let unknown = event("oauth_callback");
    let mut look = unknown.clone();
    (look["rawPath"], look["requestContext"]["http"]["path"]) = (json!(path), json!(path));
    look["rawQueryString"] = json!("");
    let mut click = look.clone();
    click["requestContext"]["http"]["method"] = json!("POST");
    click["headers"]["sec-fetch-site"] = json!("same-origin");
    let answers = invoke("oauth_callback", folder.path(), &variables, vec![unknown, look, click]).await;
    let [unknown, look, click] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(unknown["statusCode"], json!(400), "{unknown}");
    assert!(unknown["body"].as_str().unwrap().contains("ask for a new link"), "{unknown}");
    assert_eq!(look["statusCode"], json!(200), "{look}");
    for said in ["user_456", "work", "slack.com"] {
        assert!(look["body"].as_str().unwrap().contains(said), "{said}: {look}");
    }
    // The event had a cookie, which is kept; over https it has the prefix that no other host can set.
    let cookie = look["cookies"][0].as_str().unwrap();
    assert!(cookie.starts_with("__Host-overseer-connect=fedcba98") && cookie.ends_with("; Secure"), "{cookie}");
    assert_eq!(click["statusCode"], json!(303), "{click}");
    let to = click["headers"]["location"].as_str().unwrap();
    assert!(to.starts_with("https://slack.com/oauth/v2/authorize?"), "{to}");
    let redirect = format!("{PUBLIC}/api/plugin-engine/oauth/callback/slack");
    assert_eq!(crate::connecting::parameter(to, "redirect_uri").unwrap(), redirect);
    assert_eq!(crate::connecting::parameter(to, "client_id").unwrap(), "the-client-id");
    assert!(crate::connecting::parameter(to, "user_scope").unwrap().starts_with("chat:write,"));
}

#[test]
fn the_functions_of_accounts_do_not_start_without_their_own_address() {
    for name in ["integrations", "oauth_callback"] {
        let folder = tempdir().unwrap();
        let ended = command(name)
            .envs([("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"), ("AWS_LAMBDA_FUNCTION_NAME", name)])
            .envs([("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"), ("AWS_LAMBDA_FUNCTION_VERSION", "1")])
            .env("OVERSEER_DATA", folder.path())
            .output()
            .unwrap();
        assert!(!ended.status.success());
        assert!(String::from_utf8_lossy(&ended.stderr).contains("PUBLIC_URL"), "{ended:?}");
    }
}

/// An intent that nobody waits for becomes a task that is due; what an alarm of it carries.
async fn due(data: &Path, key: &str) -> Value {
    let mut intent = event("intent");
    intent["headers"]["authorization"] = format!("Bearer {key}").into();
    intent["headers"]["prefer"] = json!("respond-async");
    let taken = invoke("intent", data, &[], vec![intent]).await.remove(0);
    assert_eq!(taken["statusCode"], json!(202), "{taken}");
    let made: Value = serde_json::from_str(taken["body"].as_str().unwrap()).unwrap();
    let mut work = event("cron_work")["work"].take();
    work["id"] = format!("{} user_456", made["task"]["id"].as_str().unwrap()).into();
    work
}

/// What the function of tasks lists of the tasks of the user of the events that failed.
async fn failed(data: &Path, key: &str) -> Value {
    let mut list = event("tasks");
    list["headers"]["authorization"] = format!("Bearer {key}").into();
    let listed = invoke("tasks", data, &[], vec![list]).await.remove(0);
    assert_eq!(listed["statusCode"], json!(200), "{listed}");
    serde_json::from_str::<Value>(listed["body"].as_str().unwrap()).unwrap()["tasks"].take()
}

fn report(due: u32, enqueued: u32, claimed: u32, failed: u32, left: u32) -> Value {
    json!({ "due": due, "enqueued": enqueued, "claimed": claimed, "succeeded": 0, "failed": failed, "left": left })
}

#[tokio::test]
async fn the_tasks_function_refuses_strangers_and_lists_for_others() {
    let (folder, key) = folder();
    let refused = invoke("tasks", folder.path(), &[], vec![event("tasks")]).await.remove(0);
    assert_eq!(refused["statusCode"], json!(401), "{refused}");
    assert_eq!(failed(folder.path(), &key).await, json!([]));
}

#[tokio::test]
async fn the_errors_function_refuses_strangers_and_lists_what_failed() {
    let (folder, key) = folder();
    let refused = invoke("errors", folder.path(), &[], vec![event("errors")]).await.remove(0);
    assert_eq!(refused["statusCode"], json!(401), "{refused}");
    let [mut intent, mut list] = [event("intent"), event("errors")];
    for event in [&mut intent, &mut list] {
        event["headers"]["authorization"] = format!("Bearer {key}").into();
    }
    let failed = invoke("intent", folder.path(), &[], vec![intent]).await.remove(0);
    let failed: Value = serde_json::from_str(failed["body"].as_str().unwrap()).unwrap();
    let listed = invoke("errors", folder.path(), &[], vec![list]).await.remove(0);
    assert_eq!(listed["statusCode"], json!(200), "{listed}");
    let errors = serde_json::from_str::<Value>(listed["body"].as_str().unwrap()).unwrap()["errors"].take();
    assert_eq!((errors.as_array().unwrap().len(), &errors[0]["message"]), (1, &failed["message"]), "{errors}");
}

#[tokio::test]
async fn the_runs_function_refuses_strangers_and_lists_what_was_done() {
    let folder = tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[], &[]);
    let sent: Value = serde_json::from_str(&Server::paste(&server.curl)).unwrap();
    server.kill();
    let key = fs::read_to_string(folder.path().join("admin-key")).unwrap().trim().to_owned();
    let list = event("runs");
    let mut of_user = list.clone();
    of_user["headers"]["authorization"] = format!("Bearer {key}").into();
    let mut of_all = of_user.clone();
    of_all["rawQueryString"] = json!("");
    of_all.as_object_mut().unwrap().remove("queryStringParameters");
    let answers = invoke("runs", folder.path(), &[], vec![list, of_user, of_all]).await;
    let [refused, of_user, of_all] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(refused["statusCode"], json!(401), "{refused}");
    for (listed, ids) in [(of_user, vec![]), (of_all, vec![&sent["metadata"]["runId"]])] {
        assert_eq!(listed["statusCode"], json!(200), "{listed}");
        let runs = serde_json::from_str::<Value>(listed["body"].as_str().unwrap()).unwrap()["runs"].take();
        assert_eq!(runs.as_array().unwrap().iter().map(|run| &run["id"]).collect::<Vec<_>>(), ids, "{runs}");
    }
}

#[tokio::test]
async fn the_plugins_function_refuses_strangers_and_takes_a_plugin_out_of_use() {
    let (folder, key) = folder();
    let disable = event("plugins");
    let mut authorised = disable.clone();
    let mut intent = event("intent");
    for event in [&mut authorised, &mut intent] {
        event["headers"]["authorization"] = format!("Bearer {key}").into();
    }
    let answers = invoke("plugins", folder.path(), &[], vec![disable, authorised]).await;
    let [refused, disabled] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(refused["statusCode"], json!(401), "{refused}");
    assert_eq!(disabled["statusCode"], json!(200), "{disabled}");
    let taken = invoke("intent", folder.path(), &[], vec![intent]).await.remove(0);
    let outcome: Value = serde_json::from_str(taken["body"].as_str().unwrap()).unwrap();
    assert_eq!(outcome["error"]["code"], "disabled", "{outcome}");
    assert!(outcome["message"].as_str().unwrap().contains("we moved"), "{outcome}");
}

#[tokio::test]
async fn the_mappings_function_refuses_strangers_and_keeps_names_for_others() {
    let (folder, key) = folder();
    let list = event("mappings");
    let mut authorised = list.clone();
    authorised["headers"]["authorization"] = format!("Bearer {key}").into();
    let mut write = authorised.clone();
    write["requestContext"]["http"]["method"] = json!("PUT");
    (write["rawQueryString"], write["queryStringParameters"]) = (json!(""), json!({}));
    let name =
        json!({ "tool": "slack", "kind": "channel", "name": "#home", "externalId": "C012345", "userId": "user_456" });
    write["headers"]["content-type"] = json!("application/json");
    write["body"] = name.to_string().into();
    let answers = invoke("mappings", folder.path(), &[], vec![list, write, authorised]).await;
    let [refused, written, listed] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(refused["statusCode"], json!(401), "{refused}");
    assert_eq!(written["statusCode"], json!(200), "{written}");
    let body: Value = serde_json::from_str(listed["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["mappings"][0]["externalId"], "C012345", "{body}");
}

#[tokio::test]
async fn the_cron_route_of_the_function_wants_its_token() {
    let (folder, _) = folder();
    let called = event("cron");
    let token = called["headers"]["authorization"].as_str().unwrap().strip_prefix("Bearer ").unwrap();
    let unset = invoke("cron", folder.path(), &[], vec![called.clone()]).await.remove(0);
    let mut wrong = called.clone();
    wrong["headers"]["authorization"] = format!("Bearer {}", token.replace('0', "1")).into();
    let variables = [("CRON_SECRET_TOKEN", token)];
    let mut answers = invoke("cron", folder.path(), &variables, vec![wrong, called.clone()]).await;
    let (swept, wrong) = (answers.pop().unwrap(), answers.pop().unwrap());
    for refused in [unset, wrong] {
        assert_eq!(refused["statusCode"], json!(401), "{refused}");
        assert_eq!(refused["headers"]["content-type"], json!("application/problem+json"));
        assert!(refused["body"].as_str().unwrap().contains("CRON_SECRET_TOKEN"), "{refused}");
    }
    assert_eq!(swept["statusCode"], json!(200), "{swept}");
    let body: Value = serde_json::from_str(swept["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, report(0, 0, 0, 0, 0));
}

#[tokio::test]
async fn the_cron_function_sweeps_and_runs_what_an_event_names_once() {
    let (folder, key) = folder();
    let work = due(folder.path(), &key).await;
    let [sweep, run] = [event("cron_sweep"), json!({ "work": work })];
    let events = vec![sweep.clone(), json!({ "sweep": true }), run.clone(), run, sweep];
    let answers = invoke("cron", folder.path(), &[], events).await;
    // The account is not connected, so that the one attempt fails.
    let [found, ran, nothing] = [report(1, 1, 0, 0, 0), report(1, 0, 1, 1, 0), report(0, 0, 0, 0, 0)];
    assert_eq!(answers, [found.clone(), found, ran, nothing.clone(), nothing]);
    let tasks = failed(folder.path(), &key).await;
    assert_eq!((tasks.as_array().unwrap().len(), &tasks[0]["runs"]), (1, &json!(1)), "{tasks}");
}

#[tokio::test]
async fn the_cron_function_gives_back_of_a_queue_what_it_could_not_do() {
    let (folder, key) = folder();
    let works = [due(folder.path(), &key).await, due(folder.path(), &key).await];
    let mut queue = event("cron_queue");
    let ids = [0, 1].map(|n| json!({ "itemIdentifier": queue["Records"][n]["messageId"] }));
    for (n, work) in works.iter().enumerate() {
        queue["Records"][n]["body"] = work.to_string().into();
    }
    // Nothing is begun that may take longer than there is time.
    let late = vec![queue.clone(), json!({ "work": works[0] })];
    let late = invoke_until(1, "cron", folder.path(), &[], late).await;
    assert_eq!(late, [json!({ "batchItemFailures": ids }), report(1, 0, 0, 0, 1)]);

    let mut garbage = queue.clone();
    garbage["Records"][0]["body"] = json!("garbage");
    let answers = invoke("cron", folder.path(), &[], vec![garbage, queue]).await;
    assert_eq!(answers, [json!({ "batchItemFailures": [ids[0]] }), json!({ "batchItemFailures": [] })]);
    let tasks = failed(folder.path(), &key).await;
    let runs: Vec<_> = tasks.as_array().unwrap().iter().map(|task| &task["runs"]).collect();
    assert_eq!(runs, [&json!(1), &json!(1)], "{tasks}");
}

#[tokio::test]
async fn the_cron_function_says_what_it_expects() {
    let (folder, _) = folder();
    let answers = invoke("cron", folder.path(), &[], vec![json!({ "any": 1 }), event("cron_work")]).await;
    let said = answers[0]["errorMessage"].as_str().unwrap();
    assert!(said.starts_with("expected an event of an HTTP API, of SQS"), "{said}");
    // The task that the event of the repository names is not there.
    assert_eq!(answers[1], report(0, 0, 0, 0, 0));
}
