//! The Lambdas on the events of the repository, over stand-ins of AWS.

mod access;
mod day;
mod logged;
mod race;
pub mod template;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use overseer_engine::engine::Engine;
use overseer_engine::outbound::config::Config;
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::Clock;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::accounts::authorize::{Browser, consent};
use crate::support::app::{Answer, App, Options};
use crate::support::process::command;

/// An event of the repository.
fn event(name: &str) -> Value {
    let path = format!("{}/../events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// An event of the repository, with the key of the administrator of the Lambdas.
fn authorised(app: &App, name: &str) -> Value {
    let mut event = event(name);
    event["headers"]["authorization"] = format!("Bearer {}", app.admin).into();
    event
}

/// Lambdas without connected accounts.
async fn unconnected() -> App {
    on(Options { unconnected: true, ..Options::default() }).await
}

async fn on(options: Options) -> App {
    let mut app = App::on_lambdas(options, "secrets-manager").await;
    app.admin = app.key("local", &[overseer_engine::access::principal::Role::Administrator], None).await;
    app
}

/// The response of a function to an event.
async fn invoke(app: &App, name: &str, event: Value) -> Value {
    app.lambdas().gateway.invoke(name, event).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Connects a user's account in a browser, at an engine whose clock is two hours late: for every other engine the token has
/// expired.
async fn connected_two_hours_ago(app: &App, plugin: &str, user: &str) {
    let page = connecting_two_hours_ago(app, &app.admin, plugin, json!({ "userId": user })).await;
    assert_eq!(page.status, 200, "{}", page.text);
}

/// As [`connected_two_hours_ago`], with the body of the request, up to the browser's callback.
async fn connecting_two_hours_ago(app: &App, key: &str, plugin: &str, body: Value) -> Answer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ports = app.lambdas().ports(Arc::new(TwoHoursAgo)).await;
    let config = Config { public_url: format!("http://{address}").parse().ok(), ..app.engine.config.clone() };
    let engine = Engine::new(ports, Catalog::built_in(), config).unwrap();
    tokio::spawn(axum::serve(listener, overseer::server::routes(engine, &app.playground, address)).into_future());

    let path = format!("http://{address}/api/plugin-engine/integrations/{plugin}/connect");
    let request = app.client.post(path).header("authorization", format!("Bearer {key}"));
    let request = request.header("content-type", "application/json").body(body.to_string());
    let link: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    let mut browser = Browser::new(app);
    let authorization = browser.go(link["connectUrl"].as_str().unwrap()).await;
    let back = browser.decide(&authorization, "allow").await;
    browser.open(&back).await
}

struct TwoHoursAgo;

impl Clock for TwoHoursAgo {
    fn now(&self) -> Timestamp {
        Timestamp::now() - SignedDuration::from_hours(2)
    }
}

/// The status and the body of a response to an HTTP API.
fn read(answer: &Value) -> (u64, Value) {
    let body = answer["body"].as_str().unwrap_or_default();
    (answer["statusCode"].as_u64().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn intent_function_answers_an_event() {
    let app = unconnected().await;
    let refused = invoke(&app, "intent", event("intent")).await;
    let taken = invoke(&app, "intent", authorised(&app, "intent")).await;
    assert_eq!(refused["statusCode"], json!(401), "{refused}");
    assert_eq!(refused["headers"]["content-type"], json!("application/problem+json"));
    let (status, outcome) = read(&taken);
    assert_eq!((status, &outcome["error"]["code"]), (200, &json!("not_connected")), "{outcome}");
    assert_eq!(taken["headers"]["x-request-id"], outcome["requestId"]);

    // A deadline that has already passed is ignored.
    let event = authorised(&app, "intent");
    let answer = app.lambdas().gateway.invoke_within("intent", event, Duration::ZERO).await.unwrap();
    assert_eq!(read(&answer).1["error"]["code"], "not_connected", "{answer}");
}

#[tokio::test]
async fn list_functions_require_a_key() {
    let app = unconnected().await;
    for name in ["tasks", "errors", "runs", "mappings"] {
        let (status, problem) = read(&invoke(&app, name, event(name)).await);
        assert_eq!((status, &problem["code"]), (401, &json!("unauthenticated")), "{name}");
        let (status, listed) = read(&invoke(&app, name, authorised(&app, name)).await);
        assert!(status == 200 && listed[name].is_array(), "{name}: {listed}");
    }
}

/// Payload 2.0 of an HTTP API whose stage has a name, and of a function's own URL; payload 1.0 of a REST API, by its own
/// name and by one of the operator's.
#[tokio::test]
async fn path_is_found_behind_every_gateway() {
    let app = unconnected().await;
    let http = authorised(&app, "intent");
    let mut staged = http.clone();
    (staged["rawPath"], staged["requestContext"]["stage"]) = (json!("/prod/api/plugin-engine"), json!("prod"));
    staged["requestContext"]["http"]["path"] = json!("/prod/api/plugin-engine");
    let mut url = http.clone();
    url["requestContext"]["domainName"] = json!("abcdef1234.lambda-url.eu-central-1.on.aws");
    url["routeKey"] = json!("$default");
    let rest = |stage: &str, host: &str| {
        json!({
            "resource": "/{proxy+}", "path": "/api/plugin-engine", "httpMethod": "POST",
            "headers": { "Host": host, "Authorization": http["headers"]["authorization"],
                         "Content-Type": "application/json", "X-Forwarded-Proto": "https" },
            "multiValueHeaders": { "Host": [host], "Authorization": [http["headers"]["authorization"]],
                                   "Content-Type": ["application/json"], "X-Forwarded-Proto": ["https"] },
            "queryStringParameters": null, "multiValueQueryStringParameters": null,
            "pathParameters": { "proxy": "api/plugin-engine" }, "stageVariables": null,
            "requestContext": { "resourceId": "abc", "resourcePath": "/{proxy+}", "httpMethod": "POST", "stage": stage,
                "path": format!("/{stage}/api/plugin-engine"), "accountId": "123456789012", "apiId": "abcdef1234",
                "protocol": "HTTP/1.1", "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef", "domainName": host,
                "identity": { "sourceIp": "203.0.113.10", "userAgent": "agent/1.0" } },
            "body": http["body"], "isBase64Encoded": false,
        })
    };
    let aws = "abcdef1234.execute-api.eu-central-1.amazonaws.com";
    let forms = [staged, url, rest("prod", aws), rest("api", aws), rest("prod", "overseer.example.com")];
    for form in forms {
        let (status, outcome) = read(&invoke(&app, "intent", form.clone()).await);
        assert_eq!((status, &outcome["error"]["code"]), (200, &json!("not_connected")), "{form}: {outcome}");
    }
}

#[tokio::test]
async fn account_functions_lead_from_the_link_to_the_provider() {
    const PUBLIC: &str = "https://overseer.example.com";
    let app = on(Options { unconnected: true, public_url: Some(PUBLIC.to_owned()), ..Options::default() }).await;
    let (status, link) = read(&invoke(&app, "integrations", authorised(&app, "integrations")).await);
    assert_eq!(status, 200, "{link}");
    let path = link["connectUrl"].as_str().unwrap().strip_prefix(PUBLIC).unwrap().to_owned();

    let unknown = event("oauth_callback");
    let mut look = unknown.clone();
    (look["rawPath"], look["requestContext"]["http"]["path"]) = (json!(path), json!(path));
    look["rawQueryString"] = json!("");
    let mut click = look.clone();
    click["requestContext"]["http"]["method"] = json!("POST");
    click["headers"]["sec-fetch-site"] = json!("same-origin");
    click["headers"]["content-type"] = json!("application/x-www-form-urlencoded");
    let unknown = invoke(&app, "oauth_callback", unknown).await;
    assert_eq!(unknown["statusCode"], json!(400), "{unknown}");
    assert!(unknown["body"].as_str().unwrap().contains("request a new link"), "{unknown}");
    let look = invoke(&app, "oauth_callback", look).await;
    assert_eq!(look["statusCode"], json!(200), "{look}");
    for text in ["user_456", "work", "Slack"] {
        assert!(look["body"].as_str().unwrap().contains(text), "{text}: {look}");
    }
    // The event's cookie is kept; over https it has the prefix that no other host can set.
    let cookie = look["cookies"][0].as_str().unwrap();
    assert!(cookie.starts_with("__Host-overseer-connect=fedcba98") && cookie.ends_with("; Secure"), "{cookie}");
    click["body"] = json!(consent(look["body"].as_str().unwrap()));
    let click = invoke(&app, "oauth_callback", click).await;
    assert_eq!(click["statusCode"], json!(303), "{click}");
    let to = click["headers"]["location"].as_str().unwrap();
    let redirect = format!("{PUBLIC}/api/plugin-engine/oauth/callback/slack");
    assert_eq!(crate::accounts::authorize::parameter(to, "redirect_uri").unwrap(), redirect);
}

#[test]
fn function_without_a_required_variable_fails_to_start() {
    let all = [
        ("OVERSEER_TABLE", "overseer"),
        ("OVERSEER_SECRETS", "overseer/accounts/"),
        ("OVERSEER_QUEUE_URL", "http://127.0.0.1:9/work"),
        ("OVERSEER_QUEUE_ARN", "arn:aws:sqs:eu-central-1:123456789012:work"),
        ("OVERSEER_SCHEDULE_GROUP", "overseer"),
        ("OVERSEER_SCHEDULE_ROLE", "arn:aws:iam::123456789012:role/schedules"),
        ("OVERSEER_EVENT_BUS", "overseer"),
        ("PUBLIC_URL", "https://overseer.example.com"),
    ];
    for missing in all.iter().map(|(name, _)| *name) {
        let ended = command("integrations")
            .envs([("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"), ("AWS_LAMBDA_FUNCTION_NAME", "integrations")])
            .envs([("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"), ("AWS_LAMBDA_FUNCTION_VERSION", "1")])
            .envs([("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .envs([("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_MAX_ATTEMPTS", "1")])
            .envs(all.iter().filter(|(name, _)| *name != missing).copied())
            .output()
            .unwrap();
        assert!(!ended.status.success(), "{missing}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains(missing), "{missing}: {ended:?}");
    }
}

#[tokio::test]
async fn direct_invocation_makes_the_first_key() {
    let app = unconnected().await;
    let made = invoke(&app, "keys", json!({ "setup": { "organization": "globex" } })).await;
    let key = made["key"].as_str().unwrap().to_owned();
    let listed = app.send(&key, Method::GET, "/api/v1/keys", None).await;
    assert_eq!(listed.json()["keys"][0]["id"], made["id"], "{}", listed.text);
    assert_eq!(listed.json()["keys"][0]["roles"], json!(["administrator"]));
    let user = json!({ "organization": "globex", "key": { "name": "Ann's", "roles": ["user"], "user_id": "ann" } });
    let made = invoke(&app, "keys", json!({ "setup": user })).await;
    let refused = app.send(made["key"].as_str().unwrap(), Method::GET, "/api/v1/keys", None).await;
    assert_eq!(refused.problem(403), "forbidden");
    for (wrong, said) in [
        (json!({}), "expected an event of an HTTP API"),
        (json!({ "setup": {} }), "missing field `organization`"),
        (json!({ "setup": { "organization": "" } }), "1 to 255"),
        (json!({ "setup": { "organization": "globex", "roles": [] } }), "unknown field `roles`"),
    ] {
        let error = app.lambdas().gateway.invoke("keys", wrong.clone()).await.unwrap_err();
        assert!(error["errorMessage"].as_str().unwrap().contains(said), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn keys_function_makes_a_key_for_an_administrator() {
    let app = unconnected().await;
    assert_eq!(invoke(&app, "keys", event("keys")).await["statusCode"], json!(401));
    let (status, made) = read(&invoke(&app, "keys", authorised(&app, "keys")).await);
    assert_eq!((status, &made["roles"]), (201, &json!(["user"])), "{made}");
}

/// Makes a due task from an asynchronous intent. Returns the work of its alarm.
async fn due(app: &App) -> Value {
    let mut intent = authorised(app, "intent");
    intent["headers"]["prefer"] = json!("respond-async");
    let (status, made) = read(&invoke(app, "intent", intent).await);
    assert_eq!(status, 202, "{made}");
    let mut work = event("cron_work")["work"].take();
    work["id"] = format!("{} user_456", made["task"]["id"].as_str().unwrap()).into();
    work
}

fn report(due: u32, enqueued: u32, claimed: u32, failed: u32, left: u32) -> Value {
    json!({ "due": due, "enqueued": enqueued, "claimed": claimed, "succeeded": 0, "failed": failed, "left": left })
}

#[tokio::test]
async fn cron_route_requires_its_token() {
    let called = event("cron");
    let token = called["headers"]["authorization"].as_str().unwrap().strip_prefix("Bearer ").unwrap();
    let mut wrong = called.clone();
    wrong["headers"]["authorization"] = format!("Bearer {}", token.replace('0', "1")).into();
    let unset = on(Options { unconnected: true, ..Options::default() }).await;
    let set = on(Options { unconnected: true, cron_token: Some(token.to_owned()), ..Options::default() }).await;
    for refused in [invoke(&unset, "cron", called.clone()).await, invoke(&set, "cron", wrong).await] {
        assert_eq!(refused["statusCode"], json!(401), "{refused}");
        assert_eq!(refused["headers"]["content-type"], json!("application/problem+json"));
        assert!(refused["body"].as_str().unwrap().contains("CRON_SECRET_TOKEN"), "{refused}");
    }
    assert_eq!(read(&invoke(&set, "cron", called).await), (200, report(0, 0, 0, 0, 0)));
}

/// Due work goes to the queue and comes back from it once: the task has one run, which fails since no account is connected.
#[tokio::test]
async fn due_work_from_the_queue_runs_once() {
    let app = unconnected().await;
    let work = due(&app).await;
    let id = work["id"].as_str().unwrap().split(' ').next().unwrap().to_owned();
    let path = format!("/api/plugin-engine/tasks/{id}");
    // The function requests the next event after it has handled the queue's.
    app.lambdas().gateway.asked("cron", 2).await;
    let task = app.get(&path).await.json();
    assert_eq!((&task["status"], task["attempts"].as_array().unwrap().len()), (&json!("failed"), 1), "{task}");
    // A second firing finds nothing to do, and a sweep finds nothing due.
    for event in [json!({ "work": work }), event("cron_sweep"), json!({ "sweep": true })] {
        assert_eq!(invoke(&app, "cron", event).await, report(0, 0, 0, 0, 0));
    }
}

#[tokio::test]
async fn cron_function_returns_failed_messages_to_the_queue() {
    let app = unconnected().await;
    let mut queue = event("cron_queue");
    let ids = [0, 1].map(|n| json!({ "itemIdentifier": queue["Records"][n]["messageId"] }));
    let none = json!({ "batchItemFailures": [] });
    // The tasks that the event names do not exist, which is no failure.
    assert_eq!(invoke(&app, "cron", queue.clone()).await, none);
    // Work that may take longer than the remaining time is not started.
    let late = app.lambdas().gateway.invoke_within("cron", queue.clone(), Duration::from_secs(3)).await;
    assert_eq!(late.unwrap(), json!({ "batchItemFailures": ids }));
    queue["Records"][0]["body"] = json!("garbage");
    assert_eq!(invoke(&app, "cron", queue).await, json!({ "batchItemFailures": [ids[0]] }));
}

#[tokio::test]
async fn cron_function_names_the_events_it_expects() {
    let app = unconnected().await;
    let error = app.lambdas().gateway.invoke("cron", json!({ "any": 1 })).await.unwrap_err();
    let message = error["errorMessage"].as_str().unwrap();
    assert!(message.starts_with("expected an event of an HTTP API, of SQS"), "{message}");
    assert_eq!(invoke(&app, "cron", event("cron_work")).await, report(0, 0, 0, 0, 0));
}
