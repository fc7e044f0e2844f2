//! `--log-format json`: what collectors of logs read from the local server.

use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::support::process::{Server, overseer};

/// The lines of a log, each of which must be one JSON object with the common fields.
#[track_caller]
fn parsed(log: &str) -> Vec<Value> {
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(value[field].is_string(), "{field}: {line}");
            // A parser keeps one of two equal keys, so they are counted in the text. There quotes within strings are escaped.
            assert_eq!(line.matches(&format!("\"{field}\":")).count(), 1, "{field}: {line}");
        }
        value
    };
    log.lines().map(line).collect()
}

/// The log of a server that has answered one intent and stopped.
fn log_of_an_intent(data: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut server = Server::start(data, arguments, variables);
    Server::paste(&server.curl);
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
    server.whole_log()
}

#[test]
fn json_flag_writes_each_line_as_one_object() {
    let folder = tempdir().unwrap();
    let lines = parsed(&log_of_an_intent(folder.path(), &["--log-format", "json"], &[]));
    let intent = lines.iter().find(|line| line["message"].as_str().unwrap().contains("intent succeeded"));
    let intent = intent.unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!(intent["level"], "INFO", "{intent}");
    assert!(intent["spans"][0]["request_id"].is_string(), "{intent}");
}

#[test]
fn environment_variable_sets_the_log_format() {
    let folder = tempdir().unwrap();
    let lines = parsed(&log_of_an_intent(folder.path(), &[], &[("OVERSEER_LOG_FORMAT", "json")]));
    assert!(lines.iter().any(|line| line["message"] == "stopped"), "{lines:#?}");
}

#[test]
fn start_failure_is_logged_as_one_object() {
    let folder = tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let output = overseer(&["--port", "0", "--data", data, "--plugins", "/does/not/exist", "--log-format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines = parsed(&String::from_utf8(output.stderr).unwrap());
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR", "{last}");
    assert!(last["failure"].as_str().unwrap().contains("/does/not/exist"), "{last}");
}

#[test]
fn debug_spans_of_an_intent_are_nested() {
    let folder = tempdir().unwrap();
    let lines = parsed(&log_of_an_intent(folder.path(), &["--log-format", "json"], &[("OVERSEER_LOG", "debug")]));
    // The last: the name of the channel is looked up by an earlier call.
    let closed = |name: &str| {
        let line = lines.iter().rfind(|line| line["message"] == "close" && line["span"]["name"] == name);
        line.unwrap_or_else(|| panic!("no span {name}: {lines:#?}"))
    };
    let around = |line: &Value| -> Vec<String> {
        let spans = line["spans"].as_array().unwrap();
        spans.iter().map(|span| span["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(around(closed("outbound.send")), ["request", "execute", "attempt", "call"]);
    let call = &closed("call")["span"];
    assert_eq!([&call["plugin"], &call["action"], &call["outcome"]], ["slack", "send_message", "ok"]);
    let execute = &closed("execute")["span"];
    assert_eq!([&execute["org"], &execute["plugin"], &execute["outcome"]], ["local", "slack", "ok"]);
    let read = &closed("table.batch_get")["span"];
    assert_eq!([&read["org"], &read["outcome"]], ["local", "ok"]);
}

#[test]
fn only_lines_of_closed_spans_have_a_span() {
    let folder = tempdir().unwrap();
    let lines = parsed(&log_of_an_intent(folder.path(), &["--log-format", "json"], &[("OVERSEER_LOG", "debug")]));
    let (closed, others): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["message"] == "close");
    assert!(closed.iter().all(|line| line["span"]["name"].is_string()), "{closed:#?}");
    assert!(others.iter().all(|line| line.get("span").is_none()), "{others:#?}");
}

#[test]
fn debug_log_holds_no_parameters() {
    let folder = tempdir().unwrap();
    let log = log_of_an_intent(folder.path(), &["--log-format", "json"], &[("OVERSEER_LOG", "debug")]);
    assert!(!log.contains("Hello from Overseer"), "{log}");
}
