//! The log of the functions: lines of JSON with the ids of the request, metrics of `CloudWatch`, and no secret at any level.

use overseer_playground::{Mode, Service};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{App, Options};

const CANARY: &str = "xoxb-0000-canary-of-the-lambdas";

async fn logging(level: &str) -> App {
    let mut app = App::on_lambdas(
        Options { unconnected: true, log: Some(level.to_owned()), ..Options::default() },
        "secrets-manager",
    )
    .await;
    app.admin = app.key("acme", &[overseer_engine::access::principal::Role::Administrator], Some("admin")).await;
    app.playground.accept_token(Service::Slack, CANARY);
    app.connect("slack", CANARY).await;
    app
}

#[tokio::test]
async fn trace_log_holds_no_secret() {
    let app = logging("trace").await;
    for mode in [None, Some(Mode::Echo), Some(Mode::ExpiredToken)] {
        if let Some(mode) = mode {
            app.misbehave(Service::Slack, mode, 2);
        }
        let answer = app.intend("slack", "send_message", json!({ "channel": "C0PLAYGEN1", "text": "Hello" })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    app.lambdas().gateway.asked("intent", 4).await;
    let log = app.lambdas().log();
    assert!(log.contains("\"level\":\"TRACE\""), "nothing is logged at the level TRACE");
    for secret in [CANARY, app.admin.as_str(), "canary"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

#[tokio::test]
async fn log_lines_carry_every_id_of_a_request() {
    let app = logging("info").await;
    let good = app.intend("slack", "send_message", json!({ "channel": "C0PLAYGEN1", "text": "Hello" })).await.json();
    app.misbehave(Service::Slack, Mode::RateLimited, 1);
    let bad = app.intend("slack", "send_message", json!({ "channel": "C0PLAYGEN1", "text": "Hello" })).await.json();
    assert_eq!(app.intend("slack", "nothing", json!({})).await.problem(404), "unknown_action");
    app.lambdas().gateway.asked("intent", 4).await;

    let log = app.lambdas().log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    for outcome in [&good, &bad] {
        let id = &outcome["requestId"];
        let mut spans = lines.iter().filter_map(|line| line["spans"].as_array());
        let of_it = spans.find(|spans| spans.iter().any(|span| &span["request_id"] == id));
        let outer = &of_it.unwrap_or_else(|| panic!("{id}: {log}"))[0];
        assert!(outer["requestId"].is_string() && outer["xrayTraceId"].is_string(), "{outer}");
    }
    let metrics = lines.iter().filter(|line| line["_aws"].is_object() && line["Function"] == "test-intent");
    let counted: Vec<_> =
        metrics.map(|line| (line["Code"].as_str().unwrap(), line["ColdStarts"].as_u64().unwrap())).collect();
    assert_eq!(counted, [("ok", 1), ("rate_limited", 0), ("unknown_action", 0)]);
}
