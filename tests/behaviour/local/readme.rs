//! The walk-through of the README, run as a reader would: the test pastes its blocks of commands into one shell, and the
//! last command of each block must print the documented response.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::tempdir;

use crate::support::process::Server;

/// A block of commands, and the documented response.
struct Step {
    commands: String,
    shown: Option<Value>,
}

fn steps(readme: &str) -> Vec<Step> {
    let (_, rest) = readme.split_once("<!-- walk-through").unwrap();
    let (walk, _) = rest.split_once("<!-- end of the walk-through -->").unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for block in walk.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').unwrap();
        match language {
            "sh" => steps.push(Step { commands: text.to_owned(), shown: None }),
            "json" => steps.last_mut().unwrap().shown = Some(serde_json::from_str(text).unwrap()),
            other => panic!("a block of {other:?}"),
        }
    }
    steps
}

/// Whether a response matches the documented one: it must have all documented fields, and `"…"` matches any value.
fn is_as_shown(shown: &Value, answer: &Value) -> bool {
    match (shown, answer) {
        (Value::String(dots), answer) if dots == "…" => !answer.is_null(),
        (Value::Object(shown), Value::Object(answer)) => {
            shown.iter().all(|(key, shown)| answer.get(key).is_some_and(|answer| is_as_shown(shown, answer)))
        }
        (Value::Array(shown), Value::Array(answer)) => {
            shown.len() == answer.len() && shown.iter().zip(answer).all(|(shown, answer)| is_as_shown(shown, answer))
        }
        (shown, answer) => shown == answer,
    }
}

#[test]
fn walk_through_works_when_pasted() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let mut steps = steps(&readme).into_iter();
    assert_eq!(steps.next().unwrap().commands.trim(), "cargo run");

    let folder = tempdir().unwrap();
    let server = Server::start(&folder.path().join(".overseer"), &[], &[]);
    let steps: Vec<Step> = steps.collect();
    assert!(steps.len() >= 7, "{}", steps.len());
    let blocks = steps.iter().enumerate().map(|(index, step)| {
        let commands = step.commands.replace("127.0.0.1:8787", &server.address);
        // Braces, not a subshell: each block sees the variables and functions of earlier blocks.
        format!("{{\n{commands}\n}} > answer-{index}\n")
    });
    let script = format!("set -euo pipefail\n{}", blocks.collect::<String>());
    let run = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    for (index, step) in steps.iter().enumerate() {
        let printed = fs::read_to_string(folder.path().join(format!("answer-{index}"))).unwrap();
        let answers: Vec<Value> =
            serde_json::Deserializer::from_str(&printed).into_iter().collect::<Result<_, _>>().unwrap();
        let shown = step.shown.as_ref().unwrap_or_else(|| panic!("no answer is shown for: {}", step.commands));
        assert!(is_as_shown(shown, answers.last().unwrap()), "{}\ngives {printed}", step.commands);
    }
}
